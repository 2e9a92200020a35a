"""Settings: `dicomferry.toml` in the home, `DICOMFERRY_*` over it, flags over both."""

from __future__ import annotations

import difflib
import os
import shlex
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self, get_args
from urllib.parse import quote, urlsplit

import platformdirs
import sqlalchemy as sa
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, SecretStr, ValidationError, model_validator
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
    TomlConfigSettingsSource,
)

from dicomferry.models.durable import make_folder
from dicomferry.models.rules.errors import ConfigurationError, UsageError
from dicomferry.models.rules.remote import LONGEST, Timeouts, check_ae_title
from dicomferry.models.rules.retry import RetryPolicy

FILE_NAME = "dicomferry.toml"
_PREFIX = "DICOMFERRY_"
_BROKER_SCHEMES = ("redis", "rediss", "redis+socket", "unix")


def _ae_title(text: str) -> str:
    try:
        return check_ae_title(text)
    except UsageError as error:
        raise ValueError(str(error)) from None


def _database_url(text: str) -> str:
    """Unchanged if it may be the record. What was written is not repeated: it may hold a password."""
    if text:
        try:
            backend = sa.make_url(text).get_backend_name()
        except (sa.exc.ArgumentError, ValueError):
            raise ValueError("is no database URL; write postgresql://user:password@host/name") from None
        if backend not in ("sqlite", "postgresql"):
            raise ValueError(f"{backend} is not supported; use SQLite or PostgreSQL")
    return text


def _broker_url(text: str) -> str:
    """Unchanged if a Redis client may understand it. What was written is not repeated: it may hold a password."""
    if text:
        try:
            parts = urlsplit(text)
            _ = parts.port
        except ValueError:
            raise ValueError("is no URL: its host or port cannot be read") from None
        if parts.scheme not in _BROKER_SCHEMES:
            shown = f"{parts.scheme}:// is not supported" if parts.scheme else "is no URL"
            raise ValueError(f"{shown}; write redis://, rediss:// or unix:///path of a Redis or Valkey server")
        if parts.scheme in ("unix", "redis+socket") and not parts.path:
            raise ValueError("unix:// needs the path of a socket")
    return text


def _webhook_url(text: str) -> str:
    """Unchanged if a webhook may be there. What was written is not repeated: some hold a token."""
    if text:
        try:
            parts = urlsplit(text)
            valid = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
        except ValueError:
            valid = False
        if not valid or not text.isascii() or any(char.isspace() for char in text):
            raise ValueError("is no URL of a webhook; write https://host/path")
    return text


def _command(text: str) -> str:
    try:
        shlex.split(text)
    except ValueError as error:
        raise ValueError(f"is no command: {str(error).lower()}") from None
    return text


def _secret(value: SecretStr, file: Path | None) -> str:
    """A secret as it was set, or the first line of its file. Raises ValueError; what was set is not repeated."""
    if file is None:
        return value.get_secret_value()
    if value.get_secret_value():
        raise ValueError(f"is set twice: as it is, and in {file}")
    try:
        found = file.expanduser().read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeError) as error:
        raise ValueError(f"{file} cannot be read: {getattr(error, 'strerror', None) or 'it is no text'}") from None
    if not found or not found[0]:
        raise ValueError(f"{file} is empty: its first line is the secret")
    return found[0]


AETitle = Annotated[str, AfterValidator(_ae_title)]
Seconds = Annotated[float, Field(gt=0, le=LONGEST, allow_inf_nan=False)]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class TimeoutSettings(_Section):
    """Seconds to wait for a remote AE; a remote of the address book may have its own."""

    connect: Seconds = 10.0
    acse: Seconds = 30.0
    first_answer: Seconds = 600.0
    store_answer: Seconds = 300.0
    progress: Seconds = 60.0
    quiet: Seconds = 10.0
    settle: Seconds = 300.0

    def value(self) -> Timeouts:
        """The section as a plain value, for rules that know no settings."""
        return Timeouts(**self.model_dump())


class RetrySettings(_Section):
    """Seconds between tries of a remote that is at fault, and how long to go on."""

    first_delay: Seconds = 10.0
    max_delay: Seconds = 600.0
    give_up_after: Seconds = 43_200.0

    def value(self) -> RetryPolicy:
        """The section as a plain value, for rules that know no settings."""
        return RetryPolicy(**self.model_dump())


def _log_bytes(value: int) -> int:
    if 0 < value < LEAST_LOG:
        raise ValueError(f"0, or at least {LEAST_LOG} bytes")
    return value


LEAST_LOG = 4 * 1024**2
"""Bytes of the smallest reception log: each of its segments takes a few instances."""
LogBytes = Annotated[int, Field(ge=0), AfterValidator(_log_bytes)]


