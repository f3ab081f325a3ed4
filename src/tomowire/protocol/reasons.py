"""The codes of A-ASSOCIATE-RJ and A-ABORT in words (PS3.8 Tables 9-21 and 9-26), with what to do about them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from tomowire.wire.pdu import AAssociateRJ, AAssociateRQ
    from tomowire.wire.user_identity import UserIdentity

SERVICE_USER: Final = 0
SERVICE_PROVIDER: Final = 2

_ABORT_REASONS: Final = {
    0: "reason not specified",
    1: "it does not know the PDU that we sent",
    2: "it did not expect the PDU that we sent",
    4: "it does not know a parameter of the PDU that we sent",
    5: "it did not expect a parameter of the PDU that we sent",
    6: "it found an invalid value in the PDU that we sent",
}

_RESULTS: Final = {1: "for good", 2: "for now"}

_REJECTIONS: Final = {
    (1, 1): ("no reason given", "it may not know {calling}: ask the peer's operator, or look into its log"),
    (1, 2): ("application context name not supported", "the peer does not speak DICOM's application context"),
    (1, 3): (
        "calling AE title not recognized",
        "the peer does not know {calling}: call it by a title that it knows (--aet), or have this one added there",
    ),
    (1, 7): (
        "called AE title not recognized",
        "check the AE title of the peer: it does not answer to {called}",
    ),
    (2, 1): ("no reason given by its protocol machine (ACSE)", "ask the peer's operator, or look into its log"),
    (2, 2): ("protocol version not supported", "the peer does not support version 1 of the Upper Layer protocol"),
    (3, 1): ("temporary congestion", "try again later"),
    (3, 2): ("its limit of associations is reached", "try again later, or use fewer associations"),
}

_IDENTITY_REFUSED: Final = (2, 1)


def describe_abort(source: int, reason: int) -> str:
    """What an A-ABORT says, in words, with its codes; unknown codes are named as such."""
    if source == SERVICE_USER:
        return f"by its application, without a reason: its log may say more (source {source}, reason {reason})"
    if source == SERVICE_PROVIDER:
        return f"by its protocol machine, {_ABORT_REASONS.get(reason, 'reason unknown')} (source {source}, reason {reason})"
    return f"by a source that the standard does not define (source {source}, reason {reason})"


def describe_rejection(
    result: int, source: int, reason: int, *, called: str = "", calling: str = "", identity: UserIdentity | None = None
) -> str:
    """What an A-ASSOCIATE-RJ says and what to do, in words, with its codes.

    `called` and `calling` are the AE titles that were proposed, `identity` is what was said of the user: for one that is not
    accepted there is no code but the one that gives no reason (PS3.7 D.3.3.7.3).
    """
    what, advice = _REJECTIONS.get(
        (source, reason), ("a reason that the standard does not define", "ask the peer's operator")
    )
    if (source, reason) == _IDENTITY_REFUSED:
        if identity is not None:
            what = f"no reason given, as when {identity} is not accepted"
            advice = "check the user and what proves it, or ask the peer's operator"
        else:
            advice = f"it may want to know the user; {advice}"
    how_long = _RESULTS.get(result, "with an unknown result")
    advice = advice.format(called=_quoted(called), calling=_quoted(calling))
    return f"the peer rejected the association {how_long}: {what} (result {result}, source {source}, reason {reason}); {advice}"


def _quoted(title: str) -> str:
    return repr(title) if title else "the title used"


def why_rejected(request: AAssociateRQ, rejection: AAssociateRJ) -> str:
    """Why the policy of this side rejected `request`, for its own log: what the caller has to change, or who has to let it in."""
    match (rejection.source, rejection.reason):
        case (1, 2):
            return f"it asked for the application context {request.application_context_name!r}"
        case (1, 3):
            return f"{request.calling_ae_title!r} is not one of the callers that are let in"
        case (1, 7):
            return f"it called {request.called_ae_title!r}, which is not the AE title here"
        case _:
            return "no reason given"
