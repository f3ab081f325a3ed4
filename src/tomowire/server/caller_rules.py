"""Rules for callers: whom one is about, and what they may do."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Final, Protocol

from tomowire.aio.address import check_ae_title
from tomowire.aio.arguments import whole
from tomowire.errors import UsageError
from tomowire.server.address_ranges import holds, read_range
from tomowire.server.rights import OF_CALLERS, Right, rights
from tomowire.services.hosts import host_of
from tomowire.wire.value import value

if TYPE_CHECKING:
    from tomowire.aio.association import Association
    from tomowire.aio.tls_certificate import PeerCertificate
    from tomowire.server.node_hosts import NodeHosts
    from tomowire.server.nodes import Node

_check_limit: Final = whole(1, or_none=True)


@value()
class CallerRule:
    """What callers may do to whom all of this applies: the AE title by which they call, an address in one of the ranges, and the
    certificate that they have shown. None, and no range at all, is any; but a rule says one of the three at least.

    `addresses` are written `10.1.0.0/16`, `2001:db8::/32` or `192.0.2.7`; `certificate` is `sha256:` with its fingerprint, `CN:`
    with the common name of its subject, or `DNS:`, `IP:`, `email:`, `URI:` with a subject alternative name.
    `maximum_associations` is how many all callers by this rule may have at once; None is no limit.
    """

    ae_title: str | None = None
    addresses: tuple[str, ...] = ()
    certificate: str | None = None
    may: frozenset[Right] = OF_CALLERS
    maximum_associations: int | None = None

    def __str__(self) -> str:
        parts = [f"AE title {self.ae_title!r}"] if self.ae_title is not None else []
        parts += [f"from {' or '.join(self.addresses)}"] if self.addresses else []
        parts += [f"with the certificate {self.certificate}"] if self.certificate is not None else []
        return " ".join(parts) or "everybody"


class Applicant:
    """Who asks to be let in, or to do something."""

    __slots__ = ("_association", "ae_title", "host")

    def __init__(self, association: Association) -> None:
        self._association = association
        self.ae_title: Final = association.calling_ae_title
        self.host: Final = host_of(association.peer_address)

    @property
    def certificate(self) -> PeerCertificate | None:
        """The certificate that it has shown, if any."""
        return self._association.peer_certificate

    @property
    def allowing(self) -> str:
        """The option that would let it in, for who types it; what a peer calls itself must not write the log."""
        return f"--allow {shlex.quote(self.ae_title)}" if self.ae_title.isprintable() else "--allow"

    def __str__(self) -> str:
        return f"{self.ae_title!r} from {self.host or 'a local socket'}"


class Rule(Protocol):
    """What `Access` asks."""

    @property
    def may(self) -> frozenset[Right]:
        """What it lets callers do."""

    @property
    def maximum_associations(self) -> int | None:
        """How many all callers by it may have at once."""

    def is_about(self, ae_title: str) -> bool:
        """Whether the rule names this AE title."""

    def why_not(self, applicant: Applicant) -> str | None:
        """Why it does not apply, to be put after the AE title; None if it does."""


class ReadRule:
    """A `CallerRule` that is ready to be asked. Raises `UsageError` for one that says what cannot be."""

    def __init__(self, given: CallerRule) -> None:
        if given.ae_title is None and not given.addresses and given.certificate is None:
            raise UsageError(
                "a rule for callers says whom it is about: an AE title, addresses or a certificate; the addresses 0.0.0.0/0 and "
                "::/0 are everybody"
            )
        addresses: object = given.addresses
        if isinstance(addresses, str):  # of which every part would be taken for one
            raise UsageError(f"addresses are given as a list: [{addresses!r}]")
        _check_limit("maximum_associations", given.maximum_associations)
        self.may: Final = rights(given.may, OF_CALLERS)
        self.maximum_associations: Final = given.maximum_associations
        self._given = given
        self._ae_title = check_ae_title(given.ae_title) if given.ae_title is not None else None
        self._ranges = tuple(map(read_range, given.addresses))
        self._certificate = _read_certificate(given.certificate) if given.certificate is not None else None

    def is_about(self, ae_title: str) -> bool:
        return self._ae_title == ae_title

    def why_not(self, applicant: Applicant) -> str | None:
        if self._ae_title not in (None, applicant.ae_title):
            return f"is not {self._ae_title!r}"
        if self._ranges and not any(holds(each, applicant.host) for each in self._ranges):
            allowed = ", ".join(map(str, self._ranges))
            return f"is let in from {allowed}, and calls from {applicant.host or 'a local socket'}"
        if self._certificate is not None:
            return self._why_not_by(applicant.certificate, self._certificate)
        return None

    def _why_not_by(self, certificate: PeerCertificate | None, key: str) -> str | None:
        wanted = f"is let in with the certificate {self._given.certificate}"
        if certificate is None:
            return f"{wanted}, and has shown none"
        from tomowire.aio.tls_titles import certificate_keys  # a program without TLS does not need it

        if key in certificate_keys(certificate):
            return None
        return f"{wanted}, and has shown that of {certificate.subject!r}, sha256:{certificate.fingerprint}"

    def __str__(self) -> str:
        return str(self._given)


class NodeRule:
    """A node that calls from its own host."""

    maximum_associations = None

    def __init__(self, node: Node, hosts: NodeHosts) -> None:
        self.may: Final = node.may & OF_CALLERS
        self._node = node
        self._hosts = hosts

    def is_about(self, ae_title: str) -> bool:
        return self._node.ae_title.strip(" ") == ae_title

    def why_not(self, applicant: Applicant) -> str | None:
        if not self.is_about(applicant.ae_title):
            return f"is not {self._node.ae_title!r}"
        if self._hosts.is_at(self._node.host, applicant.host):
            return None
        return (
            f"calls from {applicant.host or 'a local socket'}, and is a node at {self._node.host} ({applicant.allowing} lets it in "
            "from anywhere)"
        )

    def __str__(self) -> str:
        return f"node {self._node}"


class Everybody:
    """The rule for who fits no other, where everybody is let in."""

    may = OF_CALLERS
    maximum_associations = None

    def is_about(self, ae_title: str) -> bool:
        return False

    def why_not(self, applicant: Applicant) -> str | None:
        return None


def _read_certificate(written: str) -> str:
    from tomowire.aio.tls_titles import read_certificate_key

    return read_certificate_key(written)
