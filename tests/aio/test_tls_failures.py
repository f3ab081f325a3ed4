"""What goes wrong with TLS, said in words on both sides, on both event loops. The peers are real, or play one part by hand."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import logging
import socket
import ssl
from collections.abc import AsyncIterator, Iterator
from ipaddress import ip_address
from pathlib import Path

import pytest

from support.cancelling import cancelled_after_each_step
from support.certificates import Authority, Identity
from support.network import LOOPBACK, closed
from support.raw_peer import RawPeer, associate_rq, raw_acceptor
from support.services import serve
from tomowire.aio.connect import associate
from tomowire.aio.tls import TlsClient, TlsServer
from tomowire.errors import AssociationLost, ConnectFailed, TlsFailed, UsageError
from tomowire.services.verification import CEchoScu, verification
from tomowire.wire.pdu import AAbort, encode_pdu

pytestmark = pytest.mark.usefixtures("no_leaks")

ON_EVERY_LOOP = True

NOW = datetime.datetime.now(datetime.UTC)
DAY = datetime.timedelta(days=1)
CLIENT_HELLO = b"\x16\x03\x01"


class Said(logging.Handler):
    """What the log says, and what comes last."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []
        self._news = asyncio.Event()

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)
        self._news.set()

    @property
    def text(self) -> str:
        return "\n".join(record.getMessage() for record in self.records)

    def of_tls(self) -> list[logging.LogRecord]:
        return [record for record in self.records if record.name == "tomowire.tls"]

    async def one_line(self) -> str:
        """What the server says of a failure: one line that begins with the peer's address."""
        async with asyncio.timeout(10):
            while not self.of_tls():
                await self._news.wait()
                self._news.clear()
        (line,) = self.of_tls()
        address, _, text = line.getMessage().partition(": ")
        assert address.startswith(f"{LOOPBACK}:")
        assert line.levelno == logging.WARNING
        return text


@pytest.fixture(autouse=True)
def said(capsys: pytest.CaptureFixture[str]) -> Iterator[Said]:
    """What the log says. Neither asyncio nor anything else says more, and nothing has a traceback."""
    said = Said()
    root = logging.getLogger()
    level = root.level
    root.addHandler(said)
    root.setLevel(logging.INFO)
    try:
        yield said
    finally:
        root.removeHandler(said)
        root.setLevel(level)
    assert [record for record in said.records if not record.name.startswith("tomowire")] == []
    assert [record for record in said.records if record.exc_info] == []
    assert capsys.readouterr().err == ""


async def refused(port: int, tls: TlsClient | ssl.SSLContext | None, **options: object) -> str:
    """Call, which must fail; gives what is said of it, without the peer's name."""
    with pytest.raises(TlsFailed) as failure:
        async with associate(f"ANY@{LOOPBACK}:{port}", [verification()], ssl=tls, **options):  # type: ignore[arg-type]
            raise AssertionError
    text = str(failure.value)
    assert text.startswith(f"cannot connect to ANY@{LOOPBACK}:{port} with TLS: ")
    return text.partition("with TLS: ")[2]


# The requestor does not take the peer's certificate


async def test_the_peers_certificate_has_expired(authority: Authority, said: Said) -> None:
    expired = authority.sign(not_before=NOW - 3 * DAY, not_after=NOW - DAY)
    async with serve(ssl=TlsServer(**expired.options)) as server:
        why = await refused(server.port, TlsClient(authority.file))
        assert why == "the peer's certificate has expired: its owner has to renew it, or one of the two clocks is wrong"
        assert await said.one_line() == (
            "the caller refuses this side's certificate: it says that it has expired: renew it, or one of the two clocks is wrong"
        )


async def test_the_peers_certificate_is_not_valid_yet(authority: Authority, said: Said) -> None:
    early = authority.sign(not_before=NOW + DAY, not_after=NOW + 3 * DAY)
    async with serve(ssl=TlsServer(**early.options)) as server:
        why = await refused(server.port, TlsClient(authority.file))
        assert "is not valid yet" in why
        assert "clocks is wrong" in why
        await said.one_line()


async def test_the_peers_certificate_is_for_another_host(authority: Authority, said: Said) -> None:
    other = authority.sign("archive.example.org")
    async with serve(ssl=TlsServer(**other.options)) as server:
        why = await refused(server.port, TlsClient(authority.file))
        assert why.startswith(f"the peer's certificate is for another host: it is not valid for {LOOPBACK!r};")
        assert "(server_hostname=)" in why
        assert "refuses this side's certificate" in await said.one_line()


