"""Why TLS failed, in words: what happened, whose fault it is, and what to do.

Arguments stand as `(authorities=)`: a program with options, or keys, of its own puts their names there.
"""

from __future__ import annotations

import ssl
from typing import Final

_CHECK_CLOCKS: Final = "or one of the two clocks is wrong"

# X509_V_ERR of OpenSSL, for a certificate that this side does not take.
_VERIFICATION: Final = {
    9: f"is not valid yet: it was made for a later time, {_CHECK_CLOCKS}",
    10: f"has expired: its owner has to renew it, {_CHECK_CLOCKS}",
    2: "is signed by an authority that is not trusted here, or the certificates between them were not sent along",
    20: "is signed by an authority that is not trusted here, or the certificates between them were not sent along",
    21: "is signed by an authority that is not trusted here, or the certificates between them were not sent along",
    18: "is signed by itself, and not trusted here",
    19: "is signed by an authority that is not trusted here",
    22: "has too long a chain of authorities",
    23: "has been revoked",
    24: "is signed with a certificate that is not an authority's",
    26: "is not made for this purpose (its extended key usage)",
    66: "has a key that is too short for the TLS profile",
    67: "is signed by an authority whose key is too short for the TLS profile",
    68: "is signed with a hash that the TLS profile does not allow",
}
_WRONG_HOST: Final = (62, 64)
_UNKNOWN_AUTHORITY: Final = (2, 18, 19, 20, 21)

# What the other side may say about our certificate, by the name of the alert (RFC 8446 6.2).
_ABOUT_OURS: Final = {
    "BAD_CERTIFICATE": "cannot use it",
    "UNSUPPORTED_CERTIFICATE": "cannot use a certificate of this kind",
    "CERTIFICATE_REVOKED": "says that it has been revoked",
    "CERTIFICATE_EXPIRED": "says that it has expired: renew it, or one of the two clocks is wrong",
    "CERTIFICATE_UNKNOWN": "does not take it",
    "UNKNOWN_CA": "does not trust the authority that signed it",
}
_ASKS_FOR_ONE: Final = ("CERTIFICATE_REQUIRED", "NO_CERTIFICATE")
_NOTHING_IN_COMMON: Final = {
    "HANDSHAKE_FAILURE": "the two sides have no cipher suite or key exchange in common",
    "INSUFFICIENT_SECURITY": "the other side wants stronger ciphers or keys",
    "PROTOCOL_VERSION": "the two sides have no TLS version in common",
    # Found out on this side.
    "UNSUPPORTED_PROTOCOL": "the two sides have no TLS version in common",
    "VERSION_TOO_LOW": "the two sides have no TLS version in common",
    "NO_SHARED_CIPHER": "the two sides have no cipher suite in common",
    "NO_SHARED_GROUP": "the two sides have no key exchange in common",
    "NO_SUITABLE_KEY_SHARE": "the two sides have no key exchange in common",
    "NO_SUITABLE_SIGNATURE_ALGORITHM": "the two sides have no signature algorithm in common",
    "NO_SHARED_SIGNATURE_ALGORITHMS": "the two sides have no signature algorithm in common",
    "DH_KEY_TOO_SMALL": "the other side's Diffie-Hellman key is too short for the TLS profile (2048 bits)",
    "UNSAFE_LEGACY_RENEGOTIATION_DISABLED": "the other side's TLS is too old to be safe",
}
_SHOW_ONE: Final = "(certificate=)"
_TRUST_IT: Final = "to trust it, name its authority (authorities=)"


def alert_of(error: BaseException | None) -> str | None:
    """The alert that the other side sent: `UNKNOWN_CA` and the like; None if the error is not an alert."""
    reason = error.reason if isinstance(error, ssl.SSLError) else None
    _, alert, name = (reason or "").partition("ALERT_")
    return name if alert else None


