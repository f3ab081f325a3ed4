"""TLS on the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from support.certificates import Authority
from support.network import LOOPBACK
from support.programs import Program, run_tomowire, serving


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


def peer(program: Program) -> str:
    return f"TOMOWIRE@{LOOPBACK}:{program.port}"


def test_objects_are_sent_and_found_over_tls(tmp_path: Path, authority: Authority, shared_data: Path) -> None:
    mine = authority.sign()
    options = ("--tls-cert", mine.certificate, "--tls-key", mine.key)
    folder = shared_data / "synthetic-dcmtk"
    trust = ("--tls-ca", authority.file)
    with serving("serve", "--data-dir", tmp_path / "data", *options) as archive:
        sent = run_tomowire("send", peer(archive), folder, "--json", *trust)
        assert sent.returncode == 0, sent.stderr
        found = run_tomowire("query", peer(archive), "--format", "json", *trust)
        got = run_tomowire("retrieve", peer(archive), "--modality", "CT", "-o", tmp_path / "got", *trust)
        assert got.returncode == 0, got.stderr
    assert json.loads(found.stdout)
    assert [each for each in (tmp_path / "got").rglob("*") if each.is_file()]
