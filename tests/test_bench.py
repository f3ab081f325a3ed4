"""The benchmark's short version: everything runs once and loses nothing, and the tables are complete. Times are not looked at."""

from __future__ import annotations

import importlib
import re
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pydicom
import pytest

from support.postgres import postgres_programs
from support.requirements import REPOSITORY
from support.subprocesses import python_environment

BENCH = REPOSITORY / "bench"
PROSE = "# Benchmarks\n\nBefore.\n\n<!-- bench: echo -->\nold\n<!-- end: echo -->\n\nAfter.\n"
WORKLOADS = ("30 objects of 4 kB", "4 CT of 526 kB", "one object of 8 MB")
PAIRINGS = (
    "tomowire send → tomowire listen",
    "DCMTK storescu → storescp",
    "DCMTK storescu → storescp +B",
    "pynetdicom → pynetdicom",
    "bare Python → bare Python",
    "tomowire send → tomowire serve",
    "DCMTK storescu → Orthanc",
)

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the benchmark reads /proc")

Load = Callable[[str], ModuleType]


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Load:
    """Imports a module of the benchmark."""
    monkeypatch.syspath_prepend(str(BENCH))
    return importlib.import_module


def rows(text: str) -> list[list[str]]:
    """The cells of all rows of all tables."""
    return [
        [cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line.startswith("| ")
    ]


def run_bench(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, BENCH / "run.py", *arguments]
    return subprocess.run(command, env=python_environment(), capture_output=True, text=True, timeout=800, check=False)


@pytest.mark.interop
@pytest.mark.slow
@pytest.mark.timeout(900)  # a minute and a half on a quiet machine
def test_short_version(tmp_path: Path, dcmtk: Callable[[str], Path], orthanc: Path, pynetdicom: ModuleType) -> None:
    """The benchmark itself fails when an object has not arrived."""
    assert dcmtk("storescu").exists()
    assert postgres_programs().exists()
    document = tmp_path / "benchmarks.md"
    document.write_text(PROSE, encoding="utf-8")
    work_dir = tmp_path / "work"
    work_dir.mkdir()

    done = run_bench("all", "--small", "--rounds", "1", "--document", document, "--work-dir", work_dir)

    assert done.returncode == 0, done.stderr
    written = document.read_text(encoding="utf-8")
    found = rows(written)
    for workload in WORKLOADS:
        for pairing in PAIRINGS:
            times, memory = [row[1:] for row in found if row[0] == f"{workload}, {pairing}"]
            total, ratio, sender, sender_ratio, start = times
            assert float(total) == pytest.approx(float(sender) + float(start), rel=0.02)
            assert bool(ratio) == bool(sender_ratio) == (not pairing.startswith("tomowire"))
            assert int(memory[0]) > 0
    for title in ("C-FIND, 31 images", "C-GET, 4 CT of 526 kB", "C-MOVE to storescp +B, 4 CT of 526 kB"):
        clock, processor, of_dcmtk = [
            row[1:] for row in found if row[0] == title and len(row) == 4 and row[-1] not in ("yes", "**no**")
        ]
        for ours, other, ratio in (clock, processor, of_dcmtk):
            assert float(ours) / float(other) == pytest.approx(float(ratio), rel=0.02)
    assert [row[1] for row in found if row[0] in ("patient ID", "name `Smith*`", "name `*mith*`", "ten days, CT")] == [
        "SQLite",
        "PostgreSQL",
    ] * 4
    assert [row[0] for row in found if row[0] in ("10", "2000")] == ["10", "2000"]
    promised = [row for row in found if row[-1] in ("yes", "**no**")]
    assert len(promised) == (3 + 1 + 3 + 2) + 1 + 2 + 2 + (3 + 1 + 2 * 2 * 4 + 1) + 1
    windows = [row for row in found if " asked for, " in row[0]]
    assert [row[0].rpartition(" ")[2] for row in windows] == ["1", "8", "16", "64"]
    assert all(float(row[1]) > 0 for row in windows)
    assert [row[0] for row in found if row[0].startswith("after ")] == ["after 20", "after 200"] * 2
    assert re.search(
        r"`scripts/bench transfer --rounds 1 --small` on .+ DCMTK 3\.\d.+ Orthanc 1\.\d.+ Python 3\.", written
    )
    assert written.index("Before.") < written.index("`tomowire echo` against") < written.index("After.")
    assert "old" not in written
    assert list(work_dir.iterdir()) == []


def test_an_answer_that_is_missing_is_a_failure(bench: Load, tmp_path: Path) -> None:
    check_found, failed = bench("dcmtk_clients").check_found, bench("processes").ProgramFailed
    pending = "I: Received Find Response {} (Pending)\n".format
    success = "I: Received Final Find Response (Success)\n"
    log = tmp_path / "log"
    log.write_text(pending(1) + pending(2) + success)
    check_found("anything", log, 2)
    for text in (
        pending(1) + success,
        pending(1) + pending(2),
        success,
        pending(1) + pending(2) + pending(3) + success,
    ):
        log.write_text(text)
        with pytest.raises(failed, match="answers instead of 2"):
            check_found("anything", log, 2)


def test_filled_indexes_are_those_of_an_archive(bench: Load, tmp_path: Path) -> None:
    """As many objects as were asked for, and those that the queries find among them."""
    filled_index = bench("filled_index")
    template = filled_index.record_of_a_file(tmp_path)
    for count in (400, 2000):
        data_dir = tmp_path / str(count)
        filled_index.write_hospital(data_dir, template, count, 20)
        with closing(sqlite3.connect(data_dir / "index.sqlite")) as index:
            tables = ("instances", "series", "studies", "patients")
            found = [index.execute(f"SELECT count(*) FROM {table}").fetchone()[0] for table in tables]
            alike = index.execute(
                "SELECT study_key FROM studies JOIN patients USING (patient_key) WHERE patient_id LIKE 'ALIKE%'"
            )
            keys = [key for (key,) in alike.fetchall()]
        assert found == [count, count // 10, count // 20, count // 20]
        assert len(keys) == 20
        assert max(keys) - min(keys) >= 0.9 * (count // 20 - 1)


@pytest.mark.parametrize(("objects", "size"), [(29, 10**6), (31, 10**6), (30, 30 * 2112 - 1)])
def test_a_lost_object_or_pixel_is_a_failure(bench: Load, objects: int, size: int) -> None:
    workload = bench("workloads").TINY[0]
    arrived = bench("arrivals").Arrived
    bench("measure").check("anything", workload, arrived(30, 30 * 2112))
    with pytest.raises(bench("processes").ProgramFailed, match=f"sent 30 .* found {objects} "):
        bench("measure").check("anything", workload, arrived(objects, size))


def test_a_failure_shows_what_both_programs_said(bench: Load, tmp_path: Path) -> None:
    processes = bench("processes")
    receiver = [sys.executable, "-uc", "import signal; print('disk is full'); signal.pause()"]
    sender = [sys.executable, "-c", "import sys; sys.exit('no such luck')"]

    def fail() -> None:
        with (
            processes.running(receiver, tmp_path / "receiver.log"),
            processes.running(sender, tmp_path / "sender.log") as program,
        ):
            while "full" not in (tmp_path / "receiver.log").read_text():
                pass
            program.wait(30.0)

    with pytest.raises(processes.ProgramFailed, match="ended with exit code 1") as caught:
        fail()
    of_sender, of_receiver = caught.value.__notes__
    assert of_sender.endswith("no such luck\n")
    assert of_receiver.endswith("disk is full\n")


def test_peak_memory_is_that_of_the_program(bench: Load, tmp_path: Path) -> None:
    processes = bench("processes")
    # What it reads takes long enough for the benchmark to look at it, and little memory.
    code = "b = bytes(1) * (64 << 20); f = open('/dev/urandom', 'rb')\nfor _ in range(100): f.read(1 << 20)"
    with processes.running([sys.executable, "-c", code], tmp_path / "log") as program:
        seconds, peak = program.wait(60.0)
    assert seconds > 0
    assert 64 << 20 < peak < 128 << 20


@pytest.mark.parametrize(("index", "files", "pixels"), [(0, 30, 2112), (1, 4, 524288), (2, 1, 8388608)])
def test_workloads_are_distinct_dicom_files(bench: Load, tmp_path: Path, index: int, files: int, pixels: int) -> None:
    workload = bench("workloads").TINY[index]
    workload.write(tmp_path / "source")
    data_sets = [pydicom.dcmread(path) for path in sorted((tmp_path / "source").iterdir())]
    assert len(data_sets) == len({each.SOPInstanceUID for each in data_sets}) == files
    assert {each.file_meta.MediaStorageSOPInstanceUID for each in data_sets} == {
        each.SOPInstanceUID for each in data_sets
    }
    assert len({each.SeriesInstanceUID for each in data_sets}) == workload.series
    assert len({each.StudyInstanceUID for each in data_sets}) == 1
    assert {len(each.PixelData) for each in data_sets} == {pixels}
    assert {each.Rows * each.Columns * int(each.get("NumberOfFrames", 1)) * 2 for each in data_sets} == {pixels}


def test_the_supply_of_small_objects_never_repeats(bench: Load, tmp_path: Path) -> None:
    write_window = bench("workloads").write_window
    write_window(tmp_path / "a", 400, 200)
    write_window(tmp_path / "b", 600, 100)
    found = [pydicom.dcmread(path, stop_before_pixels=True) for path in tmp_path.rglob("*.dcm")]
    assert len({each.SOPInstanceUID for each in found}) == 300
    assert len({each.StudyInstanceUID for each in found}) == len({each.PatientID for each in found}) == 2
    assert len({each.SeriesInstanceUID for each in found}) == 4


def test_ratios_are_taken_within_a_round(bench: Load) -> None:
    """What slows down a whole round does not show."""
    run, result = bench("measure").Run, bench("transfer").Result
    ours = result(None, None, [run(0.5, seconds, 0, 0, 0) for seconds in (0.5, 2.5, 9.5)], 0)
    other = result(None, None, [run(1.0, seconds, 0, 0, 0) for seconds in (1.0, 5.0, 49.0)], 0)
    assert bench("table").ratios(ours, other) == [0.5, 0.5, 0.2]
    assert bench("table").ratios(ours, other, of_sender=True) == [0.5, 0.5, 9.5 / 49]


def test_order_alternates_and_the_warm_up_is_not_counted(
    bench: Load, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    transfer, run = bench("transfer"), bench("measure").Run
    order = []

    def pretend(pairing: SimpleNamespace, workload: object, source: Path, work_dir: Path) -> object:
        assert any(source.iterdir())
        order.append(pairing.name)
        return run(1.0, float(len(order)), 100, 10, 50)

    monkeypatch.setattr(transfer, "run", pretend)
    pairings = [pairing(name) for name in "AB"]
    workload = bench("workloads").TINY[0]
    first, second = transfer.transfer(pairings, [workload], tmp_path, rounds=2, warm_up=True, say=lambda text: None)
    bases, *rounds = ["".join(order)[at : at + 2] for at in range(0, len(order), 2)]
    assert (set(bases), rounds) == ({"A", "B"}, ["BA", "AB", "BA"])
    assert [each.send for each in first.runs] == [5.0, 8.0]
    assert [each.send for each in second.runs] == [6.0, 7.0]


def pairing(name: str, *, ours: bool = False) -> SimpleNamespace:
    return SimpleNamespace(name=name, title=name, sender=SimpleNamespace(title=name), ours=ours)


@pytest.mark.parametrize("ours", [False, True])
def test_only_a_foreign_program_gets_another_try_and_that_is_said(
    bench: Load, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ours: bool
) -> None:
    transfer, run, failed = bench("transfer"), bench("measure").Run, bench("processes").ProgramFailed
    outcomes = iter([run(1.0, 1.0, 1, 1, 1), failed("it hung"), run(1.0, 2.0, 1, 1, 1)])
    said: list[str] = []

    def pretend(*_: object) -> object:
        outcome = next(outcomes)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    monkeypatch.setattr(transfer, "run", pretend)
    arguments = ([pairing("A", ours=ours)], [bench("workloads").TINY[0]], tmp_path)
    if ours:
        with pytest.raises(failed, match="it hung"):
            transfer.transfer(*arguments, rounds=1, warm_up=False, say=said.append)
    else:
        (result,) = transfer.transfer(*arguments, rounds=1, warm_up=False, say=said.append)
        assert [each.send for each in result.runs] == [2.0]
        assert any("it hung" in text for text in said)


def test_a_link_passes_on_all_bytes_and_ends_after_a_delay(bench: Load, tmp_path: Path) -> None:
    processes = bench("processes")
    near, far = processes.free_port(), processes.free_port()
    link = [sys.executable, str(BENCH / "peers" / "delaying_link.py"), str(near), str(far), "50"]
    with processes.running(link, tmp_path / "log") as program, socket.create_server(("127.0.0.1", far)) as target:
        program.wait_until_listening(near)
        with socket.create_connection(("127.0.0.1", near), timeout=20) as one:
            target.settimeout(20)
            other, _ = target.accept()
            with other:
                other.settimeout(20)
                for sender, receiver, what in ((one, other, b"ask"), (other, one, b"answer")):
                    begun = time.perf_counter()
                    sender.sendall(what)
                    assert receiver.recv(100) == what
                    assert time.perf_counter() - begun >= 0.049
                one.shutdown(socket.SHUT_WR)
                assert other.recv(1) == b""


def test_a_window_that_was_not_granted_is_a_failure(bench: Load, tmp_path: Path) -> None:
    """Otherwise the table would tell of another window than it says."""
    window, failed = bench("window"), bench("processes").ProgramFailed
    case = window.Case(16, 8)
    assert case.window == 8
    wrong = SimpleNamespace(asked=16, granted=8, window=16)
    window.TINY.write(tmp_path / "source")
    files = [window.inspect(path) for path in sorted((tmp_path / "source").iterdir())][:2]
    with pytest.raises(failed, match="a window of 8 was agreed on, not of 16"):
        window._send(files, wrong, tmp_path)


def test_unknown_names_are_refused() -> None:
    done = run_bench("--only", "large,nobody")
    assert done.returncode == 2
    assert "'nobody' is none of small, ct, large, listen" in done.stderr
