"""`tomowire user` as a process, while the archive runs."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import pty
import pwd
import socket
import subprocess
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from xml.etree import ElementTree

import pytest

from support.programs import command_line, run_tomowire
from support.subprocesses import python_environment
from tomowire.server.app import Archive, Settings
from tomowire.server.audit.events import Login, Party
from tomowire.server.settings import HttpSettings
from tomowire.server.users import Principal, Role

PASSWORD = "päss word 1"


@pytest.fixture
async def archive(no_leaks: None, tmp_path: Path, index_url: str | None) -> AsyncIterator[Archive]:
    async with Archive(Settings(tmp_path / "data", port=0, index_url=index_url)) as archive:
        yield archive


@pytest.fixture
def user(tmp_path: Path, index_url: str | None) -> Callable[..., subprocess.CompletedProcess[str]]:
    """`user("add", "jo")`: the command, for the archive of the test."""
    where = ["--data-dir", tmp_path / "data", *([] if index_url is None else ["--index-url", index_url])]
    return lambda *arguments, **options: run_tomowire("user", *arguments, *where, **options)


async def test_users_and_tokens_come_and_go_while_the_archive_runs(
    archive: Archive, user: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    async def run(*arguments: object, code: int = 0) -> str:
        done = await asyncio.to_thread(user, *arguments)
        assert done.returncode == code, done.stderr
        assert PASSWORD not in done.stdout + done.stderr
        return done.stdout if code == 0 and done.stdout else done.stderr

    secret = tmp_path / "password"
    secret.write_text(f"{PASSWORD}\r\nsomething else\n", encoding="utf-8")
    assert "jo is an administrator now" in await run("add", "jo", "--role", "administrator", "--password-file", secret)
    assert await archive.users.by_password("jo", PASSWORD) == Principal("jo", Role.ADMINISTRATOR)
    assert "'jo' is the last administrator" in await run("remove", "jo", code=1)
    await archive.users.add("robot", Role.READER)
    token = (await run("token", "add", "robot", "--description", "the night's export", "--expires", "90d")).strip()
    assert await archive.users.by_token(token) == Principal("robot", Role.READER)
    listed = json.loads(await run("list", "--json"))["users"]
    assert [(each["name"], each["role"], each["has_password"]) for each in listed] == [
        ("jo", "administrator", True),
        ("robot", "reader", False),
    ]
    assert datetime.fromisoformat(listed[0]["created_at"]) <= datetime.now(UTC)
    (known,) = await archive.users.tokens()
    assert (known.user_name, known.description) == ("robot", "the night's export")
    assert known.expires_at is not None
    assert timedelta(days=89, hours=23) < known.expires_at - known.created_at <= timedelta(days=90)


# What needs no second database


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of an archive that has been started once."""
    folder = tmp_path_factory.mktemp("archive") / "data"

    async def start() -> None:
        async with Archive(Settings(folder, port=0)):
            pass

    asyncio.run(start())
    return folder


def names(data_dir: Path) -> set[str]:
    listed = run_tomowire("user", "list", "--json", "--data-dir", data_dir)
    return {each["name"] for each in json.loads(listed.stdout)["users"]}


def test_what_can_be_changed(data_dir: Path, tmp_path: Path) -> None:
    def run(*arguments: object, code: int = 0) -> str:
        done = run_tomowire("user", *arguments, "--data-dir", data_dir)
        assert done.returncode == code, done.stderr
        return done.stdout if code == 0 and done.stdout else done.stderr

    secret = tmp_path / "secret"
    secret.write_text("another one")
    assert "kim is a reader now" in run("add", "kim", "--no-password")
    assert "kim is an operator now" in run("role", "kim", "operator")
    assert "kim has another password now" in run("password", "kim", "--password-file", secret)
    table = [line.split() for line in run("list").splitlines()]
    assert table[0] == ["NAME", "ROLE", "PASSWORD", "SINCE"]
    assert ["kim", "operator", "yes"] in [row[:3] for row in table]
    token = run("token", "add", "kim").strip()
    (known,) = json.loads(run("token", "list", "--json"))["tokens"]
    assert (known["id"], known["user"], known["expires_at"]) == (token.split("_")[1], "kim", None)
    assert f"token {known['id']} of kim is revoked" in run("token", "revoke", known["id"])
    assert "there is no token" in run("token", "revoke", known["id"], code=1)
    assert "kim is no user any more" in run("remove", "kim")


