"""What happens on the archive's associations, told to those who keep account of it: the log, the metrics and the audit trail."""

from __future__ import annotations

from asyncio import CancelledError
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import aclosing, contextmanager
from typing import TYPE_CHECKING, Any, Final
from weakref import WeakKeyDictionary

from tomowire.aio.ending import Ending
from tomowire.errors import QueryFailed
from tomowire.server.audit.counted import Readings
from tomowire.server.audit.deletions import event_of
from tomowire.server.audit.events import (
    AccessRefused,
    ApplicationStarted,
    ApplicationStopped,
    AssociationBegun,
    AssociationEnded,
    Change,
    ConfigurationChanged,
    Login,
    Outcome,
    Party,
    Query,
)
from tomowire.server.audit.exports import Account, Exports
from tomowire.server.audit.login_failures import LoginFailures
from tomowire.server.audit.refusals import Refusals
from tomowire.server.audit.reindexed import Reindexed
from tomowire.server.audit.transfers import Transfers, party_of
from tomowire.server.quotas import BY as QUOTA
from tomowire.uids import IMPLICIT_VR_LITTLE_ENDIAN

if TYPE_CHECKING:
    from pathlib import Path

    from tomowire.aio.association import Association
    from tomowire.aio.serving import IncomingRequest
    from tomowire.server.audit.audit import Audit
    from tomowire.server.incoming import Stored
    from tomowire.server.index.deleting import Deleted
    from tomowire.server.lull import Lull
    from tomowire.server.metrics import Metrics
    from tomowire.server.nodes import Node
    from tomowire.server.tally import Tally
    from tomowire.services.find_scp import FindAnswers, FindRequest
    from tomowire.services.storage_scp import StoreRequest

_PATIENCE: Final = 30.0
"""Seconds to wait for a database that has been written to a moment ago."""


class Witness:
    """Its methods are given to `listen` and to the services. `address_of` says where the node with an AE title is."""

    def __init__(
        self, audit: Audit, metrics: Metrics, tally: Tally, lull: Lull, address_of: Callable[[str], str]
    ) -> None:
        self._audit = audit
        self._metrics = metrics
        self._tally = tally
        self._lull = lull
        self._transfers = Transfers(audit)
        self._refusals = Refusals(audit)
        self._login_failures = LoginFailures(audit)
        self._readings = Readings(audit)
        self._is_open = False
        self._aborting: WeakKeyDictionary[Association, Party] = WeakKeyDictionary()
        self._stopped_by: Party | None = None
        self.exports = Exports(audit, address_of)

    def on_established(self, association: Association) -> None:
        self._lull.began()
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
        self._refusals.refused(
            party_of(association),
            association.called_ae_title,
            str(association.rejection),
            host=association.peer_host,
        )

    def on_tls_failed(self, address: str, why: str) -> None:
        """Somebody at `address` did not get through the TLS handshake."""
        self._metrics.tls_failed.add()
        self._refusals.refused(Party("unknown", address), "", why, host=address.rpartition(":")[0])

    def on_unauthorized(self, request: IncomingRequest, right: str) -> None:
        """A caller with an association asked for what it may not do, for the first time."""
        self._audit.record(AccessRefused(by=party_of(request.association), what=f"to {right}, by DICOM"))

    def on_ended(self, association: Association) -> None:
        end = association.end
        assert end is not None
        self._lull.ended()
        self._metrics.on_ended(association)
        self._transfers.tell(association)
        counts = self._tally.end(association)
        was_released = end.how is Ending.RELEASED
        self._audit.record(
            AssociationEnded(
                caller=party_of(association),
                by=self._aborting.pop(association, None),
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

    def login_failed(self, event: Login, network: str) -> None:
        """Somebody at an address of `network` was wrong with a password or a token."""
        self._login_failures.failed(event, network)

    def read(self, by: Party, study_uid: str, sop_class_uid: str) -> None:
        """Somebody has read an object over HTTP."""
        self._readings.read(by, study_uid, sop_class_uid)

    def deleted(self, deleted: Deleted, by: str, address: str) -> None:
        """Objects were deleted, for somebody at an address or for the archive itself."""
        party = None if by in ("", QUOTA) else Party(by, address)
        self._audit.record(event_of(deleted, party, f"for {QUOTA}" if by == QUOTA else ""))

    def aborting(self, association: Association, by: Party) -> None:
        """Somebody has an association aborted, which is neither of its ends."""
        self._aborting[association] = by

    def stopping(self, by: Party) -> None:
        """Somebody has the archive end."""
        self._stopped_by = by

    async def made_first_administrator(self, token: Path | None) -> None:
        """There was none, and now there is one, whose token is in a file; None: there was one.

        Returns when it is told: that may be used at once, and it happens once in the life of an archive.
        """
        if token is not None:
            what = f"the first administrator was made, with the token in {token}"
            self._audit.record(ConfigurationChanged(by=None, change=Change.USER, what=what))
            await self._audit.flush(_PATIENCE)

    def sending(self, node: Node, by: Party) -> Account:
        """The account of a job that sends objects to `node`; to be ended."""
        return Account(self._audit, _party_at(node), by if by.name else None)

    @contextmanager
    def asking(self, node: Node, by: Party, sop_class_uid: str, identifier: bytes) -> Iterator[None]:
        """For a job that asks `node` (C-FIND), for as long as it does; `identifier` is in Implicit VR."""
        outcome, reason = Outcome.SUCCESS, ""
        try:
            yield
        except BaseException as error:
            outcome, reason = Outcome.MINOR_FAILURE, _why_unanswered(error)
            raise
        finally:
            self._audit.record(
                Query(
                    by=by if by.name else None,
                    of=_party_at(node),
                    sop_class_uid=sop_class_uid,
                    identifier=identifier,
                    transfer_syntax_uid=IMPLICIT_VR_LITTLE_ENDIAN,
                    outcome=outcome,
                    reason=reason,
                )
            )

    def reindexing(self, job_id: str, by: Party) -> Reindexed:
        """The account of a job that puts right what the index says; to be ended."""
        return Reindexed(self._audit, by if by.name else None, job_id)

    def find(self, answer: Callable[[FindRequest], AsyncIterator[FindAnswers]]) -> Callable[..., AsyncIterator[Any]]:
        """`answer`, with each query recorded when it is answered, or was refused."""

        async def answered(request: FindRequest) -> AsyncIterator[FindAnswers]:
            outcome, reason = Outcome.SUCCESS, ""
            try:
                async with aclosing(answer(request)) as found:  # type: ignore[type-var]
                    async for answers in found:
                        yield answers
            except BaseException as error:
                outcome, reason = Outcome.MINOR_FAILURE, _why_unanswered(error)
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
        self._readings.tell_all()
        self._refusals.close()
        self._login_failures.close()
        if self._is_open:
            self._audit.record(ApplicationStopped(by=self._stopped_by))


def _why_unanswered(error: BaseException) -> str:
    """Without its text, which may quote what was asked for."""
    if isinstance(error, (CancelledError, GeneratorExit)):
        return "it ended before it was answered"
    return f"status {error.status:04X}H" if isinstance(error, QueryFailed) else type(error).__name__


def _party_at(node: Node) -> Party:
    return Party.node(node.ae_title, f"{node.host}:{node.port}")


def _authenticated(association: Association) -> str:
    """What says that the caller is who it says that it is."""
    by = ["TLS certificate"] if association.peer_certificate is not None else []
    by += ["user identity"] if association.user is not None else []
    return " and ".join(by)
