"""`tomowire echo` as a process: several answers, an end before all have come, and what `--explain` says."""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import Awaitable, Callable

import pytest

from support.network import LOOPBACK
from support.programs import Done, run_on_a_terminal, start, tomowire
from support.raw_peer import CT, MR, RawPeer, command_pdu, raw_acceptor
from tomowire import Status, Storage, Verification, listen
from tomowire.aio.listen import Server
from tomowire.uids import VERIFICATION
from tomowire.wire.messages import CEchoRQ, CEchoRSP


async def test_each_answer_is_a_row() -> None:
    async with listen(LOOPBACK, 0, services=[Verification()]) as server:
        done = await tomowire("echo", f"ANY@{LOOPBACK}:{server.port}", "-n", "3", "--json")
    assert done.code == 0
    assert (done.json["ok"], done.json["interrupted"], done.json["error"]) == (True, False, None)
    assert [each["status"] for each in done.json["echoes"]] == [0, 0, 0]


async def test_interrupted_before_all_have_been_answered() -> None:
    """The peer answers two and then no more."""
    reached = asyncio.Event()

    async def script(peer: RawPeer) -> None:
        await peer.accept()
        for _ in range(2):
            message = await peer.read_message()
            assert isinstance(message.command, CEchoRQ)
            answer = CEchoRSP(message_id_being_responded_to=message.command.message_id, status=0)
            await peer.send(command_pdu(message.context_id, answer))
        await peer.read_message()
        reached.set()
        await peer.read_until_closed()

    async with raw_acceptor(script) as port:
        arguments = ["echo", f"ANY@{LOOPBACK}:{port}", "-n", "5", "--timeout", "60", "--json"]
        program = await asyncio.to_thread(start, arguments)
        async with asyncio.timeout(30):
            await reached.wait()
        code = await asyncio.to_thread(program.end, signal.SIGINT)
    assert code == 130
    summary = json.loads(program.stdout.text)
    assert (summary["ok"], summary["interrupted"]) == (False, True)
    assert len(summary["echoes"]) == 2


# --explain


async def keep(_: object) -> Status:
    return Status(0)


def small_archive() -> Server:
    services = [
        Verification(),
        Storage(keep, sop_classes=[CT], transfer_syntaxes=["1.2.840.10008.1.2.1", "1.2.840.10008.1.2.5"]),
    ]
    return listen(LOOPBACK, 0, services=services, aet="ARCHIVE", window=4)


async def test_explain_says_what_was_agreed_on_and_what_is_supported() -> None:
    async with small_archive() as server:
        peer = f"ARCHIVE@{LOOPBACK}:{server.port}"
        done = await tomowire("echo", "--explain", peer, "--aet", "ME")
    assert (done.code, done.stderr) == (0, "")
    first, *lines = done.stdout.splitlines()
    assert first == peer
    said = {line[2:20].strip(): line[20:] for line in lines if line.startswith("  ")}
    assert said["called"] == "'ARCHIVE' by 'ME'"
    assert said["proposed"] == "Verification SOP Class in Implicit VR Little Endian"
    assert said["accepted"] == "Verification SOP Class in Implicit VR Little Endian; this side is SCU"
    assert said["window"] == "4 operations at once (16 operations proposed)"
    assert said["maximum length"] == "262144 bytes to the peer, 262144 bytes to this side"
    assert said["implementation"].endswith("'")
    assert said["echo"].startswith("0000H (success) in ")
    table = [line.split("  ") for line in lines if "Little Endian" in line and not line.startswith("  ")]
    assert [[cell.strip() for cell in row if cell] for row in table] == [
        ["Verification SOP Class", "Explicit VR Little Endian"],
        ["CT Image Storage", "Explicit VR Little Endian, RLE"],
    ]
    *_, refused, _, title, _, storage = lines
    assert "other SOP classes (--json names them)" in refused
    assert title.startswith("Extended negotiation")
    assert storage == "CT Image Storage: level 2 (full: all attributes are kept), attributes are not changed"


async def test_explain_for_machines() -> None:
    async with small_archive() as server:
        done = await tomowire("echo", "--explain", "--json", f"ARCHIVE@{LOOPBACK}:{server.port}")
    assert done.code == 0
    said = done.json
    assert (said["ok"], said["error"], said["diagnosis"], said["echo"]["status"]) == (True, None, None, 0)
    assert said["association"]["called_ae_title"] == "ARCHIVE"
    assert said["association"]["maximum_invoked"] == 4
    assert [each["abstract_syntax"] for each in said["association"]["accepted"]] == [VERIFICATION]
    found = {each["uid"]: each for each in said["sop_classes"]}
    assert [uid for uid, each in found.items() if each["supported"]] == [VERIFICATION, CT]
    assert found[CT]["transfer_syntaxes"] == ["1.2.840.10008.1.2.1", "1.2.840.10008.1.2.5"]
    assert found[CT]["extended"] == {"level": 2, "signature_level": 0, "coercion": 0}
    assert found[VERIFICATION]["extended"] is None
    assert (found[MR]["result"], found[MR]["transfer_syntaxes"]) == (3, [])
    assert said["associations"] >= 3


