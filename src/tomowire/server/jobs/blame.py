"""What went wrong with a node, in words for an operator: what happened, whose fault it is, what to do; and whether it may pass."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tomowire.errors import AssociationError, AssociationRejected, NoAcceptedContext, OperationTimeout
from tomowire.server.jobs.work import JobFailed, TryAgain
from tomowire.server.nodes import with_keys
from tomowire.services.retrying import is_transient

if TYPE_CHECKING:
    from tomowire.server.nodes import Node


def unknown_node(title: str) -> JobFailed:
    """The node is not configured (any more)."""
    return JobFailed(f"the archive knows no node {title}: add it to the configuration, then retry this job")


def without_association(node: Node, error: Exception) -> TryAgain | JobFailed:
    """Why no association was opened, or none lasted."""
    address = str(node.address)
    # The errors say themselves what happened, whose fault it is and what to do; most of them also where.
    text = str(error) if address in str(error) else f"{address}: {error}"
    if isinstance(error, AssociationRejected) and not is_transient(error):
        return JobFailed(f"{text}; retry this job when that is mended")
    return TryAgain(with_keys(text))


def is_of_association(error: Exception) -> bool:
    """Whether no association could be opened: that is no fault of the object that was to be sent."""
    return isinstance(error, AssociationError) and error.agreement is None


def may_pass(error: Exception) -> bool:
    """Whether an object that failed by this may well be sent later."""
    if isinstance(error, NoAcceptedContext):
        return False
    return isinstance(error, AssociationError | OperationTimeout)
