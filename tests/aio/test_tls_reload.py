"""New certificates without a new start."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from support.certificates import Authority, Identity
from support.network import LOOPBACK
from support.services import serve
from tomowire.aio.association import Association
from tomowire.aio.connect import associate
from tomowire.aio.tls import TlsClient, TlsServer
from tomowire.errors import TlsFailed, UsageError
from tomowire.services.verification import CEchoScu, verification

pytestmark = pytest.mark.usefixtures("no_leaks")


def call(port: int, tls: TlsClient):  # type: ignore[no-untyped-def]  # a context manager
    return associate(f"ANY@{LOOPBACK}:{port}", [verification()], ssl=tls)


def fingerprint(association: Association) -> str:
    assert association.peer_certificate is not None
    return association.peer_certificate.fingerprint


async def shown_by(port: int, tls: TlsClient) -> str:
    """The fingerprint of the certificate that the acceptor shows now."""
    async with call(port, tls) as association:
        return fingerprint(association)


async def test_who_connects_after_the_reload_sees_the_new_certificate_and_who_was_there_goes_on(
    authority: Authority,
) -> None:
    identity = authority.sign()
    client = TlsClient(authority.file)
    async with serve(ssl=TlsServer(**identity.options)) as server, call(server.port, client) as old:
        before = fingerprint(old)
        identity.replace_by(authority.sign())
        assert await shown_by(server.port, client) == before  # not yet
        await server.reload_tls()
        assert await shown_by(server.port, client) != before
        assert (await CEchoScu(old).echo()).is_success
        assert fingerprint(old) == before


async def test_what_changed_is_told_in_words_and_no_word_of_the_key(
    authority: Authority, stranger: Authority, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "tomowire.tls")
    first, second = authority.sign("first"), stranger.sign("second")
    async with serve(ssl=TlsServer(**first.options)) as server:
        await server.reload_tls()
        other = TlsServer(**second.options, authorities=stranger.file, verify="optional", profile="bcp195-ex")
        await server.reload_tls(other)
        await server.reload_tls(other)
    texts = [each.getMessage() for each in caplog.records if "read again" in each.getMessage()]
    plain = "TLS certificates have been read again, from the same files"
    told = (
        f"TLS certificates have been read again; certificate is {second.certificate} now; key is in another file; "
        f"authorities is {stranger.file} now; callers' certificates are optional now; profile is bcp195-ex now"
    )
    assert texts == [plain, told, plain]


async def test_who_is_trusted_changes_with_the_reload(
    authority: Authority, stranger: Authority, tmp_path: Path
) -> None:
    trusted = tmp_path / "trusted.pem"
    trusted.write_bytes(authority.file.read_bytes())
    first = TlsClient(authority.file, **authority.sign("first").options)
    second = TlsClient(authority.file, **stranger.sign("second").options)
    async with (
        serve(ssl=TlsServer(**authority.sign().options, authorities=trusted)) as server,
        call(server.port, first) as old,
    ):
        with pytest.raises(TlsFailed):
            await shown_by(server.port, second)
        trusted.write_bytes(stranger.file.read_bytes())
        await server.reload_tls()
        await shown_by(server.port, second)
        with pytest.raises(TlsFailed):  # no longer
            await shown_by(server.port, first)
        assert (await CEchoScu(old).echo()).is_success


async def test_a_broken_certificate_is_refused_and_the_one_of_before_remains(authority: Authority) -> None:
    identity = authority.sign()
    client = TlsClient(authority.file)
    async with serve(ssl=TlsServer(**identity.options)) as server:
        before = await shown_by(server.port, client)
        identity.certificate.write_text("hello")
        with pytest.raises(UsageError, match=str(identity.certificate)):
            await server.reload_tls()
        assert await shown_by(server.port, client) == before


async def test_there_is_something_to_reload_only_with_a_tls_server(authority: Authority) -> None:
    import ssl

    identity = authority.sign()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(identity.certificate, identity.key)
    async with serve(ssl=context) as server:
        with pytest.raises(UsageError, match="give `listen` a TlsServer"):
            await server.reload_tls()
    async with serve() as server:
        with pytest.raises(UsageError, match="does not use TLS"):
            await server.reload_tls()


# The requestor


class Seen:
    """The fingerprints of the callers' certificates, as the acceptor sees them."""

    def __init__(self) -> None:
        self.fingerprints: list[str] = []

    def end(self, association: Association) -> None:
        if association.peer_certificate is not None:
            self.fingerprints.append(association.peer_certificate.fingerprint)


async def test_a_requestor_shows_the_certificate_that_is_there_when_it_calls(authority: Authority) -> None:
    identity = authority.sign("client")
    client = TlsClient(authority.file, **identity.options)
    seen = Seen()
    async with serve(
        ssl=TlsServer(**authority.sign().options, authorities=authority.file), on_ended=seen.end
    ) as server:
        await shown_by(server.port, client)
        await shown_by(server.port, client)
        identity.replace_by(authority.sign("client"))
        await shown_by(server.port, client)
    first, again, new = seen.fingerprints
    assert first == again != new


async def test_a_requestor_trusts_whom_the_file_names_when_it_calls(
    authority: Authority, stranger: Authority, tmp_path: Path
) -> None:
    trusted = tmp_path / "trusted.pem"
    trusted.write_bytes(authority.file.read_bytes())
    async with serve(ssl=TlsServer(**authority.sign().options)) as server:
        await shown_by(server.port, TlsClient(trusted))
        trusted.write_bytes(stranger.file.read_bytes() + b"\n")
        with pytest.raises(TlsFailed):
            await shown_by(server.port, TlsClient(trusted))


async def test_half_a_change_leaves_a_requestor_with_what_it_had(
    authority: Authority, caplog: pytest.LogCaptureFixture
) -> None:
    """Certificate and key are two files."""
    identity, new = authority.sign("client"), authority.sign("client")
    client = TlsClient(authority.file, **identity.options)
    seen = Seen()
    async with serve(
        ssl=TlsServer(**authority.sign().options, authorities=authority.file), on_ended=seen.end
    ) as server:
        await shown_by(server.port, client)
        key = identity.key.read_bytes()
        identity.replace_by(new)
        identity.key.write_bytes(key)
        for _ in range(2):
            await shown_by(server.port, client)
        (line,) = [record for record in caplog.records if record.name == "tomowire.tls"]  # said once
        assert line.levelno == logging.WARNING
        assert "the key is not that of the certificate" in line.getMessage()
        identity.replace_by(new)
        await shown_by(server.port, client)
    first, half, again, last = seen.fingerprints
    assert first == half == again != last


async def test_a_requestor_that_never_had_a_usable_certificate_says_so(authority: Authority, tmp_path: Path) -> None:
    mine = Identity(tmp_path / "missing.pem", tmp_path / "missing-key.pem")
    with pytest.raises(UsageError, match=r"missing\.pem: No such file"):
        await shown_by(1, TlsClient(authority.file, **mine.options))
