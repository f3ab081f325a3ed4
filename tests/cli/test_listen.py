"""`tomowire listen` as a process: names, JSON lines, refusals, and its end."""

from __future__ import annotations

import json
import os
import signal
import socket
import time
from pathlib import Path

import pytest

from support.network import LOOPBACK
from support.objects import ROOT, SECONDARY_CAPTURE, Sample
from support.programs import Program, run_tomowire, serving, start
from support.raw_peer import RawPeer, associate_rq, message_pdus, store_rq
from tomowire import Chunk, Folder, Peer, StoreRequest, listen
from tomowire.cli.listen import CountedStorage
from tomowire.uids import EXPLICIT_VR_LITTLE_ENDIAN
from tomowire.wire.items import PresentationContextRQ
from tomowire.wire.messages import CStoreRSP


def send(program: Program, folder: Path, *samples: Sample, aet: str = "MODALITY", called: str = "ANY") -> int:
    folder.mkdir(exist_ok=True)
    for number, sample in enumerate(samples):
        (folder / f"{number:04}.dcm").write_bytes(sample.header + sample.data_set)
    return run_tomowire(
        "send", f"{called}@{LOOPBACK}:{program.port}", folder, "--aet", aet, "--retries", "0"
    ).returncode


def files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize(
    ("template", "name"),
    [
        ("{sop_instance_uid}.dcm", f"{ROOT}.3.7.dcm"),
        ("{study_instance_uid}/{series_instance_uid}/{sop_instance_uid}", f"{ROOT}.1.1/{ROOT}.2.1.1/{ROOT}.3.7"),
        ("{calling_aet}/{called_aet}/{patient_id}-{instance_number}.dcm", "MODALITY/ANY/P_1-7.dcm"),
        (
            "{study_date}/{modality}_{accession_number}_{sop_class_uid}.{sop_instance_uid}",
            f"20240229/OT_A1_{SECONDARY_CAPTURE}.{ROOT}.3.7",
        ),
        ("{series_number}/{sop_instance_uid}.dcm", f"_/{ROOT}.3.7.dcm"),  # not in the data set
    ],
)
def test_names_are_made_of_the_object(template: str, name: str, tmp_path: Path) -> None:
    folder = tmp_path / "received"
    sample = Sample(7, patient_id="P/1")
    with serving("listen", "-o", folder, "--name", template) as program:
        assert send(program, tmp_path / "sent", sample) == 0
        assert files(folder) == [name]
    assert (folder / name).read_bytes().endswith(sample.data_set)


@pytest.mark.parametrize("patient_id", ["../../../etc/passwd", "..", "/etc/passwd", "a\0b", "C:\\x", "x" * 3000, ""])
def test_no_value_leads_out_of_the_folder(patient_id: str, tmp_path: Path) -> None:
    folder = tmp_path / "received"
    sample = Sample(7, patient_id=patient_id)
    with serving("listen", "-o", folder, "--name", "{patient_id}/{sop_instance_uid}.dcm") as program:
        assert send(program, tmp_path / "sent", sample) == 0
        (name,) = files(folder)
    parts = Path(name).parts
    assert len(parts) == 2
    assert ".." not in parts
    assert parts[1] == f"{sample.uid}.dcm"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["received", "sent"]


def test_json_is_a_line_for_each_object_and_the_rest_goes_to_stderr(tmp_path: Path) -> None:
    folder = tmp_path / "received"
    samples = [Sample(number) for number in range(1, 4)]
    with serving("listen", "-o", folder, "--json") as program:
        assert program.stderr.text == (
            f"tomowire: listening on {LOOPBACK}:{program.port}, writing to {folder}; end with Ctrl-C\n"
        )
        assert send(program, tmp_path / "sent", *samples) == 0
        assert program.end() == 0
    rows = [json.loads(line) for line in program.stdout.text.splitlines()]
    assert sorted(row["sop_instance_uid"] for row in rows) == [sample.uid for sample in samples]
    assert rows[0] == rows[0] | {
        "sop_class_uid": SECONDARY_CAPTURE,
        "transfer_syntax_uid": "1.2.840.10008.1.2.1",
        "calling_aet": "MODALITY",
        "status": 0,
        "comment": None,
        "path": str(folder / f"{rows[0]['sop_instance_uid']}.dcm"),
        "replaced": False,
    }
    assert program.stderr.text.endswith("tomowire: 3 objects stored, 0 refused\n")