async def test_explain_on_a_terminal_is_a_table() -> None:
    async with small_archive() as server:
        peer = f"ARCHIVE@{LOOPBACK}:{server.port}"
        shown = (await asyncio.to_thread(run_on_a_terminal, ["echo", "--explain", peer])).decode()
    assert "CT Image Storage" in shown
    assert "\u2500\u2500\u2500" in shown


async def test_explain_names_every_class_if_asked_to() -> None:
    services = [Verification(), Storage(keep, transfer_syntaxes=["1.2.840.10008.1.2"])]
    async with listen(LOOPBACK, 0, services=services) as server:
        peer = f"ARCHIVE@{LOOPBACK}:{server.port}"
        brief, full = await asyncio.gather(
            tomowire("echo", "--explain", peer), tomowire("echo", "--explain", peer, "-v")
        )
    assert "CT Image Storage, MR Image Storage, Computed Radiography Image Storage and " in brief.stdout
    assert "\nMR Image Storage " in full.stdout


async def explained(script: Callable[[RawPeer], Awaitable[None]], *options: object) -> Done:
    async with raw_acceptor(script) as port:
        return await tomowire("echo", "--explain", f"ARCHIVE@{LOOPBACK}:{port}", *options)


@pytest.mark.parametrize("as_json", [False, True])
async def test_explain_says_whose_fault_a_rejection_is_and_what_to_change(as_json: bool) -> None:
    done = await explained(lambda peer: peer.reject(1, 1, 7), "--aet", "ME", *(["--json"] if as_json else []))
    assert done.code == 4
    assert "does not answer to 'ARCHIVE'" in done.stderr
    if as_json:
        assert done.json["ok"] is False
        assert done.json["diagnosis"]["kind"] == "rejected"
        assert "'ARCHIVE'" in done.json["diagnosis"]["whose"]
        assert (done.json["association"], done.json["sop_classes"]) == (None, [])
    else:
        assert "  called            'ARCHIVE' by 'ME'\n" in done.stdout
        assert "  proposed          Verification SOP Class" in done.stdout
        assert "  what happened     the peer rejected the association for good" in done.stdout
        assert "  whose fault       the peer was called 'ARCHIVE', and has another AE title" in done.stdout
        assert "  what to change    find the peer's own AE title" in done.stdout


async def test_explain_of_a_peer_that_nobody_can_reach() -> None:
    done = await tomowire("echo", "--explain", "ARCHIVE@no-such-host.invalid:104")
    assert done.code == 3
    assert "what to change    check how the host name is written" in done.stdout


async def test_explain_goes_on_where_only_verification_is_refused() -> None:
    async def script(peer: RawPeer) -> None:
        await peer.accept(refuse=[VERIFICATION])
        try:
            await peer.answer_release()
        except AssertionError:
            await peer.read_until_closed()

    done = await explained(script)
    assert done.code == 5
    assert "whose fault       the two sides have nothing in common for this" in done.stdout
    assert "refused           Verification SOP Class in Implicit VR Little Endian: the peer does not" in done.stdout
    assert "CT Image Storage" in done.stdout


def echoed_once(status: int, *, associations: int) -> Callable[[RawPeer], Awaitable[None]]:
    """Answers the echo with a status, accepts so many associations, and rejects those after them."""
    count = 0

    async def script(peer: RawPeer) -> None:
        nonlocal count
        count += 1
        if count > associations:
            await peer.reject(2, 3, 2)
            return
        await peer.accept()
        if count == 1:
            message = await peer.read_message()
            assert isinstance(message.command, CEchoRQ)
            answer = CEchoRSP(message_id_being_responded_to=message.command.message_id, status=status)
            await peer.send(command_pdu(message.context_id, answer))
        await peer.answer_release()

    return script


async def test_explain_tells_what_is_known_when_the_peer_ends_it() -> None:
    done = await explained(echoed_once(0x0000, associations=2), "--json")
    assert done.code == 4
    assert (done.json["echo"]["status"], done.json["associations"]) == (0, 1)
    assert done.json["diagnosis"]["kind"] == "rejected"
    assert sum(each["supported"] for each in done.json["sop_classes"]) == 128


async def test_explain_of_an_echo_that_fails() -> None:
    done = await explained(echoed_once(0x0110, associations=1000))
    assert done.code == 1
    assert "echo              0110H (processing failure) in" in done.stdout


async def test_what_a_peer_says_does_not_steer_the_terminal() -> None:
    async def script(peer: RawPeer) -> None:
        await peer.read(6)
        await peer.send(b"\x1b[2J 220 x")
        await peer.read_until_closed()

    done = await explained(script)
    assert done.code == 4
    assert "\x1b" not in done.stdout + done.stderr
