"""What README and docs/library.md tell newcomers to type does what they say, as it stands there."""

from __future__ import annotations

import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.network import LOOPBACK, free_port, listening_process
from support.objects import Sample
from support.programs import Program, command_line, run_tomowire, serving
from support.requirements import REPOSITORY
from support.stored import contents
from support.subprocesses import python_environment

README = (REPOSITORY / "README.md").read_text()
LIBRARY = (REPOSITORY / "docs" / "library.md").read_text()
OF_THE_LIBRARY = {
    "peer": "peer.send(",
    "association": "CStoreScu(association)",
    "query": "async for study in peer.find(",
    "leaving": "def first_study",
    "retrieving": "peer.get(",
    "moving": "peer.move(",
    "acceptor": "Storage(keep)]",
    "dataset": "dcmread(BytesIO(",
    "answering": "Find(answer)",
    "giving": "Get(objects)",
}
"""The examples in docs/library.md, by what stands in one of them and in no other."""
CT = "1.2.840.10008.5.1.4.1.1.2"
SAMPLES = [Sample(number, overrides={0x00100010: ("PN", "Smith^John")}) for number in range(1, 4)]


def blocks(language: str, text: str = README) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", text, flags=re.DOTALL | re.MULTILINE)


def library_examples() -> dict[str, str]:
    examples = blocks("python", LIBRARY)
    found = {name: [each for each in examples if mark in each] for name, mark in OF_THE_LIBRARY.items()}
    assert sorted(each for those in found.values() for each in those) == sorted(examples), "one each"
    return {name: example for name, (example,) in found.items()}


@pytest.fixture
def archive(tmp_path: Path) -> Iterator[Program]:
    """An archive with its defaults but for the port, and a folder of scans where the reader is."""
    (tmp_path / "scans").mkdir()
    for sample in SAMPLES:
        (tmp_path / "scans" / f"{sample.number}.dcm").write_bytes(sample.header + sample.data_set)
    with serving("serve", cwd=tmp_path) as program:
        yield program


def with_port(text: str, archive: Program) -> str:
    assert ":11112" in text
    return text.replace(":11112", f":{archive.port}")