def test_an_object_whose_name_is_taken_by_a_folder_is_refused_and_the_next_is_not(tmp_path: Path) -> None:
    folder = tmp_path / "received"
    first, second = Sample(1), Sample(2)
    (folder / f"{first.uid}.dcm" / "in the way").mkdir(parents=True)
    with serving("listen", "-o", folder, "--json", "-v") as program:
        assert send(program, tmp_path / "sent", first, second) == 1
        assert program.end() == 0
    assert files(folder) == [f"{second.uid}.dcm"]
    logged = program.stderr.text
    assert f"stored {second.uid}" in logged
    assert f"{first.uid} not stored: " in logged
    assert f"stored {first.uid}" not in logged
    statuses = {row["sop_instance_uid"]: row["status"] for row in map(json.loads, program.stdout.text.splitlines())}
    assert statuses == {first.uid: 0xA700, second.uid: 0}


async def test_what_the_service_refuses_is_accounted_for_too(tmp_path: Path) -> None:
    """No UID, and no file is tried: the refusal is not the folder's."""
    context = PresentationContextRQ(1, SECONDARY_CAPTURE, (EXPLICIT_VR_LITTLE_ENDIAN,))
    with serving("listen", "-o", tmp_path / "received", "--json") as program:
        async with await RawPeer.connect(program.port) as peer:
            await peer.associate(associate_rq(context))
            request = store_rq(instance="../../etc/passwd", sop_class=SECONDARY_CAPTURE)
            await peer.send(message_pdus(1, request, Sample(1).data_set))
            response = (await peer.read_message()).command
            assert isinstance(response, CStoreRSP)
            assert response.status == 0x0117
            await peer.release()
        assert program.end() == 0
    (row,) = map(json.loads, program.stdout.text.splitlines())
    assert (row["status"], row["path"], row["sop_instance_uid"]) == (0x0117, None, "../../etc/passwd")
    assert program.stderr.text.endswith("tomowire: 0 objects stored, 1 refused\n")


def test_files_that_were_replaced_are_counted_and_warned_of(tmp_path: Path) -> None:
    folder = tmp_path / "received"
    samples = [Sample(1), Sample(2), Sample(2, study=2)]
    with serving("listen", "-o", folder, "--name", "{instance_number}.dcm") as program:
        assert "without {sop_instance_uid} in --name two objects may get the same name" in program.stderr.text
        assert send(program, tmp_path / "sent", *samples) == 0
        assert send(program, tmp_path / "sent", *samples) == 0
        assert program.end() == 0
    assert files(folder) == ["1.dcm", "2.dcm"]
    assert program.stderr.text.endswith("6 objects stored (4 of them replaced a file that was there), 0 refused\n")


async def test_at_the_end_it_says_for_whom_it_waits(tmp_path: Path) -> None:
    context = PresentationContextRQ(1, SECONDARY_CAPTURE, (EXPLICIT_VR_LITTLE_ENDIAN,))
    with serving("listen", "-o", tmp_path / "received") as program:
        async with await RawPeer.connect(program.port) as peer:
            await peer.associate(associate_rq(context))
            program.process.send_signal(signal.SIGINT)
            program.stderr.wait_for("shutting down; an association may finish within 5 s")
            await peer.release()
        assert program.process.wait(20) == 0


def test_who_may_call_whom(tmp_path: Path) -> None:
    with serving(
        "listen", "-o", tmp_path / "received", "--aet", "ME", "--aet", "ME_TOO", "--allow", "FRIEND"
    ) as program:
        assert send(program, tmp_path / "sent", Sample(1), aet="FRIEND", called="ME") == 0
        assert send(program, tmp_path / "sent", Sample(1), aet="FRIEND", called="ME_TOO") == 0
        assert send(program, tmp_path / "sent", Sample(1), aet="FRIEND", called="OTHER") == 4
        assert send(program, tmp_path / "sent", Sample(1), aet="STRANGER", called="ME") == 4


