"""What `dicomferry scu` says of itself: --help, --version and --queryhelp."""

from __future__ import annotations

from dicomferry.cli.scu.invocation import ACSE_SECONDS, CONNECT_SECONDS, DIMSE_SECONDS, RootWord
from dicomferry.cli.scu.locale import Characters

_HELP = f"""\
Usage: dicomferry scu [OPTION]... HOSTNAME [PORT [FILE...]]
Do one C-ECHO, C-STORE, C-FIND, C-MOVE or C-GET with HOSTNAME at PORT (104 unless given), as gdcmscu does.
Options:
  -H --hostname       Host name of the peer.
  -p --port           Port number of the peer.
     --aetitle        Calling AE title (default GDCMSCU); with --move also the destination.
     --call           Called AE title (default ANY-SCP).
Mode Options:
     --echo           C-ECHO (default).
     --store          C-STORE.
     --find           C-FIND.
     --move           C-MOVE, the files come to --port-scp.
     --get            C-GET, the files come on the same association.
     --worklist       C-FIND in the Modality Worklist.
C-STORE Options:
  -i --input          A DICOM file or a folder, may be repeated; as well as FILE...
  -r --recursive      Go down into folders.
     --transcode      Send an uncompressed copy of what the peer does not take compressed.
C-FIND, C-MOVE and C-GET Options:
     --patientroot    Patient Root information model.
     --studyroot      Study Root information model.
     --patient        Query at patient level (not with --studyroot).
     --study          Query at study level (default).
     --series         Query at series level.
     --image          Query at image level.
  -k --key            0123,4567=VALUE to search for (wildcards with --find alone), may be repeated;
                      without a value (10,10= or 10,10) the attribute is returned.
     --store-query    Write the query into this file (not with --worklist).
C-MOVE and C-GET Options:
  -o --output         The folder that files are written into (default: the current one).
     --port-scp       The port on which the files come in (C-MOVE alone).
General Options:
     --connect-timeout  Seconds for a connection (default {CONNECT_SECONDS:g}).
     --acse-timeout     Seconds of silence while the association is opened (default {ACSE_SECONDS:g}).
     --dimse-timeout    Seconds of silence afterwards (default {DIMSE_SECONDS:g}).
     --record         Keep a record of it, which `dicomferry jobs list` shows.
  -V --verbose        Say more: warnings, errors, each file, totals.
  -W --warning        Say what else is noteworthy.
  -D --debug          Say what goes over the network.
  -E --error          Say more about errors.
  -L --log-file       Write all that, and what --find finds, into this file.
  -h --help           Show this help.
     --queryhelp      Show how to build a query.
  -v --version        Show the version.
Exit status: 0 all done, 1 anything else, 130 interrupted.
"""

_QUERY_HELP: dict[RootWord, str] = {
    "patient": "Patient Root: query levels patient, study, series and image; one that is given brings the unique keys\n"
    "of the levels above it: 10,20 (patient), 20,d (study), 20,e (series).\n",
    "study": "Study Root: query levels study, series and image; one that is given brings the unique keys of the\n"
    "levels above it: 20,d (study), 20,e (series).\n",
}
_OTHER: dict[RootWord, RootWord] = {"patient": "study", "study": "patient"}


def help_text(characters: Characters) -> str:
    """The page of --help, with what was found out of the locale."""
    return (
        f"{_HELP}\nLocal Name: {characters.name}\n"
        f"Local Character Set: {characters.codeset}\n"
        f"DICOM Character Set: [{characters.term}]\n"
    )


def query_help(root: RootWord | None) -> str:
    """The page of --queryhelp for the information model that was named."""
    shown = root or "study"
    other = _OTHER[shown]
    return f"To find the help for a {other}-level query, type\n --queryhelp --{other}root\n{_QUERY_HELP[shown]}"


def version_text() -> str:
    """One line: the program that this one stands in for, then itself."""
    from importlib.metadata import version

    return f"gdcmscu: gdcm 3.0.21 $Date$ (dicomferry {version('dicomferry')})\n"
