"""Certificates as facts, and the AE titles that their holders may call by."""

from __future__ import annotations

import asyncio
import subprocess
from datetime import UTC, datetime, timedelta

import pytest

from support.certificates import Authority, Identity
from support.network import LOOPBACK
from support.requirements import system_program
from support.services import serve
from tomowire.aio.association import Association
from tomowire.aio.connect import associate
from tomowire.aio.tls import TlsClient, TlsServer
from tomowire.aio.tls_certificate import PeerCertificate, _distinguished_name
from tomowire.aio.tls_titles import titles_by_certificate, why_not_let_in
from tomowire.errors import AssociationRejected, UsageError
from tomowire.services.verification import CEchoScu, verification

pytestmark = pytest.mark.usefixtures("no_leaks")


def said_by_openssl(identity: Identity, *what: str) -> str:
    command = [str(system_program("openssl", "openssl")), "x509", "-noout", "-in", str(identity.certificate), *what]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip().partition("=")[2]


async def test_both_sides_see_each_others_certificate_as_openssl_shows_it(authority: Authority) -> None:
    ends = datetime.now(UTC).replace(microsecond=0) + timedelta(days=30)
    acceptors = authority.sign(LOOPBACK, "archive.example.org", "tech@example.org")
    requestors = authority.sign("ct1.example.org", common_name="ct1", not_after=ends)
    gone: asyncio.Queue[Association] = asyncio.Queue()
    tls = TlsServer(**acceptors.options, authorities=authority.file)
    client = TlsClient(authority.file, **requestors.options)
    async with serve(ssl=tls, on_ended=gone.put_nowait) as server:
        async with associate(f"ANY@{LOOPBACK}:{server.port}", [verification()], ssl=client) as association:
            seen = association.peer_certificate
        other = (await gone.get()).peer_certificate  # still known when the association is over
    assert seen is not None
    assert other is not None
    for certificate, identity in ((seen, acceptors), (other, requestors)):
        assert certificate.der == identity.der
        digest = said_by_openssl(identity, "-fingerprint", "-sha256").replace(":", "").lower()
        assert certificate.fingerprint == digest
        assert certificate.subject == said_by_openssl(identity, "-subject", "-nameopt", "RFC2253")
        assert certificate.issuer == said_by_openssl(identity, "-issuer", "-nameopt", "RFC2253")
    assert set(seen.names) == {f"IP:{LOOPBACK}", "DNS:archive.example.org", "email:tech@example.org"}
    assert (other.common_name, other.names, other.not_after) == ("ct1", ("DNS:ct1.example.org",), ends)
    assert other.subject in repr(other)


async def test_of_a_certificate_that_was_not_verified_only_the_bytes_are_known(authority: Authority) -> None:
    identity = authority.sign()
    async with (
        serve(ssl=TlsServer(**identity.options)) as server,
        associate(f"ANY@{LOOPBACK}:{server.port}", [verification()], ssl=TlsClient(verify=False)) as association,
    ):
        certificate = association.peer_certificate
        assert certificate is not None
        assert (certificate.der, certificate.subject, certificate.names) == (identity.der, "", ())
        assert certificate.not_after is None


async def test_without_tls_and_without_a_certificate_there_is_none(authority: Authority) -> None:
    gone: asyncio.Queue[Association] = asyncio.Queue()
    async with (
        serve() as server,
        associate(f"ANY@{LOOPBACK}:{server.port}", [verification()]) as association,
    ):
        assert (association.peer_certificate, association.tls_version) == (None, None)
    async with serve(ssl=TlsServer(**authority.sign().options), on_ended=gone.put_nowait) as server:
        client = TlsClient(authority.file)
        async with associate(f"ANY@{LOOPBACK}:{server.port}", [verification()], ssl=client):
            pass
        assert (await gone.get()).peer_certificate is None


def test_a_part_of_a_name_cannot_look_like_two() -> None:
    """RFC 4514 2.4, and its examples in section 4."""
    assert _distinguished_name([[("organizationName", "Sue, Grabbit and Runn")], [("commonName", "L. Eagle")]]) == (
        "CN=L. Eagle,O=Sue\\, Grabbit and Runn"
    )
    assert _distinguished_name([[("organizationalUnitName", "Sales"), ("commonName", "J.  Smith")]]) == (
        "OU=Sales+CN=J.  Smith"
    )
    assert _distinguished_name([[("commonName", 'James "Jim" Smith, III')]]) == 'CN=James \\"Jim\\" Smith\\, III'
    assert _distinguished_name([[("commonName", "# begins")], [("commonName", " both ")]]) == (
        "CN=\\ both\\ ,CN=\\# begins"
    )


# AE titles

FINGERPRINT = "ab" * 32
CERTIFICATE = PeerCertificate(
    b"",
    FINGERPRINT,
    "CN=ct1,O=Hospital",
    "ct1",
    ("DNS:CT1.example.org", "IP:10.0.0.7", "IP:FE80:0:0:0:0:0:0:1", "URI:urn:ct:1", "email:a@b.org"),
)


@pytest.mark.parametrize(
    "key",
    [
        f"sha256:{FINGERPRINT}",
        "SHA256:" + ":".join(["AB"] * 32),
        "CN:ct1",
        "cn: ct1",
        "DNS:ct1.example.ORG",
        "IP:10.0.0.7",
        "IP:fe80::1",
        "IP:fe80:0:0::1",
        "URI:urn:ct:1",
        "email:a@b.org",
    ],
)
def test_a_certificate_is_known_by(key: str) -> None:
    titles_of = titles_by_certificate({key: "CT1", "CN:other": "OTHER"})
    assert set(titles_of(CERTIFICATE)) == {"CT1"}
    assert why_not_let_in(titles_of, CERTIFICATE, "CT1") is None


