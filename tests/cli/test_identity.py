"""Who the user is, on the command line (PS3.7 D.3.3.7)."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from pydicom.data import get_testdata_file

from support.certificates import Authority
from support.network import LOOPBACK
from support.programs import run_tomowire, tomowire
from support.services import serve
from tomowire.aio.association_request import AssociationRequest
from tomowire.aio.tls import TlsServer
from tomowire.wire.user_identity import IdentityType, UserIdentity

CT = get_testdata_file("CT_small.dcm", download=False)
SECRET = "correct horse"
WARNING = "without TLS what proves who the user is goes over the network as it is"


@dataclass
class Users:
    """An acceptor that knows alice by her passcode, and whoever has a ticket, an assertion or a token."""

    address: str = ""
    asked: list[UserIdentity] = field(default_factory=list)

    async def identify(self, request: AssociationRequest) -> bool:
        assert request.identity is not None
        self.asked.append(request.identity)
        return request.identity.user_name is None or request.identity.credential == SECRET.encode()


@pytest.fixture
async def users() -> AsyncIterator[Users]:
    users = Users()
    async with serve(identify=users.identify) as server:
        users.address = f"ANY@{LOOPBACK}:{server.port}"
        yield users


def secret_file(folder: Path, content: str = SECRET) -> Path:
    path = folder / "secret"
    path.write_text(f"{content}\n")
    return path


async def test_a_name_and_a_passcode_from_a_file(users: Users, tmp_path: Path) -> None:
    who = ("--user", "alice", "--passcode-file", secret_file(tmp_path))
    done = await tomowire("echo", users.address, *who, "--identity-required")
    assert done.code == 0, done.stderr
    (asked,) = users.asked
    assert (asked.user_name, asked.credential) == ("alice", SECRET.encode())
    assert asked.positive_response_requested
    assert WARNING in done.stderr


async def test_a_passcode_from_the_environment(users: Users) -> None:
    done = await tomowire("echo", users.address, "--user", "alice", TOMOWIRE_PASSCODE=SECRET)
    assert done.code == 0, done.stderr
    assert [each.credential for each in users.asked] == [SECRET.encode()]


async def test_without_a_passcode_it_is_a_name_alone(users: Users) -> None:
    done = await tomowire("echo", users.address, "--user", "alice")
    assert done.code == 4
    assert [each.identity_type for each in users.asked] == [IdentityType.USER_NAME]
    assert WARNING not in done.stderr


@pytest.mark.parametrize(
    ("option", "kind", "content", "sent"),
    [
        ("--kerberos", IdentityType.KERBEROS, b"\x60\x82 ticket\n", b"\x60\x82 ticket\n"),
        ("--saml", IdentityType.SAML, b"<saml:Assertion/>\n", b"<saml:Assertion/>\n"),
        ("--jwt", IdentityType.JWT, b"e30.e30.AA\n", b"e30.e30.AA"),
    ],
)
async def test_what_stands_in_a_file_goes_as_it_is(
    users: Users, tmp_path: Path, option: str, kind: IdentityType, content: bytes, sent: bytes
) -> None:
    (tmp_path / "proof").write_bytes(content)
    done = await tomowire("echo", users.address, option, tmp_path / "proof")
    assert done.code == 0, done.stderr
    assert [(each.identity_type, each.credential) for each in users.asked] == [(kind, sent)]


@pytest.mark.parametrize("command", ["echo", "send", "query", "retrieve", "move"])
async def test_every_command_says_who_the_user_is_and_why_it_was_refused(
    users: Users, tmp_path: Path, command: str
) -> None:
    below = {
        "send": (CT,),
        "retrieve": ("--study-uid", "1.2", "-o", tmp_path / "got"),
        "move": ("--study-uid", "1.2", "--dest", "DEST"),
    }
    who = ("--user", "alice", "--passcode-file", secret_file(tmp_path, "guessed"))
    done = await tomowire(command, users.address, *below.get(command, ()), *who)
    assert users.asked
    assert {(each.user_name, each.credential) for each in users.asked} == {("alice", b"guessed")}
    assert done.code == 4
    assert "as when user 'alice' is not accepted" in done.stderr
    assert "check the user and what proves it" in done.stderr
    assert "guessed" not in done.stderr + done.stdout


async def test_a_peer_that_does_not_look_is_told_from_one_that_knows_the_user(tmp_path: Path) -> None:
    async with serve() as server:
        address = f"ANY@{LOOPBACK}:{server.port}"
        assert (await tomowire("echo", address, "--user", "alice")).code == 0
        done = await tomowire("echo", address, "--user", "alice", "--identity-required")
        explained = await tomowire("echo", address, "--user", "alice", "--identity-required", "--explain", "--json")
    assert done.code == 4
    assert "accepted the association, but does not confirm user 'alice'" in done.stderr
    assert json.loads(explained.stdout)["diagnosis"]["kind"] == "not confirmed"


async def test_over_tls_there_is_nothing_to_warn_of(tmp_path: Path) -> None:
    authority, users = Authority(tmp_path), Users()
    async with serve(identify=users.identify, ssl=TlsServer(**authority.sign().options)) as server:
        who = ("--user", "alice", "--passcode-file", secret_file(tmp_path))
        done = await tomowire("echo", f"ANY@{LOOPBACK}:{server.port}", *who, "--tls-ca", authority.file)
    assert (done.code, done.stderr) == (0, "")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--user", "alice", "--jwt", "FILE"], "four ways to say who the user is: one is enough"),
        (["--passcode-file", "FILE"], "--passcode-file needs --user"),
        (["--user", ""], "a user name is text, and not empty"),
        (["--jwt", "EMPTY"], "the file is empty"),
        (["--user", "alice", "--passcode-file", "EMPTY"], "the file is empty"),
        (["--saml", "LARGE"], "no room for more than 65000 bytes"),
        (["--identity-required"], "--identity-required needs to know who the user is"),
    ],
)
def test_what_cannot_be_said_of_a_user(tmp_path: Path, options: list[str], said: str) -> None:
    files = {"FILE": secret_file(tmp_path), "EMPTY": tmp_path / "empty", "LARGE": tmp_path / "large"}
    files["EMPTY"].write_text("\n")
    files["LARGE"].write_bytes(bytes(65_001))
    done = run_tomowire("echo", f"ANY@{LOOPBACK}:1", *(files.get(each, each) for each in options))
    assert done.returncode == 2
    assert said in " ".join(done.stderr.split())
    assert SECRET not in done.stderr
