"""`tomowire send` as a process: what it finds, what it leaves out, and what it says of each file."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import signal
from collections import Counter
from pathlib import Path

import pytest
from pydicom import dcmread
from pydicom.data import get_testdata_file

from support.network import LOOPBACK
from support.programs import run_on_a_terminal, start, tomowire
from support.receiver import Receiver, write_samples
from tomowire import Status, Storage, StoreRequest, listen
from tomowire.aio.serving import IncomingRequest
from tomowire.uids import STORAGE_SOP_CLASSES
from tomowire.wire.messages import CStoreRQ, CStoreRSP
from tomowire.wire.part10 import FileMeta, encode_file_meta


async def test_files_and_folders_arrive_and_are_summed_up(receiver: Receiver, tmp_path: Path) -> None:
    samples = [*write_samples(tmp_path / "a", 3), *write_samples(tmp_path / "a" / "deeper", 2, first=4)]
    samples += write_samples(tmp_path / "b", 1, first=6)
    done = await tomowire("send", receiver.peer, tmp_path / "a", tmp_path / "b" / "0006.dcm", "--json")
    assert done.code == 0
    assert done.stderr == ""
    assert receiver.received == {sample.uid: sample.data_set for sample in samples}
    summary = done.json
    assert (summary["peer"], summary["stored"], summary["failed"]) == (receiver.peer, 6, 0)
    assert summary["bytes"] == sum(len(sample.data_set) for sample in samples)
    assert summary["objects"][-1] == {
        "path": str(tmp_path / "b" / "0006.dcm"),
        "outcome": "stored",
        "sop_instance_uid": samples[-1].uid,
        "status": 0,
        "reason": None,
    }


async def test_without_json_stdout_is_clean_and_the_summary_is_a_line(receiver: Receiver, tmp_path: Path) -> None:
    write_samples(tmp_path / "a", 2)
    done = await tomowire("send", receiver.peer, tmp_path / "a")
    assert (done.code, done.stdout) == (0, "")
    assert re.fullmatch(r"tomowire: 2 stored \(0\.0 MB in \d+\.\d\d s, \d+ MB/s\)\n", done.stderr)
    quiet = await tomowire("send", receiver.peer, tmp_path / "a", "--quiet")
    assert (quiet.code, quiet.stdout, quiet.stderr) == (0, "", "")


async def test_what_is_not_dicom_is_reported_and_skipped(receiver: Receiver, tmp_path: Path) -> None:
    (sample,) = write_samples(tmp_path / "a", 1)
    (tmp_path / "a" / "notes.txt").write_text("not an image")
    (tmp_path / "a" / "empty").touch()
    done = await tomowire("send", receiver.peer, tmp_path / "a", "--json")
    assert done.code == 0
    assert receiver.received.keys() == {sample.uid}
    assert done.json["skipped"] == 2
    assert {row["path"] for row in done.json["objects"] if row["outcome"] == "skipped"} == {
        str(tmp_path / "a" / "notes.txt"),
        str(tmp_path / "a" / "empty"),
    }
    assert f"{tmp_path / 'a' / 'notes.txt'}: skipped: not a DICOM file" in done.stderr


async def test_a_file_that_is_named_and_is_not_dicom_is_a_failure(receiver: Receiver, tmp_path: Path) -> None:
    (sample,) = write_samples(tmp_path / "a", 1)
    (tmp_path / "notes.txt").write_text("not an image")
    done = await tomowire("send", receiver.peer, tmp_path / "notes.txt", tmp_path / "a")
    assert done.code == 1
    assert f"{tmp_path / 'notes.txt'}: not a DICOM file" in done.stderr
    assert receiver.received.keys() == {sample.uid}


async def test_a_path_that_is_not_there_stops_nothing(receiver: Receiver, tmp_path: Path) -> None:
    (sample,) = write_samples(tmp_path / "a", 1)
    done = await tomowire("send", receiver.peer, tmp_path / "gone.dcm", tmp_path / "a", "--json")
    assert (done.code, done.json["stored"], done.json["failed"]) == (1, 1, 1)
    assert f"{tmp_path / 'gone.dcm'}: No such file or directory" in done.stderr
    assert receiver.received.keys() == {sample.uid}


async def test_an_image_without_uids_in_a_folder_is_a_failure(receiver: Receiver, tmp_path: Path) -> None:
    write_samples(tmp_path / "a", 1)
    (tmp_path / "a" / "0002.dcm").write_bytes(b"\x08\0\x05\0CS\x0a\0ISO_IR 100\x10\0\x10\0PN\2\0A ")
    done = await tomowire("send", receiver.peer, tmp_path / "a")
    assert done.code == 1
    assert "0002.dcm: neither file meta information nor data set names a SOP class" in done.stderr


async def test_what_is_only_counted_is_named_when_asked_and_quiet_tells_of_failures_only(
    receiver: Receiver, tmp_path: Path
) -> None:
    write_samples(tmp_path / "a", 1)
    for number in range(6):
        (tmp_path / "a" / f"notes {number}").write_text("not an image")
    arguments = ("send", receiver.peer, tmp_path / "a")
    assert "and 3 more files: skipped: not a DICOM file" in (await tomowire(*arguments)).stderr
    named = (await tomowire(*arguments, "-v")).stderr
    assert all(f"notes {number}: skipped" in named for number in range(6))
    assert "more file" not in named
    (tmp_path / "a" / "0002.dcm").write_bytes(bytes(128) + b"DICM")
    quiet = await tomowire(*arguments, "--quiet")
    assert quiet.stderr == f"tomowire: {tmp_path}/a/0002.dcm: the file ends inside its file meta information\n"


async def test_verbose_tells_what_was_agreed_and_of_each_object(receiver: Receiver, tmp_path: Path) -> None:
    (sample,) = write_samples(tmp_path / "a", 1)
    (tmp_path / "a" / "private.dcm").write_bytes(encode_file_meta(FileMeta("1.2.3.4", "1.2.5", "1.2.840.10008.1.2.1")))
    once = (await tomowire("send", receiver.peer, tmp_path / "a", "-v")).stderr
    assert "established, 1 of 2 presentation contexts accepted; data sent in pieces of up to 262" in once
    assert "context 3: 1.2.3.4 in Explicit VR Little Endian: refused" in once
    assert f"{sample.uid}: 0000H (success)" in once
    assert once.count(": released") == 1
    assert "context 1" not in once
    twice = (await tomowire("send", receiver.peer, tmp_path / "a", "-vv")).stderr
    assert "context 1: Secondary Capture Image Storage in Explicit VR Little Endian: accepted" in twice


async def test_a_comment_with_success_is_passed_on(tmp_path: Path) -> None:
    class Commenting(Storage):
        async def handle(self, request: IncomingRequest) -> None:
            assert isinstance(request.message, CStoreRQ)
            await request.respond(
                CStoreRSP(
                    message_id_being_responded_to=request.message.message_id,
                    affected_sop_class_uid=request.message.affected_sop_class_uid,
                    affected_sop_instance_uid=request.message.affected_sop_instance_uid,
                    status=0,
                    error_comment="another one is kept",
                )
            )

    async def keep(_: StoreRequest) -> Status:
        raise AssertionError

    write_samples(tmp_path / "a", 5)
    async with listen(LOOPBACK, 0, services=[Commenting(keep)], shutdown_grace=0) as server:
        done = await tomowire("send", f"ANY@{LOOPBACK}:{server.port}", tmp_path / "a", "--json")
    said = "stored, and the peer says: another one is kept"
    assert (done.code, done.json["stored"]) == (0, 5)
    assert {(row["outcome"], row["reason"]) for row in done.json["objects"]} == {("stored", said)}
    assert done.stderr.count(f".dcm: {said}") == 3
    assert f"and 2 more files: {said}" in done.stderr


async def test_a_full_disk_under_the_output_is_an_error_of_its_own(receiver: Receiver, tmp_path: Path) -> None:
    write_samples(tmp_path / "a", 1)
    with await asyncio.to_thread(open, "/dev/full", "wb") as full:
        program = await asyncio.to_thread(start, ["send", receiver.peer, tmp_path / "a", "--json"], stdout=full)
    assert await asyncio.to_thread(program.process.wait, 30) == 1
    program.stderr.join()
    assert program.stderr.text.endswith("tomowire: standard output: No space left on device\n")
    assert "Exception ignored" not in program.stderr.text


async def test_a_damaged_dicom_file_in_a_folder_is_a_failure_and_stops_nothing(
    receiver: Receiver, tmp_path: Path
) -> None:
    (sample,) = write_samples(tmp_path / "a", 1)
    (tmp_path / "a" / "0000.dcm").write_bytes(sample.header[:200])
    done = await tomowire("send", receiver.peer, tmp_path / "a")
    assert done.code == 1
    assert "0000.dcm: the file ends inside its file meta information" in done.stderr
    assert receiver.received.keys() == {sample.uid}


async def test_what_cannot_be_read_is_a_failure_and_stops_nothing(receiver: Receiver, tmp_path: Path) -> None:
    (sample,) = write_samples(tmp_path / "a", 1)
    (tmp_path / "a" / "loop").symlink_to("loop")
    (tmp_path / "a" / "gone.dcm").symlink_to("nowhere")
    (tmp_path / "a" / "up").symlink_to(tmp_path)
    os.mkfifo(tmp_path / "a" / "pipe")
    done = await tomowire("send", receiver.peer, tmp_path / "a", "--json")
    assert done.code == 1
    assert receiver.received.keys() == {sample.uid}
    reasons = {Path(row["path"]).name: row["reason"] for row in done.json["objects"] if row["outcome"] == "failed"}
    assert reasons == {
        "loop": "Too many levels of symbolic links",
        "gone.dcm": "No such file or directory",
    }
    skipped = {Path(row["path"]).name: row["reason"] for row in done.json["objects"] if row["outcome"] == "skipped"}
    assert skipped == {"up": "a link to a folder: name the folder itself", "pipe": "neither a file nor a folder"}


async def test_a_file_that_disappears_between_looking_and_sending(receiver: Receiver, tmp_path: Path) -> None:
    samples = write_samples(tmp_path / "a", 200)
    last = tmp_path / "a" / "0200.dcm"
    receiver.on_object = lambda request: last.unlink(missing_ok=True)
    done = await tomowire("send", receiver.peer, tmp_path / "a")
    assert done.code == 1
    assert f"{last}: No such file or directory" in done.stderr.replace(f"{last}: {last}", f"{last}")
    assert len(receiver.received) == len(samples) - 1


async def test_nothing_to_send(receiver: Receiver, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    done = await tomowire("send", receiver.peer, tmp_path / "empty", "--json")
    assert done.code == 1
    assert done.stderr == f"tomowire: there is nothing to send: no DICOM file in {tmp_path / 'empty'}\n"
    assert done.json["objects"] == []


async def test_names_that_are_no_text(receiver: Receiver, tmp_path: Path) -> None:
    (sample,) = write_samples(tmp_path / "a", 1)
    odd = os.fsencode(tmp_path / "a") + b"/\xff\xfe\x1b[31m.dcm"
    (tmp_path / "a" / "0001.dcm").rename(os.fsdecode(odd))
    planned = await tomowire("send", receiver.peer, tmp_path / "a", "--dry-run")
    assert os.fsencode(planned.stdout) == odd + b"\n"
    done = await tomowire("send", receiver.peer, tmp_path / "a", "--json", "--resume", tmp_path / "done")
    assert (done.code, done.stderr) == (0, "")
    assert done.json["objects"][0]["path"].endswith("/\\xff\\xfe\x1b[31m.dcm"), "lone surrogates are no JSON"
    again = await tomowire("send", receiver.peer, tmp_path / "a", "--json", "--resume", tmp_path / "done")
    assert (again.json["resumed"], receiver.times) == (1, [sample.uid])


@pytest.fixture
def file_set(tmp_path: Path) -> Path:
    """pydicom's File-set with all that belongs to it; gives the DICOMDIR."""
    found = get_testdata_file("DICOMDIR", download=False)
    assert isinstance(found, str)
    shutil.copytree(Path(found).parent, tmp_path / "disc")
    return tmp_path / "disc" / "DICOMDIR"