class ScpSettings(_Section):
    """The storage SCP: where it listens, whom it lets in, and where it puts what it receives.

    `public_host` and `public_port` are what archives are told to send to, where that is not what it listens on: behind
    a published port of a container, or another translation of addresses. `log_bytes` are what the reception log of each
    receiving process may have; 0: none, each instance is flushed by itself.
    """

    host: str = "0.0.0.0"
    port: Annotated[int, Field(ge=1, le=65535)] = 11112
    public_host: str | None = None
    public_port: Annotated[int, Field(ge=1, le=65535)] | None = None
    accept: Literal["known", "both", "any"] = "known"
    processes: Annotated[int, Field(ge=1, le=64)] = 1
    max_associations: Annotated[int, Field(ge=1, le=4096)] = 256
    per_caller: Annotated[int, Field(ge=1, le=4096)] | None = None
    idle: Seconds = 600.0
    archive: Path | None = None
    reserve_bytes: Annotated[int, Field(ge=0)] = 1024**3
    flush: bool = True
    log_bytes: LogBytes = 128 * 1024**2


class LogSettings(_Section):
    """What the roles write down, how (`json` or `plain` lines), and where; ids and UIDs only.

    `file` is that of `up`, and of a role started alone, which without it writes to standard error. Of `max_bytes` (0:
    any number) at most, `keep` former ones beside it.
    """

    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["json", "plain"] = "json"
    file: Path | None = None
    max_bytes: Annotated[int, Field(ge=0)] = 50 * 1024**2
    keep: Annotated[int, Field(ge=1, le=100)] = 5


Told = Literal["succeeded", "incomplete", "failed", "cancelled", "held", "missed", "skipped", "refused"]
"""What may be told of: what a job became, and what became of a due time that came to no job."""


class NotifySettings(_Section):
    """Who is told when a job ends or is held, and when a due time of a schedule comes to no job.

    The secret, or the one in `secret_file`, signs what the webhook gets. `patient_data`: labels, keys, paths and failed
    items go along.
    """

    webhook_url: Annotated[str, AfterValidator(_webhook_url)] = ""
    secret: SecretStr = SecretStr("")
    secret_file: Path | None = None
    command: Annotated[str, AfterValidator(_command)] = ""
    on: tuple[Told, ...] = get_args(Told)
    patient_data: bool = False
    webhook_timeout: Seconds = 10.0
    command_timeout: Seconds = 60.0
    give_up_after: Seconds = 86_400.0

    @model_validator(mode="after")
    def _signed(self) -> Self:
        if self.webhook_url and not self.signing_secret:
            raise ValueError("webhook_url needs secret or secret_file as well: what is sent is signed with it")
        return self

    @property
    def signing_secret(self) -> str:
        """What is sent is signed with it; empty where none is set. Raises ValueError where its file cannot be read."""
        return _secret(self.secret, self.secret_file)


