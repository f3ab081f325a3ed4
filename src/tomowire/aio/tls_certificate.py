"""The certificate that the other end of a TLS connection has shown, as a fact about an association."""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING, Any

from tomowire.wire.value import value

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime


@value()
class PeerCertificate:
    """A peer's certificate. `der` is all of it, `fingerprint` its SHA-256 in 64 hexadecimal digits.

    The other facts are there only if it was verified; where it was not, they are empty and `not_after` is None, since they may be
    anybody's. `subject` and `issuer` are written as in RFC 4514, most specific first: `CN=ct1,O=Hospital`. `names` are the subject
    alternative names, each with its kind: `DNS:ct1.example.org`, `IP:10.0.0.7`, `email:...`, `URI:...`.
    """

    der: bytes
    fingerprint: str
    subject: str = ""
    common_name: str = ""
    names: tuple[str, ...] = ()
    issuer: str = ""
    not_after: datetime | None = None

    def __repr__(self) -> str:
        return f"PeerCertificate({self.subject!r}, names={self.names!r}, fingerprint={self.fingerprint!r})"


def certificate_of(tls: ssl.SSLObject | ssl.SSLSocket) -> PeerCertificate | None:
    """What the other end has shown on a connection after its handshake; None if it has shown none."""
    der = tls.getpeercert(binary_form=True)
    if der is None:
        return None
    from datetime import UTC, datetime  # a program without TLS needs neither
    from hashlib import sha256

    facts: dict[str, Any] = tls.getpeercert() or {}
    subject = [part for relative in facts.get("subject", ()) for part in relative]
    ends = facts.get("notAfter")
    return PeerCertificate(
        der,
        sha256(der).hexdigest(),
        _distinguished_name(facts.get("subject", ())),
        next((value for name, value in reversed(subject) if name == "commonName"), ""),
        tuple(f"{_KINDS.get(kind, kind)}:{name}" for kind, name in facts.get("subjectAltName", ()) if name),
        _distinguished_name(facts.get("issuer", ())),
        datetime.fromtimestamp(ssl.cert_time_to_seconds(ends), UTC) if ends else None,
    )


_KINDS = {"IP Address": "IP"}
_SHORT = {
    "commonName": "CN",
    "countryName": "C",
    "domainComponent": "DC",
    "localityName": "L",
    "organizationName": "O",
    "organizationalUnitName": "OU",
    "stateOrProvinceName": "ST",
    "streetAddress": "STREET",
    "userId": "UID",
}
_SPECIAL = '\\",+;<>'


def _distinguished_name(relatives: Iterable[Iterable[tuple[str, str]]]) -> str:
    """RFC 4514 2: the last relative name first."""
    shown = ["+".join(f"{_SHORT.get(name, name)}={_escaped(value)}" for name, value in each) for each in relatives]
    return ",".join(reversed(shown))


def _escaped(text: str) -> str:
    """RFC 4514 2.4, so that one part of a name cannot look like two."""
    escaped = "".join(f"\\{each}" if each in _SPECIAL else each for each in text)
    if escaped.startswith((" ", "#")):
        escaped = f"\\{escaped}"
    return f"{escaped[:-1]}\\ " if escaped.endswith(" ") and len(text) > 1 else escaped