def referenced(dicomdir: Path) -> list[Path]:
    records = dcmread(dicomdir).DirectoryRecordSequence
    return [dicomdir.parent.joinpath(*each.ReferencedFileID) for each in records if "ReferencedFileID" in each]


async def test_a_dicomdir_stands_for_its_files(receiver: Receiver, file_set: Path) -> None:
    files = referenced(file_set)
    assert len(files) > 10
    done = await tomowire("send", receiver.peer, file_set, "--json")
    assert done.code == 0, done.stderr
    assert sorted(row["path"] for row in done.json["objects"]) == sorted(map(str, files))
    assert len(receiver.received) == len({dcmread(path).SOPInstanceUID for path in files})


async def test_a_dicomdir_whose_files_have_small_letters(receiver: Receiver, file_set: Path) -> None:
    files = referenced(file_set)
    upper = file_set.parent / files[0].relative_to(file_set.parent).parts[0]
    upper.rename(upper.with_name(upper.name.lower() + "_"))
    upper.with_name(upper.name.lower() + "_").rename(upper.with_name(upper.name.lower()))
    done = await tomowire("send", receiver.peer, file_set, "--json")
    assert (done.code, done.json["stored"]) == (0, len(files)), done.stderr


async def test_a_dicomdir_that_names_what_is_not_there(receiver: Receiver, file_set: Path) -> None:
    files = referenced(file_set)
    files[0].unlink()
    done = await tomowire("send", receiver.peer, file_set)
    assert done.code == 1
    assert f"{files[0]}: No such file or directory" in done.stderr
    assert len(receiver.times) == len(files) - 1


