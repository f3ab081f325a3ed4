"""Every program in README and docs/ runs as it stands there, and prints what the page says that it prints.

A block of Python is a program by itself, or a file of tests if it has functions named `test_...`. It finds an archive at
`ARCHIVE@localhost:11112`, a folder `scans/` with `ct.dcm` and `mr.dcm`, and move destinations `RECEIVER` and `VIEWER`. What
listens does so with `listen("127.0.0.1", 11113, ...)`, beside the archive, is called at `@localhost:11113` by the same
program, and ends by itself: with exit code 0, and nothing on stderr. What cannot be run is a block of `text`; one behind
`<!-- prints -->` is what the program before it prints, in which `...` stands for anything.
"""

from __future__ import annotations

import asyncio
import re
import shlex
import sys
from dataclasses import replace
from importlib.metadata import entry_points
from importlib.util import find_spec
from pathlib import Path

import click
import pytest

from support.doc_blocks import Block, all_blocks, blocks, matches, pages
from support.doc_surroundings import Surroundings, make_data_directory, surroundings
from support.network import free_port
from support.programs import command_line
from support.requirements import REPOSITORY
from support.subprocesses import python_environment
from tomowire.cli.main import main

SECONDS = 60

# The file has empty lines before the program and goes by the page's name: a traceback names the line of the page.
_RUNNER = """
import pathlib, sys
exec(compile(pathlib.Path(sys.argv[1]).read_text(), sys.argv[2], "exec"), {"__name__": "__main__"})
"""


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    at = tmp_path_factory.mktemp("documented") / "data"
    asyncio.run(make_data_directory(at))
    return at


async def run(command: list[str], at: Path) -> tuple[int, str, str]:
    process = await asyncio.create_subprocess_exec(
        *command,
        cwd=at,
        env=python_environment() | {"PYTHONWARNINGS": "always::ResourceWarning"},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(SECONDS):
            stdout, stderr = await process.communicate()
    except TimeoutError:
        return -9, "", f"not over after {SECONDS} s"
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode is not None
    return process.returncode, stdout.decode(), stderr.decode()


async def run_block(block: Block, around: Surroundings) -> tuple[int, str, str]:
    program = around.at.parent / ("test_example.py" if block.has_tests else "program.py")
    program.write_text("\n" * (block.line - 1) + block.program(around.archive, free_port()))
    if block.has_tests:
        return await run([*pytest_command(), str(program)], around.at)
    name = block.place.rpartition(":")[0]
    return await run([sys.executable, "-c", _RUNNER, str(program), name], around.at)


def pytest_command() -> list[str]:
    """pytest as a user of ours has it: with our plugin, which an installation registers."""
    is_registered = any(each.value.startswith("tomowire.") for each in entry_points(group="pytest11"))
    plugin = [] if is_registered or find_spec("tomowire.testing") is None else ["-p", "tomowire.testing.plugin"]
    # The other plugin is no part of it, and takes a second to import.
    without = ["-p", "no:cacheprovider", "-p", "no:schemathesis"]
    return [sys.executable, "-m", "pytest", "-q", *without, "-o", "asyncio_mode=auto", *plugin]


def check(block: Block, code: int, stdout: str, stderr: str) -> None:
    if (code, stderr) != (0, ""):
        pytest.fail(f"{block.place}: exit code {code}\n{stdout}{stderr}", pytrace=False)
    if block.prints is not None and not matches(stdout, block.prints):
        pytest.fail(f"{block.place}: printed\n{stdout}\nand not\n{block.prints}", pytrace=False)


def test_no_program_is_overlooked() -> None:
    whole = "\n".join(page.read_text() for page in pages())
    programs = all_blocks("python")
    assert len(programs) == len(re.findall(r"^ *```python", whole, re.MULTILINE))
    assert len([each for each in programs if each.prints]) == whole.count("\n<!-- prints -->\n")


@pytest.mark.parametrize("block", all_blocks("python"), ids=lambda block: block.place)
def test_no_program_listens_where_the_archive_does(block: Block) -> None:
    assert not re.search(r"listen\([^)]*\b11112\b", block.text)


@pytest.mark.parametrize("block", all_blocks("python"), ids=lambda block: block.place)
async def test_the_example_runs(block: Block, tmp_path: Path, data: Path) -> None:
    async with surroundings(tmp_path, data) as around:
        check(block, *await run_block(block, around))


def command_lines() -> list[tuple[Block, list[str]]]:
    """The lines of shell blocks that are one of our commands, without what comes after a comment sign."""
    lines = [(block, line) for block in all_blocks("sh") for line in block.text.splitlines()]
    return [(block, shlex.split(line, comments=True)[1:]) for block, line in lines if line.startswith("tomowire ")]


@pytest.mark.parametrize(
    ("block", "words"), command_lines(), ids=lambda each: each.place if isinstance(each, Block) else each[0]
)
async def test_the_command_runs(block: Block, words: list[str], tmp_path: Path, data: Path) -> None:
    """Those that ask a peer are run; of those that stay, or work on an archive's own data, only the options are read."""
    words = [replace(block, text=word).program("{archive}", 0) for word in words]
    if "{archive}" not in words:
        command = main.get_command(click.Context(main), words[0])
        assert command is not None
        command.make_context(words[0], words[1:], resilient_parsing=False)
        return
    async with surroundings(tmp_path, data) as around:
        words = [around.archive if word == "{archive}" else word for word in words]
        code, stdout, stderr = await run(command_line(*words), around.at)
        if code != 0:
            pytest.fail(
                f"{block.place}: tomowire {shlex.join(words)}: exit code {code}\n{stdout}{stderr}", pytrace=False
            )


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("print('fine')\nprint(1 / 0)\n", r'exit code 1[\s\S]*File "docs/page\.md", line 5'),
        ("def test_it():\n    assert 1 == 2\n", r"exit code 1[\s\S]*test_example\.py:5: AssertionError"),
        ("open('scans/ct.dcm')\n", r"exit code 0[\s\S]*ResourceWarning"),
    ],
    ids=["program", "test", "warning"],
)
async def test_a_failing_example_is_found_by_page_and_line(tmp_path: Path, data: Path, text: str, why: str) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"# Page\n\n```python\n{text}```\n")
    (block,) = blocks("python", page)
    block = replace(block, page=REPOSITORY / "docs" / "page.md")
    async with surroundings(tmp_path, data) as around:
        outcome = await run_block(block, around)
    with pytest.raises(pytest.fail.Exception, match=rf"docs/page\.md:4: {why}"):
        check(block, *outcome)


@pytest.mark.parametrize(
    ("printed", "expected", "does"),
    [
        ("a\nb\n", "a\nb\n", True),
        ("a\nb\n", "a\n", False),
        ("took 1.5 s\n", "took ... s\n", True),
        ("a\nb\nc\n", "a\n...\n", True),
        ("a\nb\n", "...\na\n...\nb\n", True),
        ("a\nb\n", "...\nc\n...\n", False),
        ("(a)\n", "(b)\n", False),
    ],
)
def test_what_is_printed_is_compared(printed: str, expected: str, does: bool) -> None:
    assert matches(printed, expected) is does
