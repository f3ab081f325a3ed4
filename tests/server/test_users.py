"""Users, passwords and tokens, in both databases."""

from __future__ import annotations

import asyncio
import itertools
import threading
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta, timezone
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import select, update

from tomowire.errors import IndexUnavailable, LastAdministrator, TooManyLogins, UnknownUser, UsageError, UserExists
from tomowire.server import passwords as passwords_module
from tomowire.server.first_administrator import first_administrator, needs_login
from tomowire.server.index.administration import tokens
from tomowire.server.index.administration import users as user_table
from tomowire.server.index.backend import IndexBackend, backend_for
from tomowire.server.passwords import Checked, Cost, Passwords
from tomowire.server.records import Records
from tomowire.server.settings import HttpSettings, Settings
from tomowire.server.users import NewToken, Principal, Role, Users

CHEAP = Cost(time=1, memory=64, lanes=1)
PASSWORD = "correct horse"


class Clock:
    def __init__(self) -> None:
        self.now = 1_750_000_000.25

    def __call__(self) -> float:
        return self.now


@pytest.fixture
async def records(no_leaks: None, backend: IndexBackend) -> AsyncIterator[Records]:
    await asyncio.to_thread(backend.upgrade)
    async with Records(backend.engine) as records:
        yield records


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def users(records: Records, clock: Clock) -> AsyncIterator[Users]:
    async with Users(records, passwords=Passwords(CHEAP), clock=clock) as users:
        yield users


async def rows(records: Records, table: Any) -> list[dict[str, Any]]:
    found = await records.read(lambda connection: connection.execute(select(table)).mappings().all())
    return [dict(row) for row in found]


# Passwords


async def test_who_has_a_name_and_a_password(users: Users, clock: Clock) -> None:
    assert not await users.any()
    added = await users.add("jo@ct.example", Role.OPERATOR, PASSWORD)
    assert await users.any()
    assert added == await users.get("jo@ct.example")
    assert (await users.list()) == [added]
    assert added.created_at.timestamp() == clock.now
    assert added.has_password
    assert await users.by_password("jo@ct.example", PASSWORD) == Principal("jo@ct.example", Role.OPERATOR)
    for name, password in (
        ("jo@ct.example", PASSWORD.upper()),
        ("jo@ct.example", ""),
        ("JO@ct.example", PASSWORD),
        ("jo", PASSWORD),
        ("", ""),
    ):
        assert await users.by_password(name, password) is None


async def test_what_is_kept_of_a_password_is_argon2id_and_each_time_another(users: Users, records: Records) -> None:
    await users.add("a", Role.READER, PASSWORD)
    await users.add("b", Role.READER, PASSWORD)
    first, second = (row["password_hash"] for row in await rows(records, user_table))
    assert first.startswith("$argon2id$v=19$m=64,t=1,p=1$")
    assert first != second
    assert PASSWORD not in first


async def test_an_umlaut_is_an_umlaut_however_it_is_typed(users: Users) -> None:
    """RFC 8265 4.2.2: precomposed, or the letter and the two dots."""
    await users.add("jo", Role.READER, "Mu\u0308llerin1")
    assert await users.by_password("jo", "M\u00fcllerin1") is not None


async def test_a_user_without_a_password_has_no_empty_one(users: Users) -> None:
    await users.add("robot", Role.READER)
    assert not (await users.get("robot")).has_password
    assert await users.by_password("robot", "") is None
    await users.change("robot", password=PASSWORD)
    assert await users.by_password("robot", PASSWORD) is not None


async def test_what_was_right_costs_no_argon2_again_until_something_changes(
    users: Users, records: Records, monkeypatch: pytest.MonkeyPatch
) -> None:
    checks = 0
    verify = Passwords.verify

    async def count(self: Passwords, hashed: str, password: bytes) -> Any:
        nonlocal checks
        checks += 1
        return await verify(self, hashed, password)

    monkeypatch.setattr(Passwords, "verify", count)
    await users.add("jo", Role.READER, PASSWORD)
    for _ in range(3):
        assert await users.by_password("jo", PASSWORD) == Principal("jo", Role.READER)
    assert checks == 1
    assert await users.by_password("jo", "wrong") is None
    assert await users.by_password("jo", "wrong") is None
    assert checks == 3, "what is wrong is looked at each time"
    async with Users(records, passwords=Passwords(CHEAP)) as elsewhere:  # another program
        await elsewhere.change("jo", role=Role.OPERATOR)
        assert await users.by_password("jo", PASSWORD) == Principal("jo", Role.OPERATOR)
        assert checks == 3
        await elsewhere.change("jo", password="another one")
    assert await users.by_password("jo", PASSWORD) is None
    assert await users.by_password("jo", "another one") is not None
    assert checks == 5
    await users.remove("jo")
    assert await users.by_password("jo", "another one") is None


