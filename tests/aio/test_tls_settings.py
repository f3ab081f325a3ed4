"""`TlsClient`, `TlsServer` and the profiles: what they come to, and what they refuse."""

from __future__ import annotations

import re
import ssl
import warnings
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from support.certificates import Authority, Identity
from support.files import data_of, write_file
from support.network import LOOPBACK
from support.services import Keeper, serve
from tomowire.aio.connect import associate
from tomowire.aio.listen import listen
from tomowire.aio.tls import TlsClient, TlsServer
from tomowire.aio.tls_context import context_of_client
from tomowire.aio.tls_profiles import TlsProfile
from tomowire.aio.tls_titles import titles_by_certificate
from tomowire.errors import TlsFailed, UsageError
from tomowire.services.peer import Peer
from tomowire.services.verification import CEchoScu, verification

pytestmark = pytest.mark.usefixtures("no_leaks")


async def echo(port: int, tls: TlsClient | ssl.SSLContext) -> str:
    """C-ECHO over TLS; gives the version."""
    async with associate(f"ANY@{LOOPBACK}:{port}", [verification()], ssl=tls) as association:
        assert (await CEchoScu(association).echo()).is_success
        assert association.tls_version is not None
        return association.tls_version


async def test_the_two_values_go_together(authority: Authority) -> None:
    async with serve(ssl=TlsServer(**authority.sign().options)) as server:
        assert await echo(server.port, TlsClient(authority.file)) == "TLSv1.3"


async def test_both_sides_show_a_certificate(authority: Authority) -> None:
    tls = TlsServer(**authority.sign().options, authorities=authority.file)
    async with serve(ssl=tls) as server:
        await echo(server.port, TlsClient(authority.file, **authority.sign("client").options))


async def test_a_certificate_may_be_optional(authority: Authority) -> None:
    tls = TlsServer(**authority.sign().options, authorities=authority.file, verify="optional")
    async with serve(ssl=tls) as server:
        await echo(server.port, TlsClient(authority.file))
        await echo(server.port, TlsClient(authority.file, **authority.sign("client").options))


async def test_the_name_to_look_for_can_be_another_than_the_host(authority: Authority) -> None:
    async with serve(ssl=TlsServer(**authority.sign("archive.example.org").options)) as server:
        await echo(server.port, TlsClient(authority.file, server_hostname="archive.example.org"))


async def test_any_name_will_do_if_the_host_is_not_checked(authority: Authority, stranger: Authority) -> None:
    async with serve(ssl=TlsServer(**authority.sign("archive.example.org").options)) as server:
        await echo(server.port, TlsClient(authority.file, check_hostname=False))
        with pytest.raises(TlsFailed):
            await echo(server.port, TlsClient(stranger.file, check_hostname=False))


async def test_any_certificate_will_do_if_none_is_verified(stranger: Authority) -> None:
    async with serve(ssl=TlsServer(**stranger.sign("somebody").options)) as server:
        await echo(server.port, TlsClient(verify=False))


async def test_a_peers_own_certificate_can_be_trusted_without_its_authority(authority: Authority) -> None:
    mine, other = authority.sign(), authority.sign()
    async with serve(ssl=TlsServer(**mine.options)) as server:
        await echo(server.port, TlsClient(mine.certificate))
        with pytest.raises(TlsFailed):
            await echo(server.port, TlsClient(other.certificate))


async def test_several_authorities_are_trusted(authority: Authority, stranger: Authority) -> None:
    client = TlsClient((authority.file, stranger.file))
    for signer in (authority, stranger):
        async with serve(ssl=TlsServer(**signer.sign().options)) as server:
            await echo(server.port, client)


async def test_certificates_in_between_are_sent_along(authority: Authority) -> None:
    async with serve(ssl=TlsServer(**authority.child("branch").sign().options)) as server:
        await echo(server.port, TlsClient(authority.file))


async def test_certificate_and_key_may_lie_in_one_file(authority: Authority, tmp_path: Path) -> None:
    identity = authority.sign()
    both = tmp_path / "both.pem"
    both.write_bytes(identity.key.read_bytes() + identity.certificate.read_bytes())
    async with serve(ssl=TlsServer(both)) as server:
        await echo(server.port, TlsClient(authority.file))


