"""Why there is no association with a peer: what happened, whose fault it is, and what to change, for each way of failing."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Final

from tomowire.errors import (
    AssociationAborted,
    AssociationLost,
    AssociationRejected,
    ConnectFailed,
    IdentityNotConfirmed,
    NoAcceptedContext,
    OperationTimeout,
    PeerMisbehaved,
    TlsFailed,
)
from tomowire.protocol.explain import SPEAKS_TLS
from tomowire.wire.value import value

if TYPE_CHECKING:
    from tomowire.aio.address import PeerAddress

_PEERS_LOG: Final = "look into the peer's log: most write a line for each association that they refuse or end"
_USUAL_PORTS: Final = "check the port: DICOM is often at 104, 11112 or 4242"
_WAY: Final = "check the way to it: VPN, routes, network cable"
_KNOWN_AES: Final = (
    "most peers have a list of those that may call them (known AEs, remote AEs, DICOM nodes, modalities, devices), each with its AE"
    " title, host and port"
)


@value()
class Diagnosis:
    """What is wrong, for a person."""

    kind: str
    """One word or two, which do not change: "name", "refused", "no answer", "unreachable", "TLS", "rejected", "not confirmed",
    "not DICOM", "aborted", "closed", "silent", "no context", "misbehaved" or "other"."""
    happened: str
    whose: str
    """Whose fault it is, as far as can be told from here."""
    change: tuple[str, ...]
    """What to look at or to change, the likeliest first."""


_ELSEWHERE: Final = _USUAL_PORTS + "; what listens there may be something else"

_BY_ERROR: Final[tuple[tuple[type[Exception], str, str, tuple[str, ...]], ...]] = (
    (
        AssociationLost,
        "closed",
        "the peer: it ended the connection without a word",
        (
            "a peer that lets in only hosts that it knows may just close: have the address of this host added there",
            "a peer that wants TLS may just close: connect with TLS",
            _ELSEWHERE,
            _PEERS_LOG,
        ),
    ),
    (
        OperationTimeout,
        "silent",
        "the peer: it is connected and says nothing",
        (
            "the peer may be busy, or serve one association at a time: try again, or allow more time",
            "something between here and there may take connections and pass nothing on: a proxy, a firewall, a tunnel",
            _ELSEWHERE,
        ),
    ),
    (
        NoAcceptedContext,
        "no context",
        "the two sides have nothing in common for this: the association itself was accepted",
        ("have it enabled at the peer for this AE title, or propose what the peer does support",),
    ),
    (
        IdentityNotConfirmed,
        "not confirmed",
        "the peer: it takes no notice of who the user is, or does not say that it does",
        ("have it check users, or do not ask for its word (identity_required, --identity-required)",),
    ),
    (
        PeerMisbehaved,
        "misbehaved",
        "the peer: it breaks the standard",
        ("tell its maker", 'the library can pass over such responses: malformed="lenient"'),
    ),
    (Exception, "other", "it cannot be told from here", (_PEERS_LOG,)),
)
"""Kind, whose fault, and what to change, for errors of which the type says it all; the first that fits."""


def diagnose(error: Exception, peer: PeerAddress, calling_ae_title: str) -> Diagnosis:
    """What `error`, which `associate` or a service has raised, means for who called `peer` as `calling_ae_title`."""
    match error:
        case TlsFailed():
            return _no_tls(error)
        case ConnectFailed():
            return _not_connected(error, peer)
        case AssociationRejected():
            return _rejected(error, peer, calling_ae_title)
        case AssociationAborted(foreign=str()):
            return _not_dicom(error, peer)
        case AssociationAborted():
            return _aborted(error)
    _, kind, whose, change = next(each for each in _BY_ERROR if isinstance(error, each[0]))
    return Diagnosis(kind, str(error), whose, change)


def _not_connected(error: ConnectFailed, peer: PeerAddress) -> Diagnosis:
    from ssl import SSLError

    # `raise ... from None` hides the cause from people, not from us.
    cause = error.__cause__ or error.__context__
    change: tuple[str, ...]
    match cause:
        case SSLError():
            return _no_tls(error)
        case socket.gaierror() | UnicodeError():
            kind, whose = "name", f"this side: no name server known here has an address for {peer.host!r}"
            change = (
                "check how the host name is written",
                "use the IP address instead",
                "check the name servers of this host",
            )
        case ConnectionRefusedError():
            kind, whose = "refused", f"the host answers, but no program listens on its port {peer.port}"
            change = (
                _USUAL_PORTS,
                "start the DICOM service of the peer; it may listen on the address 127.0.0.1 alone",
                "a firewall may refuse in its name",
            )
        case TimeoutError():
            kind, whose = "no answer", "the network, or the address: not even a refusal comes back"
            change = (
                f"check the address: is there a host {peer.host}, and is it switched on?",
                f"a firewall may drop what goes to port {peer.port}: have it opened for this host",
                _WAY,
            )
        case _:
            kind, whose = "unreachable", "the network, or the address"
            change = (f"check the address {peer.host}", _WAY)
    return Diagnosis(kind, str(error), whose, change)


def _no_tls(error: ConnectFailed) -> Diagnosis:
    if SPEAKS_TLS in str(error):
        return Diagnosis(
            "TLS",
            str(error),
            "this side: the peer wants TLS on this port",
            ("connect with TLS", "or ask its operator for a port without TLS"),
        )
    return Diagnosis(
        "TLS",
        str(error),
        "the two sides do not agree on TLS",
        (
            "the peer may not speak TLS on this port: connect without",
            "check the certificates: who signed the peer's, for which host, until when; and whether it wants one of ours",
        ),
    )


def _rejected(error: AssociationRejected, peer: PeerAddress, calling: str) -> Diagnosis:
    changes: dict[tuple[int, int], tuple[str, tuple[str, ...]]] = {
        (1, 2): ("the peer: it does not know DICOM's application context", ("it is no DICOM peer, or a broken one",)),
        (1, 3): (
            f"this side is not known there as {calling!r}",
            (
                f"have {calling!r} added there: {_KNOWN_AES}; upper and lower case are not the same",
                "or call it by a title that it knows (--aet)",
            ),
        ),
        (1, 7): (
            f"the peer was called {peer.ae_title!r}, and has another AE title",
            (
                "find the peer's own AE title in its settings (local AE title, server AE title), and use it (--called-aet)",
                "upper and lower case are not the same",
            ),
        ),
        (2, 2): ("the peer: it supports no version 1 of the protocol", ("it is no DICOM peer, or a broken one",)),
        (3, 1): ("the peer: it cannot take more at the moment", ("try again later",)),
        (3, 2): (
            "the peer: as many associations as it allows are open",
            ("try again later", "use fewer associations at once", "close those that are idle, or allow more there"),
        ),
    }
    unsaid = (
        "the peer: it gives no reason",
        (f"it may not know {calling!r}, or the address of this host: {_KNOWN_AES}", _PEERS_LOG),
    )
    whose, change = changes.get((error.source, error.reason), unsaid)
    return Diagnosis("rejected", str(error), whose, change)


def _not_dicom(error: AssociationAborted, peer: PeerAddress) -> Diagnosis:
    change = {
        "HTTP": (f"port {peer.port} belongs to a web server (DICOMweb, perhaps): use the port for DIMSE", _USUAL_PORTS),
        "SSH": (f"port {peer.port} is for logging in to the host: use the one for DICOM", _USUAL_PORTS),
    }.get(str(error.foreign), (_USUAL_PORTS,))
    return Diagnosis("not DICOM", str(error), "the address: something else than a DICOM peer listens there", change)


def _aborted(error: AssociationAborted) -> Diagnosis:
    if not error.by_peer:
        whose = "the peer: it breaks the standard, so this side ended the association"
        return Diagnosis("aborted", str(error), whose, ("tell its maker", _PEERS_LOG))
    if error.source == 2 and error.reason:
        whose = "one of the two sides: the peer could not read, or did not expect, what this side sent"
        return Diagnosis("aborted", str(error), whose, (_PEERS_LOG, "tell the makers of both"))
    whose = "the peer: it does not say why"
    change = (
        "a peer that lets in only AE titles and hosts that it knows may abort: have this one added there",
        _PEERS_LOG,
    )
    return Diagnosis("aborted", str(error), whose, change)