async def test_it_is_not_for_the_name_that_is_looked_for(authority: Authority) -> None:
    async with serve(ssl=TlsServer(**authority.sign("archive.example.org", LOOPBACK).options)) as server:
        why = await refused(server.port, TlsClient(authority.file, server_hostname="other.example.org"))
        assert "it is not valid for 'other.example.org'" in why


async def test_the_peers_certificate_is_signed_by_another_authority(
    authority: Authority, stranger: Authority, said: Said
) -> None:
    async with serve(ssl=TlsServer(**stranger.sign().options)) as server:
        why = await refused(server.port, TlsClient(authority.file))
        assert "is signed by an authority that is not trusted here" in why
        assert "(authorities=)" in why
        assert (
            await said.one_line()
            == "the caller refuses this side's certificate: it does not trust the authority that signed it"
        )


async def test_the_peers_certificate_is_signed_by_itself(authority: Authority, self_signed: Identity) -> None:
    async with serve(ssl=TlsServer(**self_signed.options)) as server:
        why = await refused(server.port, TlsClient(authority.file))
        assert why.startswith("the peer's certificate is signed by itself, and not trusted here;")


async def test_the_system_does_not_know_the_authority(authority: Authority) -> None:
    async with serve(ssl=TlsServer(**authority.sign().options)) as server:
        assert "is not trusted here" in await refused(server.port, TlsClient())


async def test_certificates_in_between_were_not_sent_along(authority: Authority, tmp_path: Path) -> None:
    identity = authority.child("between").sign()
    alone = tmp_path / "alone.pem"
    alone.write_text(
        identity.certificate.read_text().partition("-----END CERTIFICATE-----\n")[0] + "-----END CERTIFICATE-----\n"
    )
    async with serve(ssl=TlsServer(alone, identity.key)) as server:
        assert "certificates between them were not sent along" in await refused(server.port, TlsClient(authority.file))


# The acceptor does not take the requestor's

VERSIONS = [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3]


def client_of(authority: Authority, version: ssl.TLSVersion, identity: Identity | None = None) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=authority.file)
    context.maximum_version = version
    if identity is not None:
        context.load_cert_chain(identity.certificate, identity.key)
    return context


@pytest.mark.parametrize("version", VERSIONS)
async def test_the_acceptor_wants_a_certificate_and_gets_none(
    authority: Authority, said: Said, version: ssl.TLSVersion
) -> None:
    tls = TlsServer(**authority.sign().options, authorities=authority.file)
    async with serve(ssl=tls) as server:
        why = await refused(server.port, client_of(authority, version))
        assert "the peer wants a certificate of this side, and was shown none (certificate=)" in why
        assert await said.one_line() == "the caller has shown no certificate, and one is required"
        assert server.associations == []


@pytest.mark.parametrize("version", VERSIONS)
async def test_the_acceptor_does_not_trust_the_requestors_authority(
    authority: Authority, stranger: Authority, said: Said, version: ssl.TLSVersion
) -> None:
    tls = TlsServer(**authority.sign().options, authorities=authority.file)
    async with serve(ssl=tls) as server:
        why = await refused(server.port, client_of(authority, version, stranger.sign("client")))
        assert why == "the peer refuses this side's certificate: it does not trust the authority that signed it"
        line = await said.one_line()
        assert line.startswith("the caller's certificate is signed by an authority that is not trusted here")


@pytest.mark.parametrize("version", VERSIONS)
async def test_the_requestors_certificate_has_expired(
    authority: Authority, said: Said, version: ssl.TLSVersion
) -> None:
    expired = authority.sign("client", not_before=NOW - 3 * DAY, not_after=NOW - DAY)
    async with serve(ssl=TlsServer(**authority.sign().options, authorities=authority.file)) as server:
        why = await refused(server.port, client_of(authority, version, expired))
        assert why.startswith("the peer refuses this side's certificate: it says that it has expired")
        assert (await said.one_line()).startswith("the caller's certificate has expired")


async def test_an_optional_certificate_must_be_a_trusted_one_all_the_same(
    authority: Authority, stranger: Authority
) -> None:
    tls = TlsServer(**authority.sign().options, authorities=authority.file, verify="optional")
    async with serve(ssl=tls) as server:
        why = await refused(server.port, TlsClient(authority.file, **stranger.sign("client").options))
        assert "does not trust the authority" in why


# Nothing in common


async def test_no_version_in_common(authority: Authority, said: Said) -> None:
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    identity = authority.sign()
    tls.load_cert_chain(identity.certificate, identity.key)
    tls.minimum_version = ssl.TLSVersion.TLSv1_3
    async with serve(ssl=tls) as server:
        why = await refused(server.port, client_of(authority, ssl.TLSVersion.TLSv1_2))
        assert why == "the two sides have no TLS version in common: see the TLS profiles of both"
        assert await said.one_line() == "the two sides have no TLS version in common: see the TLS profiles of both"