def test_private_sop_classes_only_when_asked(tmp_path: Path) -> None:
    overrides = {0x00080016: ("UI", "1.2.3.4.5")}
    sample = Sample(1, overrides=overrides)
    with serving("listen", "-o", tmp_path / "received") as program:
        assert send(program, tmp_path / "sent", sample) == 5
    with serving("listen", "-o", tmp_path / "received", "--any-sop-class") as program:
        assert send(program, tmp_path / "sent", sample) == 0


def test_whoever_reads_the_json_may_stop_reading(tmp_path: Path) -> None:
    """`tomowire listen --json | head -1` goes on receiving."""
    reader, writer = os.pipe()
    program = start(["listen", "-o", tmp_path / "received", "--json", "--port", "0"], stdout=writer)
    os.close(writer)
    os.close(reader)
    try:
        program.wait_until_listening()
        assert send(program, tmp_path / "sent", Sample(1), Sample(2)) == 0
    finally:
        assert program.end() == 0
    assert files(tmp_path / "received") == [f"{Sample(number).uid}.dcm" for number in (1, 2)]
    assert program.stderr.text.endswith("2 objects stored, 0 refused\n")


def test_lines_of_json_that_cannot_be_written_are_no_failure_of_the_objects(tmp_path: Path) -> None:
    with open("/dev/full", "w") as full:
        program = start(["listen", "-o", tmp_path / "received", "--json", "--port", "0"], stdout=full.fileno())
    try:
        program.wait_until_listening()
        assert send(program, tmp_path / "sent", Sample(1), Sample(2)) == 0
    finally:
        assert program.end() == 0
    assert files(tmp_path / "received") == [f"{Sample(number).uid}.dcm" for number in (1, 2)]
    assert "tomowire: cannot write to standard output: No space left on device" in program.stderr.text
    assert program.stderr.text.endswith("2 objects stored, 0 refused\n")


def test_an_occupied_port(tmp_path: Path) -> None:
    with socket.create_server((LOOPBACK, 0)) as occupant:
        port = occupant.getsockname()[1]
        done = run_tomowire("listen", "-o", tmp_path / "received", "--port", port)
    assert done.returncode == 3
    assert done.stderr == (
        f"tomowire: cannot listen on {LOOPBACK}, port {port}: Address already in use; "
        "another program listens there: stop it, or take another port with --port\n"
    )
    assert files(tmp_path) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_in_order(number: signal.Signals, tmp_path: Path) -> None:
    with serving("listen", "-o", tmp_path / "received") as program:
        began = time.monotonic()
        assert program.end(number) == 0
        assert time.monotonic() - began < 15
    assert list((tmp_path / "received").iterdir()) == []
    assert program.stderr.text.endswith("0 objects stored, 0 refused\n")


def test_what_a_killed_one_left_is_removed_by_the_next(tmp_path: Path) -> None:
    folder = tmp_path / "received"
    with serving("listen", "-o", folder) as program:
        program.end(signal.SIGKILL)
    (leftover,) = folder.iterdir()
    (leftover / "0").write_bytes(b"half an object")
    with serving("listen", "-o", folder):
        assert not leftover.exists()
    assert list(folder.iterdir()) == []


async def test_an_object_whose_handler_fails_is_counted_as_refused(tmp_path: Path) -> None:
    def fail(request: StoreRequest, first: Chunk) -> str:
        raise ZeroDivisionError

    folder, sample = Folder(tmp_path / "received", name=fail), Sample(1)
    (tmp_path / "1.dcm").write_bytes(sample.header + sample.data_set)
    storage = CountedStorage(folder, any_sop_class=False, as_json=False)
    async with listen(LOOPBACK, 0, services=[storage]) as server:
        statuses = [sent.status async for sent in Peer(f"ANY@{LOOPBACK}:{server.port}").send(tmp_path / "1.dcm")]
    folder.close()
    assert statuses == [0x0110]
    assert storage.summary() == "0 objects stored, 1 refused"
