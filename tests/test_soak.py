"""The short version of the soak. The long one: `python -m support.soak --associations 20000`."""

from __future__ import annotations

import asyncio
import importlib.util
import random
import sys

import pytest

from support.soak import Memory, SoakFailed, run
from support.soak_work import Work

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the soak reads /proc")


def soak_briefly(associations: int, **options: bool) -> None:
    seed = random.randrange(1 << 32)
    try:
        assert f"{associations} associations" in run(
            associations=associations, seed=seed, at_once=8, may_warm_up=True, **options
        )
    except BaseException as error:
        error.add_note(f"seed {seed}")
        raise


def test_three_hundred_associations_leave_nothing() -> None:
    soak_briefly(300)


@pytest.mark.skipif(importlib.util.find_spec("uvloop") is None, reason="uvloop is not installed")
def test_nor_do_they_in_uvloop() -> None:
    soak_briefly(100, with_uvloop=True)


async def leave_a_task(self: Work) -> None:
    asyncio.get_running_loop().create_task(asyncio.sleep(60), name="forgotten")


KEPT: list[list[bytes]] = []


async def keep_memory(self: Work) -> None:
    KEPT.append([bytes(1000) for _ in range(40)])


@pytest.mark.parametrize(("turn", "said"), [(leave_a_task, "task forgotten"), (keep_memory, r"\d+ builtins\.list")])
def test_what_is_left_is_named(monkeypatch: pytest.MonkeyPatch, turn: object, said: str) -> None:
    monkeypatch.setattr(Work, "turn", turn)
    with pytest.raises(SoakFailed, match=said):
        run(associations=400, seed=1, at_once=4)
    KEPT.clear()


def test_memory_is_what_the_process_holds() -> None:
    before = Memory.now()
    held = [bytearray(1 << 20) for _ in range(20)]
    after = Memory.now()
    assert len(held) == 20
    assert after.resident - before.resident > 15 << 20
    assert after.blocks - before.blocks >= 20