async def test_no_cipher_in_common(authority: Authority, said: Said) -> None:
    context = client_of(authority, ssl.TLSVersion.TLSv1_2)
    context.set_ciphers("AES256-SHA256")
    async with serve(ssl=TlsServer(**authority.sign(rsa=True).options)) as server:
        why = await refused(server.port, context)
        assert why.startswith("the two sides have no cipher suite or key exchange in common")
        assert await said.one_line() == "the two sides have no cipher suite in common: see the TLS profiles of both"


# No TLS at all


async def test_the_peer_speaks_dicom_without_tls(authority: Authority) -> None:
    async with serve() as server:
        why = await refused(server.port, TlsClient(authority.file))
        assert why == "the other side speaks DICOM without TLS on this connection"


async def test_the_peer_closes_when_it_is_offered_tls(authority: Authority) -> None:
    async def script(peer: RawPeer) -> None:
        await peer.read(3)

    async with raw_acceptor(script) as port:
        why = await refused(port, TlsClient(authority.file))
        assert why == "the peer closed the connection when it was offered TLS; does it speak TLS on this port?"


async def test_the_peer_resets_the_connection_when_it_is_offered_tls(authority: Authority) -> None:
    async def script(peer: RawPeer) -> None:
        await peer.read(3)
        peer.reset()

    async with raw_acceptor(script) as port:
        assert "does it speak TLS on this port?" in await refused(port, TlsClient(authority.file))