async def test_in_a_folder_a_dicomdir_is_passed_over(receiver: Receiver, file_set: Path) -> None:
    files = referenced(file_set)
    for other in file_set.parent.glob("DICOMDIR-*"):
        other.unlink()
    done = await tomowire("send", receiver.peer, file_set.parent, "--json")
    skipped = {row["path"] for row in done.json["objects"] if row["outcome"] == "skipped"}
    assert str(file_set) in skipped
    assert len(receiver.times) >= len(files)


async def test_dry_run_sends_nothing_and_says_what_it_would(receiver: Receiver, tmp_path: Path) -> None:
    samples = write_samples(tmp_path / "a", 3)
    done = await tomowire("send", receiver.peer, tmp_path / "a", "--dry-run")
    assert done.code == 0
    assert done.stdout.splitlines() == [str(tmp_path / "a" / f"000{number}.dcm") for number in (1, 2, 3)]
    assert "an association for 3 files, with 1 presentation context:" in done.stderr
    assert "Secondary Capture Image Storage, Explicit VR Little Endian" in done.stderr
    as_json = await tomowire("send", receiver.peer, tmp_path / "a", "--dry-run", "--json")
    assert [row["sop_instance_uid"] for row in as_json.json["would_send"]] == [sample.uid for sample in samples]
    assert as_json.json["associations"] == 1
    assert receiver.times == []
    assert (await tomowire("send", "ANY@127.0.0.1:1", tmp_path / "a", "--dry-run")).code == 0