class Settings(BaseSettings):
    """Everything an installation can be told."""

    model_config = SettingsConfigDict(
        env_prefix=_PREFIX,
        env_nested_delimiter="__",
        extra="forbid",
        frozen=True,
        validate_default=True,
    )

    home: Path
    ae_title: AETitle = "DICOMFERRY"
    database_url: Annotated[str, AfterValidator(_database_url)] = ""
    database_password: SecretStr = SecretStr("")
    database_password_file: Path | None = None
    broker_url: Annotated[str, AfterValidator(_broker_url)] = ""
    broker_password: SecretStr = SecretStr("")
    broker_password_file: Path | None = None
    workers: Annotated[int, Field(ge=1, le=256)] = 4
    lease_seconds: Annotated[float, Field(ge=1, le=LONGEST, allow_inf_nan=False)] = 30.0
    timeouts: TimeoutSettings = TimeoutSettings()
    retry: RetrySettings = RetrySettings()
    scp: ScpSettings = ScpSettings()
    notify: NotifySettings = NotifySettings()
    log: LogSettings = LogSettings()

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Flags, then environment, then the file in the home that the flags name."""
        home = Path(init_settings.init_kwargs["home"])  # type: ignore[attr-defined]
        return (
            init_settings,
            env_settings,
            TomlConfigSettingsSource(settings_cls, toml_file=home / FILE_NAME),
        )

    @model_validator(mode="after")
    def _passwords_belong_somewhere(self) -> Self:
        for name, url in (("database", self.database_url), ("broker", self.broker_url)):
            given, file = getattr(self, f"{name}_password"), getattr(self, f"{name}_password_file")
            try:
                password = _secret(given, file)
            except ValueError as error:
                raise ValueError(f"{name}_password {error}") from None
            if password and (not url or url.startswith("sqlite")):
                raise ValueError(f"{name}_password is set, and no {name}_url that it is for")
        return self

    @property
    def database(self) -> str:
        """The SQLAlchemy URL in use: the one that was set, with the password that stands beside it; else SQLite in the
        home. Raises ValueError where the password's file cannot be read.
        """
        if not self.database_url:
            return f"sqlite:///{self.home / 'dicomferry.db'}"
        password = _secret(self.database_password, self.database_password_file)
        url = sa.make_url(self.database_url)
        return url.set(password=password).render_as_string(hide_password=False) if password else self.database_url

    @property
    def broker(self) -> str:
        """The URL of the broker that was set, with the password that stands beside it; empty where none is set. Raises
        ValueError where the password's file cannot be read.
        """
        password = _secret(self.broker_password, self.broker_password_file)
        if not self.broker_url or not password:
            return self.broker_url
        parts = urlsplit(self.broker_url)
        user, _, place = parts.netloc.rpartition("@")
        return parts._replace(netloc=f"{user.partition(':')[0]}:{quote(password, safe='')}@{place}").geturl()

    @property
    def is_sqlite(self) -> bool:
        """Whether the record is a file of this machine."""
        return self.database.startswith("sqlite")

    @property
    def archive(self) -> Path:
        """Where received instances lie: the folder that was set, else one in the home."""
        return self.home / (self.scp.archive.expanduser() if self.scp.archive else "archive")

    @property
    def log_file(self) -> Path:
        """Where the roles of `up` write their log."""
        return self.home / (self.log.file.expanduser() if self.log.file else Path("log", "dicomferry.log"))


def default_home() -> Path:
    """`DICOMFERRY_HOME`, else the platform's user data folder."""
    return Path(os.environ.get("DICOMFERRY_HOME") or platformdirs.user_data_path("dicomferry")).expanduser().absolute()


def load(home: Path | None = None) -> Settings:
    """The settings of an installation; raises ConfigurationError that names the wrong key and where it stands."""
    home = (home or default_home()).expanduser().absolute()
    _refuse_unknown_variables()
    try:
        return Settings(home=home)
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{home / FILE_NAME}: {error}") from None
    except SettingsError as error:
        raise ConfigurationError(f"environment DICOMFERRY_*: {error}") from None
    except ValidationError as error:
        raise ConfigurationError("; ".join(_explain(problem, home) for problem in error.errors())) from None
    except OSError as error:
        raise ConfigurationError(f"{error.filename or home}: {error.strerror}") from None


def _refuse_unknown_variables() -> None:
    """A misspelt variable must not be passed over; pydantic looks only for those that it knows."""
    for variable in os.environ:
        if variable.startswith(_PREFIX):
            key = variable.removeprefix(_PREFIX).partition("__")[0].lower()
            if key not in Settings.model_fields:
                near = difflib.get_close_matches(key, Settings.model_fields, n=1)
                hint = f"; did you mean {_PREFIX}{near[0].upper()}?" if near else ""
                raise ConfigurationError(f"{key} in environment {variable}: no such setting{hint}")


def _explain(problem: Any, home: Path) -> str:
    """One sentence for one problem: `scp.prot in FILE: no such setting`."""
    key = ".".join(str(part) for part in problem["loc"])
    if not key:
        return f"{home / FILE_NAME} and environment: {problem['msg'].removeprefix('Value error, ')}"
    variable = _variable(key)
    in_environment = variable in os.environ
    if problem["type"] == "extra_forbidden":
        near = difflib.get_close_matches(key, _known(problem["loc"]), n=1)
        text = "no such setting"
        if near:
            text += f"; did you mean {_variable(near[0]) if in_environment else near[0]}?"
    else:
        text = problem["msg"].removeprefix("Value error, ")
    return f"{key} in {f'environment {variable}' if in_environment else home / FILE_NAME}: {text}"


def _variable(key: str) -> str:
    return _PREFIX + key.replace(".", "__").upper()


def _known(path: Sequence[Any]) -> list[str]:
    """The settings that there are beside the one at this path."""
    section = type(Settings.model_fields[path[0]].default) if len(path) > 1 else Settings
    return [".".join((*path[:-1], name)) for name in section.model_fields]


def prepare_home(home: Path) -> Path:
    """Make the home folder, durably, readable by its owner alone; raises ConfigurationError where that fails."""
    try:
        for folder in (home, home / "log", home / "run"):
            make_folder(folder)
    except OSError as error:
        raise ConfigurationError(f"home {home}: {error.strerror}; choose another with --home") from None
    return home
