"""How often somebody may try to log in."""

from __future__ import annotations

import asyncio
from collections import defaultdict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tomowire.errors import IndexUnavailable, LoginFailed, TooManyLogins
from tomowire.server.logins import FailedLogins, Logins
from tomowire.server.users import Principal, Role

HERE, THERE = "192.0.2.1", "192.0.2.2"
JO = Principal("jo", Role.READER)


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def failed(clock: Clock) -> FailedLogins:
    return FailedLogins(3, 60.0, clock=clock)


def test_an_address_may_fail_so_often_in_a_window_that_slides(failed: FailedLogins, clock: Clock) -> None:
    for _ in range(3):
        assert failed.seconds_to_wait(HERE, "jo") == 0
        failed.failed(HERE, f"user{clock.now}")
        clock.now += 10
    assert failed.seconds_to_wait(HERE, "jo") == 30
    assert failed.seconds_to_wait(HERE) == 30
    assert failed.seconds_to_wait(THERE, "jo") == 0
    clock.now += 29.5
    assert failed.seconds_to_wait(HERE) == 0.5
    clock.now += 0.5
    assert failed.seconds_to_wait(HERE) == 0
    failed.failed(HERE)
    assert failed.seconds_to_wait(HERE) == 10, "the second of the first three is the oldest now"


def test_a_user_may_fail_so_often_from_wherever_it_is(failed: FailedLogins) -> None:
    for number in range(3):
        assert failed.seconds_to_wait(THERE, "jo") == 0
        failed.failed(f"192.0.2.{number}", "jo")
    assert failed.seconds_to_wait(THERE, "jo") == 60
    assert failed.seconds_to_wait(THERE, "kim") == 0
    assert failed.seconds_to_wait(THERE) == 0


def test_who_is_right_begins_again(failed: FailedLogins) -> None:
    for _ in range(2):
        failed.failed(HERE, "jo")
    failed.succeeded(HERE, "jo")
    for _ in range(2):
        failed.failed(HERE, "jo")
        assert failed.seconds_to_wait(HERE, "jo") == 0
    failed.failed(HERE, "jo")
    assert failed.seconds_to_wait(HERE, "jo") == 60


def test_nobody_keeps_a_user_out_of_where_it_has_been_in(failed: FailedLogins) -> None:
    failed.succeeded(HERE, "jo")
    for number in range(10):
        failed.failed(f"198.51.100.{number}", "jo")
    assert failed.seconds_to_wait(HERE, "jo") == 0
    assert failed.seconds_to_wait(THERE, "jo") == 60
    for _ in range(3):
        failed.failed(HERE, "jo")
    assert failed.seconds_to_wait(HERE, "jo") == 60, "who is there may not try for ever either"


def test_one_s_own_password_does_not_help_to_guess_that_of_another(failed: FailedLogins) -> None:
    for _ in range(3):
        failed.failed(HERE, "admin")
        failed.succeeded(HERE, "jo")
    assert failed.seconds_to_wait(HERE, "jo") == 0
    assert failed.seconds_to_wait(HERE, "admin") == 60


def test_nor_where_that_other_has_been_in(failed: FailedLogins) -> None:
    """Behind a proxy everybody is at the same address."""
    failed.succeeded(HERE, "admin")
    for _ in range(3):
        assert failed.seconds_to_wait(HERE, "admin") == 0
        failed.failed(HERE, "admin")
        failed.succeeded(HERE, "jo")
    assert failed.seconds_to_wait(HERE, "admin") == 60
    assert failed.seconds_to_wait(HERE, "jo") == 0
    assert failed.seconds_to_wait(HERE, "kim") == 0


@pytest.mark.parametrize(
    ("one", "other", "is_same"),
    [
        ("2001:db8::1", "2001:db8::ffff:1:2:3", True),  # one subscriber has 64 bits to choose from
        ("2001:db8::1", "2001:db8:0:1::1", False),
        ("::ffff:192.0.2.1", "192.0.2.1", True),
        ("::ffff:192.0.2.1", "::ffff:192.0.2.2", False),
        ("fe80::1%eth0", "fe80::1%eth1", True),
        ("192.0.2.1", "192.0.2.2", False),
        ("", "unix", False),
    ],
)
def test_which_addresses_count_as_one(failed: FailedLogins, one: str, other: str, is_same: bool) -> None:
    for _ in range(3):
        failed.failed(one)
    assert (failed.seconds_to_wait(other) > 0) == is_same


