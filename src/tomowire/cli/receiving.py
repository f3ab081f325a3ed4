"""What `serve` and `listen` have in common: where they listen, how they end, and what to do when they cannot begin."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import functools
import os
import signal
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

from tomowire.aio.budget import LEAST_MEMORY
from tomowire.aio.listen import DEFAULT_MAXIMUM_ASSOCIATIONS
from tomowire.cli.options import verbose_option
from tomowire.cli.running import set_up_logging
from tomowire.cli.sizes import Size
from tomowire.cli.tls import tls_server_options
from tomowire.errors import ConnectFailed
from tomowire.wire.value import value

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tomowire.aio.tls import TlsServer

T = TypeVar("T")

SHUTDOWN_GRACE: Final = 5.0
"""Seconds that associations in progress get to finish. Service managers kill what takes longer than ten (`docker stop`)."""

_MOST_FILES: Final = 65536

_ADVICE: Final = {
    errno.EADDRINUSE: "another program listens there: stop it, or take another port with --port",
    errno.EACCES: "ports below 1024 are for the superuser: take another with --port",
    errno.EADDRNOTAVAIL: "this machine has no such address: see --bind",
}

_ACCEPTOR: Final = (
    click.option("--bind", default="127.0.0.1", show_default=True, help="Address to listen on; 0.0.0.0 or :: for all."),
    click.option(
        "--port", type=click.IntRange(0, 65535), default=11112, show_default=True, help="TCP port; 0 picks a free one."
    ),
    click.option(
        "--max-associations",
        type=click.IntRange(min=1),
        default=DEFAULT_MAXIMUM_ASSOCIATIONS,
        show_default=True,
        help="Callers beyond this many are rejected.",
    ),
    click.option(
        "--memory",
        type=Size(LEAST_MEMORY),
        default="1G",
        show_default=True,
        help="What the data of all associations may take, with K, M or G. With little, fewer callers are let in.",
    ),
    verbose_option,
)


@value()
class Acceptor:
    """Where a command listens, to how many at once, and whether with TLS."""

    bind: str
    port: int
    maximum_associations: int
    memory: int
    tls: TlsServer | None = None


def acceptor_options(command: Callable[..., T]) -> Callable[..., T]:
    """The options of a command that listens until it is ended. It gets them as `acceptor`, and logs from then on."""

    @functools.wraps(command)
    def gathered(
        *, bind: str, port: int, max_associations: int, memory: int, verbose: int, tls: TlsServer | None, **others: Any
    ) -> T:
        set_up_logging(verbose)
        return command(acceptor=Acceptor(bind, port, max_associations, memory, tls), **others)

    decorated: Callable[..., T] = tls_server_options(gathered)
    for option in reversed(_ACCEPTOR):  # decorators work from the bottom up
        decorated = option(decorated)
    return decorated


@contextlib.contextmanager
def explained(bind: str, port: int) -> Iterator[None]:
    """When listening fails, say what a person can do about it."""
    try:
        yield
    except ConnectFailed as error:
        number = getattr(error.__cause__, "errno", None)
        if number not in _ADVICE:
            raise
        text = f"cannot listen on {bind}, port {port}: {os.strerror(number)}; {_ADVICE[number]}"
        raise ConnectFailed(text) from error.__cause__


def closing_words(associations: int, grace: float = SHUTDOWN_GRACE) -> str:
    """What to say when the end begins, and why it may take a while: `grace` in seconds."""
    if not associations:
        return "shutting down"
    those = "an association" if associations == 1 else f"{associations} associations"
    return f"shutting down; {those} may finish within {grace:g} s (once more to end at once)"


def allow_many_files() -> None:
    """Raise the limit of open files to what the system allows: each association takes one, and each object while it is written."""
    try:
        import resource
    except ImportError:
        return  # Windows has no such limit
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _MOST_FILES if hard == resource.RLIM_INFINITY else min(hard, _MOST_FILES)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with contextlib.suppress(ValueError, OSError):  # macOS has limits that it does not tell
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def stop_signal() -> asyncio.Event:
    """Set when Ctrl-C or SIGTERM comes, from now on. A second one kills the process: what is stored survives that too."""
    loop = asyncio.get_running_loop()
    event = asyncio.Event()
    numbers = (signal.SIGINT, signal.SIGTERM)

    def on_signal() -> None:
        event.set()
        for number in numbers:
            loop.remove_signal_handler(number)
            signal.signal(number, signal.SIG_DFL)

    with contextlib.suppress(NotImplementedError):  # Windows: Ctrl-C arrives as KeyboardInterrupt
        for number in numbers:
            loop.add_signal_handler(number, on_signal)
    return event
