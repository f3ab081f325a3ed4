"""What somebody wants done."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tomowire.server.jobs.model import JobKind
from tomowire.wire.value import value


@value()
class NewJob:
    """A job to be made. `node` is an AE title, or "" ; `parameters` are for JSON."""

    kind: JobKind
    node: str
    parameters: Mapping[str, Any]
    by: str