def test_it_remembers_no_more_than_it_is_told(clock: Clock) -> None:
    failed = FailedLogins(1, 60.0, most=100, clock=clock)
    for number in range(1000):
        failed.failed(f"10.0.{number >> 8}.{number & 255}", f"user{number}")
    assert len(failed._addresses._times) == len(failed._users._times) == 100
    assert failed.seconds_to_wait("10.0.3.231", None) == 60
    assert failed.seconds_to_wait("10.0.0.0", "user0") == 0
    for number in range(1000):
        failed.failed(HERE, f"user{number}")
        failed.succeeded(THERE, f"user{number}")
    assert len(failed._at_home) == len(failed._there._times) == 100
    assert [len(times) for times in failed._addresses._times.values()] == [1] * 100


@given(
    st.lists(st.tuples(st.integers(0, 40), st.sampled_from("ab"), st.sampled_from("xy"), st.booleans()), max_size=60)
)
def test_whatever_happens_nobody_fails_more_often_than_the_limit(events: list[tuple[int, str, str, bool]]) -> None:
    """Against the plain account: all times, counted."""
    clock = Clock()
    failed = FailedLogins(3, 60.0, clock=clock)
    account: dict[str, list[float]] = defaultdict(list)
    at_home = set()
    for seconds, address, user, is_right in events:
        clock.now += seconds
        keys = (f"address {address}", f"user {user}", f"user {user} at {address}")
        counting = keys[::2] if (address, user) in at_home else keys
        recent = [sorted(account[key])[-3:] for key in counting]
        waits = [times[0] + 60 - clock.now for times in recent if len(times) == 3]
        expected = max([0.0, *waits])
        assert failed.seconds_to_wait(address, user) == expected
        if expected:
            continue
        if is_right:
            at_home.add((address, user))
        for key in keys:
            if is_right:
                account[key].clear()
            else:
                account[key].append(clock.now)
        (failed.succeeded if is_right else failed.failed)(address, user)


# Logging in


class Door:
    """Stands for `Users`: jo has the password "right", and the token "good"."""

    def __init__(self) -> None:
        self.looked_at = 0
        self.gate = asyncio.Event()
        self.gate.set()
        self.error: Exception | None = None
        self.names = frozenset({"jo"})

    async def by_password(self, name: str, password: str) -> Principal | None:
        self.looked_at += 1
        await self.gate.wait()
        if self.error is not None:
            raise self.error
        return Principal(name, Role.READER) if name in self.names and password == "right" else None

    async def by_token(self, token: str) -> Principal | None:
        return JO if token == "good" else None


@pytest.fixture
def door(no_leaks: None) -> Door:
    return Door()


@pytest.fixture
def logins(door: Door, failed: FailedLogins) -> Logins:
    return Logins(door, failed)  # type: ignore[arg-type]


async def test_who_has_failed_too_often_is_not_looked_at_even_with_the_right_password(
    logins: Logins, door: Door, clock: Clock
) -> None:
    assert await logins.by_password("jo", "right", HERE) == JO
    for _ in range(3):
        with pytest.raises(LoginFailed) as wrong:
            await logins.by_password("jo", "wrong", HERE)
        assert not isinstance(wrong.value, TooManyLogins)
    assert door.looked_at == 4
    for address in (HERE, THERE):
        with pytest.raises(TooManyLogins) as too_many:
            await logins.by_password("jo", "right", address)
        assert too_many.value.seconds == 60, address
    assert door.looked_at == 4
    clock.now += 60
    assert await logins.by_password("jo", "right", HERE) == JO


