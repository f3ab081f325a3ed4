"""`tomowire send -j auto` and `--bandwidth`."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from support.programs import tomowire
from support.receiver import Receiver, write_samples
from tomowire.cli.speed import associations_option, bandwidth_option
from tomowire.services.adapting import AdaptivePace


async def test_auto_finds_the_number_of_associations(receiver: Receiver, tmp_path: Path) -> None:
    samples = write_samples(tmp_path / "a", 20)
    done = await tomowire("send", receiver.peer, tmp_path / "a", "-j", "auto", "--json")
    assert (done.code, done.json["stored"]) == (0, 20)
    assert receiver.received.keys() == {sample.uid for sample in samples}
    assert receiver.most_associations <= 8


async def test_the_bandwidth_is_not_exceeded(receiver: Receiver, tmp_path: Path) -> None:
    samples = write_samples(tmp_path / "a", 4, size=50_000)
    size = sum(len(sample.data_set) for sample in samples)
    began = time.monotonic()
    done = await tomowire("send", receiver.peer, tmp_path / "a", "-j", "2", "--bandwidth", "100k", "--json")
    assert (done.code, done.json["stored"]) == (0, 4)
    assert time.monotonic() - began >= 0.95 * size / 100_000


@pytest.mark.parametrize("arguments", [("-j", "0"), ("-j", "65"), ("-j", "many"), ("-j", "-1")])
async def test_a_number_of_associations_that_is_none(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    done = await tomowire("send", "A@127.0.0.1:104", tmp_path, *arguments)
    assert done.code == 2
    assert "is neither a number from 1 to 64 nor 'auto'" in done.stderr


@pytest.mark.parametrize("rate", ["0", "fast", "10Mbit", "-5", "1e3"])
async def test_a_bandwidth_that_is_none(tmp_path: Path, rate: str) -> None:
    done = await tomowire("send", "A@127.0.0.1:104", tmp_path, f"--bandwidth={rate}")
    assert done.code == 2
    assert "is no number of bytes per second: write 500k, 10M or 1.5G" in done.stderr


def test_how_rates_are_written() -> None:
    import click

    option = click.Option(["--bandwidth"], type=click.STRING)
    kind = bandwidth_option(click.Command("send")).params[0].type
    for text, rate in [("500k", 500e3), ("500K", 500e3), ("2g", 2e9), ("10M", 10e6), ("1.5G", 1.5e9), ("2000", 2000.0)]:
        assert kind.convert(text, option, None) == rate


def test_auto_is_a_pace() -> None:
    import click

    option = click.Option(["-j"], type=click.STRING)
    kind = associations_option(click.Command("send")).params[0].type
    assert kind.convert("3", option, None) == 3
    assert isinstance(kind.convert("auto", option, None), AdaptivePace)