async def test_few_passwords_are_remembered(users: Users, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tomowire.server.users._MOST_REMEMBERED", 2)
    for name in "abc":
        await users.add(name, Role.READER, PASSWORD)
        assert await users.by_password(name, PASSWORD) is not None
    assert len(users._right) == 2


async def test_a_hash_of_another_cost_is_made_anew_when_its_password_is_known(users: Users, records: Records) -> None:
    await users.add("jo", Role.READER, PASSWORD)
    async with Users(records, passwords=Passwords(Cost(time=2, memory=128, lanes=1))) as costly:
        assert await costly.by_password("jo", "wrong") is None
        assert (await rows(records, user_table))[0]["password_hash"].startswith("$argon2id$v=19$m=64,t=1,")
        assert await costly.by_password("jo", PASSWORD) is not None
    assert (await rows(records, user_table))[0]["password_hash"].startswith("$argon2id$v=19$m=128,t=2,")
    assert await users.by_password("jo", PASSWORD) is not None


async def test_who_is_right_is_let_in_also_when_nothing_can_be_written(
    users: Users, records: Records, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    await users.add("jo", Role.READER, PASSWORD)

    async def refuse(*_: object) -> None:
        raise IndexUnavailable("read only")

    async with Users(records, passwords=Passwords(Cost(time=2, memory=128, lanes=1))) as costly:
        monkeypatch.setattr(records, "write", refuse)
        assert await costly.by_password("jo", PASSWORD) is not None
    assert "the password hash of jo was not made anew: read only" in caplog.text


async def test_a_name_that_nobody_has_takes_as_much_argon2_as_one_that_somebody_has(
    users: Users, monkeypatch: pytest.MonkeyPatch
) -> None:
    import argon2

    checked: list[str] = []
    verify = argon2.PasswordHasher.verify

    def note(self: argon2.PasswordHasher, hashed: Any, password: Any) -> Any:
        checked.append(hashed.partition("$")[2].rpartition("$")[0].rpartition("$")[0])
        return verify(self, hashed, password)

    monkeypatch.setattr(argon2.PasswordHasher, "verify", note)
    await users.add("jo", Role.READER, PASSWORD)
    await users.add("robot", Role.READER)
    for name in ("jo", "robot", "nobody", "no name!", "x" * 1_000_000, "jo\0", "\ud800"):
        assert await users.by_password(name, "wrong") is None
    assert checked == ["argon2id$v=19$m=64,t=1,p=1"] * 7


async def test_a_hash_that_is_none_lets_nobody_in(
    users: Users, records: Records, caplog: pytest.LogCaptureFixture
) -> None:
    await users.add("jo", Role.READER, PASSWORD)
    for broken in ("x", "$argon2id$v=19$m=64,t=1,p=1$", "plain:correct horse", PASSWORD):
        await records.write(
            lambda connection, broken=broken: connection.execute(update(user_table).values(password_hash=broken))
        )
        assert await users.by_password("jo", PASSWORD) is None
    assert "is not one of argon2" in caplog.text
    assert PASSWORD not in caplog.text


async def test_few_passwords_are_looked_at_at_once_and_not_too_many_wait(
    users: Users, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each takes 64 MiB: who asks for a thousand must not get them."""
    monkeypatch.setattr(passwords_module, "_MOST_WAITING", 5)
    gate, lock, running, most = threading.Event(), threading.Lock(), 0, 0

    def check(self: Passwords, hashed: str, password: bytes) -> Checked:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        gate.wait(30)
        with lock:
            running -= 1
        return Checked(False)

    monkeypatch.setattr(Passwords, "_verify", check)
    asked = [asyncio.create_task(users.by_password("jo", str(n))) for n in range(20)]
    async with asyncio.timeout(30):
        for refused in itertools.islice(asyncio.as_completed(asked), 15):
            with pytest.raises(TooManyLogins) as late:
                await refused
            assert late.value.seconds == 2.0
    gate.set()
    results = await asyncio.gather(*asked, return_exceptions=True)
    assert results.count(None) == 5
    assert most == 2
    assert await users.by_password("jo", "later") is None


@pytest.mark.parametrize(
    "name", ["", "a:b", " a", "a ", "a b", "é", "a\n", "a\0", "-a", ".", "x" * 65, "a/b", "\ud800"]
)
async def test_what_is_no_name(users: Users, name: str) -> None:
    with pytest.raises(UsageError, match="is no name for a user"):
        await users.add(name, Role.READER, PASSWORD)
    with pytest.raises(UnknownUser):
        await users.get(name)


@pytest.mark.parametrize(
    ("password", "words"),
    [
        ("seven..", "8 to 1024 characters"),
        ("x" * 1025, "8 to 1024 characters"),
        ("with\nline break", "no control characters"),
        ("with\0nothing", "no control characters"),
        ("half \ud800 of a pair", "not text in UTF-8"),
    ],
)
async def test_what_is_no_password(users: Users, password: str, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        await users.add("jo", Role.READER, password)
    assert not await users.any()
    assert await users.by_password("jo", password) is None


# Users


async def test_roles_are_in_an_order() -> None:
    assert sorted(Role, reverse=True) == [Role.ADMINISTRATOR, Role.OPERATOR, Role.READER]
    assert Role.READER < Role.OPERATOR < Role.ADMINISTRATOR >= Role.ADMINISTRATOR
    assert Role.read("operator") is Role.OPERATOR
    with pytest.raises(UsageError, match="'root' is not a role; there are reader, operator, administrator"):
        Role.read("root")


async def test_a_user_is_added_once(users: Users) -> None:
    await users.add("jo", Role.READER, PASSWORD)
    with pytest.raises(UserExists, match="there is a user 'jo' already"):
        await users.add("jo", Role.ADMINISTRATOR, "something else")
    assert (await users.get("jo")).role is Role.READER
    assert await users.by_password("jo", PASSWORD) is not None


async def test_who_is_not_there_is_not_changed(users: Users) -> None:
    for work in (
        users.get("jo"),
        users.change("jo", role=Role.READER),
        users.change("jo", password=PASSWORD),
        users.change("jo"),
        users.remove("jo"),
        users.make_token("jo"),
        users.tokens("jo"),
    ):
        with pytest.raises(UnknownUser, match="there is no user 'jo'"):
            await work
    with pytest.raises(UnknownUser, match="there is no token 'abc'"):
        await users.revoke("abc")


async def test_the_last_administrator_stays_one(users: Users) -> None:
    await users.add("a", Role.ADMINISTRATOR)
    await users.add("o", Role.OPERATOR)
    for work in (users.remove("a"), users.change("a", role=Role.OPERATOR), users.change("a", role=Role.READER)):
        with pytest.raises(LastAdministrator, match="'a' is the last administrator"):
            await work
    assert (await users.get("a")).role is Role.ADMINISTRATOR
    await users.change("a", password=PASSWORD, role=Role.ADMINISTRATOR)
    await users.remove("o")
    await users.add("b", Role.ADMINISTRATOR)
    await users.change("a", role=Role.READER)
    with pytest.raises(LastAdministrator):
        await users.remove("b")
    await users.remove("a")


async def test_of_two_administrators_who_remove_each_other_at_the_same_time_one_stays(
    backend: IndexBackend, users: Users
) -> None:
    """From two programs, as often as it takes for them to meet."""
    async with Records(backend.engine) as other, Users(other, passwords=Passwords(CHEAP)) as elsewhere:
        for _ in range(10):
            there = {user.name for user in await users.list()}
            for name in {"a", "b"} - there:
                await users.add(name, Role.ADMINISTRATOR)
            ends = await asyncio.gather(users.remove("a"), elsewhere.remove("b"), return_exceptions=True)
            assert sorted(map(type, ends), key=str) == [type(None), LastAdministrator] or sorted(
                map(type, ends), key=str
            ) == [LastAdministrator, type(None)]
            assert len(await users.list()) == 1


# Tokens


async def test_a_token_is_shown_once_and_only_its_hash_is_kept(users: Users, records: Records, clock: Clock) -> None:
    await users.add("robot", Role.OPERATOR)
    made = await users.make_token("robot", description="the night's export")
    assert await users.by_token(made.secret) == Principal("robot", Role.OPERATOR)
    (row,) = await rows(records, tokens)
    assert bytes(row["token_hash"]) == sha256(made.secret.encode()).digest()
    assert made.secret.startswith(f"tw_{row['token_id']}_")
    assert made.token.description == row["description"] == "the night's export"
    assert made.token.created_at.timestamp() == clock.now
    assert await users.tokens() == await users.tokens("robot") == [made.token]
    hidden = made.secret.rpartition(f"{row['token_id']}_")[2]
    assert hidden not in repr(made)
    assert hidden not in str(row)


async def test_tokens_are_all_different(users: Users) -> None:
    """256 bits at random: 43 characters in base64 (RFC 4648)."""
    await users.add("robot", Role.READER)
    made: list[NewToken] = [await users.make_token("robot") for _ in range(20)]
    assert len({each.secret for each in made}) == len({each.token.token_id for each in made}) == 20
    assert {len(each.secret) for each in made} == {len("tw_") + 12 + 1 + 43}
    for each in made:
        assert await users.by_token(each.secret) is not None


async def test_a_token_is_good_until_it_expires_or_is_revoked(users: Users, clock: Clock) -> None:
    await users.add("robot", Role.READER)
    until = datetime.fromtimestamp(clock.now, UTC) + timedelta(hours=1)
    short = await users.make_token("robot", expires_at=until)
    clock.now += 1
    long = await users.make_token("robot")
    assert short.token.expires_at == until
    clock.now += 3598
    assert await users.by_token(short.secret) is not None
    clock.now += 1
    assert await users.by_token(short.secret) is None
    assert [each.token_id for each in await users.tokens()] == [short.token.token_id, long.token.token_id]
    assert await users.revoke(long.token.token_id) == long.token
    assert await users.by_token(long.secret) is None


async def test_when_a_user_goes_so_do_the_tokens(users: Users, records: Records) -> None:
    await users.add("robot", Role.READER)
    made = await users.make_token("robot")
    await users.change("robot", role=Role.OPERATOR)
    assert await users.by_token(made.secret) == Principal("robot", Role.OPERATOR)
    await users.remove("robot")
    assert await users.by_token(made.secret) is None
    assert await rows(records, tokens) == []
    await users.add("robot", Role.ADMINISTRATOR)
    assert await users.by_token(made.secret) is None


async def test_what_cannot_be_said_of_a_token(users: Users, clock: Clock) -> None:
    await users.add("robot", Role.READER)
    for options, words in (
        ({"expires_at": datetime.fromtimestamp(clock.now, UTC)}, "cannot have expired"),
        ({"expires_at": datetime(2099, 1, 1)}, "has no time zone"),  # noqa: DTZ001
        ({"expires_at": datetime.max.replace(tzinfo=timezone(timedelta(hours=-1)))}, "in the year 10000"),
        ({"description": "x" * 201}, "up to 200 characters"),
        ({"description": "two\nlines"}, "no control characters"),
        ({"description": "\ud800"}, "no control characters"),
    ):
        with pytest.raises(UsageError, match=words):
            await users.make_token("robot", **options)  # type: ignore[arg-type]


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text(max_size=80) | st.from_regex(r"\Atw_[0-9a-f]{12}_[A-Za-z0-9_-]{43}\Z"))
def test_what_is_no_token_is_nobodys(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    """Whatever a header says: no error, and nobody."""

    async def ask() -> None:
        backend = backend_for(None, SQLITE_OF[0], fsync=False)
        async with Records(backend.engine) as records, Users(records, passwords=Passwords(CHEAP)) as users:
            assert await users.by_token(text) is None

    if not SQLITE_OF:
        SQLITE_OF.append(tmp_path_factory.mktemp("users"))
        backend_for(None, SQLITE_OF[0], fsync=False).upgrade()
    asyncio.run(ask())


SQLITE_OF: list[Path] = []


# The first of them


async def test_the_first_start_makes_an_administrator_who_has_a_token(users: Users, tmp_path: Path) -> None:
    path = await first_administrator(users, tmp_path)
    assert path == tmp_path / "administrator-token"
    assert path.stat().st_mode & 0o777 == 0o600
    assert await users.by_token(path.read_text().strip()) == Principal("administrator", Role.ADMINISTRATOR)
    assert not (await users.get("administrator")).has_password
    assert await first_administrator(users, tmp_path) is None
    path.unlink()
    assert await first_administrator(users, tmp_path) is None
    assert not path.exists()


async def test_two_that_start_at_once_make_one_administrator(
    backend: IndexBackend, users: Users, tmp_path: Path
) -> None:
    folders = [tmp_path / "one", tmp_path / "two"]
    for folder in folders:
        folder.mkdir()
    async with Records(backend.engine) as other, Users(other, passwords=Passwords(CHEAP)) as elsewhere:
        ends = await asyncio.gather(first_administrator(users, folders[0]), first_administrator(elsewhere, folders[1]))
    (path,) = [each for each in ends if each is not None]
    assert await users.by_token(path.read_text().strip()) is not None
    assert sorted(each.name for folder in folders for each in folder.iterdir()) == ["administrator-token"]
    assert len(await users.tokens()) == 1


async def test_where_the_token_cannot_be_written_nobody_is_made(users: Users, tmp_path: Path) -> None:
    with pytest.raises(OSError, match="administrator-token"):
        await first_administrator(users, tmp_path / "nowhere")
    assert not await users.any()


@pytest.mark.parametrize(
    ("http", "needed"),
    [
        (None, False),
        (HttpSettings(), False),
        (HttpSettings(bind="localhost"), False),
        (HttpSettings(bind="::1"), False),
        (HttpSettings(bind="0.0.0.0"), True),
        (HttpSettings(bind="::"), True),
        (HttpSettings(bind="192.0.2.1"), True),
    ],
)
def test_which_archives_need_a_login(http: HttpSettings | None, needed: bool) -> None:
    assert needs_login(Settings(Path("data"), http=http)) == needed
