"""The peers that an archive knows by name, and how they are written."""

from __future__ import annotations

import pytest

from tomowire.aio.address import PeerAddress
from tomowire.aio.tls import TlsClient
from tomowire.errors import UsageError
from tomowire.server.nodes import Node, nodes_by_title


@pytest.mark.parametrize(
    ("text", "node"),
    [
        ("VIEWER@workstation:104", Node("VIEWER", "workstation", 104)),
        ("VIEWER@workstation", Node("VIEWER", "workstation", 11112)),
        ("VIEWER@[::1]:104,associations=4", Node("VIEWER", "::1", 104, 4)),
        ("A,B@C@10.0.0.1:104", Node("A,B@C", "10.0.0.1", 104)),
        (" Viewer 2 @host:1,associations=16", Node("Viewer 2", "host", 1, 16)),
        ("VIEWER@host:1,tls", Node("VIEWER", "host", 1, tls=True)),
        ("VIEWER@host:1,tls,associations=2", Node("VIEWER", "host", 1, 2, tls=True)),
        ("VIEWER@host:1,tls-name=v.example.org", Node("VIEWER", "host", 1, tls=True, tls_name="v.example.org")),
    ],
)
def test_a_node_as_it_is_written(text: str, node: Node) -> None:
    """PS3.5 6.2: an AE title may have any character of ASCII but the backslash; its outer spaces mean nothing."""
    assert Node.parse(text) == node
    assert Node.parse(str(node)) == node
    assert node.address == PeerAddress(node.ae_title, node.host, node.port)


@pytest.mark.parametrize(
    "text",
    [
        "workstation:104",
        "pacs://workstation:104",
        "@workstation",
        "TITLE-OF-17-CHARS@host:1",
        "VIEWER@host:70000",
        "VIEWER@host:1,",
        "VIEWER@host:1,associations=0",
        "VIEWER@host:1,associations=17",
        "VIEWER@host:1,associations=many",
        "VIEWER@host:1,4",
        "VIEWER@host:1,association=4",
        "VIEWER@host:1,associations=4,associations=2",
        "VIEWER@host:1,tls=yes",
        "VIEWER@host:1,tls-name=",
    ],
)
def test_what_is_no_node(text: str) -> None:
    with pytest.raises(UsageError):
        Node.parse(text)


def test_nodes_are_known_by_titles_that_differ() -> None:
    """PS3.8 9.3.2: leading and trailing spaces are not significant; nothing is said of upper and lower case being the same."""
    one, other = Node("VIEWER", "a", 1), Node("viewer", "b", 2)
    assert nodes_by_title([one, other, one]) == {"VIEWER": one, "viewer": other}
    with pytest.raises(UsageError, match="two nodes are named VIEWER"):
        nodes_by_title([one, Node(" VIEWER ", "c", 3)])


def test_a_node_with_tls_is_called_as_all_are_but_for_the_name_in_its_certificate() -> None:
    tls = TlsClient("ca.pem")
    assert Node("VIEWER", "host", 1).way(tls) is None
    assert Node("VIEWER", "host", 1, tls=True).way(tls) == tls
    named = Node("VIEWER", "host", 1, tls=True, tls_name="v.example.org")
    assert named.way(tls) == TlsClient("ca.pem", server_hostname="v.example.org")