def locked(identity: Identity, path: Path, password: bytes) -> Path:
    """The key of `identity`, encrypted."""
    key = serialization.load_pem_private_key(identity.key.read_bytes(), None)
    protection = serialization.BestAvailableEncryption(password)
    path.write_bytes(key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, protection))
    return path


async def test_a_password_opens_the_key(authority: Authority, tmp_path: Path) -> None:
    identity = authority.sign()
    key = locked(identity, tmp_path / "key.pem", b"secret")
    for password in ("secret", b"secret", lambda: "secret"):
        async with serve(ssl=TlsServer(identity.certificate, key, password=password)) as server:
            await echo(server.port, TlsClient(authority.file))


async def test_a_key_that_is_not_opened_is_refused_and_nobody_is_asked(authority: Authority, tmp_path: Path) -> None:
    identity = authority.sign()
    key = locked(identity, tmp_path / "key.pem", b"secret")
    with pytest.raises(UsageError, match="the private key is encrypted, and no password is given"):
        await serve(ssl=TlsServer(identity.certificate, key)).start()
    with pytest.raises(UsageError, match="and the password that opens it, is needed"):
        await serve(ssl=TlsServer(identity.certificate, key, password="wrong")).start()


def test_a_password_is_not_shown() -> None:
    assert "secret" not in repr(TlsServer("certificate.pem", password="secret"))
    assert repr(TlsClient(password="secret")).startswith(
        "TlsClient(authorities=None, certificate=None, key=None, password='...',"
    )


# What cannot be used


async def refusal(tls: TlsServer | TlsClient) -> str:
    use = serve(ssl=tls).start() if isinstance(tls, TlsServer) else echo(1, tls)
    with pytest.raises(UsageError) as error:
        await use
    return str(error.value)


async def test_files_that_cannot_be_used_are_named(authority: Authority, tmp_path: Path) -> None:
    mine, other = authority.sign(), authority.sign()
    missing, text = tmp_path / "missing.pem", tmp_path / "text.pem"
    text.write_text("hello")
    assert f"{missing}: No such file" in await refusal(TlsServer(missing))
    assert f"{missing}: No such file" in await refusal(TlsServer(mine.certificate, missing))
    assert f"{missing}: No such file" in await refusal(TlsClient(missing))
    assert await refusal(TlsServer(mine.certificate, other.key)) == (
        f"the certificate {mine.certificate} with the key {other.key} cannot be used: the key is not that of the certificate"
    )
    assert "PEM with a certificate and its private key is needed" in await refusal(TlsServer(text))
    assert "there is no certificate in it" in await refusal(TlsClient(text))


async def test_settings_that_contradict_each_other_are_refused(authority: Authority) -> None:
    mine = authority.sign()
    assert "no authorities are named" in await refusal(TlsServer(**mine.options, verify="require"))
    assert "none, optional, require" in await refusal(TlsServer(**mine.options, verify="always"))  # type: ignore[arg-type]
    assert "is of no use without its certificate" in await refusal(TlsClient(key=mine.key))
    with pytest.raises(UsageError, match="certificate_titles needs TLS"):
        listen(LOOPBACK, 0, services=[], certificate_titles=titles_by_certificate({}))


async def test_one_side_cannot_have_the_value_of_the_other(authority: Authority) -> None:
    mine = authority.sign()
    with pytest.raises(UsageError, match="who calls needs a TlsClient or an SSLContext for TLS, and not a TlsServer"):
        await echo(1, TlsServer(**mine.options))  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="who listens needs a TlsServer or an SSLContext for TLS, and not a TlsClient"):
        await serve(ssl=TlsClient(authority.file)).start()


async def test_contexts_of_ones_own_are_taken_as_they_are(authority: Authority) -> None:
    """Also such as Python warns of when they are made."""
    identity = authority.sign()
    with warnings.catch_warnings(action="ignore"):
        mine, theirs = ssl.SSLContext(ssl.PROTOCOL_TLSv1_2), ssl.SSLContext(ssl.PROTOCOL_TLSv1_2)
    theirs.load_cert_chain(identity.certificate, identity.key)
    mine.load_verify_locations(authority.file)
    mine.verify_mode, mine.check_hostname = ssl.CERT_REQUIRED, True
    async with serve(ssl=theirs) as server:
        assert await echo(server.port, mine) == "TLSv1.2"


