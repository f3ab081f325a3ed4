"""What leaves the archive on retrievals: announced study by study as their turn comes, and accounted for when it is over."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import aclosing
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from tomowire.protocol.status import Status
from tomowire.server.audit.events import Export, Outcome, Party, Study, TransferBegun
from tomowire.server.audit.transfers import party_of
from tomowire.wire.messages import CMoveRQ

if TYPE_CHECKING:
    from tomowire.aio.association import Association
    from tomowire.aio.serving import IncomingRequest
    from tomowire.server.audit.audit import Audit
    from tomowire.services.dicom_file import DicomFile
    from tomowire.services.suboperations import Retrieval, RetrieveRequest
    from tomowire.wire.messages import Request

MOST_STUDIES: Final = 25
"""In one message: what receives it by syslog need not take more than 32 KiB (PS3.15 A.6)."""


class Account:
    """What of one retrieval was sent, and what was not. `record` gets the events."""

    def __init__(self, audit: Audit, destination: Party, requested_by: Party | None = None) -> None:
        self._audit = audit
        self._destination = destination
        self._requested_by = requested_by
        self._expected: dict[str, tuple[str, str]] = {}
        self._sent: dict[tuple[str, str], int] = {}
        self._failed: dict[tuple[str, str], int] = {}
        self._begun: set[str] = set()

    def expect_files(self, files: Sequence[DicomFile]) -> None:
        """The turn of these is about to come."""
        for file in files:
            if file.sop_class_uid:  # otherwise it is not there any more
                self.expect(
                    file.sop_instance_uid, file.path.parts[-3], file.sop_class_uid
                )  # .../<study>/<series>/<file>

    def expect(self, sop_instance_uid: str, study_uid: str, sop_class_uid: str) -> None:
        """An object's turn is about to come."""
        self._expected[sop_instance_uid] = study_uid, sop_class_uid
        if study_uid not in self._begun:
            self._begun.add(study_uid)
            self._audit.record(
                TransferBegun(destination=self._destination, study=Study(study_uid), requested_by=self._requested_by)
            )

    def settle(self, sop_instance_uid: str, is_there: bool) -> None:
        """The destination has acknowledged it, or never will."""
        kind = self._expected.pop(sop_instance_uid, None)
        if kind is not None:
            counts = self._sent if is_there else self._failed
            counts[kind] = counts.get(kind, 0) + 1

    def end(self, reason: str = "") -> None:
        """It is over; what was expected and is not settled was not sent. `reason` says why, if anything was not."""
        for kind in self._expected.values():
            self._failed[kind] = self._failed.get(kind, 0) + 1
        self._expected.clear()
        self._tell(self._sent, Outcome.SUCCESS, "")
        self._tell(self._failed, Outcome.SERIOUS_FAILURE if not self._sent else Outcome.MINOR_FAILURE, reason)

    def _tell(self, counts: dict[tuple[str, str], int], outcome: Outcome, reason: str) -> None:
        by_study: dict[str, list[tuple[str, int]]] = {}
        for (study, sop_class), count in counts.items():
            by_study.setdefault(study, []).append((sop_class, count))
        studies = [Study(uid, tuple(sop_classes)) for uid, sop_classes in by_study.items()]
        for start in range(0, len(studies), MOST_STUDIES):
            some = tuple(studies[start : start + MOST_STUDIES])
            self._audit.record(
                Export(
                    destination=self._destination,
                    studies=some,
                    requested_by=self._requested_by,
                    outcome=outcome,
                    reason=reason,
                )
            )


class Exports:
    """The accounts of the C-GETs and C-MOVEs that are being served. `address_of` says where the node with a title is."""

    def __init__(self, audit: Audit, address_of: Callable[[str], str]) -> None:
        self._audit = audit
        self._address_of = address_of
        self._accounts: dict[int, Account] = {}

    def watch(self, request: RetrieveRequest, retrieval: Retrieval) -> Retrieval:
        """`retrieval`, with an account kept of it."""
        account = Account(self._audit, *self._parties(request.association, request.message))
        self._accounts[id(request.message)] = account
        return replace(retrieval, files=_watched(retrieval.files, account), told=account.settle)

    def end(self, request: IncomingRequest) -> None:
        """A request was served: tell what became of it."""
        status = Status(request.final.status) if request.final is not None else None
        reason = str(status) if status is not None else "the association ended before it was answered"
        account = self._accounts.pop(id(request.message), None)
        if account is not None:
            account.end(reason)
        elif status is None or status.is_failure:
            destination, by = self._parties(request.association, request.message)
            outcome = Outcome.MINOR_FAILURE
            self._audit.record(
                Export(destination=destination, studies=(), requested_by=by, outcome=outcome, reason=reason)
            )

    def _parties(self, association: Association, message: Request) -> tuple[Party, Party | None]:
        """Who gets the objects, and who asked for that, if that is somebody else."""
        asking = party_of(association)
        if not isinstance(message, CMoveRQ):
            return asking, None
        title = message.move_destination.strip(" ")
        return Party.node(title, self._address_of(title)), asking


async def _watched(
    files: AsyncIterator[Sequence[DicomFile]], account: Account
) -> AsyncGenerator[Sequence[DicomFile], None]:
    assert isinstance(files, AsyncGenerator)
    async with aclosing(files) as batches:
        async for batch in batches:
            account.expect_files(batch)
            yield batch
