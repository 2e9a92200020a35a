"""`dicomferry service`: the units with which systemd runs the roles, as they are here or as they go onto a machine."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import click

from dicomferry.cli.frame import render
from dicomferry.cli.frame.command_classes import Command, Group, note
from dicomferry.models.rules.errors import ConfigurationError

ROLES = {
    "up": "all roles of one machine",
    "worker": "workers",
    "scp": "the storage SCP",
    "scheduler": "schedules and notifications",
}
FOLDER = Path("/etc/systemd/system")
SECRETS = Path("/etc/dicomferry")

_UNIT = """\
[Unit]
Description=dicomferry: {what}
Wants=network-online.target
After=network-online.target postgresql.service valkey.service redis-server.service

[Service]
Type=notify
NotifyAccess=main
ExecStart={program} {role}
User={user}
Environment=DICOMFERRY_HOME={home}
EnvironmentFile=-{secrets}/environment
UMask=0077
# Its own loops feed the watchdog, at work or idle; a database or a broker that is away does not stop them.
WatchdogSec=180
TimeoutStartSec=180
# What runs may end: as long as an archive may take over its answer to one instance.
TimeoutStopSec=390
KillMode=mixed
Restart=always
RestartSec=5
# A wrong setting or command line stays wrong.
RestartPreventExitStatus=2 3
LimitNOFILE=65536

# It writes below its home and nowhere else; `systemctl edit` adds an archive elsewhere: ReadWritePaths=/srv/archive
ReadWritePaths={home}
ProtectSystem=strict
ProtectHome=read-only
PrivateTmp=yes
PrivateDevices=yes
ProtectClock=yes
ProtectControlGroups=yes
ProtectHostname=yes
ProtectKernelLogs=yes
ProtectKernelModules=yes
ProtectKernelTunables=yes
ProtectProc=invisible
ProcSubset=pid
NoNewPrivileges=yes
LockPersonality=yes
RemoveIPC=yes
RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
SystemCallArchitectures=native
SystemCallFilter=@system-service
SystemCallFilter=~@privileged @resources
SystemCallFilter=setrlimit prlimit64 sched_setaffinity setpriority ioprio_set
# To listen on 104, and nothing else that is root's.
CapabilityBoundingSet=CAP_NET_BIND_SERVICE
AmbientCapabilities=CAP_NET_BIND_SERVICE

[Install]
WantedBy=multi-user.target
"""


@click.group(cls=Group)
def service() -> None:
    """Run the roles as services of systemd."""


_role = click.argument("role", type=click.Choice(list(ROLES)), default="up")
_user = click.option("--user", default="dicomferry", show_default=True, help="The account that the role runs as.")


@service.command("print", cls=Command)
@_role
@_user
def print_(role: str, user: str) -> None:
    """Print the unit of a role, `up` for all of them on one machine; for this program and this home."""
    for line in unit(role, user=user).splitlines():
        render.line(line)


@service.command(cls=Command)
@_role
@_user
def install(role: str, user: str) -> None:
    """Write the unit of a role for systemd, and say what to do next; to be run as root.

    Passwords stand in files below /etc/dicomferry; /etc/dicomferry/environment says where, for example
    DICOMFERRY_DATABASE_PASSWORD_FILE=/etc/dicomferry/database_password.
    """
    name = "dicomferry" if role == "up" else f"dicomferry-{role}"
    file = FOLDER / f"{name}.service"
    try:
        file.write_text(unit(role, user=user))
    except OSError as error:
        raise ConfigurationError(
            f"{file}: {error.strerror}; run it as root, or use `dicomferry service print`"
        ) from None
    render.line(f"{file} is written")
    if subprocess.run(["id", "-u", user], capture_output=True).returncode:
        note(f"there is no account {user} yet: useradd --system --create-home --home-dir {_home()} {user}")
    note(f"next: systemctl daemon-reload && systemctl enable --now {name}")


def unit(role: str, *, user: str, program: str | None = None, home: Path | None = None) -> str:
    """The unit of a role; for the program and the home that this process has, unless others are given.

    Raises ConfigurationError where one of these would mean something else in a unit.
    """
    program, home = program or os.path.abspath(sys.argv[0]), home or _home()
    for what, value in (("the program", program), ("the home", str(home)), ("the account", user)):
        if not value or any(char.isspace() or char in "%\"'$\\" for char in value):
            raise ConfigurationError(f"{what} {value!r} cannot stand in a unit: it has a blank, a quote, %, $ or \\")
    return _UNIT.format(what=ROLES[role], role=role, program=program, user=user, home=home, secrets=SECRETS)


def _home() -> Path:
    from dicomferry.cli.frame import installation

    return installation.settings().home
