"""What DCMTK's tools may do with the archive, and what they say where they may not."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from support.asking import STORED
from support.certificates import Authority, Identity
from support.dcmtk import NO_DELAY
from support.filled import fill
from support.network import LOOPBACK
from support.objects import Sample
from support.receiver import Receiver
from tomowire import Storage, listen
from tomowire.aio.tls import TlsServer
from tomowire.server.access import CallerRule, Right
from tomowire.server.app import Archive, Settings
from tomowire.server.nodes import Node
from tomowire.server.rights import OF_CALLERS

pytestmark = pytest.mark.interop

STUDY = ("-k", "QueryRetrieveLevel=STUDY", "-k", f"StudyInstanceUID={STORED.study_uid}")
TOOLS: dict[str, tuple[Right, tuple[object, ...]]] = {
    "echoscu": (Right.ECHO, ()),
    "storescu": (Right.STORE, ("sent.dcm",)),
    "findscu": (Right.QUERY, ("-S", *STUDY)),
    "getscu": (Right.RETRIEVE, ("-S", *STUDY, "-od", ".")),
    "movescu": (Right.RETRIEVE, ("-S", *STUDY, "-aem", "VIEWER")),
}
REFUSED = (
    "No Acceptable Presentation Contexts",
    "No presentation context",
    "No adequate Presentation Contexts",
    "No valid Presentation Context ID",
)


async def run(program: Path, folder: Path, port: int, *options: object, aet: str = "CALLER") -> tuple[int, str]:
    """How it ended, and what it said. It must not have been aborted."""
    ends = ("-aet", aet, "-aec", "TOMOWIRE", LOOPBACK, str(port))
    paths = [each for each in options if str(each).endswith(".dcm")]
    command = [program, "-d", *(each for each in options if each not in paths), *ends, *paths]
    done = await asyncio.to_thread(
        subprocess.run,
        [str(part) for part in command],
        cwd=folder,
        env=NO_DELAY,
        capture_output=True,
        check=False,
        timeout=60,
    )
    said = (done.stdout + done.stderr).decode(errors="replace")
    assert "Peer Aborted Association" not in said
    return done.returncode, said


@pytest.mark.parametrize("tool", TOOLS)
async def test_who_may_and_who_may_not(tool: str, tmp_path: Path, dcmtk: Callable[[str], Path]) -> None:
    right, options = TOOLS[tool]
    await fill(tmp_path / "data", [STORED])
    sample = Sample(2)
    (tmp_path / "sent.dcm").write_bytes(sample.header + sample.data_set)
    receiver = Receiver()
    rules = (
        CallerRule("CALLER", may=frozenset({right})),
        CallerRule("OTHER", may=OF_CALLERS - {right}),
        CallerRule("FRIEND", addresses=("::1", "192.0.2.0/24")),
    )
    async with listen(LOOPBACK, 0, services=[Storage(receiver.keep)], aet="VIEWER") as viewer:
        receiver.server = viewer
        nodes = (Node("VIEWER", LOOPBACK, viewer.port),)
        async with Archive(Settings(tmp_path / "data", port=0, callers=rules, nodes=nodes)) as archive:
            code, said = await run(dcmtk(tool), tmp_path, archive.port, *options)
            assert code == 0, said
            code, said = await run(dcmtk(tool), tmp_path, archive.port, *options, aet="OTHER")
            assert code != 0 or tool == "movescu"  # it says so, and ends as if all were well
            assert "User Rejection" in said
            assert any(words in said for words in REFUSED), said
            for stranger in ("FRIEND", "NOBODY"):
                code, said = await run(dcmtk(tool), tmp_path, archive.port, *options, aet=stranger)
                assert code != 0
                assert "Calling AE Title Not Recognized" in said
    assert bool(receiver.received) == (tool == "movescu")
    stored = {path.stem for path in (tmp_path / "data" / "objects").rglob("*.dcm")}
    assert stored == {STORED.uid, *([sample.uid] if tool == "storescu" else [])}


def tls(identity: Identity, trusted: Authority) -> tuple[object, ...]:
    return "+tls", identity.key, identity.certificate, "+cf", trusted.file


async def test_who_may_is_who_shows_the_certificate(tmp_path: Path, dcmtk: Callable[[str], Path]) -> None:
    """Two callers of one AE title and one address."""
    authority = Authority(tmp_path)
    ours, ct, mr = (authority.sign(rsa=True, common_name=name) for name in ("archive", "ct", "mr"))
    rules = (
        CallerRule("CALLER", (LOOPBACK,), "CN:ct", may=frozenset({Right.ECHO})),
        CallerRule(certificate=f"sha256:{fingerprint(mr)}", may=frozenset({Right.QUERY})),
    )
    server_tls = TlsServer(**ours.options, authorities=authority.file)
    async with Archive(Settings(tmp_path / "data", port=0, callers=rules, tls=server_tls)) as archive:
        for identity, expected in ((ct, 0), (mr, 1)):
            code, said = await run(dcmtk("echoscu"), tmp_path, archive.port, *tls(identity, authority))
            assert code == expected, said
            code, said = await run(dcmtk("findscu"), tmp_path, archive.port, "-S", *STUDY, *tls(identity, authority))
            assert (code == 0) == (identity is mr), said


def fingerprint(identity: Identity) -> str:
    from hashlib import sha256

    return sha256(identity.der).hexdigest()
