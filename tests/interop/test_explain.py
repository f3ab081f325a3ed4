"""`echo --explain` of foreign peers, of which it is known what they support."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from support.dcmqrscp import dcmqrscp
from support.network import LOOPBACK, free_port
from support.programs import Done, tomowire

pytestmark = pytest.mark.interop

VERIFICATION, CT, MR = "1.2.840.10008.1.1", "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.5.1.4.1.1.4"
STUDY_ROOT_GET, COMMITMENT = "1.2.840.10008.5.1.4.1.2.2.3", "1.2.840.10008.1.20.1"
IMPLICIT, EXPLICIT, JPEG = "1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.4.50"


def supported(done: Done) -> dict[str, Any]:
    return {each["uid"]: each for each in done.json["sop_classes"] if each["supported"]}


@contextmanager
def pynetdicom_scp(pynetdicom: ModuleType, **requirements: Any) -> Iterator[str]:
    entity = pynetdicom.AE("THEIRS")
    for name, required in requirements.items():
        setattr(entity, name, required)
    entity.add_supported_context(VERIFICATION, IMPLICIT)
    entity.add_supported_context(STUDY_ROOT_GET, EXPLICIT)
    entity.add_supported_context(COMMITMENT, EXPLICIT)
    entity.add_supported_context(CT, [IMPLICIT, JPEG], scu_role=True, scp_role=True)
    entity.add_supported_context(MR, [JPEG])
    server = entity.start_server((LOOPBACK, 0), block=False)
    try:
        yield f"THEIRS@{LOOPBACK}:{server.socket.getsockname()[1]}"
    finally:
        server.shutdown()


async def test_what_pynetdicom_supports(pynetdicom: ModuleType) -> None:
    with pynetdicom_scp(pynetdicom) as peer:
        done = await tomowire("echo", "--explain", "--json", peer)
    assert done.code == 0, done.stderr
    assert done.json["association"]["implementation_version_name"].startswith("PYNETDICOM")
    found = supported(done)
    assert found.keys() == {VERIFICATION, STUDY_ROOT_GET, COMMITMENT, CT, MR}
    assert found[CT]["transfer_syntaxes"] == [IMPLICIT, JPEG]
    assert found[MR]["transfer_syntaxes"] == [JPEG]
    assert (found[CT]["sent_by_get"], found[MR]["sent_by_get"]) == (True, False)


@pytest.mark.parametrize(
    ("requirement", "whose"),
    [
        ({"require_called_aet": True}, "and has another AE title"),
        ({"require_calling_aet": ["KNOWN"]}, "not known there as 'TOMOWIRE'"),
    ],
)
async def test_why_pynetdicom_rejects(pynetdicom: ModuleType, requirement: dict[str, Any], whose: str) -> None:
    with pynetdicom_scp(pynetdicom, **requirement) as peer:
        done = await tomowire("echo", "--explain", "--json", peer.replace("THEIRS", "OTHER"))
    assert done.code == 4
    assert whose in done.json["diagnosis"]["whose"]


@pytest.fixture
def archive_of_dcmtk(tmp_path: Path, dcmtk: Callable[[str], Path]) -> Iterator[str]:
    with dcmqrscp(dcmtk("dcmqrscp"), tmp_path, [], free_port()) as peer:
        yield peer


async def test_what_dcmtks_archive_supports(archive_of_dcmtk: str) -> None:
    done = await tomowire("echo", "--explain", "--json", archive_of_dcmtk)
    assert done.code == 0, done.stderr
    assert done.json["association"]["implementation_version_name"].startswith("OFFIS_DCMTK")
    found = supported(done)
    assert {VERIFICATION, CT, MR, STUDY_ROOT_GET} <= found.keys()
    assert COMMITMENT not in found
    assert found[CT]["sent_by_get"]