async def test_what_is_refused_for_want_of_resources_is_sent_again(receiver: Receiver, tmp_path: Path) -> None:
    samples = write_samples(tmp_path / "a", 3)
    receiver.on_object = lambda request: 0xA700 if len(receiver.times) == 1 else None
    done = await tomowire("send", receiver.peer, tmp_path / "a", "--json")
    assert (done.code, done.json["stored"]) == (0, 3)
    assert receiver.received.keys() == {sample.uid for sample in samples}
    assert receiver.times[0] == receiver.times[-1]
    receiver.times.clear()
    once = await tomowire("send", receiver.peer, tmp_path / "a", "--json", "--retries", "0")
    assert (once.code, once.json["failed"], len(receiver.times)) == (1, 1, 3)


async def test_three_associations_are_used_at_once(receiver: Receiver, tmp_path: Path) -> None:
    samples = write_samples(tmp_path / "a", 60)
    barrier = asyncio.Barrier(3)
    first: set[object] = set()

    async def wait_for_the_others(request: StoreRequest) -> None:
        if request.association not in first:
            first.add(request.association)
            async with asyncio.timeout(20):
                await barrier.wait()

    receiver.on_object = wait_for_the_others
    done = await tomowire("send", receiver.peer, tmp_path / "a", "-j", "3", "--json")
    assert (done.code, done.json["stored"]) == (0, 60)
    assert receiver.most_associations == 3
    assert receiver.received == {sample.uid: sample.data_set for sample in samples}


async def test_more_contexts_than_an_association_has_room_for(receiver: Receiver, tmp_path: Path) -> None:
    classes = [uid for uid in STORAGE_SOP_CLASSES if uid.startswith("1.2.840.10008.5.1.4.1.1.")]
    syntaxes = ["1.2.840.10008.1.2", "1.2.840.10008.1.2.1"]
    pairs = [(sop_class, syntax) for sop_class in classes for syntax in syntaxes][:200]
    assert len(pairs) > 128
    for number, (sop_class, syntax) in enumerate(pairs):
        (tmp_path / f"{number}.dcm").write_bytes(encode_file_meta(FileMeta(sop_class, f"1.2.{number}", syntax)))
    done = await tomowire("send", receiver.peer, tmp_path, "--json")
    assert (done.code, done.json["stored"], len(receiver.times)) == (0, len(pairs), len(pairs)), done.stderr
    planned = await tomowire("send", receiver.peer, tmp_path, "--dry-run", "--json")
    assert planned.json["associations"] == 2


async def test_a_peer_that_aborts_at_one_object_gets_all_the_others(receiver: Receiver, tmp_path: Path) -> None:
    samples = write_samples(tmp_path / "a", 100)
    bad = samples[37].uid
    receiver.on_object = lambda request: request.association.abort() if request.sop_instance_uid == bad else None
    done = await tomowire("send", receiver.peer, tmp_path / "a", "--json")
    assert done.code == 1
    assert receiver.received.keys() >= {sample.uid for sample in samples} - {bad}
    (failed,) = (row for row in done.json["objects"] if row["outcome"] == "failed")
    assert failed["sop_instance_uid"] == bad
    assert "the peer aborted the association" in failed["reason"]