async def test_a_profile_that_is_none_is_refused_with_the_nearest(authority: Authority) -> None:
    identity = authority.sign()
    assert await refusal(TlsClient(profile="bcp195-rfc8995")) == (
        "'bcp195-rfc8995' is not a TLS profile: did you mean bcp195-rfc8996?"
    )
    assert "there are bcp195, bcp195-nd" in await refusal(TlsServer(**identity.options, profile="?"))


@pytest.mark.parametrize(
    ("tls", "said"),
    [
        (TlsClient(["a.pem", "b.pem"]), r"of several authorities a tuple\), and not \['a.pem', 'b.pem'\]"),  # type: ignore[arg-type]
        (TlsClient(b"a.pem"), "TLS takes the paths of PEM files"),  # type: ignore[arg-type]
        (TlsServer(None), "TLS takes the paths of PEM files .* and not None"),  # type: ignore[arg-type]
        (TlsServer(""), "TLS takes the paths of PEM files"),
        (TlsServer("a.pem", 7), "TLS takes the paths of PEM files .* and not 7"),  # type: ignore[arg-type]
        (TlsClient(profile=None), "None is not a TLS profile"),  # type: ignore[arg-type]
        (TlsClient(server_hostname=7), "7 is no host name"),  # type: ignore[arg-type]
    ],
)
async def test_what_is_no_file_no_profile_and_no_name(tls: TlsClient | TlsServer, said: str) -> None:
    assert re.search(said, await refusal(tls))


# PS3.15 Annex B

ECDHE = {f"ECDHE-{kind}-{cipher}" for kind in ("ECDSA", "RSA") for cipher in ("AES128-GCM-SHA256", "AES256-GCM-SHA384")}
DHE = {"DHE-RSA-AES128-GCM-SHA256", "DHE-RSA-AES256-GCM-SHA384"}
CHACHA20 = {"ECDHE-ECDSA-CHACHA20-POLY1305", "ECDHE-RSA-CHACHA20-POLY1305"}
CCM = {f"ECDHE-ECDSA-AES{bits}-{mode}" for bits in (128, 256) for mode in ("CCM", "CCM8")}
SUITES = {
    "bcp195": ECDHE | DHE | {"AES128-SHA"},
    "bcp195-nd": ECDHE | DHE | CHACHA20,
    "bcp195-ex": ECDHE | DHE,
    "bcp195-rfc8996": ECDHE | CHACHA20,
    "bcp195-rfc8996-modified": ECDHE | CHACHA20 | CCM,
}


def test_the_sections_of_the_profiles_and_those_that_are_retired() -> None:
    assert [(each.rules.section, each.rules.retired) for each in TlsProfile] == [
        ("B.9", True),
        ("B.10", True),
        ("B.11", True),
        ("B.12", False),
        ("B.13", False),
    ]


@pytest.mark.parametrize("profile", SUITES)
async def test_a_requestor_offers_what_its_profile_has(profile: str) -> None:
    context = await context_of_client(TlsClient(profile=profile))
    suites = {each["name"] for each in context.get_ciphers() if each["protocol"] != "TLSv1.3"}
    assert suites == SUITES[profile]
    assert context.minimum_version == ssl.TLSVersion.TLSv1_2
    assert {each["name"] for each in context.get_ciphers()} - suites == {
        "TLS_AES_256_GCM_SHA384",
        "TLS_CHACHA20_POLY1305_SHA256",
        "TLS_AES_128_GCM_SHA256",
    }


@pytest.mark.parametrize("profile", SUITES)
async def test_two_of_the_same_profile_agree_with_tls_1_2_and_1_3(authority: Authority, profile: str) -> None:
    async with serve(ssl=TlsServer(**authority.sign(rsa=True).options, profile=profile)) as server:
        assert await echo(server.port, TlsClient(authority.file, profile=profile)) == "TLSv1.3"
        old = ssl.create_default_context(cafile=authority.file)
        old.maximum_version = ssl.TLSVersion.TLSv1_2
        assert await echo(server.port, old) == "TLSv1.2"


