"""Serving SOP classes that one does not know, when the requestor says what they are (PS3.7 D.3.3.6)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from tomowire.uids import TRANSFER_SYNTAXES
from tomowire.wire.user_information import CommonExtendedNegotiation

if TYPE_CHECKING:
    from collections.abc import Container

    from tomowire.aio.serving import IncomingRequest, ServiceProvider

STORAGE_SERVICE_CLASS: Final = "1.2.840.10008.4.2"


class Related:
    """A provider such as `Storage`, which also serves what a requestor says to be of its service class.

    A SOP class is taken as a related general SOP class is that the provider serves: `Related(Storage(keep))`. With `unrelated`,
    one that names no related class that is known is taken too, in any transfer syntax.
    """

    def __init__(
        self, provider: ServiceProvider, service_class_uid: str = STORAGE_SERVICE_CLASS, *, unrelated: bool = False
    ) -> None:
        self._provider = provider
        self._service_class_uid = service_class_uid
        self._unrelated = unrelated

    def related_transfer_syntaxes(self, said: CommonExtendedNegotiation) -> Container[str] | None:
        if said.service_class_uid != self._service_class_uid:
            return None
        for uid in said.related_general_sop_class_uids:
            supported = self._provider.transfer_syntaxes(uid)
            if supported is not None:
                return supported
        return TRANSFER_SYNTAXES if self._unrelated else None

    # What it knows it serves as before.

    def transfer_syntaxes(self, abstract_syntax: str) -> Container[str] | None:
        return self._provider.transfer_syntaxes(abstract_syntax)

    def may_be_scp(self, abstract_syntax: str) -> bool:
        return self._provider.may_be_scp(abstract_syntax)

    def extended_negotiation(self, abstract_syntax: str, proposed: bytes) -> bytes | None:
        return self._provider.extended_negotiation(abstract_syntax, proposed)

    async def handle(self, request: IncomingRequest) -> None:
        await self._provider.handle(request)


def related(
    sop_class_uid: str, *general_sop_class_uids: str, service_class_uid: str = STORAGE_SERVICE_CLASS
) -> CommonExtendedNegotiation:
    """What a requestor says of a SOP class: its service class, and the more general classes that it can be treated as.

    For `associate(..., extended=[related(mine, "1.2.840.10008.5.1.4.1.1.7")])`.
    """
    return CommonExtendedNegotiation(sop_class_uid, service_class_uid, general_sop_class_uids)
