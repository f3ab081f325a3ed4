"""`tomowire serve` with its HTTP port."""

from __future__ import annotations

import json
import re
import sqlite3
import stat
import time
import urllib.error
import urllib.request
from contextlib import closing
from pathlib import Path
from typing import Any

from support.network import LOOPBACK, free_port
from support.programs import run_tomowire, serving


def ask(url: str, method: str = "GET", token: str | None = None) -> Any:
    request = urllib.request.Request(url, method=method)
    if token is not None:
        request.add_header("Authorization", f"Bearer {token}")
    with urllib.request.urlopen(request, timeout=20) as answer:
        return json.loads(answer.read())


def ready(url: str) -> None:
    deadline = time.monotonic() + 30
    while True:
        try:
            ask(f"{url}/readyz")
        except urllib.error.URLError:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        else:
            return


def test_it_says_first_where_it_is_and_then_what_to_try(tmp_path: Path) -> None:
    with serving("serve", "--data-dir", tmp_path / "data", "--http-port", free_port()) as program:
        program.stderr.wait_for("end with Ctrl-C")
        where = [program.stderr.text.index(line) for line in ("  DICOM  ", "  HTTP   ", "try, in another", "end with")]
    assert where == sorted(where)


def test_it_is_ended_over_http(tmp_path: Path) -> None:
    port = free_port()
    with serving("serve", "--data-dir", tmp_path / "data", "--http-port", port) as program:
        url = f"http://{LOOPBACK}:{port}"
        ready(url)
        assert "without TLS" not in program.stderr.text
        assert ask(f"{url}/api/status")["dicom"]["addresses"] == [f"{LOOPBACK}:{program.port}"]
        assert ask(f"{url}/api/shutdown", "POST")["associations"] == 0
        assert program.process.wait(20) == 0
    events = told(tmp_path / "data")
    assert events[-1] == ("application-stopped", "anybody"), "by whom it was"


def told(data: Path) -> list[tuple[str, str]]:
    with closing(sqlite3.connect(data / "index.sqlite")) as index:
        return index.execute("SELECT event, actor FROM audit_events ORDER BY event_key").fetchall()


def test_on_other_addresses_there_is_a_first_administrator(tmp_path: Path) -> None:
    port = free_port()
    with serving("serve", "--data-dir", tmp_path / "data", "--http-bind", "0.0.0.0", "--http-port", port) as program:
        url = f"http://{LOOPBACK}:{port}"
        ready(url)
        program.stderr.wait_for("end with Ctrl-C")
        said = program.stderr.text
        assert "HTTP on 0.0.0.0 is open to the network without TLS: passwords and tokens can be read on the way" in said
        assert said.index("  DICOM  ") < said.index("  HTTP   ") < said.index("end with Ctrl-C")
        file = tmp_path / "data" / "administrator-token"
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        assert ask(f"{url}/api/me", token=file.read_text().strip())["role"] == "administrator"
        try:
            ask(f"{url}/api/me")
        except urllib.error.HTTPError as error:
            assert error.code == 401
            error.close()
        else:
            raise AssertionError("nobody has logged in")
    assert ("configuration-changed", "tomowire") in told(tmp_path / "data"), "that there is one now"


def test_an_http_port_that_somebody_has_asked_for_and_cannot_have(tmp_path: Path) -> None:
    with serving("serve", "--data-dir", tmp_path / "one", "--http-port", port := free_port()):
        ready(f"http://{LOOPBACK}:{port}")
        done = run_tomowire("serve", "--data-dir", tmp_path / "two", "--port", "0", "--http-port", port)
        assert done.returncode == 3
        assert re.search(rf"HTTP on {LOOPBACK}, port {port}: .*in use", done.stderr)
        assert not (tmp_path / "two").exists()
        with serving("serve", "--data-dir", tmp_path / "two"):  # an archive that is there
            pass
        done = run_tomowire("serve", "--data-dir", tmp_path / "two", "--port", "0", "--http-port", port)
        assert done.returncode == 3
        assert re.search(rf"HTTP on {LOOPBACK}, port {port}: .*in use", done.stderr)
