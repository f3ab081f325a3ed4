"""`tomowire move` as a process: what a peer is told to send where, and how it ends."""

from __future__ import annotations

import asyncio
import json
import re
import signal
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from support.dcmqrscp import dcmqrscp, write_files
from support.network import LOOPBACK, free_port
from support.objects import ROOT, Sample
from support.programs import Done, run_on_a_terminal, serving, start, tomowire
from support.raw_peer import RawMessage, RawPeer, message_pdus, raw_acceptor
from support.receiver import Receiver
from support.retrievals import Unmoved
from tomowire import Storage, Verification, listen
from tomowire.services.identifiers import decode
from tomowire.uids import EXPLICIT_VR_LITTLE_ENDIAN
from tomowire.wire.elements import DATA_SET_PRESENT
from tomowire.wire.messages import CCancelRQ, CMoveRQ, CMoveRSP

STUDY, OTHER = f"{ROOT}.1.1", f"{ROOT}.1.2"
SERIES = f"{ROOT}.2.1.1"
JANE = {0x00100010: ("PN", "Doe^Jane"), 0x00080060: ("CS", "CT")}
JOHN = {0x00100010: ("PN", "Smith^John"), 0x00080060: ("CS", "MR")}
SAMPLES = [
    *(Sample(number, overrides=JANE) for number in (1, 2)),
    Sample(3, series=2, overrides=JANE),
    Sample(4, study=2, overrides=JANE),
    Sample(5, study=3, patient_id="P2", overrides=JOHN),
]


def uids(*numbers: int) -> set[str]:
    return {Sample(number).uid for number in numbers}


@pytest.fixture(scope="module")
def archive(dcmtk: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, int]]:
    """An archive of DCMTK's that has the samples: its address, and the port at which it knows DEST."""
    destination = free_port()
    with dcmqrscp(dcmtk("dcmqrscp"), tmp_path_factory.mktemp("dcmqrscp"), SAMPLES, destination) as address:
        yield address, destination


@pytest.fixture
async def destination(archive: tuple[str, int]) -> AsyncIterator[Receiver]:
    """Where DEST is."""
    receiver = Receiver()
    async with listen(LOOPBACK, archive[1], services=[Storage(receiver.keep)], aet="DEST") as server:
        receiver.server = server
        yield receiver


@pytest.mark.interop
@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        (["--study-uid", STUDY], {1, 2, 3}),
        (["--study-uid", STUDY, "--study-uid", OTHER], {1, 2, 3, 4}),
        (["--patient", "Smith*"], {5}),
        (["--patient-id", "P1"], {1, 2, 3, 4}),
        (["--model", "patient", "--patient-id", "P1", "--study-uid", OTHER], {4}),
        (["-L", "patient", "--patient-id", "P2"], {5}),
        (["-L", "patient", "--patient", "Doe*"], {1, 2, 3, 4}),
        (["-L", "series", "--study-uid", STUDY, "--series-uid", SERIES], {1, 2}),
        (["-L", "series", "--study-uid", STUDY, "--modality", "CT"], {1, 2, 3}),
        (["-L", "image", "--study-uid", STUDY, "--series-uid", SERIES], {1, 2}),
        (
            ["-L", "image", "--study-uid", STUDY, "--series-uid", SERIES, "-k", f"SOPInstanceUID={ROOT}.3.2"],
            {2},
        ),
    ],
)
async def test_what_is_sent(
    keys: list[str], expected: set[int], archive: tuple[str, int], destination: Receiver
) -> None:
    done = await tomowire("move", archive[0], "--dest", "DEST", *keys, "--json")
    assert (done.code, done.stderr) == (0, "")
    assert set(destination.received) == uids(*expected)
    assert len(destination.times) == len(expected), "each once"
    summary = done.json
    assert (summary["completed"], summary["failed"], summary["warning"]) == (len(expected), 0, 0)
    assert summary | {"peer": archive[0], "destination": "DEST", "interrupted": False, "error": None} == summary


@pytest.mark.interop
async def test_a_summary_for_people(archive: tuple[str, int], destination: Receiver) -> None:
    done = await tomowire("move", archive[0], "--dest", "DEST", "--patient-id", "P1")
    assert (done.code, done.stdout) == (0, "")
    assert re.fullmatch(r"tomowire: 4 sent to DEST in [0-9.]+ s\n", done.stderr)