def test_the_titles_of_all_that_applies_are_joined() -> None:
    titles_of = titles_by_certificate({"CN:ct1": ["CT1", "CT1_RESEARCH"], "IP:10.0.0.7": "BACKUP "})
    assert set(titles_of(CERTIFICATE)) == {"CT1", "CT1_RESEARCH", "BACKUP"}
    assert not titles_of(PeerCertificate(b"", FINGERPRINT, names=("IP:<invalid>",)))


def test_why_one_is_not_let_in() -> None:
    titles_of = titles_by_certificate({"CN:ct1": ["CT1", "CT2"]})
    other = PeerCertificate(b"", "cd" * 32)
    assert why_not_let_in(titles_of, None, "CT1") == "the caller has shown no certificate"
    assert why_not_let_in(titles_of, CERTIFICATE, "MR1") == (
        "the certificate of CN=ct1,O=Hospital may call as CT1, CT2 only"
    )
    assert why_not_let_in(titles_of, other, "CT1") == (
        f"the certificate of sha256:{'cd' * 32} may not call by any AE title"
    )


@pytest.mark.parametrize("key", ["ct1", "serial:12", "CN:", "IP:ct1", "sha256:12", "sha256:" + "xy" * 32])
def test_keys_that_name_no_certificate_are_refused(key: str) -> None:
    with pytest.raises(UsageError, match=key[:6]):
        titles_by_certificate({key: "CT1"})


def test_what_is_no_ae_title_is_refused() -> None:
    with pytest.raises(UsageError, match="is not an AE title"):
        titles_by_certificate({"CN:ct1": "MORE THAN SIXTEEN CHARACTERS"})


async def test_who_calls_by_a_title_that_is_not_its_own_is_rejected_and_the_log_says_why(
    authority: Authority, caplog: pytest.LogCaptureFixture
) -> None:
    tls = TlsServer(**authority.sign().options, authorities=authority.file)
    client = TlsClient(authority.file, **authority.sign("ct1.example.org", common_name="ct1").options)
    titles_of = titles_by_certificate({"DNS:ct1.example.org": "CT1"})
    async with serve(ssl=tls, certificate_titles=titles_of) as server:
        address = f"ANY@{LOOPBACK}:{server.port}"
        async with associate(address, [verification()], aet="CT1", ssl=client) as association:
            assert (await CEchoScu(association).echo()).is_success
        with pytest.raises(AssociationRejected) as rejected:
            async with associate(address, [verification()], aet="MR1", ssl=client):
                raise AssertionError
    # PS3.8 Table 9-21: rejected-permanent, by the service user, calling AE title not recognized.
    assert (rejected.value.result, rejected.value.source, rejected.value.reason) == (1, 1, 3)
    (line,) = [text for text in caplog.messages if "may call as" in text]
    assert line.startswith(f"MR1 -> ANY ({LOOPBACK}:")
    assert "CN=ct1" in line
    assert line.endswith("may call as CT1 only (result 1, source 1, reason 3)")


async def test_who_shows_no_certificate_is_rejected_where_titles_go_by_certificate(authority: Authority) -> None:
    tls = TlsServer(**authority.sign().options, authorities=authority.file, verify="optional")
    async with serve(ssl=tls, certificate_titles=lambda certificate: {"CT1"}) as server:
        with pytest.raises(AssociationRejected):
            async with associate(
                f"ANY@{LOOPBACK}:{server.port}", [verification()], aet="CT1", ssl=TlsClient(authority.file)
            ):
                raise AssertionError


async def test_a_function_may_give_one_title_alone_and_not_all_that_its_letters_contain(authority: Authority) -> None:
    tls = TlsServer(**authority.sign().options, authorities=authority.file)
    client = TlsClient(authority.file, **authority.sign("client").options)
    async with serve(ssl=tls, certificate_titles=lambda _: "CT12") as server:
        peer = f"ANY@{LOOPBACK}:{server.port}"
        async with associate(peer, [verification()], ssl=client, aet="CT12") as association:
            assert (await CEchoScu(association).echo()).is_success
        with pytest.raises(AssociationRejected) as rejection:
            async with associate(peer, [verification()], ssl=client, aet="CT1"):
                raise AssertionError
    assert (rejection.value.source, rejection.value.reason) == (1, 3)


async def test_a_function_that_gives_no_titles_lets_nobody_in_and_the_log_says_whose_fault_it_is(
    authority: Authority, caplog: pytest.LogCaptureFixture
) -> None:
    tls = TlsServer(**authority.sign().options, authorities=authority.file)
    client = TlsClient(authority.file, **authority.sign("client").options)
    async with serve(ssl=tls, certificate_titles=lambda _: None) as server:  # type: ignore[arg-type,return-value]
        with pytest.raises(AssociationRejected):
            async with associate(f"ANY@{LOOPBACK}:{server.port}", [verification()], ssl=client):
                raise AssertionError
    assert "certificate_titles gives AE titles, and not NoneType" in caplog.text


async def test_a_function_that_fails_rejects_for_now_and_the_log_says_where_it_was(
    authority: Authority, caplog: pytest.LogCaptureFixture
) -> None:
    def titles_of(certificate: PeerCertificate) -> list[str]:
        raise LookupError(f"nothing is known of {certificate.subject}")

    tls = TlsServer(**authority.sign().options, authorities=authority.file)
    client = TlsClient(authority.file, **authority.sign("client").options)
    async with serve(ssl=tls, certificate_titles=titles_of) as server:
        with pytest.raises(AssociationRejected) as rejection:
            async with associate(f"ANY@{LOOPBACK}:{server.port}", [verification()], ssl=client):
                raise AssertionError
    assert rejection.value.result == 2
    assert "the handler of its request failed: LookupError at" in caplog.text
