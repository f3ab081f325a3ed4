"""The helpers that other tests trust must themselves notice what they are there to notice."""

from __future__ import annotations

import ast
import asyncio
import gc
import os
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from support import leaks, requirements
from support.leaks import Resources, leaks_since
from support.network import free_port, listening_process
from support.programs import command_line
from support.requirements import REPOSITORY
from support.subprocesses import python_environment
from support.warm_commands import warm_commands


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tomowire.testing.leaks.SECONDS_TO_SETTLE", 0.05)


async def test_a_task_left_running_is_noticed() -> None:
    before = Resources.now()
    task = asyncio.create_task(asyncio.Event().wait(), name="forgotten")
    assert [line for line in await leaks_since(before) if line.startswith("task forgotten")]
    task.cancel()
    assert await leaks_since(before) == []


async def test_a_timer_left_running_is_noticed() -> None:
    before = Resources.now()
    timer = asyncio.get_running_loop().call_later(3600, print)
    assert [line for line in await leaks_since(before) if line.startswith("timer")]
    timer.cancel()
    assert await leaks_since(before) == []


async def test_a_thread_left_running_is_noticed() -> None:
    before = Resources.now()
    finish = threading.Event()
    thread = threading.Thread(target=finish.wait, name="forgotten")
    thread.start()
    assert await leaks_since(before) == ["thread forgotten"]
    finish.set()
    thread.join()
    assert await leaks_since(before) == []


@pytest.mark.skipif(not leaks.DESCRIPTORS.is_dir(), reason="this system does not list open descriptors")
async def test_a_descriptor_left_open_is_noticed_though_its_number_was_open_before() -> None:
    first = socket.socket()
    before = Resources.now()
    number = first.fileno()
    first.close()
    with socket.socket() as second:
        assert second.fileno() == number
        (line,) = await leaks_since(before)
        assert line.startswith(f"file descriptor {number}: socket:")
    assert await leaks_since(before) == []


async def test_worker_threads_of_the_loop_are_no_leak(no_leaks: None) -> None:
    await asyncio.to_thread(threading.current_thread)


def test_a_missing_requirement_skips_and_in_ci_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CI", raising=False)
    with pytest.raises(pytest.skip.Exception, match="nonesuch is not installed"):
        requirements.system_program("nonesuch", package="nothing")
    monkeypatch.setenv("CI", "true")
    with pytest.raises(pytest.fail.Exception, match="nonesuch is not installed"):
        requirements.system_program("nonesuch", package="nothing")


def test_shared_data_is_looked_for_where_the_environment_says(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("CI", raising=False)
    monkeypatch.setenv("TOMOWIRE_SHARED_DATA", str(tmp_path))
    with pytest.raises(pytest.skip.Exception):
        requirements.shared_data_directory()
    (tmp_path / "MANIFEST.tsv").touch()
    assert requirements.shared_data_directory() == tmp_path


def test_dcmtk_tools_are_those_of_the_system(dcmtk: Callable[[str], Path]) -> None:
    assert not dcmtk("storescu").is_relative_to(sys.prefix)


def test_a_listening_process_is_there_inside_the_block_and_gone_after_it(tmp_path: Path) -> None:
    port = free_port()
    serve = [sys.executable, "-m", "http.server", "--bind", "127.0.0.1", str(port)]
    with listening_process(serve, port, log=tmp_path / "log", cwd=tmp_path):
        socket.create_connection(("127.0.0.1", port), timeout=5).close()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port), timeout=5)


def test_a_process_that_ends_before_it_listens_says_why(tmp_path: Path) -> None:
    with (
        pytest.raises(RuntimeError, match="ended with 3") as caught,
        listening_process(
            [sys.executable, "-c", "print('no licence'); raise SystemExit(3)"], free_port(), log=tmp_path / "log"
        ),
    ):
        pass
    assert "no licence" in caught.value.__notes__[0]


@pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="commands are not forked on this system")
def test_a_command_that_starts_warm_does_what_one_does_that_starts_cold(tmp_path: Path) -> None:
    environment = python_environment()
    with warm_commands() as warm:
        assert warm is not None
        for command in (
            ["--version"],
            ["echo", "nonsense"],
            ["echo", f"ANY@127.0.0.1:{free_port()}"],
            ["db", "check", "--data-dir", "nothing"],
        ):
            cold = subprocess.run(
                command_line(*command), cwd=tmp_path, env=environment, capture_output=True, check=False
            )
            expected = (cold.returncode, cold.stdout, cold.stderr)
            for _ in range(2):  # the second finds imported what the first imported
                assert warm.run(command, cwd=tmp_path, environment=environment, timeout=60) == expected
        assert not warm.suit({**environment, "LC_ALL": "C", "PYTHONUTF8": "0"})
        with pytest.raises(subprocess.TimeoutExpired):
            warm.run(["listen", "--port", "0", "-o", "here"], cwd=tmp_path, environment=environment, timeout=1)


def test_two_threads_may_make_syntax_trees_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    source = f"[{','.join(f'f({number}, a.b[c])' for number in range(300))}]"
    failed: list[BaseException] = []

    def parse() -> None:
        try:
            for _ in range(10):
                ast.parse(source)
        except SystemError as error:
            failed.append(error)

    def told(phase: str, information: dict[str, int]) -> None:
        time.sleep(0)  # another thread gets its turn

    threads = [threading.Thread(target=parse) for _ in range(4)]
    gc.callbacks.append(told)
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        gc.callbacks.remove(told)
    assert failed == []
    assert gc.isenabled()


LEAVING = """
import asyncio, socket


def test_a_socket_in_a_circle():
    left = [socket.socket()]
    left.append(left)


async def test_a_task():
    asyncio.get_running_loop().left = asyncio.create_task(asyncio.sleep(60), name="forgotten")


async def test_nothing():
    pass


def test_nothing_either():
    pass
"""


def test_what_a_test_leaves_fails_that_test(tmp_path: Path) -> None:
    (tmp_path / "test_leaving.py").write_text(LEAVING)
    options = [
        "-c",
        str(REPOSITORY / "pyproject.toml"),
        "--rootdir",
        str(tmp_path),
        "-p",
        "conftest",
        "-p",
        "no:cacheprovider",
    ]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-rA", *options, "test_leaving.py"],
        cwd=tmp_path,
        env=python_environment(),
        capture_output=True,
        text=True,
        timeout=80,
        check=False,
    )
    told = [line for line in done.stdout.splitlines() if line.startswith("ERROR ")]
    assert re.findall(r"::(\w+)", "\n".join(told)) == ["test_a_socket_in_a_circle", "test_a_task"], done.stdout
    assert "unclosed <socket" in done.stdout
    assert "task forgotten" in done.stdout


FAILING_AT_FIRST = """
import os, subprocess, sys
import pytest
from support import standstill

runs = []

def stand_still():
    go_on = f"import os, signal, time; time.sleep(1.5); os.kill({os.getpid()}, signal.SIGCONT)"
    waker = subprocess.Popen([sys.executable, "-c", go_on])
    os.kill(os.getpid(), 19)
    waker.wait()

@pytest.mark.parametrize("name", ["stopped", "merely slow", "promise"])
def test_it(name):
    runs.append(name)
    if name != "merely slow":
        stand_still()
    if name == "promise":
        raise standstill.BrokenPromise
    assert runs.count(name) == 2
"""


def test_what_fails_while_the_machine_stands_still_runs_again_and_nothing_else_does(tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text(FAILING_AT_FIRST)
    options = ("-c", os.devnull, "--rootdir", tmp_path, "-p", "no:cacheprovider", "-p", "support.standstill")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options, tmp_path],
        env={**python_environment(), "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert "2 failed, 1 passed, 1 rerun" in done.stdout, done.stdout + done.stderr
    assert re.findall(r"^FAILED .*test_it\[(.*?)\]", done.stdout, re.MULTILINE) == ["merely slow", "promise"]