@pytest.mark.interop
async def test_progress_on_a_terminal(archive: tuple[str, int], destination: Receiver) -> None:
    output = await asyncio.to_thread(run_on_a_terminal, ["move", archive[0], "--dest", "DEST", "--study-uid", STUDY])
    assert b"to DEST" in output
    assert b"3/3" in output


@pytest.mark.interop
async def test_an_unknown_destination_is_explained_once(archive: tuple[str, int]) -> None:
    """PS3.4 Table C.4-2: A801H."""
    done = await tomowire("move", archive[0], "--dest", "NOWHERE", "--patient-id", "P1", "--json")
    assert done.code == 1
    assert done.stderr.count("A801H") == 1, "of two studies"
    assert "does not know the destination 'NOWHERE': enter it there" in done.stderr
    assert done.json["completed"] == 0
    assert "A801H" in done.json["error"]


@pytest.mark.interop
async def test_a_destination_that_is_not_there(archive: tuple[str, int]) -> None:
    done = await tomowire("move", archive[0], "--dest", "DEST", "--study-uid", STUDY, "--json")
    assert done.code == 1
    assert done.json["failed"] == 3
    assert {row["sop_instance_uid"] for row in done.json["objects"]} == uids(1, 2, 3)
    assert {row["outcome"] for row in done.json["objects"]} == {"failed"}


@pytest.mark.interop
async def test_nothing_that_matches_is_a_failure(archive: tuple[str, int]) -> None:
    """Other than with `query`, somebody wanted to have it."""
    done = await tomowire("move", archive[0], "--dest", "DEST", "--patient", "Nobody")
    assert (done.code, done.stdout) == (1, "")
    assert done.stderr == f"tomowire: {archive[0]} has nothing that matches\n"


Answers = list[tuple[dict[str, Any], bytes | None]]


async def answered(answers: Answers, *arguments: str, asked: list[RawMessage] | None = None) -> Done:
    """Run `move` of one study, which a peer answers so: fields of the response, and its identifier."""
    return await all_answered([answers], *arguments, asked=asked)


async def all_answered(requests: list[Answers], *arguments: str, asked: list[RawMessage] | None = None) -> Done:
    """The same for several requests, one after the other: that study is the first of those that are named."""

    async def script(peer: RawPeer) -> None:
        await peer.accept()
        for answers in requests:
            message = await peer.read_message()
            assert isinstance(message.command, CMoveRQ)
            if asked is not None:
                asked.append(message)
            for fields, identifier in answers:
                answer = response(message.command, fields, identifier)
                await peer.send(message_pdus(message.context_id, answer, identifier))
        await peer.answer_release()

    async with raw_acceptor(script) as port:
        return await tomowire("move", f"ANY@{LOOPBACK}:{port}", "--dest", "DEST", "--study-uid", STUDY, *arguments)


def response(request: CMoveRQ, fields: dict[str, Any], identifier: bytes | None = None) -> CMoveRSP:
    others = {
        name if name in ("status", "error_comment") else f"number_of_{name}_suboperations": field
        for name, field in fields.items()
    }
    with_data = {} if identifier is None else {"data_set_type": DATA_SET_PRESENT}
    return CMoveRSP(
        message_id_being_responded_to=request.message_id,
        affected_sop_class_uid=request.affected_sop_class_uid,
        **others,
        **with_data,
    )


def failed_list(*texts: str) -> bytes:
    """PS3.4 C.4.2.1.4.2: Failed SOP Instance UID List (0008,0058), in Explicit VR Little Endian."""
    text = "\\".join(texts).encode()
    text += b"\0" * (len(text) % 2)
    return b"\x08\x00\x58\x00UI" + len(text).to_bytes(2, "little") + text


async def test_a_study_that_is_named_is_asked_for_at_once() -> None:
    """PS3.4 C.4.2.1.4.1: level and unique keys, and nothing else; nobody needs to ask what matches."""
    asked: list[RawMessage] = []
    done = await answered([({"status": 0, "completed": 2}, None)], asked=asked)
    assert done.code == 0, done.stderr
    (message,) = asked
    assert isinstance(message.command, CMoveRQ)
    assert message.command.move_destination == "DEST"
    assert message.data is not None
    identifier = decode(message.data, EXPLICIT_VR_LITTLE_ENDIAN)
    assert {element.keyword: element.value for element in identifier} == {
        "QueryRetrieveLevel": "STUDY",
        "StudyInstanceUID": STUDY,
    }


