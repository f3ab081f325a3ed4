"""What README tells newcomers to type does what it says, as it stands there. (The other pages: tests/docs.)"""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.objects import Sample
from support.programs import Program, command_line, serving
from support.requirements import REPOSITORY
from support.stored import contents
from support.subprocesses import python_environment

README = (REPOSITORY / "README.md").read_text()
SAMPLES = [Sample(number, overrides={0x00100010: ("PN", "Smith^John")}) for number in range(1, 4)]


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", README, flags=re.DOTALL | re.MULTILINE)


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