async def test_the_peer_speaks_http(authority: Authority) -> None:
    async def script(peer: RawPeer) -> None:
        await peer.read(3)
        await peer.send(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        await peer.read_until_closed()

    async with raw_acceptor(script) as port:
        assert await refused(port, TlsClient(authority.file)) == "the other side does not speak TLS, but HTTP"


async def test_the_peer_says_nothing(authority: Authority) -> None:
    async def script(peer: RawPeer) -> None:
        assert await peer.read(3) == CLIENT_HELLO
        await peer.read_until_closed()

    async with raw_acceptor(script) as port:
        why = await refused(port, TlsClient(authority.file), connect_timeout=1.0)
        assert why == "no answer within 1 s to the TLS handshake; does it speak TLS on this port?"


async def test_the_peer_stops_in_the_middle_of_the_handshake(authority: Authority) -> None:
    """Through a relay that lets only the beginning of the answer pass."""
    async with serve(ssl=TlsServer(**authority.sign().options), artim_timeout=20.0) as server:

        async def script(peer: RawPeer) -> None:
            async with await RawPeer.connect(server.port) as behind:
                await behind.send(await peer.read(5) + peer._buffer)
                await peer.send(await behind.read(20))
                await peer.read_until_closed()

        async with raw_acceptor(script) as port:
            assert "no answer within 1 s to the TLS handshake" in await refused(
                port, TlsClient(authority.file), connect_timeout=1.0
            )


@pytest.mark.parametrize("contexts", [1, 128])
async def test_a_caller_speaks_dicom_without_tls(authority: Authority, said: Said, contexts: int) -> None:
    async with serve(ssl=TlsServer(**authority.sign().options)) as server:
        with pytest.raises(TlsFailed, match=r"the other side speaks TLS, and this connection is without \(ssl=\)$"):
            async with associate(f"ANY@{LOOPBACK}:{server.port}", [verification()] * contexts):
                raise AssertionError
        assert await said.one_line() == "the other side speaks DICOM without TLS on this connection"


async def test_the_peer_closes_when_it_is_offered_dicom() -> None:
    """As OpenSSL does where it expects TLS: it sends no alert."""

    async def script(peer: RawPeer) -> None:
        await peer.read(6)

    async with raw_acceptor(script) as port:
        with pytest.raises(AssociationLost, match=r"instead of answering.*is it a DICOM server, and one without TLS\?"):
            async with associate(f"ANY@{LOOPBACK}:{port}", [verification()]):
                raise AssertionError


async def test_a_caller_speaks_tls_where_there_is_none(authority: Authority, said: Said) -> None:
    async with serve() as server, await RawPeer.connect(server.port) as peer:
        await peer.send(CLIENT_HELLO + bytes(200))
        assert isinstance(await peer.read_pdu(), AAbort)
    assert "PDU type 16H is not defined: the other side speaks TLS, and this connection is without" in said.text


async def test_the_peer_answers_with_tls_where_there_is_none() -> None:
    async def script(peer: RawPeer) -> None:
        await peer.read(6)
        await peer.send(b"\x15\x03\x03\x00\x02\x02\x0a")
        await peer.read_until_closed()

    async with raw_acceptor(script) as port:
        with pytest.raises(TlsFailed, match=r"the other side speaks TLS, and this connection is without \(ssl=\)$"):
            async with associate(f"ANY@{LOOPBACK}:{port}", [verification()]):
                raise AssertionError


async def test_nobody_is_there(authority: Authority, free_port: int) -> None:
    with pytest.raises(ConnectFailed, match="refused; nothing listens there") as failure:
        async with associate(f"ANY@{LOOPBACK}:{free_port}", [verification()], ssl=TlsClient(authority.file)):
            raise AssertionError
    assert not isinstance(failure.value, TlsFailed)


async def test_the_acceptor_closes_without_a_word_after_the_handshake(authority: Authority) -> None:
    """As Python's own servers do in TLS 1.3 with a certificate that they do not take: they send no alert."""
    identity = authority.sign()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(identity.certificate, identity.key)
    server = await asyncio.start_server(lambda _, writer: writer.close(), LOOPBACK, 0, ssl=context)
    async with server:
        port = server.sockets[0].getsockname()[1]
        with pytest.raises(AssociationLost, match=r"and does it take this side's certificate\?"):
            async with associate(f"ANY@{LOOPBACK}:{port}", [verification()], ssl=TlsClient(authority.file)):
                raise AssertionError


@pytest.mark.parametrize("name", ["", ".example.org", "x" * 70])
async def test_a_name_that_is_none(authority: Authority, name: str) -> None:
    with pytest.raises(UsageError, match="is no host name that a certificate can be for"):
        async with associate(
            f"ANY@{LOOPBACK}:1", [verification()], ssl=TlsClient(authority.file, server_hostname=name)
        ):
            raise AssertionError


# The acceptor goes on


async def test_a_caller_that_connects_and_goes_is_worth_a_word_at_most(authority: Authority, said: Said) -> None:
    async with serve(ssl=TlsServer(**authority.sign().options)) as server:
        (await RawPeer.connect(server.port)).close()
        async with associate(
            f"ANY@{LOOPBACK}:{server.port}", [verification()], ssl=TlsClient(authority.file)
        ) as association:
            assert (await CEchoScu(association).echo()).is_success
    (line,) = said.of_tls()
    assert (line.levelno, line.getMessage().partition(": ")[2]) == (
        logging.INFO,
        "the connection was closed before a word",
    )


@pytest.mark.parametrize(
    "garbage",
    [
        b"\x16\x03\x01\x00\x05hello",
        b"\x80\x2e\x01\x03\x01\x00" + bytes(64),
        b"\x17\x03\x03\xff\xff" + bytes(100),
        bytes(64),
    ],
)
async def test_garbage_is_worth_one_line(authority: Authority, said: Said, garbage: bytes) -> None:
    tls = TlsServer(**authority.sign().options)
    async with serve(ssl=tls) as server, await RawPeer.connect(server.port) as peer:
        await peer.send(garbage)
        await peer.read_until_closed()
        assert "TLS" in await said.one_line()


async def test_who_says_nothing_is_dropped_in_time_and_with_a_word(authority: Authority, said: Said) -> None:
    tls = TlsServer(**authority.sign().options)
    async with serve(ssl=tls, artim_timeout=0.2) as server, await RawPeer.connect(server.port) as peer:
        assert await peer.read_until_closed() == b""
    assert "no TLS handshake within 0.2 s" in said.text


@pytest.mark.parametrize(("most", "options"), [(2, {}), (128, {"maximum_waiting_per_address": 2})])
async def test_of_too_many_without_a_handshake_the_oldest_is_dropped(
    authority: Authority, said: Said, monkeypatch: pytest.MonkeyPatch, most: int, options: dict[str, int]
) -> None:
    monkeypatch.setattr("tomowire.aio.tls_acceptor._MOST_HANDSHAKES", most)
    tls = TlsServer(**authority.sign().options)
    async with serve(ssl=tls, artim_timeout=20.0, **options) as server, contextlib.AsyncExitStack() as stack:
        first, *_ = [await stack.enter_async_context(await RawPeer.connect(server.port)) for _ in range(3)]
        assert await first.read_until_closed() == b""
    assert "too many connections without a TLS handshake" in said.text


async def test_the_end_of_the_server_does_not_wait_for_handshakes(authority: Authority) -> None:
    async with serve(ssl=TlsServer(**authority.sign().options), artim_timeout=60.0) as server:
        peer = await RawPeer.connect(server.port)
        await peer.send(CLIENT_HELLO)
    async with peer:
        assert await peer.read_until_closed() == b""


# Cancellation


@pytest.fixture
async def silent() -> AsyncIterator[tuple[int, asyncio.Event]]:
    """The port of a peer that answers nothing, and an event for when it has been offered TLS."""
    offered = asyncio.Event()

    async def script(peer: RawPeer) -> None:
        await peer.read(3)
        offered.set()
        await peer.read_until_closed()

    async with raw_acceptor(script) as port:
        yield port, offered


async def test_a_handshake_that_is_cancelled_leaves_nothing(
    authority: Authority, silent: tuple[int, asyncio.Event]
) -> None:
    port, offered = silent

    async def call() -> None:
        async with associate(f"ANY@{LOOPBACK}:{port}", [verification()], ssl=TlsClient(authority.file)):
            raise AssertionError

    calling = asyncio.create_task(call())
    await offered.wait()
    calling.cancel()
    with pytest.raises(asyncio.CancelledError):
        await calling


async def test_a_cancelled_handshake_closes_the_socket_that_was_given(
    authority: Authority, silent: tuple[int, asyncio.Event]
) -> None:
    port, offered = silent
    sock = socket.create_connection((LOOPBACK, port))

    async def call() -> None:
        async with associate("ANY@peer:104", [verification()], ssl=TlsClient(authority.file), sock=sock):
            raise AssertionError

    calling = asyncio.create_task(call())
    await offered.wait()
    calling.cancel()
    with pytest.raises(asyncio.CancelledError):
        await calling
    await closed(sock)


async def test_to_be_cancelled_at_any_moment_leaves_nothing(authority: Authority) -> None:
    """On neither side: both live in this event loop."""
    client = TlsClient(authority.file)
    async with serve(ssl=TlsServer(**authority.sign().options)) as server:

        async def call() -> None:
            async with associate(f"ANY@{LOOPBACK}:{server.port}", [verification()], ssl=client) as association:
                assert (await CEchoScu(association).echo()).is_success

        runs = [steps async for steps in cancelled_after_each_step(call, growth=1.0)]
    assert len(runs) > 15


async def test_a_request_that_comes_with_the_end_of_the_handshake_is_not_lost(authority: Authority) -> None:
    """A requestor need not wait after its last word of the handshake."""
    outgoing, incoming = ssl.MemoryBIO(), ssl.MemoryBIO()
    context = ssl.create_default_context(cafile=authority.file)
    tls = context.wrap_bio(incoming, outgoing, server_hostname=LOOPBACK)
    async with (
        serve(ssl=TlsServer(**authority.sign().options)) as server,
        await RawPeer.connect(server.port) as peer,
        asyncio.timeout(10),
    ):
        with pytest.raises(ssl.SSLWantReadError):
            tls.do_handshake()
        await peer.send(outgoing.read())
        loop = asyncio.get_running_loop()
        while True:
            incoming.write(await loop.sock_recv(peer.socket, 1 << 16))
            try:
                tls.do_handshake()
                break
            except ssl.SSLWantReadError:
                continue
        tls.write(encode_pdu(associate_rq()))
        await peer.send(outgoing.read())  # the end of the handshake, and the request: one segment
        while True:
            incoming.write(await loop.sock_recv(peer.socket, 1 << 16))
            try:
                answer = tls.read(6)
                break
            except ssl.SSLWantReadError:
                continue
        assert answer[:1] == b"\x02"  # A-ASSOCIATE-AC


async def test_who_goes_with_the_end_of_the_handshake_is_forgotten(authority: Authority) -> None:
    context = ssl.create_default_context(cafile=authority.file)
    async with serve(ssl=TlsServer(**authority.sign().options)) as server:
        _, writer = await asyncio.open_connection(LOOPBACK, server.port, ssl=context)
        writer.transport.abort()
        address = f"ANY@{LOOPBACK}:{server.port}"
        async with associate(address, [verification()], ssl=TlsClient(authority.file)) as association:
            assert (await CEchoScu(association).echo()).is_success
            assert len(server.associations) == 1


@pytest.fixture(scope="session")
def self_signed(tmp_path_factory: pytest.TempPathFactory) -> Identity:
    """A certificate that is its own authority's."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "itself")])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(NOW - DAY)
        .not_valid_after(NOW + 2 * DAY)
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address(LOOPBACK))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    folder = tmp_path_factory.mktemp("self-signed")
    identity = Identity(folder / "certificate.pem", folder / "key.pem")
    identity.certificate.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    identity.key.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return identity
