"""The words for kinds and lanes."""

import json

from dicomferry.models.rules.kind import Kind, Lane
from dicomferry.models.rules.spec import LANES, RETRIEVES


def test_words_are_those_on_record_and_in_json() -> None:
    """A kind and a lane are the word itself in a row, in a document and in the name of a queue."""
    assert json.dumps([*Kind, *Lane]) == json.dumps(["echo", "find", "move", "get", "store", "plan", "quick", "bulk"])
    assert (f"{Kind.MOVE}", str(Lane.BULK), RETRIEVES, LANES) == ("move", "bulk", ("move", "get"), ("quick", "bulk"))
