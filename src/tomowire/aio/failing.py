"""How the failure of somebody else's code stands in the log."""

from __future__ import annotations

from tomowire.errors import TomowireError


def describe_failure(error: BaseException) -> str:
    """The kind of an exception and where it was raised. Not its text, unless it is one of ours: it may quote patient data."""
    if isinstance(error, TomowireError):
        return f"{type(error).__name__}: {error}"
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    where = f" at {trace.tb_frame.f_code.co_filename}:{trace.tb_lineno}" if trace is not None else ""
    return f"{type(error).__name__}{where}"
