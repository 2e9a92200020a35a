"""`dicomferry completion`: the script by which a shell completes our commands."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

from dicomferry.cli.frame import render
from dicomferry.cli.frame.command_classes import Command

_SHELLS = ("bash", "zsh", "fish")


@click.command(cls=Command)
@click.argument("shell", type=click.Choice(_SHELLS))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """Print the completion script for a shell.

    \b
    bash: eval "$(dicomferry completion bash)" in ~/.bashrc
    zsh:  eval "$(dicomferry completion zsh)" in ~/.zshrc
    fish: dicomferry completion fish | source, in ~/.config/fish/config.fish
    """
    found = get_completion_class(shell)
    assert found is not None
    root = ctx.find_root().command
    script = found(root, {}, "dicomferry", "_DICOMFERRY_COMPLETE")
    # Not source(): for bash that runs bash to learn its version, on machines that have none as well.
    render.verbatim(script.source_template % script.source_vars())
