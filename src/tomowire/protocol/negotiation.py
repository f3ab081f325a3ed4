"""Association negotiation as pure functions (PS3.8 9.3.2, 9.3.3 and PS3.7 D.3): what is proposed, and what came of it.

How an acceptor answers stands in `acceptance`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from tomowire.errors import UsageError
from tomowire.uids import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from tomowire.wire.items import ContextResult, PresentationContextRQ
from tomowire.wire.pdu import AAssociateAC, AAssociateRQ
from tomowire.wire.user_information import (
    AsynchronousOperationsWindow,
    CommonExtendedNegotiation,
    ExtendedNegotiation,
    RoleSelection,
    UserInformation,
)
from tomowire.wire.value import value

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from tomowire.wire.user_identity import UserIdentity

# PS3.8 9.3.2.2: context IDs are the odd numbers from 1 to 255.
MAXIMUM_CONTEXTS: Final = 128
_NO_WINDOW: Final = AsynchronousOperationsWindow(1, 1)


@value()
class ProposedContext:
    """What a requestor wants: one abstract syntax, and the transfer syntaxes that it can use for it, best first.

    `scu` and `scp` are the roles the requestor wants for itself; anything but SCU alone needs role selection (PS3.7 D.3.3.4).
    """

    abstract_syntax: str
    transfer_syntaxes: tuple[str, ...]
    scu: bool = True
    scp: bool = False


@value()
class AcceptedContext:
    """A presentation context that both sides agreed on, with the roles of the association's requestor."""

    context_id: int
    abstract_syntax: str
    transfer_syntax: str
    requestor_is_scu: bool = True
    requestor_is_scp: bool = False


@value()
class RefusedContext:
    """A proposed presentation context that was not accepted; `result` is the acceptor's (PS3.8 Table 9-18)."""

    context_id: int
    abstract_syntax: str
    transfer_syntaxes: tuple[str, ...]
    result: int


@value()
class Agreement:
    """What an A-ASSOCIATE-RQ and the A-ASSOCIATE-AC to it agree on."""

    request: AAssociateRQ
    response: AAssociateAC
    contexts: Mapping[int, AcceptedContext]
    refused: tuple[RefusedContext, ...]
    maximum_invoked: int
    """How many operations the requestor may have outstanding; 0 is unlimited (PS3.7 D.3.3.3)."""
    maximum_performed: int
    """How many operations the acceptor may have outstanding with the requestor; 0 is unlimited."""

    @classmethod
    def of(cls, request: AAssociateRQ, response: AAssociateAC) -> Agreement:
        """Read both PDUs. What the acceptor grants without having been asked does not count."""
        answers = {context.context_id: context for context in response.presentation_contexts}
        roles = _agreed_roles(request.user_information, response.user_information)
        accepted: dict[int, AcceptedContext] = {}
        refused: list[RefusedContext] = []
        for proposed in request.presentation_contexts:
            answer = answers.get(proposed.context_id)
            result = ContextResult.NO_REASON if answer is None else answer.result
            if answer is not None and not result and answer.transfer_syntax in proposed.transfer_syntaxes:
                scu, scp = roles.get(proposed.abstract_syntax, (True, False))
                accepted[proposed.context_id] = AcceptedContext(
                    proposed.context_id, proposed.abstract_syntax, answer.transfer_syntax, scu, scp
                )
            else:
                refused.append(
                    RefusedContext(
                        proposed.context_id,
                        proposed.abstract_syntax,
                        proposed.transfer_syntaxes,
                        result or ContextResult.TRANSFER_SYNTAXES_NOT_SUPPORTED,
                    )
                )
        asked = request.user_information.asynchronous_operations_window or _NO_WINDOW
        granted = response.user_information.asynchronous_operations_window or _NO_WINDOW
        return cls(
            request,
            response,
            accepted,
            tuple(refused),
            smaller_limit(asked.maximum_invoked, granted.maximum_invoked),
            smaller_limit(asked.maximum_performed, granted.maximum_performed),
        )

    def extended(self, sop_class_uid: str) -> bytes | None:
        """The acceptor's answer to the SOP class extended negotiation of one SOP class (PS3.7 D.3.3.5).

        None if there was no answer, or the requestor had not asked.
        """
        asked, given = self.request.user_information, self.response.user_information
        if all(each.sop_class_uid != sop_class_uid for each in asked.extended_negotiations):
            return None
        answers = (each for each in given.extended_negotiations if each.sop_class_uid == sop_class_uid)
        return next((each.application_information for each in answers), None)


