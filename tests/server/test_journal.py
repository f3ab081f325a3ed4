"""The journal gives back what was written, or nothing: never something else."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tomowire.server.journal import Intent, Journal, read_journal

OLD = Intent("abc", 1, ("objects/00/1/2/3.dcm",))
NEW = Intent("abc", 2, ("objects/00/1/2/4.dcm", "objects/00/1/2/5-1.dcm"))


def test_the_last_intent_is_read_back(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    assert read_journal(path) is None
    journal = Journal(path, tmp_path / "committed")
    for intent in (NEW, OLD, Intent("abc", 3, ())):  # shorter ones over longer ones
        journal.write(intent)
        assert read_journal(path) == intent
    journal.close()


@given(data=st.data())
def test_a_write_that_the_power_cut_short_is_no_intent(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("journal") / "journal"
    journal = Journal(path, path.with_name("committed"))
    journal.write(OLD)
    old = path.read_bytes()
    journal.write(NEW)
    new = path.read_bytes()
    journal.close()
    # Of the sectors that were being written some are new and some old.
    torn = bytes(data.draw(st.sampled_from((a, b))) for a, b in zip(new, old.ljust(len(new), b"\0"), strict=True))
    path.write_bytes(torn)
    assert read_journal(path) in {None, OLD, NEW}
    path.write_bytes(new[: data.draw(st.integers(0, len(new) - 1))])
    assert read_journal(path) is None