def test_the_library_example_runs(archive: Program, tmp_path: Path) -> None:
    (example,) = blocks("python")
    done = subprocess.run(
        [sys.executable, "-c", with_port(example, archive)],
        cwd=tmp_path,
        env=python_environment(),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    *sent, found = done.stdout.splitlines()
    assert sorted(sent) == [f"scans/{number}.dcm 0000H (success)" for number in (1, 2, 3)]
    assert found == f"Smith^John {SAMPLES[0].study_uid}"
    assert contents(tmp_path / "tomowire-data") == {sample.uid: sample.data_set for sample in SAMPLES}


def run_example(example: str, at: Path) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-c", example],
        cwd=at,
        env=python_environment(),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.splitlines()


def test_the_examples_of_a_requestor_run(archive: Program, tmp_path: Path) -> None:
    ct = Sample(9, overrides={0x00080016: ("UI", CT)})
    (tmp_path / "scans" / "ct.dcm").write_bytes(ct.header + ct.data_set)
    examples = library_examples()
    peer, association = examples["peer"], examples["association"]
    printed = run_example(with_port(peer, archive), tmp_path)
    assert printed[0] == "0000H (success)"
    names = (1, 2, 3, "ct")
    assert sorted(printed[1:]) == [f"scans/{name}.dcm 0000H (success)" for name in names]
    assert run_example(with_port(association, archive), tmp_path) == [str(len(ct.data_set)), "0000H (success) None"]
    assert contents(tmp_path / "tomowire-data")[ct.uid] == ct.data_set


def test_the_examples_of_queries_run(archive: Program, tmp_path: Path) -> None:
    smith = {0x00080020: ("DA", "20260115"), 0x00080060: ("CS", "CT"), 0x00100010: ("PN", "Smith^John")}
    folder = tmp_path / "more"
    folder.mkdir()
    studies = [
        Sample(20, study=2, patient_id="P2", overrides=smith),
        Sample(21, study=2, patient_id="P2", overrides=smith),
        Sample(22, study=3, patient_id="P2", overrides=smith | {0x00080020: ("DA", "20251231")}),
        Sample(23, study=4, patient_id="P3", overrides=smith | {0x00100010: ("PN", "Jones^John")}),
    ]
    for each in studies:
        (folder / f"{each.number}.dcm").write_bytes(each.header + each.data_set)
    assert run_tomowire("send", f"TOMOWIRE@{LOOPBACK}:{archive.port}", folder).returncode == 0
    examples = library_examples()
    printed = run_example(with_port(examples["query"], archive), tmp_path)
    assert printed == [f"Smith^John 20260115 {studies[0].study_uid}", "   CT 2"]
    ask = (
        f"async def main():\n    async with Peer('TOMOWIRE@{LOOPBACK}:{archive.port}') as peer:\n"
        "        print(await first_study(peer, 'Jones*'), await first_study(peer, 'Nobody'))\n"
        "import asyncio; asyncio.run(main())"
    )
    assert run_example(f"{examples['leaving']}\n{ask}", tmp_path) == [f"{studies[3].study_uid} None"]


def test_the_examples_of_retrievals_run(archive: Program, tmp_path: Path) -> None:
    overrides = {0x00080016: ("UI", CT), 0x00080060: ("CS", "CT"), 0x00100010: ("PN", "Smith^John")}
    ct = Sample(9, study=9, overrides=overrides)
    (tmp_path / "scans" / "ct.dcm").write_bytes(ct.header + ct.data_set)
    examples = library_examples()
    run_example(with_port(examples["peer"], archive), tmp_path)
    *progress, last = run_example(with_port(examples["retrieving"], archive), tmp_path)
    path = f"received/{ct.uid}.dcm"
    assert f"{ct.uid} {len(ct.data_set)} 0000H (success) {path}" in progress
    assert last == "1 of 1"
    assert (tmp_path / path).read_bytes().endswith(ct.data_set)
    (printed,) = run_example(with_port(examples["moving"], archive), tmp_path)
    assert printed.startswith("not moved: TOMOWIRE ended the retrieval: A801H")


def test_the_example_that_answers_queries_runs(tmp_path: Path) -> None:
    port = free_port()
    example = library_examples()["answering"]
    assert "11114" in example
    command = [sys.executable, "-uc", example.replace("11114", str(port))]
    ask = (
        "import asyncio\nfrom tomowire import Peer, Query, QueryFailed\nasync def main():\n"
        f"    async with Peer('STUDIES@{LOOPBACK}:{port}') as peer:\n"
        "        for query in (Query.studies(), Query.study('1.2.4'), Query.patients()):\n"
        "            try: print([str(each.PatientName) async for each in peer.find(query)])\n"
        "            except QueryFailed as error: print(error)\n"
        "asyncio.run(main())"
    )
    with listening_process(command, port, log=tmp_path / "log", env=python_environment()):
        everything, one, failure = run_example(ask, tmp_path)
    assert (everything, one) == ("['Smith^John', 'Doe^Jane']", "['Doe^Jane']")
    assert "only studies can be asked for" in failure
    assert "QueryRetrieveLevel (0008,0052)" in failure


def test_the_example_that_answers_retrievals_runs(tmp_path: Path) -> None:
    """What is given to who asks with C-GET; a destination there is none for is not known (PS3.4 Table C.4-2)."""
    port, folder = free_port(), tmp_path / "studies" / "1.2.3"
    folder.mkdir(parents=True)
    for sample in SAMPLES:
        (folder / f"{sample.number}.dcm").write_bytes(sample.header + sample.data_set)
    example = library_examples()["giving"]
    assert "11115" in example
    ask = (
        "import asyncio\nfrom tomowire import *\nasync def keep(request):\n    print(request.sop_instance_uid)\n    return 0\n"
        "async def main():\n"
        "    contexts = [*getting('Secondary Capture Image Storage'), moving()]\n"
        f"    async with associate('STUDIES@{LOOPBACK}:{port}', contexts, services=[Storage(keep)]) as association:\n"
        "        async for each in CGetScu(association).get(Query.study('1.2.3')): pass\n"
        "        print(each.completed)\n"
        "        try:\n            async for each in CMoveScu(association).move(Query.study('1.2.3'), 'NOBODY'): pass\n"
        "        except RetrieveFailed as error: print(error)\n"
        "asyncio.run(main())"
    )
    command = [sys.executable, "-uc", example.replace("11115", str(port))]
    with listening_process(command, port, log=tmp_path / "log", cwd=tmp_path, env=python_environment()):
        *got, count, failure = run_example(ask, tmp_path)
    assert sorted(got) == [sample.uid for sample in SAMPLES]
    assert count == "3"
    assert "A801H" in failure


def test_the_examples_of_an_acceptor_run(tmp_path: Path) -> None:
    sample, port = SAMPLES[0], free_port()
    (tmp_path / "1.dcm").write_bytes(sample.header + sample.data_set)
    examples = library_examples()
    acceptor, dataset = examples["acceptor"], examples["dataset"]
    assert "11113" in acceptor
    acceptor = acceptor.replace("11113", str(port))
    other = acceptor.replace("async def main", f"{dataset}\n\nasync def main")
    for example, line in (
        (acceptor, f"TOMOWIRE {sample.uid} {len(sample.data_set)}"),
        (other, "Explicit VR Little Endian OT"),
    ):
        with listening_process(
            [sys.executable, "-uc", example], port, log=tmp_path / "log", env=python_environment()
        ) as process:
            assert run_tomowire("send", f"RECEIVER@{LOOPBACK}:{port}", tmp_path / "1.dcm").returncode == 0
            process.send_signal(signal.SIGTERM)
            assert process.wait(10) == 0
        assert (tmp_path / "log").read_text().splitlines() == [line]


def test_the_commands_run(archive: Program, tmp_path: Path) -> None:
    lines = [
        shlex.split(line, comments=True)
        for block in blocks("sh")
        for line in block.splitlines()
        if line.startswith("tomowire ")
    ]
    assert [line[1] for line in lines] == ["echo", "send", "query", "retrieve", "listen"]
    for line in lines[:-1]:
        arguments = [with_port(part, archive) if "@" in part else part for part in line[1:]]
        done = subprocess.run(
            command_line(*arguments),
            cwd=tmp_path,
            env=python_environment(),
            capture_output=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        if line[1] == "query":
            assert b"Smith" in done.stdout
    assert contents(tmp_path / "tomowire-data").keys() == {sample.uid for sample in SAMPLES}
    assert {path.name for path in (tmp_path / "smith").iterdir()} == {f"{sample.uid}.dcm" for sample in SAMPLES}
    with serving(*lines[-1][1:], cwd=tmp_path):
        assert (tmp_path / "received").is_dir()
