"""The HTTP port: it opens, answers, and ends without leaving anything behind (`leaves_nothing` looks at each of these tests)."""

from __future__ import annotations

import asyncio
import ssl
from contextlib import AsyncExitStack
from pathlib import Path

import httpx2
import pytest

from support.certificates import Authority
from support.network import LOOPBACK, free_port
from support.web import web
from tomowire.errors import ConnectFailed, UsageError
from tomowire.server.app import Archive
from tomowire.server.settings import HttpSettings, Settings
from tomowire.web.server import HttpServer


async def test_it_is_there_as_long_as_its_block(tmp_path: Path) -> None:
    async with web(tmp_path, filled=False) as running:
        assert running.http.url == f"http://127.0.0.1:{running.http.port}"
        assert (await running.nobody.get("/healthz")).json() == {"status": "alive"}
        url = running.http.url
    with pytest.raises(httpx2.ConnectError):
        async with httpx2.AsyncClient() as client:
            await client.get(f"{url}/healthz")


async def test_a_port_that_is_taken(tmp_path: Path) -> None:
    async with web(tmp_path, filled=False) as running:
        with pytest.raises(ConnectFailed, match=f"port {running.http.port}.*--http-port"):
            async with HttpServer(running.archive, HttpSettings(port=running.http.port)):
                pass


async def test_ready_says_what_is_wrong(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with web(tmp_path, filled=False) as running:
        answer = await running.nobody.get("/readyz")
        assert (answer.status_code, answer.json()["status"]) == (200, "ready")
        monkeypatch.setattr("tomowire.web.health.FRESH", 0.0)
        monkeypatch.setattr("tomowire.web.health.is_full", lambda root: True)
        answer = await running.nobody.get("/readyz")
        assert answer.status_code == 503
        assert answer.json()["checks"] == {"index": "ok", "storage": "the disk is full", "dicom": "ok"}
        monkeypatch.setattr("tomowire.web.health.is_full", lambda root: False)
        await running.archive.server.close(grace=0)
        answer = await running.nobody.get("/readyz")
        assert (answer.status_code, answer.json()["checks"]["dicom"]) == (503, "the DICOM port is closed")
        assert (await running.nobody.get("/healthz")).status_code == 200


async def test_tls(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    identity = authority.sign()
    async with web(tmp_path / "data", filled=False, users=False, **identity.options) as running:
        context = ssl.create_default_context(cafile=authority.file)
        async with httpx2.AsyncClient(verify=context) as client:
            assert running.http.url.startswith("https://")
            answer = await client.get(f"{running.http.url}/api/status", headers={"Origin": running.http.url})
            assert answer.status_code == 200
        # Who does not speak TLS, or nothing at all, does not keep it from ending.
        reader, writer = await asyncio.open_connection(LOOPBACK, running.http.port)
        writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        assert not (await reader.read()).startswith(b"HTTP")
        writer.close()
        await writer.wait_closed()
        _, silent = await asyncio.open_connection(LOOPBACK, running.http.port)
    silent.close()


async def test_a_new_certificate_without_a_restart(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    identity = authority.sign()
    async with web(tmp_path / "data", filled=False, users=False, **identity.options) as running:
        other = authority.sign()
        identity.replace_by(other)
        await running.http.reload_tls()
        context = ssl.create_default_context(cafile=authority.file)
        _, writer = await asyncio.open_connection(LOOPBACK, running.http.port, ssl=context)
        assert writer.get_extra_info("ssl_object").getpeercert(binary_form=True) == other.der
        writer.close()
        await writer.wait_closed()
        identity.key.write_text("nothing")
        with pytest.raises(UsageError):
            await running.http.reload_tls()


@pytest.mark.parametrize("missing", ["certificate", "key"])
async def test_certificates_that_cannot_be_used(tmp_path: Path, missing: str) -> None:
    identity = Authority(tmp_path).sign()
    options = {**identity.options, missing: None if missing == "certificate" else tmp_path / "none.pem"}
    async with Archive(Settings(tmp_path / "data", port=0)) as archive:
        with pytest.raises(UsageError):
            async with HttpServer(archive, HttpSettings(port=0, **options)):
                pass


async def test_it_ends_in_the_middle_of_everything(tmp_path: Path) -> None:
    """Connections that say nothing, half a header, half a body, a stream that goes on for ever, an answer that nobody takes."""
    async with AsyncExitStack() as stack:
        running = await stack.enter_async_context(web(tmp_path, users=False))
        host = f"Host: 127.0.0.1:{running.http.port}\r\n".encode()
        started = [
            b"",
            b"GET /api/status HTTP/1.1\r\nHost:",
            b"POST /api/users HTTP/1.1\r\n%sContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{" % host,
            b"GET /api/logs/stream HTTP/1.1\r\n%s\r\n" % host,
            b"GET /api/logs/stream HTTP/1.1\r\n%s\r\n" % host,
        ]
        writers = []
        for data in started:
            reader, writer = await asyncio.open_connection(LOOPBACK, running.http.port)
            writer.write(data)
            writers.append(writer)
            if b"stream" in data:
                assert b"200 OK" in await reader.readuntil(b"\r\n\r\n")
        loop = asyncio.get_running_loop()
        began = loop.time()
        await stack.aclose()
        assert loop.time() - began < 8
        for writer in writers:
            writer.close()


async def test_it_opens_after_the_dicom_port_and_takes_no_part_in_it(tmp_path: Path) -> None:
    """Nothing of it is imported by an archive without HTTP."""
    code = (
        "import asyncio, sys; from pathlib import Path; from tomowire.server.app import Archive, Settings\n"
        "async def main():\n"
        f"    async with Archive(Settings(Path({str(tmp_path / 'data')!r}), port=0)):\n"
        "        print(sorted(name for name in sys.modules if name.split('.')[0] in"
        " ('fastapi', 'starlette', 'uvicorn', 'pydantic', 'prometheus_client')))\n"
        "asyncio.run(main())"
    )
    import sys

    from support.subprocesses import python_environment

    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", code, env=python_environment(), stdout=asyncio.subprocess.PIPE
    )
    out, _ = await process.communicate()
    assert out == b"[]\n"


async def test_a_port_in_use_leaves_the_archive_as_it_was(tmp_path: Path) -> None:
    port = free_port()
    server = await asyncio.start_server(lambda reader, writer: None, LOOPBACK, port)
    async with server, Archive(Settings(tmp_path, port=0)) as archive:
        with pytest.raises(ConnectFailed):
            async with HttpServer(archive, HttpSettings(port=port)):
                pass
        assert archive.server.is_listening