def test_a_password_from_standard_input(data_dir: Path) -> None:
    done = subprocess.run(
        command_line("user", "add", "stdin", "--password-file", "-", "--data-dir", data_dir),
        env=python_environment(),
        input=f"{PASSWORD}\n".encode(),
        capture_output=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert "stdin" in names(data_dir)


def test_a_password_that_is_asked_for_is_not_shown(data_dir: Path) -> None:
    pid, terminal = pty.fork()
    if pid == 0:
        os.execve(command_line()[0], command_line("user", "add", "typed", "--data-dir", data_dir), python_environment())
    shown = b""
    for prompt in (b"Password: ", b"The same again: "):
        while prompt not in shown:
            shown += os.read(terminal, 1024)
        os.write(terminal, f"{PASSWORD}\n".encode())
    try:
        while piece := os.read(terminal, 1024):
            shown += piece
    except OSError:  # the other end is closed
        pass
    os.close(terminal)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert PASSWORD.encode() not in shown
    assert b"typed is a reader now" in shown
    assert "typed" in names(data_dir)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("add", "jo"), "there is no terminal to ask for the password: use --password-file"),
        (("add", "jo", "--password", "secret12"), "No such option"),
        (("add", "jo", "--password-file", "{}", "--no-password"), "only one of the two"),
        (("add", "jo", "--password-file", "{}"), "8 to 1024 characters"),
        (("add", "jo", "--password-file", "{}.bin"), "the password is not text in UTF-8"),
        (("add", "jo", "--password-file", "{}.none"), "does not exist"),
        (("add", "a:b", "--no-password"), "is no name for a user"),
        (("add", "jo", "--no-password", "--role", "root"), "is not one of"),
        (("token", "add", "jo", "--expires", "soon"), "is no time: write 90d"),
        (("token", "add", "jo", "--expires", "1999-12-31"), "cannot have expired"),
        (("list", "--index-url", "mysql://x"), "the index URL is not one of PostgreSQL"),
    ],
)
def test_what_is_wrong_is_said_in_a_line(
    data_dir: Path, tmp_path: Path, arguments: tuple[str, ...], words: str
) -> None:
    short = tmp_path / "short"
    short.write_text("short")
    short.with_suffix(".bin").write_bytes(b"\xff\xfe\0\0")
    done = run_tomowire("user", *(each.format(short) for each in arguments), "--data-dir", data_dir)
    assert done.returncode == 2
    assert words in done.stderr
    assert "Traceback" not in done.stderr


async def test_where_nobody_is_an_administrator_that_is_said(tmp_path: Path) -> None:
    async with Archive(Settings(tmp_path / "data", port=0)):
        pass
    for name in ("kim", "lee"):
        done = run_tomowire("user", "add", name, "--no-password", "--data-dir", tmp_path / "data")
        assert done.returncode == 0
        assert "nobody is an administrator, and over HTTP nobody can" in done.stderr
        assert f"'tomowire user role {name} administrator' makes {name} one" in done.stderr
    done = run_tomowire(
        "user", "add", "jo", "--role", "administrator", "--no-password", "--data-dir", tmp_path / "data"
    )
    assert "nobody is an administrator" not in done.stderr


def test_without_an_archive_there_are_no_users(tmp_path: Path) -> None:
    done = run_tomowire("user", "list", "--data-dir", tmp_path / "data")
    assert done.returncode == 2
    assert "there is no archive yet" in done.stderr
    assert not (tmp_path / "data").exists()


async def test_an_archive_that_others_can_reach_over_http_makes_its_first_administrator(
    no_leaks: None, tmp_path: Path
) -> None:
    http = HttpSettings(bind="0.0.0.0", port=0)
    async with Archive(Settings(tmp_path, port=0, http=http)) as archive:
        assert [each.event for each in await archive.audit.list()] == ["configuration-changed"], "nothing can kill it"
        path = archive.first_token
        assert path == tmp_path / "administrator-token"
        assert f"the token of an administrator for HTTP is in {path}" in archive.greeting()
        token = path.read_text().strip()
        assert token not in archive.greeting()
        assert await archive.users.by_token(token) == Principal("administrator", Role.ADMINISTRATOR)
    async with Archive(Settings(tmp_path, port=0, http=http)) as archive:
        assert archive.first_token is None
        assert await archive.users.by_token(token) is not None
    async with Archive(Settings(tmp_path / "other", port=0, http=HttpSettings())) as archive:
        assert archive.first_token is None
        assert not await archive.users.any()


async def test_what_the_command_changes_is_in_the_audit_trail_of_the_archive_that_runs(
    archive: Archive,
    user: Callable[..., subprocess.CompletedProcess[str]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("LOGNAME", "somebody-else")  # who runs it is what the system says, and not the environment
    monkeypatch.setenv("USER", "somebody-else")

    async def run(*arguments: object) -> str:
        done = await asyncio.to_thread(user, *arguments)
        assert done.returncode == 0, done.stderr
        archive.audit.record(Login(user=Party("meanwhile")))
        return done.stdout

    await run("add", "jo", "--no-password", "--role", "operator")
    token_id = (await run("token", "add", "jo"))[3:15]
    await run("role", "jo", "reader")
    await run("token", "revoke", token_id)
    await run("remove", "jo")
    assert await archive.audit.flush(30)
    told = [each for each in await archive.audit.list() if each.event == "configuration-changed"]
    (actor,) = {each.actor for each in told}
    # Of somebody who has become another user both are told: "jane as root".
    assert actor.rpartition(" as ")[2] == f"{pwd.getpwuid(os.getuid()).pw_name}@{socket.gethostname()}"
    assert [description_of(each.message) for each in told] == [
        "user jo added as operator",
        f"token {token_id} of jo made",
        "user jo is reader now",
        f"token {token_id} revoked",
        "user jo removed",
    ]
    assert await archive.audit.verify() == []
    assert [path.name for path in (tmp_path / "data").glob("audit.anchor*")] == ["audit.anchor"]


def description_of(message: str) -> str:
    detail = ElementTree.fromstring(message).find(".//ParticipantObjectDetail[@type='Alert Description']")
    assert detail is not None
    return base64.b64decode(detail.attrib["value"]).decode()