async def test_what_failed_is_told_by_its_uid_and_gives_1() -> None:
    """PS3.4 Table C.4-2: B000H, one or more failures; counts and list in the final response."""
    texts = [f"1.2.{number}" for number in range(5)]
    pending = ({"status": 0xFF00, "remaining": 8, "completed": 1, "failed": 1, "warning": 0}, None)
    counts = {"completed": 3, "failed": 6, "warning": 1}
    final = ({"status": 0xB000, "error_comment": "two are on tape", **counts}, failed_list(*texts))
    done = await answered([pending, final], "--json")
    assert done.code == 1
    summary = done.json
    assert (summary["completed"], summary["failed"], summary["warning"]) == (3, 6, 1)
    assert [row["sop_instance_uid"] for row in summary["objects"]] == texts
    lines = done.stderr.splitlines()
    assert lines[0].startswith("tomowire: ANY did not transfer 6 of the objects: B000H")
    assert "it says 'two are on tape'" in lines[0]
    assert lines[1:4] == [f"tomowire: {text}: ANY could not transfer it" for text in texts[:3]]
    assert "tomowire: and 2 more: ANY could not transfer it (-v names them)" in lines
    with_names = await answered([pending, final], "-v")
    assert all(f"tomowire: {text}: ANY could not transfer it" in with_names.stderr for text in texts)
    assert re.search(r"3 sent to DEST in .* s, 1 more with a warning, 6 failed$", with_names.stderr.strip())


async def test_warnings_are_no_failure() -> None:
    done = await answered([({"status": 0xB000, "completed": 3, "failed": 0, "warning": 1}, None)], "--json")
    assert done.code == 0, done.stderr
    assert (done.json["completed"], done.json["warning"]) == (3, 1)


async def test_what_the_peer_says_of_warnings_is_told() -> None:
    """Error Comment (0000,0902) with B000H."""
    final = {"status": 0xB000, "error_comment": "coerced", "completed": 3, "failed": 0, "warning": 1}
    done = await answered([(final, None)])
    assert done.code == 0
    assert done.stderr.startswith("tomowire: ANY says 'coerced'\ntomowire: 3 sent to DEST in ")
    assert done.stderr.count("coerced") == 1


async def test_a_failure_of_the_whole_gives_1() -> None:
    done = await answered([({"status": 0xA701}, None)], "--json")
    assert done.code == 1
    assert "A701H" in done.json["error"]
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("pending", [0, 1])
async def test_a_peer_that_counts_nothing_is_not_one_that_has_nothing(pending: int) -> None:
    """PS3.4 C.4.2.1.6 and following: the counts need not be there."""
    done = await answered([*[({"status": 0xFF00}, None)] * pending, ({"status": 0x0000}, None)], "--json")
    assert (done.code, done.json["error"], done.json["completed"]) == (0, None, 0)
    assert "says that it is done, and not how many objects it has sent" in done.stderr
    none = await answered([({"status": 0x0000, "completed": 0, "failed": 0, "warning": 0}, None)], "--json")
    assert (none.code, "nothing that matches" in none.stderr) == (1, True)


UNCOUNTED: Answers = [({"status": 0x0000}, None)]
NOTHING: Answers = [({"status": 0x0000, "completed": 0, "failed": 0, "warning": 0}, None)]
THREE: Answers = [({"status": 0x0000, "completed": 3, "failed": 0, "warning": 0}, None)]
REFUSED: Answers = [({"status": 0xA701}, None)]


@pytest.mark.parametrize(
    ("requests", "code", "uncounted", "words"),
    [
        ([UNCOUNTED, NOTHING], 0, 1, "says that it is done, and not how many"),
        ([NOTHING, UNCOUNTED], 0, 1, "says that it is done, and not how many"),
        ([UNCOUNTED, THREE, UNCOUNTED], 0, 2, "says that it is done with 2 of the requests, and not how many"),
        ([UNCOUNTED, REFUSED], 1, 1, "says that it is done with 1 of the requests, and not how many"),
        ([REFUSED, UNCOUNTED], 1, 1, "says that it is done with 1 of the requests, and not how many"),
        ([NOTHING, NOTHING], 1, 0, "nothing that matches"),
        ([NOTHING, THREE], 0, 0, ""),
    ],
)
async def test_each_of_several_requests_is_counted_or_not_by_itself(
    requests: list[Answers], code: int, uncounted: int, words: str
) -> None:
    others = [argument for number in range(1, len(requests)) for argument in ("--study-uid", f"1.2.{number}")]
    done = await all_answered(requests, *others, "--json")
    assert (done.code, done.json["uncounted"]) == (code, uncounted)
    assert words in done.stderr
    assert ("how many objects it has sent" in done.stderr) == bool(uncounted)
    assert ("nothing that matches" in done.stderr) == (requests == [NOTHING, NOTHING])