async def test_a_peer_that_goes_away_for_good(receiver: Receiver, tmp_path: Path) -> None:
    write_samples(tmp_path / "a", 100)
    closing: list[asyncio.Task[None]] = []

    def go_away(_: StoreRequest) -> None:
        if len(receiver.times) == 20:
            assert receiver.server is not None
            closing.append(asyncio.create_task(receiver.server.close(grace=0)))

    receiver.on_object = go_away
    done = await tomowire("send", receiver.peer, tmp_path / "a", "--json", "--retries", "0")
    await asyncio.gather(*closing)
    outcomes = Counter(row["outcome"] for row in done.json["objects"])
    assert done.code == 1
    assert outcomes.keys() == {"stored", "failed"}
    assert outcomes.total() == 100
    assert outcomes["stored"] <= len(receiver.received)
    assert "refused; nothing listens there" in done.stderr


async def test_interrupted_it_tells_what_it_has_done(receiver: Receiver, tmp_path: Path) -> None:
    write_samples(tmp_path / "a", 50)
    reached = asyncio.Event()

    async def stop_at_20(_: StoreRequest) -> None:
        if len(receiver.times) > 20:
            reached.set()
            await asyncio.sleep(3600)

    receiver.on_object = stop_at_20
    program = await asyncio.to_thread(start, ["send", receiver.peer, tmp_path / "a", "--json"])
    async with asyncio.timeout(30):
        await reached.wait()
    code = await asyncio.to_thread(program.end, signal.SIGINT)
    assert code == 130
    summary = json.loads(program.stdout.text)
    assert summary["interrupted"] is True
    assert summary["stored"] <= 20
    outcomes = Counter(row["outcome"] for row in summary["objects"])
    assert outcomes == Counter({"stored": summary["stored"], "not sent": summary["not_sent"]})
    assert outcomes.total() == 50
    assert program.stderr.text.endswith("tomowire: interrupted\n")


@pytest.mark.parametrize("on_sigint", [signal.default_int_handler, signal.SIG_IGN], ids=["foreground", "background"])
async def test_ended_by_sigterm_it_says_how_many_were_not_sent(
    receiver: Receiver, tmp_path: Path, on_sigint: signal.Handlers
) -> None:
    write_samples(tmp_path / "a", 5)
    reached = asyncio.Event()

    async def stop(_: StoreRequest) -> None:
        reached.set()
        await asyncio.sleep(3600)

    receiver.on_object = stop
    before = signal.signal(signal.SIGINT, on_sigint)  # inherited, if it is to be ignored
    try:
        program = start(["send", receiver.peer, tmp_path / "a"])
    finally:
        signal.signal(signal.SIGINT, before)
    async with asyncio.timeout(30):
        await reached.wait()
    assert await asyncio.to_thread(program.end, signal.SIGTERM) == 143
    assert re.search(r"tomowire: 0 stored \(.*\), 5 not sent\ntomowire: interrupted\n$", program.stderr.text)
    assert "WARNING" not in program.stderr.text


async def test_a_progress_bar_only_on_a_terminal(receiver: Receiver, tmp_path: Path) -> None:
    write_samples(tmp_path / "a", 5, size=100_000)

    async def take_time(_: StoreRequest) -> None:
        await asyncio.sleep(0.15)  # the bar is drawn ten times a second

    receiver.on_object = take_time
    arguments: list[object] = ["send", receiver.peer, tmp_path / "a", "--window", "1"]
    shown = await asyncio.to_thread(run_on_a_terminal, arguments)
    assert "━".encode() in shown
    assert re.search(rb"\d/50\d\.\d kB", shown)
    assert b"5 stored" in shown
    long = tmp_path / "a" / f"{'long ' * 30}.txt"
    long.write_text("not an image")
    receiver.on_object = lambda request: 0xB000
    shown = await asyncio.to_thread(run_on_a_terminal, arguments)
    assert f"{long}: skipped: not a DICOM file".encode() in shown, "names are not broken at the width of the terminal"
    assert b"0005.dcm: the peer answered B000H (coercion" not in shown  # the fourth and the fifth are counted
    assert f"{tmp_path}/a/0001.dcm: the peer answered B000H (coercion of data elements, or some".encode() in shown
    quiet = await asyncio.to_thread(run_on_a_terminal, [*arguments, "--quiet"])
    assert quiet == b""
    piped = await tomowire(*arguments)
    assert "━" not in piped.stderr
