"""User identities with DCMTK and pynetdicom (PS3.7 D.3.3.7)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from pydicom.data import get_testdata_file

from support.dcmtk import storescp
from support.network import LOOPBACK
from support.services import serve
from tomowire.aio.association_request import AssociationRequest, Identified
from tomowire.aio.connect import associate
from tomowire.errors import AssociationRejected
from tomowire.services.verification import CEchoScu, verification
from tomowire.wire.user_identity import UserIdentity

pytestmark = pytest.mark.interop

ECHO = "1.2.840.10008.1.1"
SECRET = b"\x60\x82 not text\xff."
KINDS = {
    "name": UserIdentity.name("Müller"),
    "passcode": UserIdentity.name_and_passcode("alice", "pässcode"),
    "kerberos": UserIdentity.kerberos(SECRET),
    "saml": UserIdentity.saml("<saml:Assertion/>"),
    "jwt": UserIdentity.jwt("e30.e30.AA"),
}
OPTIONS: dict[str, list[str]] = {
    "name": ["-usr", "Müller"],
    "passcode": ["-usr", "alice", "-pwd", "pässcode"],
    "kerberos": ["-kt"],
    "saml": ["--saml"],
    "jwt": ["--jwt"],
}


@dataclass
class Users:
    """An acceptor of ours that knows one user."""

    known: UserIdentity
    port: int = 0
    asked: list[UserIdentity] = field(default_factory=list)

    async def identify(self, request: AssociationRequest) -> Identified | None:
        identity = request.identity
        assert identity is not None
        self.asked.append(identity)
        is_known = (identity.identity_type, identity.primary_field, identity.secondary_field) == (
            self.known.identity_type,
            self.known.primary_field,
            self.known.secondary_field,
        )
        return Identified("someone", b"from the server") if is_known else None


@asynccontextmanager
async def acceptor(known: UserIdentity) -> AsyncIterator[Users]:
    users = Users(known)
    async with serve(identify=users.identify) as server:
        users.port = server.port
        yield users


async def storescu(program: Path, port: int, *options: str | Path) -> tuple[int | None, str]:
    path = get_testdata_file("CT_small.dcm", download=False)
    assert isinstance(path, str)
    process = await asyncio.create_subprocess_exec(
        program,
        "-v",
        *options,
        LOOPBACK,
        str(port),
        path,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        async with asyncio.timeout(30):
            output, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    return process.returncode, output.decode()


def options_for(kind: str, folder: Path) -> list[str | Path]:
    """What tells DCMTK who the user is; tickets, assertions and tokens stand in files."""
    options: list[str | Path] = list(OPTIONS[kind])
    if len(options) == 1:
        (folder / "credential").write_bytes(KINDS[kind].primary_field)
        options.append(folder / "credential")
    return options


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("positive_response", [False, True])
async def test_dcmtk_says_who_its_user_is(
    dcmtk: Callable[[str], Path], tmp_path: Path, kind: str, positive_response: bool
) -> None:
    async with acceptor(KINDS[kind]) as users:
        response = ["-rsp"] if positive_response else []
        code, output = await storescu(dcmtk("storescu"), users.port, *options_for(kind, tmp_path), *response)
    assert "Received Store Response (Success)" in output
    assert code == 0
    assert [each.positive_response_requested for each in users.asked] == [positive_response]


async def test_dcmtk_is_told_that_its_user_is_not_known(dcmtk: Callable[[str], Path]) -> None:
    async with acceptor(KINDS["passcode"]) as users:
        code, output = await storescu(dcmtk("storescu"), users.port, "-usr", "alice", "-pwd", "wrong")
    assert "Rejected Permanent, Source: Service Provider (ACSE Related)" in output
    assert code != 0


async def test_dcmtk_that_wants_a_confirmation_gets_none_where_nobody_looks(dcmtk: Callable[[str], Path]) -> None:
    async with serve() as server:
        code, output = await storescu(dcmtk("storescu"), server.port, "-usr", "alice", "-rsp")
    assert "Positive response requested but none received" in output
    assert code != 0


@pytest.mark.parametrize("kind", KINDS)
async def test_dcmtk_reads_who_our_user_is(dcmtk: Callable[[str], Path], tmp_path: Path, kind: str) -> None:
    log = tmp_path / "log"
    with storescp(dcmtk("storescp"), tmp_path / "received", "-d", log=log) as port:
        async with associate(f"STORESCP@{LOOPBACK}:{port}", [verification()], identity=KINDS[kind]) as association:
            assert (await CEchoScu(association).echo()).is_success
            assert association.identity_response is None
    words = {
        "name": "Username: [Müller]",
        "passcode": "Password: [pässcode]",
        "kerberos": "Kerberos",
        "saml": "SAML",
        "jwt": "JWT",
    }
    assert words[kind] in log.read_text(errors="replace"), log.read_text(errors="replace")


# pynetdicom


def item_of(pynetdicom: ModuleType, identity: UserIdentity, *, positive_response: bool) -> Any:
    from pynetdicom.pdu_primitives import UserIdentityNegotiation

    item = UserIdentityNegotiation()
    item.user_identity_type = int(identity.identity_type)
    item.positive_response_requested = positive_response
    item.primary_field = identity.primary_field
    if identity.secondary_field:
        item.secondary_field = identity.secondary_field
    return item


def associate_pynetdicom(pynetdicom: ModuleType, port: int, item: Any) -> tuple[bool, bytes | None]:
    """Whether it gets an association, and what is answered to the identity."""
    entity = pynetdicom.AE("PYNETDICOM")
    entity.add_requested_context(ECHO)
    association = entity.associate(LOOPBACK, port, ext_neg=[item])
    established = association.is_established
    answered = association.acceptor.user_identity
    if established:
        association.release()
    return established, answered.server_response if answered is not None else None


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("positive_response", [False, True])
async def test_pynetdicom_says_who_its_user_is(pynetdicom: ModuleType, kind: str, positive_response: bool) -> None:
    item = item_of(pynetdicom, KINDS[kind], positive_response=positive_response)
    async with acceptor(KINDS[kind]) as users:
        established, answered = await asyncio.to_thread(associate_pynetdicom, pynetdicom, users.port, item)
    assert established
    response = b"" if kind in ("name", "passcode") else b"from the server"
    assert answered == (response if positive_response else None)


async def test_pynetdicom_is_told_that_its_user_is_not_known(pynetdicom: ModuleType) -> None:
    item = item_of(pynetdicom, UserIdentity.name("mallory"), positive_response=False)
    async with acceptor(KINDS["name"]) as users:
        assert await asyncio.to_thread(associate_pynetdicom, pynetdicom, users.port, item) == (False, None)


@contextmanager
def pynetdicom_acceptor(
    pynetdicom: ModuleType, answer: tuple[bool, bytes | None]
) -> Iterator[tuple[int, list[tuple[int, bytes, bytes]]]]:
    """An SCP that answers so to identities; gives its port, and what it was asked."""
    asked: list[tuple[int, bytes, bytes]] = []

    def on_identity(event: Any) -> tuple[bool, bytes | None]:
        asked.append((event.user_id_type, event.primary_field, event.secondary_field or b""))
        return answer

    entity = pynetdicom.AE("PYNETDICOM")
    entity.add_supported_context(ECHO)
    handlers = [(pynetdicom.evt.EVT_USER_ID, on_identity)]
    server = entity.start_server((LOOPBACK, 0), block=False, evt_handlers=handlers)
    try:
        yield server.socket.getsockname()[1], asked
    finally:
        server.shutdown()


@pytest.mark.parametrize("kind", KINDS)
async def test_pynetdicom_reads_who_our_user_is(pynetdicom: ModuleType, kind: str) -> None:
    identity = UserIdentity(
        KINDS[kind].identity_type,
        KINDS[kind].primary_field,
        KINDS[kind].secondary_field,
        positive_response_requested=True,
    )
    with pynetdicom_acceptor(pynetdicom, (True, b"ticket")) as (port, asked):
        async with associate(f"PYNETDICOM@{LOOPBACK}:{port}", [verification()], identity=identity) as association:
            # It answers names with nothing, though the standard wants an empty item when it is asked for.
            expected = None if kind in ("name", "passcode") else b"ticket"
            assert association.identity_response == expected
    assert asked == [(int(identity.identity_type), identity.primary_field, identity.secondary_field)]


async def test_pynetdicom_does_not_know_our_user(pynetdicom: ModuleType) -> None:
    with (
        pynetdicom_acceptor(pynetdicom, (False, None)) as (port, _),
        pytest.raises(AssociationRejected, match="user 'Müller' is not accepted"),
    ):
        async with associate(f"PYNETDICOM@{LOOPBACK}:{port}", [verification()], identity=KINDS["name"]):
            pass