@pytest.mark.parametrize("profile", SUITES)
async def test_no_profile_takes_what_is_older_than_tls_1_2(authority: Authority, profile: str) -> None:
    """RFC 8996."""
    old = ssl.create_default_context(cafile=authority.file)
    old.set_ciphers("ALL:@SECLEVEL=0")
    with warnings.catch_warnings(action="ignore"):
        old.minimum_version = ssl.TLSVersion.TLSv1
        old.maximum_version = ssl.TLSVersion.TLSv1_1
    async with serve(ssl=TlsServer(**authority.sign(rsa=True).options, profile=profile)) as server:
        with pytest.raises(TlsFailed, match="no TLS version in common"):
            await echo(server.port, old)


async def test_only_the_oldest_profile_takes_the_suite_of_the_aes_profile(authority: Authority) -> None:
    old = ssl.create_default_context(cafile=authority.file)
    old.maximum_version = ssl.TLSVersion.TLSv1_2
    old.set_ciphers("AES128-SHA")
    identity = authority.sign(rsa=True)
    for profile in SUITES:
        async with serve(ssl=TlsServer(**identity.options, profile=profile)) as server:
            if profile == "bcp195":
                await echo(server.port, old)
            else:
                with pytest.raises(TlsFailed, match="no cipher suite"):
                    await echo(server.port, old)


@pytest.mark.parametrize(
    ("profile", "suite"), [(profile, suite) for profile in SUITES for suite in sorted(SUITES[profile])]
)
async def test_each_suite_of_a_profile_serves_alone(authority: Authority, profile: str, suite: str) -> None:
    """On both sides: the acceptor agrees to it, and nothing else is agreed on."""
    alone = ssl.create_default_context(cafile=authority.file)
    alone.maximum_version = ssl.TLSVersion.TLSv1_2
    alone.set_ciphers(suite)
    identity = authority.sign(rsa="ECDSA" not in suite)
    async with (
        serve(ssl=TlsServer(**identity.options, profile=profile)) as server,
        associate(f"ANY@{LOOPBACK}:{server.port}", [verification()], ssl=alone) as association,
    ):
        assert (await CEchoScu(association).echo()).is_success
        assert association.connection.tls is not None
        agreed = association.connection.tls.cipher()
        assert agreed is not None
        assert agreed[0] == suite


@pytest.mark.parametrize("profile", SUITES)
async def test_a_curve_of_less_than_256_bits_is_not_used_for_the_key_exchange(
    authority: Authority, profile: str
) -> None:
    weak = ssl.create_default_context(cafile=authority.file)
    weak.maximum_version = ssl.TLSVersion.TLSv1_2
    weak.set_ciphers("ECDHE-RSA-AES128-GCM-SHA256")
    weak.set_ecdh_curve("secp224r1")
    async with serve(ssl=TlsServer(**authority.sign(rsa=True).options, profile=profile)) as server:
        with pytest.raises(TlsFailed, match="no cipher suite or key exchange in common"):
            await echo(server.port, weak)


async def test_a_peer_speaks_tls_in_all_that_it_does(authority: Authority, tmp_path: Path) -> None:
    keeper = Keeper()
    path = write_file(tmp_path, 1)
    async with (
        serve(keeper, ssl=TlsServer(**authority.sign().options)) as server,
        Peer(f"ANY@{LOOPBACK}:{server.port}", ssl=TlsClient(authority.file)) as peer,
    ):
        assert (await peer.echo()).is_success
        assert [sent.is_failure async for sent in peer.send(path.path)] == [False]
    assert keeper.stored["1.2.1"] == data_of(1)


def short_key(folder: Path) -> Identity:
    """A certificate with an RSA key of 1024 bits."""
    key = rsa.generate_private_key(65537, 1024)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "short")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address(LOOPBACK))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    identity = Identity(folder / "short.pem", folder / "short-key.pem")
    identity.certificate.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    plain = serialization.NoEncryption()
    identity.key.write_bytes(key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain))
    return identity


async def test_a_certificate_with_a_short_key_is_taken_from_nobody_and_shown_to_nobody(tmp_path: Path) -> None:
    identity = short_key(tmp_path)
    assert "the certificate's key is too short for the TLS profile" in await refusal(TlsServer(**identity.options))
    lax = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    lax.set_ciphers("ALL:@SECLEVEL=0")
    lax.load_cert_chain(identity.certificate, identity.key)
    async with serve(ssl=lax) as server:
        with pytest.raises(TlsFailed, match="too short for the TLS profile"):
            await echo(server.port, TlsClient(identity.certificate))