def why_requestor(error: BaseException, first: bytes, has_certificate: bool | None) -> str:
    """Why the handshake failed of a requestor that called. `first` is how the peer's answer begins."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return _certificate_of_peer(error)
    if text := _not_tls(first):
        return text
    if alert := alert_of(error):
        return why_refused(alert, has_certificate)
    if isinstance(error, ssl.SSLError):
        reason = _NOTHING_IN_COMMON.get(error.reason or "")
        return f"{reason}: see the TLS profiles of both" if reason else _plainly(error)
    if not first:
        return "the peer closed the connection when it was offered TLS; does it speak TLS on this port?"
    return "the peer closed the connection in the middle of the TLS handshake"


def why_refused(alert: str, has_certificate: bool | None) -> str:
    """What an alert of the acceptor means for a requestor that has shown a certificate, has not, or None: may have."""
    if alert in _ASKS_FOR_ONE or (alert == "HANDSHAKE_FAILURE" and not has_certificate):
        wants = f"the peer wants a certificate of this side, and was shown none {_SHOW_ONE}"
        # TLS 1.2 has no alert of its own for it.
        return wants if alert in _ASKS_FOR_ONE else f"{_NOTHING_IN_COMMON[alert]}, or {wants}"
    if alert in _ABOUT_OURS and has_certificate is not False:
        return f"the peer refuses this side's certificate: it {_ABOUT_OURS[alert]}"
    if alert in _ABOUT_OURS:
        return f"the peer wants another certificate of this side {_SHOW_ONE}: {_words(alert)}"
    if alert in _NOTHING_IN_COMMON:
        return f"{_NOTHING_IN_COMMON[alert]}: see the TLS profiles of both"
    return f"the peer broke the TLS handshake off: {_words(alert)}"


def why_acceptor(error: BaseException, first: bytes) -> str:
    """Why the handshake failed of a caller, for the acceptor's log."""
    if isinstance(error, ssl.SSLCertVerificationError):
        what = _VERIFICATION.get(error.verify_code, f"was not accepted: {error.verify_message}")
        return f"the caller's certificate {what}"
    if text := _not_tls(first):
        return text
    if isinstance(error, ssl.SSLError) and error.reason == "PEER_DID_NOT_RETURN_A_CERTIFICATE":
        return "the caller has shown no certificate, and one is required"
    alert = alert_of(error)
    if alert in _ABOUT_OURS:
        return f"the caller refuses this side's certificate: it {_ABOUT_OURS[alert]}"
    reason = alert or (error.reason if isinstance(error, ssl.SSLError) else None)
    if reason in _NOTHING_IN_COMMON:
        return f"{_NOTHING_IN_COMMON[reason]}: see the TLS profiles of both"
    if alert is not None:
        return f"the caller broke the TLS handshake off: {_words(alert)}"
    if isinstance(error, ssl.SSLError):
        return _plainly(error)
    if not first:
        return "the connection was closed before a word"
    return (
        "the caller closed the connection in the middle of the TLS handshake; it may not trust this side's certificate"
    )


def _certificate_of_peer(error: ssl.SSLCertVerificationError) -> str:
    if error.verify_code in _WRONG_HOST:
        name = error.verify_message.partition("'")[2].rpartition("'")[0]
        return (
            f"the peer's certificate is for another host: it is not valid for {name!r}; "
            "call the peer by a name that is in it, or say which to look for (server_hostname=)"
        )
    what = _VERIFICATION.get(error.verify_code, f"was not accepted: {error.verify_message}")
    advice = f"; {_TRUST_IT}" if error.verify_code in _UNKNOWN_AUTHORITY else ""
    return f"the peer's certificate {what}{advice}"


def is_tls(first: bytes) -> bool:
    """Whether a connection begins with a TLS record (RFC 8446 5.1), as far as can be seen."""
    return not first or (first[0] in range(20, 24) and first[1:2] in (b"", b"\x03"))


def _not_tls(first: bytes) -> str | None:
    """What the other side speaks, if it is something else."""
    if is_tls(first):
        return None
    if 1 <= first[0] <= 7 and first[1:2] in (b"", b"\0"):  # a PDU (PS3.8 9.3.1)
        return "the other side speaks DICOM without TLS on this connection"
    name = "HTTP" if first.startswith((b"GET ", b"POST", b"PUT ", b"HEAD", b"OPTI", b"HTTP")) else "something else"
    return f"the other side does not speak TLS, but {name}"


def _words(alert: str) -> str:
    return alert.replace("_", " ").lower()


def _plainly(error: ssl.SSLError) -> str:
    return f"the TLS handshake failed: {_words(error.reason) if error.reason else error}"
