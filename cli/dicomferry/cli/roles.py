"""`dicomferry up` and the single roles."""

from __future__ import annotations

import sys

import click

from dicomferry.cli.frame.command_classes import QUIET, Command, meta


@click.command(cls=Command)
def up() -> None:
    """Run everything on this machine: broker, workers, storage SCP and scheduler.

    Stays in the foreground until Ctrl-C or SIGTERM, which let running work stop in good order.
    """
    from dicomferry.cli.frame import installation
    from dicomferry.daemon import supervisor
    from dicomferry.daemon.child import python

    sys.exit(supervisor.run(installation.settings(), scheduler=python("dicomferry.cli.main", "scheduler")))


@click.command(cls=Command)
def worker() -> None:
    """Run workers alone, for systemd and containers.

    Needs a database that was set up (`dicomferry db upgrade`) and a broker (broker_url, or `dicomferry up`).
    """
    from dicomferry.cli.frame import installation
    from dicomferry.daemon import worker_role

    sys.exit(worker_role.run(installation.settings()))


@click.command(cls=Command)
def scp() -> None:
    """Run the storage SCP alone, for systemd and containers.

    It receives instances into the archive (scp.archive) from the remotes of the address book. Needs a database that
    was set up (`dicomferry db upgrade`).
    """
    from dicomferry.cli.frame import installation
    from dicomferry.daemon import storage_scp

    sys.exit(storage_scp.run(installation.settings()))


@click.command(cls=Command)
def scheduler() -> None:
    """Run a scheduler alone, for systemd and containers.

    It submits what `dicomferry schedule` says when it is due, and sends notifications (notify.* in the settings). Any
    number may run: each due time fires once. Needs a database that was set up (`dicomferry db upgrade`), no broker;
    for schedules that store files, or read a file of requests, it has to see those.
    """
    from dicomferry.cli.frame import installation
    from dicomferry.cli.submit import parsed_command
    from dicomferry.daemon import scheduler as role

    meta()[QUIET] = True  # the hints of what is scheduled were for whoever added it
    sys.exit(role.run(installation.settings(), parsed_command.of))