async def test_ctrl_c_cancels_it_at_the_peer() -> None:
    """PS3.7 9.3.2.3: C-CANCEL, and FE00H ends it."""
    ended = asyncio.Event()

    async def script(peer: RawPeer) -> None:
        await peer.accept()
        request = await peer.read_message()
        assert isinstance(request.command, CMoveRQ)
        pending = {"status": 0xFF00, "remaining": 7, "completed": 3, "failed": 0, "warning": 0}
        await peer.send(message_pdus(request.context_id, response(request.command, pending)))
        cancel = await peer.read_message()
        assert cancel.command == CCancelRQ(message_id_being_responded_to=request.command.message_id)
        final = {"status": 0xFE00, "remaining": 6, "completed": 4, "failed": 0, "warning": 0}
        await peer.send(message_pdus(request.context_id, response(request.command, final)))
        await peer.read_until_closed()
        ended.set()

    async with raw_acceptor(script) as port:
        arguments = ["move", f"ANY@{LOOPBACK}:{port}", "--dest", "DEST", "--study-uid", STUDY, "--json", "-v"]
        program = await asyncio.to_thread(start, arguments)
        await asyncio.to_thread(program.stderr.wait_for, "7 remain; completed 3")
        assert await asyncio.to_thread(program.end, signal.SIGINT) == 130
        async with asyncio.timeout(30):
            await ended.wait()
    assert program.stderr.text.endswith("tomowire: interrupted\n")
    summary = json.loads(program.stdout.text)
    assert summary["interrupted"] is True
    assert (summary["completed"], summary["not_sent"]) == (3, 7)


async def test_ctrl_c_again_does_not_wait_for_a_peer_that_goes_on() -> None:
    unmoved = Unmoved()

    async with raw_acceptor(unmoved.script) as port:
        arguments = ["move", f"ANY@{LOOPBACK}:{port}", "--dest", "DEST", "--study-uid", STUDY]
        program = await asyncio.to_thread(start, arguments)
        async with asyncio.timeout(30):
            await unmoved.asked.wait()
            program.process.send_signal(signal.SIGINT)
            await unmoved.cancelled.wait()
        assert await asyncio.to_thread(program.end, signal.SIGINT, 4.0) == 130


@pytest.mark.parametrize(("completed", "code"), [(0, 4), (3, 1)])
async def test_a_peer_that_goes_away(completed: int, code: int) -> None:
    """When something has been done, 1."""

    async def script(peer: RawPeer) -> None:
        await peer.accept()
        request = await peer.read_message()
        assert isinstance(request.command, CMoveRQ)
        pending = {"status": 0xFF00, "remaining": 7, "completed": completed, "failed": 0, "warning": 0}
        await peer.send(message_pdus(request.context_id, response(request.command, pending)))
        peer.close()

    async with raw_acceptor(script) as port:
        arguments = ["move", f"ANY@{LOOPBACK}:{port}", "--dest", "DEST", "--study-uid", STUDY]
        done = await tomowire(*arguments, "--json")
        for_people = await tomowire(*arguments)
    assert done.code == code
    assert for_people.stderr.endswith(" s, 7 not sent\n")
    assert (done.json["completed"], done.json["interrupted"]) == (completed, False)
    assert done.json["not_sent"] == 7
    assert done.json["error"]


