"""Which request a task is serving, for logs that say so beside each line.

What is logged outside of such tasks (an association begins, ends, is rejected) has the association's title among its arguments.
"""

from __future__ import annotations

from contextvars import ContextVar
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from tomowire.aio.serving import IncomingRequest

serving: Final[ContextVar[IncomingRequest | None]] = ContextVar("serving", default=None)
"""Set in the task that serves a request of the peer, and in those that it starts; None elsewhere."""