async def test_a_name_that_nobody_has_is_no_other_error(logins: Logins) -> None:
    errors = []
    for name in ("jo", "nobody", "x" * 100_000, "a\0b"):
        with pytest.raises(LoginFailed) as wrong:
            await logins.by_password(name, "wrong", f"10.0.0.{len(errors)}")
        errors.append(str(wrong.value))
    assert len(set(errors)) == 1


async def test_of_many_tried_at_the_same_time_no_more_are_looked_at(logins: Logins, door: Door) -> None:
    door.gate.clear()
    tries = [asyncio.create_task(logins.by_password("jo", f"guess {n}", HERE)) for n in range(20)]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert door.looked_at == 3
    door.gate.set()
    ends = await asyncio.gather(*tries, return_exceptions=True)
    assert [type(end) for end in ends] == [LoginFailed] * 3 + [TooManyLogins] * 17


async def test_many_who_share_an_address_are_let_in_at_the_same_time(logins: Logins, door: Door) -> None:
    """Behind a proxy all have its address. Twelve who are right at once are no guessers, and the limit is three."""
    door.names = frozenset(f"user{number}" for number in range(12))
    door.gate.clear()
    tries = [asyncio.create_task(logins.by_password(f"user{number}", "right", HERE)) for number in range(12)]
    await asyncio.sleep(0)
    guesses = [asyncio.create_task(logins.by_password("user3", f"guess {n}", HERE)) for n in range(6)]
    await asyncio.sleep(0)
    assert door.looked_at == 3
    door.gate.set()
    async with asyncio.timeout(20):
        found = await asyncio.gather(*tries)
        ends = await asyncio.gather(*guesses, return_exceptions=True)
    assert [principal.name for principal in found] == [f"user{number}" for number in range(12)]
    assert {type(end) for end in ends} <= {LoginFailed, TooManyLogins}
    assert logins._looking == {}


async def test_many_who_are_the_same_are_looked_at_once(logins: Logins, door: Door) -> None:
    """A page begins with twenty requests, none of which has been answered yet."""
    door.gate.clear()
    requests = [asyncio.create_task(logins.by_password("jo", "right", HERE)) for _ in range(20)]
    await asyncio.sleep(0)
    requests[0].cancel()
    await asyncio.sleep(0)
    door.gate.set()
    ends = await asyncio.gather(*requests, return_exceptions=True)
    assert isinstance(ends[0], asyncio.CancelledError)
    assert ends[1:] == [JO] * 19
    assert door.looked_at == 1
    assert logins._looking == {}


async def test_who_could_not_be_looked_at_has_not_failed(logins: Logins, door: Door, failed: FailedLogins) -> None:
    for error in (IndexUnavailable("gone"), TooManyLogins("busy", seconds=2)):
        door.error = error
        for _ in range(5):
            with pytest.raises(type(error)):
                await logins.by_password("jo", "right", HERE)
    assert failed.seconds_to_wait(HERE, "jo") == 0
    door.error = None
    assert await logins.by_password("jo", "right", HERE) == JO


async def test_who_waits_behind_somebody_that_cannot_be_answered_cannot_be_either(
    logins: Logins, door: Door, failed: FailedLogins
) -> None:
    """A database that is silent is not asked by one after the other, for as long as each of them takes."""
    door.names = frozenset(f"user{number}" for number in range(12))
    door.gate.clear()
    tries = [asyncio.create_task(logins.by_password(f"user{number}", "right", HERE)) for number in range(12)]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    door.error = IndexUnavailable("silent")
    door.gate.set()
    ends = await asyncio.gather(*tries, return_exceptions=True)
    assert [type(end) for end in ends] == [IndexUnavailable] * 12
    assert door.looked_at == 3
    assert failed.seconds_to_wait(HERE, "user1") == 0


async def test_a_token_that_is_good_is_good_for_who_shares_an_address_with_guessers(logins: Logins) -> None:
    for _ in range(3):
        with pytest.raises(LoginFailed):
            await logins.by_token("bad", HERE)
    with pytest.raises(TooManyLogins):
        await logins.by_token("bad", HERE)
    assert await logins.by_token("good", HERE) == JO