async def test_sigterm_ends_it_too() -> None:
    async def script(peer: RawPeer) -> None:
        await peer.accept()
        await peer.read_message()
        asked.set()
        await peer.read_until_closed()

    asked = asyncio.Event()
    async with raw_acceptor(script) as port:
        arguments = ["move", f"ANY@{LOOPBACK}:{port}", "--dest", "DEST", "--study-uid", STUDY, "--json"]
        program = await asyncio.to_thread(start, arguments)
        async with asyncio.timeout(30):
            await asked.wait()
        assert await asyncio.to_thread(program.end, signal.SIGTERM) == 143
    assert json.loads(program.stdout.text)["interrupted"] is True


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--study-uid", STUDY], "Missing option '--dest'"),
        (["--dest", "DEST"], "which ones? Name at least one key"),
        (["--dest", "DEST", "--series-uid", "1.2.3"], "--series-uid needs -L series, or -L image"),
        (["--dest", "DEST", "-L", "series", "-k", "Modality"], "which ones? Name at least one key"),
        (["--dest", "SEVENTEEN-LETTERS", "--study-uid", STUDY], "is not an AE title"),
        (["--dest", "DEST", "--study-uid", "1.2.x"], "'1.2.x' is not a UID"),
    ],
)
async def test_2_usage(arguments: list[str], said: str) -> None:
    done = await tomowire("move", f"ANY@{LOOPBACK}:{free_port()}", *arguments)
    assert (done.code, done.stdout) == (2, "")
    assert said in done.stderr
    assert "Traceback" not in done.stderr


async def test_the_other_exit_codes() -> None:
    arguments = ["--dest", "DEST", "--study-uid", STUDY]
    nobody = await tomowire("move", f"ANY@{LOOPBACK}:{free_port()}", *arguments)
    assert nobody.code == 3
    async with listen(LOOPBACK, 0, services=[Verification()], aet="RIGHT") as server:
        rejected = await tomowire("move", f"WRONG@{LOOPBACK}:{server.port}", *arguments)
        no_context = await tomowire("move", f"RIGHT@{LOOPBACK}:{server.port}", *arguments, "--json")
    assert rejected.code == 4
    assert "it does not answer to 'WRONG'" in rejected.stderr
    assert no_context.code == 5
    assert "Study Root Query/Retrieve Information Model - MOVE" in no_context.json["error"]
    assert no_context.json["error"].endswith("; it may know another: --model patient")

    async def silent(peer: RawPeer) -> None:
        await peer.accept()
        await peer.read_until_closed()

    async with raw_acceptor(silent) as port:
        late = await tomowire("move", f"ANY@{LOOPBACK}:{port}", *arguments, "--timeout", "0.1")
    assert late.code == 6


@pytest.mark.parametrize(
    ("nodes", "said"),
    [
        (["viewer:104"], "'viewer:104' has no AE title"),
        (["VIEWER@host:1,associations=0"], "1 to 16 associations"),
        (["VIEWER@one:104", "VIEWER@two:104"], "two nodes are named VIEWER"),
    ],
)
async def test_nodes_of_an_archive_that_are_none(nodes: list[str], said: str, tmp_path: Path) -> None:
    options = [part for node in nodes for part in ("--node", node)]
    done = await tomowire("serve", "--data-dir", tmp_path, "--port", "0", *options)
    assert (done.code, done.stdout) == (2, "")
    assert said in done.stderr
    assert "Traceback" not in done.stderr


async def test_an_archive_sends_to_its_nodes(tmp_path: Path) -> None:
    """`serve --node`, more than one of them, one with several associations."""
    receiver, others = Receiver(), Receiver()
    write_files(tmp_path / "send", SAMPLES)
    async with (
        listen(LOOPBACK, 0, services=[Storage(receiver.keep)], aet="VIEWER") as viewer,
        listen(LOOPBACK, 0, services=[Storage(others.keep)], aet="OTHER") as other,
    ):
        receiver.server, others.server = viewer, other
        nodes = [f"VIEWER@{LOOPBACK}:{viewer.port},associations=2", f"OTHER@{LOOPBACK}:{other.port}"]
        options = [part for node in nodes for part in ("--node", node)]
        with serving("serve", "--data-dir", tmp_path / "data", *options) as archive:
            peer = f"TOMOWIRE@{LOOPBACK}:{archive.port}"
            assert (await tomowire("send", peer, tmp_path / "send")).code == 0
            done = await tomowire("move", peer, "--dest", "VIEWER", "--patient", "Doe*")
            assert done.code == 0, done.stderr
            unknown = await tomowire("move", peer, "--dest", "viewer", "--study-uid", STUDY)
    assert set(receiver.received) == uids(1, 2, 3, 4)
    assert receiver.most_associations <= 2
    assert not others.received
    assert unknown.code == 1
    assert "A801H" in unknown.stderr
