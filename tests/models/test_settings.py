"""Where settings come from, and what is said about a wrong one."""

from __future__ import annotations

import stat
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest
import sqlalchemy as sa

from dicomferry.models import settings
from dicomferry.models.rules.errors import ConfigurationError
from dicomferry.models.settings import Settings, default_home, load, prepare_home


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """An installation's home without settings."""
    return tmp_path


def _write(home: Path, text: str) -> Path:
    path = home / settings.FILE_NAME
    path.write_text(text, encoding="utf-8")
    return path


def test_defaults(home: Path) -> None:
    """What the design page's table says."""
    found = load(home)
    assert (found.ae_title, found.workers, found.lease_seconds) == ("DICOMFERRY", 4, 30)
    assert found.database == f"sqlite:///{home / 'dicomferry.db'}" and found.is_sqlite
    assert found.broker_url == ""
    timeouts = found.timeouts.value()
    assert (timeouts.connect, timeouts.acse, timeouts.first_answer) == (10, 30, 600)
    assert (timeouts.store_answer, timeouts.progress) == (300, 60)
    policy = found.retry.value()
    assert (policy.first_delay, policy.max_delay, policy.give_up_after) == (10, 600, 43200)


def test_environment_goes_over_the_file_and_flags_over_both(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """File < environment < flags, key by key, in nested tables too."""
    _write(home, 'ae_title = "FILE"\nworkers = 2\nlease_seconds = 40\n[timeouts]\nconnect = 1\nacse = 2\n')
    monkeypatch.setenv("DICOMFERRY_WORKERS", "3")
    monkeypatch.setenv("DICOMFERRY_LEASE_SECONDS", "50")
    monkeypatch.setenv("DICOMFERRY_TIMEOUTS__ACSE", "7")
    found = load(home)
    assert (found.ae_title, found.workers, found.lease_seconds) == ("FILE", 3, 50)
    assert (found.timeouts.connect, found.timeouts.acse) == (1, 7)
    assert Settings(home=home, lease_seconds=60).lease_seconds == 60


def test_the_home_is_what_was_named_then_the_environment(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """--home over DICOMFERRY_HOME over the platform's folder; always absolute."""
    monkeypatch.setenv("DICOMFERRY_HOME", str(home / "other"))
    assert load(home).home == home
    assert load().home == default_home() == home / "other"
    monkeypatch.chdir(home)
    assert load(Path("here")).home == home / "here"
    monkeypatch.delenv("DICOMFERRY_HOME")
    assert default_home().is_absolute()


def _message(home: Path) -> str:
    with pytest.raises(ConfigurationError) as raised:
        load(home)
    assert "\n" not in str(raised.value)
    return str(raised.value)


@pytest.mark.parametrize(
    ("text", "key", "hint"),
    [
        ("prot = 1", "prot", ""),
        ("wokers = 1", "wokers", "; did you mean workers?"),
        ("[timeouts]\nconect = 1", "timeouts.conect", "; did you mean timeouts.connect?"),
        ("[scpp]\nport=1", "scpp", "; did you mean scp?"),
    ],
)
def test_an_unknown_key_in_the_file_is_named_with_the_file(home: Path, text: str, key: str, hint: str) -> None:
    """A typing error never goes unnoticed, and the nearest key is offered."""
    path = _write(home, text)
    assert _message(home) == f"{key} in {path}: no such setting{hint}"


def test_an_unknown_key_of_a_table_in_the_environment_is_named_with_its_variable(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A typing error never goes unnoticed there either."""
    monkeypatch.setenv("DICOMFERRY_TIMEOUTS__CONECT", "5")
    hint = "did you mean DICOMFERRY_TIMEOUTS__CONNECT?"
    assert _message(home) == f"timeouts.conect in environment DICOMFERRY_TIMEOUTS__CONECT: no such setting; {hint}"


BAD: list[tuple[str, Any]] = [
    ("workers", 0),
    ("workers", "many"),
    ("lease_seconds", 0.5),
    ("ae_title", "far too long for one"),
    ("ae_title", ""),
    ("timeouts.connect", 0),
    ("timeouts.connect", -1),
    ("retry.give_up_after", "never"),
    ("retry.max_delay", 1e300),
    ("database_url", "nonsense"),
    ("database_url", "mysql://host/name"),
    ("database_url", "postgresql://host:port/name"),
    ("broker_url", "amqp://localhost"),
    ("broker_url", "http://localhost:6379"),
    ("broker_url", "localhost:6379"),
    ("broker_url", "redis"),
    ("broker_url", "redis://host:port/0"),
    ("broker_url", "redis://h:70000"),
    ("broker_url", "redis://[::1"),
    ("broker_url", "unix://"),
    ("broker_url", "unix://socket"),
]


@pytest.mark.parametrize(("key", "value"), BAD)
def test_a_bad_value_is_named_with_its_place(
    home: Path, monkeypatch: pytest.MonkeyPatch, key: str, value: object
) -> None:
    """The same value is refused in the file and in the environment; the message names the key and where it stands."""
    section, _, name = key.rpartition(".")
    shown = f'"{value}"' if isinstance(value, str) else value
    path = _write(home, (f"[{section}]\n" if section else "") + f"{name} = {shown}\n")
    assert _message(home).startswith(f"{key} in {path}: ")
    path.unlink()
    variable = "DICOMFERRY_" + key.replace(".", "__").upper()
    monkeypatch.setenv(variable, str(value))
    assert _message(home).startswith(f"{key} in environment {variable}: ")


@pytest.mark.parametrize("key", ["lease_seconds", "timeouts.connect", "retry.give_up_after"])
@pytest.mark.parametrize("value", ["nan", "inf", "-inf"])
def test_seconds_are_numbers(home: Path, key: str, value: str) -> None:
    """TOML knows nan and inf; nobody waits for so long."""
    section, _, name = key.rpartition(".")
    path = _write(home, (f"[{section}]\n" if section else "") + f"{name} = {value}\n")
    assert _message(home).startswith(f"{key} in {path}: ")


@pytest.mark.parametrize(
    ("key", "url"),
    [
        ("database_url", "mysql://me:secret@host/name"),
        ("database_url", "postgresql://me:secret@host:port/name"),
        ("database_url", "me:secret@host"),
        ("broker_url", "amqp://me:secret@host"),
        ("broker_url", "redis://:secret@host:port"),
        ("broker_url", "redis://:secret@[::1"),
    ],
)
def test_a_bad_url_is_refused_without_its_password(home: Path, key: str, url: str) -> None:
    """The message goes to terminals and logs."""
    _write(home, f'{key} = "{url}"\n')
    assert "secret" not in _message(home)


PASSWORD = "p@ss/w#rd: 7%2"


@pytest.mark.parametrize("by_file", [False, True], ids=["as it is", "by file"])
def test_a_password_stands_beside_its_url_as_it_is(home: Path, tmp_path: Path, by_file: bool) -> None:
    """Whatever characters it has; of a file the first line counts, and it is nowhere shown."""
    file = tmp_path / "secret"
    file.write_text(f"{PASSWORD}\n")
    given = f'_file = "{file}"' if by_file else f" = '{PASSWORD}'"
    lines = ['database_url = "postgresql://me@host:5433/name"', 'broker_url = "redis://broker:6380/2"']
    _write(home, "\n".join([*lines, f"database_password{given}", f"broker_password{given}", ""]))
    found = load(home)
    assert (sa.make_url(found.database).password, sa.make_url(found.database).port) == (PASSWORD, 5433)
    parts = urlsplit(found.broker)
    assert (unquote(parts.password or ""), parts.hostname, parts.port, parts.path) == (PASSWORD, "broker", 6380, "/2")
    assert PASSWORD not in repr(found) + str(found.model_dump(mode="json"))


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ("database_password = 'x'", "database_password is set, and no database_url that it is for"),
        ("broker_password = 'x'", "broker_password is set, and no broker_url that it is for"),
        ("broker_url = 'redis://b'\nbroker_password_file = '/nowhere'", "/nowhere cannot be read: No such file"),
        ("broker_url = 'redis://b'\nbroker_password_file = '/dev/null'", "/dev/null is empty"),
        ("broker_url = 'redis://b'\nbroker_password = 'x'\nbroker_password_file = '/dev/null'", "is set twice"),
    ],
)
def test_a_password_that_cannot_be_used_is_refused(home: Path, lines: str, said: str) -> None:
    """At once, with what is wrong, and not when the database is asked for first."""
    _write(home, lines)
    assert said in _message(home)


def test_all_wrong_keys_are_named_at_once(home: Path) -> None:
    """Nobody has to start three times for three mistakes."""
    _write(home, "workers = 0\nlease_seconds = 0\nprot = 1\n")
    message = _message(home)
    assert all(key in message for key in ("workers in", "lease_seconds in", "prot in"))


@pytest.mark.parametrize("text", ["workers = ", "[timeouts", "a = 1\na = 2", "\x00"])
def test_a_file_that_is_no_toml_is_named(home: Path, text: str) -> None:
    """The message names the file and, where the parser knows it, the line."""
    path = _write(home, text)
    assert str(path) in _message(home)


def test_a_file_that_is_no_text_is_named(home: Path) -> None:
    """TOML is UTF-8; anything else is a configuration error and no traceback."""
    (home / settings.FILE_NAME).write_bytes(b'ae_title = "P\xc4CS"\n')
    assert str(home / settings.FILE_NAME) in _message(home)


@pytest.mark.parametrize("value", ["abc", "{", "[1]", "5"])
def test_a_whole_table_in_one_variable_that_is_none(home: Path, monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    """A table as JSON in one variable is allowed; what is no table is a configuration error that names it."""
    monkeypatch.setenv("DICOMFERRY_TIMEOUTS", value)
    assert "timeouts" in _message(home).lower()


def test_an_unreadable_file_is_named(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Settings that cannot be read are not the same as no settings. (Root may read anything, hence the trick.)"""
    path = _write(home, "workers = 2")
    opened = Path.open

    def refuse(self: Path, *arguments: Any, **options: Any) -> Any:
        if self == path:
            raise PermissionError(13, "Permission denied", str(path))
        return opened(self, *arguments, **options)

    monkeypatch.setattr(Path, "open", refuse)
    assert _message(home) == f"{path}: Permission denied"


def test_settings_do_not_change(home: Path) -> None:
    """What a process was started with stays."""
    with pytest.raises(ValueError, match="frozen"):
        load(home).workers = 5


def test_the_home_is_the_owners_alone(home: Path) -> None:
    """Folders 0700: addresses and paths of patients' files are nobody else's business."""
    made = prepare_home(home / "new" / "home")
    for folder in (made, made / "log", made / "run"):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert prepare_home(made) == made


def test_a_home_that_cannot_be_made_says_how_to_choose_another(home: Path) -> None:
    """A file in its place, for example."""
    (home / "file").write_text("")
    for place in (home / "file", home / "file" / "home"):
        with pytest.raises(ConfigurationError, match="--home"):
            prepare_home(place)
