"""Which AE titles the holder of a certificate may call itself by.

An AE title is what a caller says of itself; a certificate is what somebody has signed. Where each caller has a certificate of its
own, this ties the one to the other.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from tomowire.aio.address import check_ae_title
from tomowire.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping

    from tomowire.aio.tls_certificate import PeerCertificate

    TitlesOf = Callable[[PeerCertificate], Collection[str]]

_KINDS: Final = {"sha256": "sha256", "cn": "CN", "dns": "DNS", "ip": "IP", "email": "email", "uri": "URI"}
_FINGERPRINT: Final = re.compile(r"[0-9a-f]{64}")


def titles_by_certificate(table: Mapping[str, str | Iterable[str]]) -> TitlesOf:
    """The AE titles for a certificate, looked up in `table`: what it is about, and a title or several.

    A key is `sha256:` with the fingerprint (with or without colons), `CN:` with the subject's common name, or `DNS:`, `IP:`,
    `email:` or `URI:` with a subject alternative name. A certificate to which several keys apply has the titles of all of them.
    Raises `UsageError` for other keys, and for what is not an AE title.
    """
    read = {
        read_certificate_key(key): frozenset(
            check_ae_title(each) for each in ([titles] if isinstance(titles, str) else titles)
        )
        for key, titles in table.items()
    }

    def titles_of(certificate: PeerCertificate) -> frozenset[str]:
        return frozenset().union(*(read.get(key, frozenset()) for key in certificate_keys(certificate)))

    return titles_of


def why_not_let_in(titles_of: TitlesOf, certificate: PeerCertificate | None, calling_ae_title: str) -> str | None:
    """Why a caller with this certificate is not let in by this title; None if it is."""
    if certificate is None:
        return "the caller has shown no certificate"
    allowed = _titles(titles_of(certificate))
    if calling_ae_title in allowed:
        return None
    whose = certificate.subject or f"sha256:{certificate.fingerprint}"
    may = f"may call as {', '.join(sorted(allowed))} only" if allowed else "may not call by any AE title"
    return f"the certificate of {whose} {may}"


def _titles(given: Collection[str]) -> frozenset[str]:
    """One title alone is one, and not all that its letters contain. Raises `UsageError` for what is neither."""
    try:
        return frozenset([given] if isinstance(given, str) else given)
    except TypeError:
        raise UsageError(f"certificate_titles gives AE titles, and not {type(given).__name__}") from None


def read_certificate_key(key: str) -> str:
    """What names a certificate, as `certificate_keys` writes it. Raises `UsageError`."""
    written, colon, what = key.partition(":")
    kind = _KINDS.get(written.lower())
    what = what.strip()
    if not colon or kind is None or not what:
        raise UsageError(f"{key!r} names no certificate: write {', '.join(f'{each}:...' for each in _KINDS.values())}")
    if kind == "sha256":
        what = what.replace(":", "").lower()
        if not _FINGERPRINT.fullmatch(what):
            raise UsageError(f"{key!r}: a SHA-256 fingerprint has 64 hexadecimal digits")
    if kind == "IP" and _address(what) is None:
        raise UsageError(f"{key!r}: {what!r} is not an IP address")
    return _key(kind, what)


def certificate_keys(certificate: PeerCertificate) -> Iterable[str]:
    """All that names a certificate."""
    yield _key("sha256", certificate.fingerprint)
    if certificate.common_name:
        yield _key("CN", certificate.common_name)
    for name in certificate.names:
        kind, _, what = name.partition(":")
        yield _key(kind, what)


def _key(kind: str, what: str) -> str:
    if kind == "DNS":  # host names have no upper and lower case (RFC 4343)
        what = what.lower()
    elif kind == "IP":  # the same address can be written in many ways; OpenSSL has FE80:0:0:0:0:0:0:1
        what = _address(what) or what
    return f"{kind}:{what}"


def _address(text: str) -> str | None:
    from ipaddress import ip_address  # needed seldom

    try:
        return str(ip_address(text))
    except ValueError:
        return None
