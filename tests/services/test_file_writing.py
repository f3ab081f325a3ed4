"""All of what is given is written, whatever the system takes at once."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tomowire.services.file_writing import write_all


@given(sizes=st.lists(st.integers(0, 5), min_size=0, max_size=3000))
def test_any_number_of_buffers_is_written(sizes: list[int], tmp_path_factory: pytest.TempPathFactory) -> None:
    # IOV_MAX is 1024.
    buffers = [os.urandom(size) for size in sizes]
    path = tmp_path_factory.getbasetemp() / "buffers"
    with path.open("wb", buffering=0) as file:
        write_all(file.fileno(), [memoryview(buffer) for buffer in buffers])
    assert path.read_bytes() == b"".join(buffers)


def test_more_than_the_kernel_takes_at_once_is_written() -> None:
    # A pipe takes 64 KiB and then waits for a reader; without waiting it takes a part, as a disk does at 2 GiB.
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    data = os.urandom(100_000)
    try:
        with pytest.raises(BlockingIOError):
            write_all(writer, [memoryview(data)[:30_000], memoryview(data)[30_000:]])
        taken = os.read(reader, 1 << 20)
        assert 0 < len(taken) < len(data)
        assert taken == data[: len(taken)]
    finally:
        os.close(reader)
        os.close(writer)


def test_a_short_write_is_gone_on_with(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    # As Linux writes 2 GiB at most: here three bytes.
    real = os.writev
    monkeypatch.setattr(os, "writev", lambda descriptor, buffers: real(descriptor, [b"".join(buffers)[:3]]))
    with (tmp_path / "file").open("wb", buffering=0) as file:
        write_all(file.fileno(), [b"ab", b"", memoryview(b"cdef"), b"g"])
    assert (tmp_path / "file").read_bytes() == b"abcdefg"


def test_without_writev(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delattr(os, "writev")  # as on Windows
    with (tmp_path / "file").open("wb", buffering=0) as file:
        write_all(file.fileno(), [b"ab", memoryview(b"cdef")])
    assert (tmp_path / "file").read_bytes() == b"abcdef"
