"""How a peer is written."""

from __future__ import annotations

import pytest

from tomowire.aio.address import PeerAddress, check_ae_title
from tomowire.errors import UsageError


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("ARCHIVE@localhost:104", PeerAddress("ARCHIVE", "localhost", 104)),
        ("ARCHIVE@10.0.0.1", PeerAddress("ARCHIVE", "10.0.0.1", 11112)),
        ("A@B@host:1", PeerAddress("A@B", "host", 1)),
        ("MY SCP@[::1]:104", PeerAddress("MY SCP", "::1", 104)),
        ("X@[fe80::1]", PeerAddress("X", "fe80::1", 11112)),
        ("pacs://host:4242", PeerAddress("ANY-SCP", "host", 4242)),
        ("pacs://host/", PeerAddress("ANY-SCP", "host", 11112)),
        ("pacs://[::1]:104", PeerAddress("ANY-SCP", "::1", 104)),
        (" PADDED @host:65535", PeerAddress("PADDED", "host", 65535)),
    ],
)
def test_the_forms_that_people_write(text: str, expected: PeerAddress) -> None:
    address = PeerAddress.parse(text)
    assert address == expected
    assert PeerAddress.parse(str(address)) == address


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("localhost:104", "no AE title"),
        ("", "no AE title"),
        ("@host:104", "not an AE title"),
        ("ARCHIVE@", "no host"),
        ("ARCHIVE@:104", "no host"),
        ("ARCHIVE@host:0", "not a TCP port"),
        ("ARCHIVE@host:65536", "not a TCP port"),
        ("ARCHIVE@host:http", "not a TCP port"),
        ("ARCHIVE@host:-1", "not a TCP port"),
        ("ARCHIVE@host:\u0661\u0662", "not a TCP port"),
        ("ARCHIVE@::1:104", "brackets"),
        ("ARCHIVE@[::1:104", "brackets"),
        ("ARCHIVE@[::1]104", "brackets"),
        ("SEVENTEEN-LETTERS@host:104", "not an AE title"),
        ("BACK\\SLASH@host:104", "not an AE title"),
        ("UMLAUT\u00c4@host:104", "not an AE title"),
        ("TAB\t@host:104", "not an AE title"),
    ],
)
def test_what_is_wrong_is_said(text: str, complaint: str) -> None:
    with pytest.raises(UsageError, match=complaint):
        PeerAddress.parse(text)


def test_the_called_ae_title_can_be_given_apart() -> None:
    assert PeerAddress.parse("pacs://host:104", called_ae_title="ARCHIVE").ae_title == "ARCHIVE"
    assert PeerAddress.parse("OTHER@host:104", called_ae_title="ARCHIVE").ae_title == "ARCHIVE"


def test_outer_spaces_of_an_ae_title_mean_nothing() -> None:
    """PS3.5 6.2, VR AE."""
    assert check_ae_title("  A B  ") == "A B"
    with pytest.raises(UsageError):
        check_ae_title("    ")