def propose(
    *,
    called_ae_title: str,
    calling_ae_title: str,
    contexts: Sequence[ProposedContext],
    maximum_length: int,
    window: AsynchronousOperationsWindow | None = None,
    extended: Iterable[ExtendedNegotiation | CommonExtendedNegotiation] = (),
    identity: UserIdentity | None = None,
) -> AAssociateRQ:
    """The A-ASSOCIATE-RQ for up to 128 presentation contexts.

    Of `extended` (PS3.7 D.3.3.5, D.3.3.6) only those are sent whose SOP class is proposed. Raises `UsageError` for more contexts,
    for none, for one without a transfer syntax, and for two items of the same kind for one SOP class.
    """
    if not 0 < len(contexts) <= MAXIMUM_CONTEXTS:
        raise UsageError(f"an association has 1 to {MAXIMUM_CONTEXTS} presentation contexts, not {len(contexts)}")
    for context in contexts:
        if not context.transfer_syntaxes:  # PS3.8 9.3.2.2: "one or more"
            raise UsageError(f"no transfer syntax is proposed for {context.abstract_syntax}")
    proposed = {context.abstract_syntax for context in contexts}
    items = [item for item in extended if item.sop_class_uid in proposed]
    if len({(type(item), item.sop_class_uid) for item in items}) < len(items):  # PS3.7 D.3.3.5, D.3.3.6: only one
        raise UsageError("two extended negotiation items of the same kind for one SOP class")
    return AAssociateRQ(
        called_ae_title=called_ae_title,
        calling_ae_title=calling_ae_title,
        presentation_contexts=tuple(
            PresentationContextRQ(2 * index + 1, context.abstract_syntax, context.transfer_syntaxes)
            for index, context in enumerate(contexts)
        ),
        user_information=UserInformation(
            maximum_length=maximum_length,
            implementation_class_uid=IMPLEMENTATION_CLASS_UID,
            implementation_version_name=IMPLEMENTATION_VERSION_NAME,
            asynchronous_operations_window=window,
            role_selections=_wanted_roles(contexts),
            extended_negotiations=tuple(item for item in items if isinstance(item, ExtendedNegotiation)),
            common_extended_negotiations=tuple(item for item in items if isinstance(item, CommonExtendedNegotiation)),
            user_identity=identity,
        ),
    )


def _wanted_roles(contexts: Iterable[ProposedContext]) -> tuple[RoleSelection, ...]:
    """PS3.7 D.3.3.4: one item for each SOP class, so contexts of the same abstract syntax share the roles that any of them wants.

    Where it is SCU alone, the default says so already.
    """
    roles: dict[str, RoleSelection] = {}
    for context in contexts:
        uid = context.abstract_syntax
        before = roles.get(uid, RoleSelection(uid, scu=False, scp=False))
        roles[uid] = RoleSelection(uid, scu=before.scu or context.scu, scp=before.scp or context.scp)
    return tuple(role for role in roles.values() if role.scp or not role.scu)


def _agreed_roles(asked: UserInformation, given: UserInformation) -> dict[str, tuple[bool, bool]]:
    """PS3.7 D.3.3.4: a role counts where both say 1; without an answer the defaults hold."""
    answers = {role.sop_class_uid: role for role in given.role_selections}
    return {
        role.sop_class_uid: (role.scu and answer.scu, role.scp and answer.scp)
        for role in asked.role_selections
        if (answer := answers.get(role.sop_class_uid)) is not None
    }


def smaller_limit(first: int, second: int) -> int:
    """The stricter of two limits of which 0 means none."""
    return min(first, second) if first and second else first or second
