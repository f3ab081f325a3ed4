"""Which Host and Origin headers are those of the server itself."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tomowire.server.hosts_allowed import host_allowed, origin_allowed


@pytest.mark.parametrize(
    ("bind", "host", "allowed"),
    [
        ("127.0.0.1", "localhost", True),
        ("127.0.0.1", "LOCALHOST:8080", True),
        ("127.0.0.1", "localhost.:8080", True),
        ("127.0.0.1", "127.0.0.1:8080", True),
        ("127.0.0.1", "127.1.2.3", True),
        ("127.0.0.1", "[::1]:8080", True),
        ("::1", "localhost:9", True),
        ("localhost", "127.0.0.1", True),
        ("127.0.0.1", "evil.example", False),
        ("127.0.0.1", "evil.example:8080", False),
        ("127.0.0.1", "localhost.evil.example", False),
        ("127.0.0.1", "127.0.0.1.evil.example", False),
        ("127.0.0.1", "192.0.2.1", False),
        ("127.0.0.1", "0.0.0.0:8080", False),
        ("127.0.0.1", "pacs.example", True),
        ("127.0.0.1", "PACS.example:443", True),
        ("127.0.0.1", "other.pacs.example", False),
        ("0.0.0.0", "192.0.2.1:8080", True),
        ("0.0.0.0", "[2001:db8::1]", True),
        ("::", "192.0.2.1", True),
        ("", "192.0.2.1", True),
        ("0.0.0.0", "pacs.example", True),
        ("0.0.0.0", "evil.example", False),
        ("0.0.0.0", "localhost", True),
        ("192.0.2.1", "192.0.2.1", True),
        ("192.0.2.1", "192.0.2.2", False),
        ("2001:db8::1", "[2001:DB8:0::1]:80", True),
        ("archive.example", "archive.example", True),
        ("archive.example", "192.0.2.1", False),
    ],
)
def test_hosts(bind: str, host: str, allowed: bool) -> None:
    assert host_allowed(host, bind=bind, names=("pacs.example",)) == allowed


@pytest.mark.parametrize(
    "host",
    [
        *(
            None,
            "",
            ":",
            ":80",
            "localhost:",
            "localhost:x",
            "localhost:123456",
            "localhost:80:80",
            "a b",
            "localhost\r\n",
        ),
        *(
            "localhost,evil.example",
            "user@localhost",
            "localhost/",
            "http://localhost",
            "[::1",
            "::1]",
            "[::1]x",
            "[]",
            "[x]",
        ),
        *("localhost\0", "localhost#", "lоcalhost", "[::ffff:evil]"),
    ],
)
@pytest.mark.parametrize("bind", ["127.0.0.1", "0.0.0.0"])
def test_what_is_no_host(host: str | None, bind: str) -> None:
    assert not host_allowed(host, bind=bind, names=("pacs.example",))


@pytest.mark.parametrize(
    ("origin", "host", "scheme", "allowed"),
    [
        (None, "localhost:8080", "http", True),
        ("http://localhost:8080", "localhost:8080", "http", True),
        ("HTTP://LocalHost:8080", "localhost:8080", "http", True),
        ("http://pacs.example", "pacs.example:80", "http", True),
        ("https://pacs.example:443", "pacs.example", "https", True),
        ("http://[::1]:8080", "[0::1]:8080", "http", True),
        ("http://localhost:8081", "localhost:8080", "http", False),
        ("https://localhost:8080", "localhost:8080", "http", False),
        ("http://evil.example", "localhost:8080", "http", False),
        ("http://127.0.0.1:8080", "localhost:8080", "http", False),
        ("null", "localhost:8080", "http", False),
        ("", "localhost:8080", "http", False),
        ("localhost:8080", "localhost:8080", "http", False),
        ("file://", "localhost:8080", "http", False),
        ("http://localhost:8080/", "localhost:8080", "http", False),
        ("http://localhost:8080@evil.example", "localhost:8080", "http", False),
        ("ftp://localhost:8080", "localhost:8080", "http", False),
        ("http://localhost:8080", None, "http", False),
        ("http://localhost:8080", "", "http", False),
    ],
)
def test_origins(origin: str | None, host: str | None, scheme: str, allowed: bool) -> None:
    assert origin_allowed(origin, host=host, scheme=scheme) == allowed


@given(st.text(max_size=60), st.text(max_size=60), st.sampled_from(["127.0.0.1", "0.0.0.0", "::", "a.example", ""]))
def test_whatever_they_say_it_is_a_yes_or_a_no(host: str, origin: str, bind: str) -> None:
    assert host_allowed(host, bind=bind) in (True, False)
    assert origin_allowed(origin, host=host, scheme="http") in (True, False)
