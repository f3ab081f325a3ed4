"""What happens on the archive's associations, told to those who keep account of it: the log, the metrics and the audit trail."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

from tomowire.aio.ending import Ending
from tomowire.errors import QueryFailed
from tomowire.server.audit.events import (
    ApplicationStarted,
    ApplicationStopped,
    AssociationBegun,
    AssociationEnded,
    AssociationRefused,
    Outcome,
    Query,
)
from tomowire.server.audit.exports import Exports
from tomowire.server.audit.transfers import Transfers, party_of

if TYPE_CHECKING:
    from tomowire.aio.association import Association
    from tomowire.aio.serving import IncomingRequest
    from tomowire.server.audit.audit import Audit
    from tomowire.server.incoming import Stored
    from tomowire.server.metrics import Metrics
    from tomowire.server.tally import Tally
    from tomowire.services.find_scp import FindAnswers, FindRequest
    from tomowire.services.storage_scp import StoreRequest


class Witness:
    """Its methods are given to `listen` and to the services. `address_of` says where the node with an AE title is."""

    def __init__(self, audit: Audit, metrics: Metrics, tally: Tally, address_of: Callable[[str], str]) -> None:
        self._audit = audit
        self._metrics = metrics
        self._tally = tally
        self._transfers = Transfers(audit)
        self._is_open = False
        self.exports = Exports(audit, address_of)

    def on_established(self, association: Association) -> None:
        self._metrics.on_established(association)
        self._audit.record(
            AssociationBegun(
                caller=party_of(association),
                called_ae_title=association.called_ae_title,
                authenticated=_authenticated(association),
            )
        )

    def on_rejected(self, association: Association) -> None:
        self._metrics.on_rejected(association)
        self._audit.record(
            AssociationRefused(
                caller=party_of(association),
                called_ae_title=association.called_ae_title,
                reason=str(association.rejection),
            )
        )

    def on_ended(self, association: Association) -> None:
        end = association.end
        assert end is not None
        self._metrics.on_ended(association)
        self._transfers.tell(association)
        counts = self._tally.end(association)
        was_released = end.how is Ending.RELEASED
        self._audit.record(
            AssociationEnded(
                caller=party_of(association),
                called_ae_title=association.called_ae_title,
                how=end.how.value,
                stored=counts.stored + counts.there_before,
                refused=counts.refused,
                outcome=Outcome.SUCCESS if was_released else Outcome.MINOR_FAILURE,
                reason="" if was_released else end.text,
            )
        )

    def stored(self, request: StoreRequest, stored: Stored) -> None:
        """An object got Success."""
        if not request.association.is_requestor:  # of those that the archive opens itself, nobody tells the end here
            self._tally.stored(request.association, is_new=stored.is_new)
        self._metrics.on_stored(stored.outcome)
        self._transfers.stored(request.association, request.sop_class_uid, stored)

    def refused(self, request: StoreRequest) -> None:
        """An object did not."""
        if not request.association.is_requestor:
            self._tally.refused(request.association)

    def on_retrieved(self, request: IncomingRequest, seconds: float) -> None:
        """A C-GET or C-MOVE was served."""
        self._metrics.on_served(request, seconds)
        self.exports.end(request)

    def find(self, answer: Callable[[FindRequest], AsyncIterator[FindAnswers]]) -> Callable[..., AsyncIterator[Any]]:
        """`answer`, with each query recorded when it is answered, or was refused."""

        async def answered(request: FindRequest) -> AsyncIterator[FindAnswers]:
            outcome, reason = Outcome.SUCCESS, ""
            try:
                async with aclosing(answer(request)) as found:  # type: ignore[type-var]
                    async for answers in found:
                        yield answers
            except Exception as error:
                outcome = Outcome.MINOR_FAILURE
                reason = f"status {error.status:04X}H" if isinstance(error, QueryFailed) else type(error).__name__
                raise
            finally:
                self._audit.record(
                    Query(
                        by=party_of(request.association),
                        sop_class_uid=request.model.find,
                        identifier=request.identifier,
                        transfer_syntax_uid=request.transfer_syntax_uid,
                        outcome=outcome,
                        reason=reason,
                    )
                )

        return answered

    def open(self) -> None:
        """The archive is listening."""
        self._is_open = True
        self._audit.record(ApplicationStarted())

    def close(self) -> None:
        """It is not any more, or never was. What has come and was not told yet is told."""
        self._transfers.tell_all()
        if self._is_open:
            self._audit.record(ApplicationStopped())


def _authenticated(association: Association) -> str:
    """What says that the caller is who it says that it is."""
    by = ["TLS certificate"] if association.peer_certificate is not None else []
    by += ["user identity"] if association.user is not None else []
    return " and ".join(by)
