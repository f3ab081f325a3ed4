"""An archive is stopped and killed in the middle of a send-to job: `support.job_campaign`, a short one. On both backends."""

from __future__ import annotations

from pathlib import Path

from support.job_campaign import run


def test_what_a_job_shows_as_sent_is_there_and_in_the_end_all_is(tmp_path: Path, index_url: str | None) -> None:
    *rounds, end = run(tmp_path, rounds=2, objects=150, seed=7, index_url=index_url)
    assert ["SIGKILL" in line for line in rounds].count(True) == 1, "one SIGKILL, one SIGTERM"
    assert "150 acknowledged, 150 at the destination" in end
