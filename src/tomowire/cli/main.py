"""`tomowire`: the commands by name. Each is loaded when it is called, so that none pays for what the others import."""

from __future__ import annotations

import gc
import os
import sys
from contextlib import suppress
from importlib import import_module
from typing import Any, Final

import click

from tomowire._version import __version__

_COMMANDS: Final = {
    "backup": "tomowire.cli.backup",
    "config": "tomowire.cli.config",
    "db": "tomowire.cli.db",
    "echo": "tomowire.cli.echo",
    "import": "tomowire.cli.import_",
    "jobs": "tomowire.cli.jobs",
    "listen": "tomowire.cli.listen",
    "move": "tomowire.cli.move",
    "query": "tomowire.cli.query",
    "restore": "tomowire.cli.restore",
    "retrieve": "tomowire.cli.retrieve",
    "send": "tomowire.cli.send",
    "serve": "tomowire.cli.serve",
    "user": "tomowire.cli.user",
}

# What only the archive needs: the packages of the extra "server".
_FOR_THE_ARCHIVE: Final = ("alembic", "argon2", "pydantic", "pydantic_core", "sqlalchemy", "xxhash")

_EPILOG: Final = """\b
Exit codes, the same for all commands:
  0  all well (warnings included)       4  association rejected or aborted
  1  some operation failed              5  no accepted presentation context
  2  usage                              6  timeout
  3  cannot connect, or cannot listen   75  in use by another process now: try again
                                        130  interrupted (143: by SIGTERM)
"""


class _Commands(click.Group):
    """A group whose commands are modules with a `command`."""

    def main(self, *args: Any, **extra: Any) -> Any:
        _open_standard_streams()
        return super().main(*args, **extra)

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        collects = gc.isenabled()
        gc.disable()  # nothing of what is imported is garbage, and looking for it takes 4 of 40 ms
        try:
            command: click.Command = import_module(_COMMANDS[cmd_name]).command
        finally:
            if collects:
                gc.enable()
        return command

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:  # while a command is being imported; later each command deals with it
            click.echo("tomowire: interrupted", err=True)
            sys.exit(130)
        except ModuleNotFoundError as missing:
            package = (missing.name or "").partition(".")[0]
            if package not in _FOR_THE_ARCHIVE:
                raise
            how = 'pip install "tomowire[server]"'
            click.echo(f"tomowire: the archive needs {package}, which is not installed: {how} brings it", err=True)
            sys.exit(1)


def _open_standard_streams() -> None:
    """Who starts a command may have closed them (`>&-`): then the first socket would be standard output."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            with suppress(OSError):
                os.fstat(number)
                continue  # it is open, and Python cannot use it
            os.open(os.devnull, os.O_RDWR)  # the lowest number that is free
            setattr(sys, name, os.fdopen(number, "w" if number else "r", encoding="utf-8"))


@click.group(cls=_Commands, epilog=_EPILOG, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="tomowire")
def main() -> None:
    """DICOM networking, and an archive.

    A PEER is AET@host:port, or pacs://host:port with the AE title from --called-aet.
    Data goes to stdout, everything else to stderr.
    """
