"""What the archive holds, over HTTP: lists in pages, files in parts, tags, deleting and protecting."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import struct
import zlib
from pathlib import Path

import pydicom
import pytest

from support.filled import fill
from support.objects import ROOT, Sample, chunks_of, element, stream
from support.web import Web, web
from tomowire.server.archive import ArchiveStorage
from tomowire.uids import DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN

STUDY, SERIES, INSTANCE = f"{ROOT}.1.1", f"{ROOT}.2.1.1", f"{ROOT}.3.1"


async def get(running: Web, path: str, **parameters: object) -> dict[str, object]:
    answer = await running.nobody.get(path, params=parameters)
    assert answer.status_code == 200, answer.text
    return answer.json()  # type: ignore[no-any-return]


async def test_a_list_in_pages_has_everything_once(tmp_path: Path, index_url: str | None) -> None:
    async with web(tmp_path, index_url=index_url, users=False) as running:
        for what, count, key in (
            ("studies", 4, "study_instance_uid"),
            ("series", 6, "series_instance_uid"),
            ("instances", 11, "sop_instance_uid"),
        ):
            found, url = [], f"/api/{what}?limit=2"
            while url:
                answer = await running.nobody.get(url)
                page = answer.json()
                found += [each[key] for each in page[what]]
                assert len(page[what]) <= 2
                assert ("next" in answer.links) == (page["next"] is not None)
                url = answer.links["next"]["url"] if page["next"] is not None else ""
            assert len(found) == len(set(found)) == count


async def test_filters_match_as_a_c_find_does(tmp_path: Path, index_url: str | None) -> None:
    async with web(tmp_path, index_url=index_url, users=False) as running:
        studies = await get(running, "/api/studies", PatientName="*müller*")
        assert [each["patient_id"] for each in studies["studies"]] == ["JOERG"]
        studies = await get(running, "/api/studies", StudyDate="20250101-20251231")
        assert [each["study_instance_uid"] for each in studies["studies"]] == [f"{ROOT}.1.2"]
        series = await get(running, "/api/series", StudyInstanceUID=STUDY, Modality="MR")
        assert [each["series_instance_uid"] for each in series["series"]] == [f"{ROOT}.2.1.2"]
        instances = await get(running, "/api/instances", SeriesInstanceUID=SERIES)
        assert [each["sop_instance_uid"] for each in instances["instances"]] == [f"{ROOT}.3.{n}" for n in (1, 2, 3)]
        for wrong in ({"PatientNam": "x"}, {"limit": "0"}, {"limit": "1001"}, {"after": "x"}, {"PatientName": "a\0b"}):
            assert (await running.nobody.get("/api/studies", params=wrong)).status_code == 422, wrong


async def test_a_study_a_series_and_an_instance(tmp_path: Path, index_url: str | None) -> None:
    async with web(tmp_path, index_url=index_url, users=False) as running:
        study = await get(running, f"/api/studies/{STUDY}")
        assert (study["patient_name"], study["modalities"], study["series"], study["instances"]) == (
            "Doe^Jane",
            ["CT", "MR"],
            2,
            5,
        )
        assert study["protection"] is None
        series = await get(running, f"/api/series/{SERIES}")
        assert (series["modality"], series["instances"], series["study_instance_uid"]) == ("CT", 3, STUDY)
        instance = await get(running, f"/api/instances/{INSTANCE}")
        assert (instance["series_instance_uid"], instance["instance_number"]) == (SERIES, 1)
        numbers = await get(running, "/api/statistics")
        assert numbers["counts"] == {"patients": 3, "studies": 4, "series": 6, "instances": 11}
        assert {each["modality"]: each["instances"] for each in numbers["modalities"]} == {"CT": 6, "MR": 5}
        assert numbers["last_hour"]["instances"] == 11
        assert numbers["last_hour"]["instances_per_second"] == pytest.approx(11 / 3600)


async def test_a_file_and_parts_of_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with web(tmp_path, users=False) as running:
        url = f"/api/instances/{INSTANCE}/file"
        answer = await running.nobody.get(url)
        whole = answer.content
        [path] = (tmp_path / "objects").rglob(f"{INSTANCE}.dcm")
        assert whole == path.read_bytes()
        assert answer.headers["Content-Type"] == "application/dicom"
        assert answer.headers["Content-Length"] == str(len(whole))
        assert answer.headers["Content-Disposition"] == f'attachment; filename="{INSTANCE}.dcm"'
        etag = answer.headers["ETag"]
        for given, start, stop in (
            ("bytes=0-99", 0, 100),
            ("bytes=100-", 100, len(whole)),
            ("bytes=-10", len(whole) - 10, len(whole)),
            ("bytes=5-999999999", 5, len(whole)),
            ("bytes=0-0", 0, 1),
        ):
            answer = await running.nobody.get(url, headers={"Range": given, "If-Range": etag})
            assert (answer.status_code, answer.content) == (206, whole[start:stop]), given
            assert answer.headers["Content-Range"] == f"bytes {start}-{stop - 1}/{len(whole)}"
        for given in ("bytes=9-5", "bytes=-", "bytes=0-1,5-6", "lines=1-2", "bytes=x-y", "bytes=1-" + "9" * 40):
            answer = await running.nobody.get(url, headers={"Range": given})
            assert (answer.status_code, answer.content) == (200, whole), given
        answer = await running.nobody.get(url, headers={"Range": "bytes=0-9", "If-Range": '"another"'})
        assert (answer.status_code, answer.content) == (200, whole)
        for given in (f"bytes={len(whole)}-", "bytes=-0"):
            answer = await running.nobody.get(url, headers={"Range": given})
            assert answer.status_code == 416, given
            assert answer.headers["Content-Range"] == f"bytes */{len(whole)}"
        for given, status in (
            ({"If-None-Match": etag}, 304),
            ({"If-None-Match": f'"x", W/{etag}'}, 304),
            ({"If-None-Match": "*", "Range": "bytes=0-9"}, 304),
            ({"If-None-Match": '"x"'}, 200),
            ({"If-Match": f'"x", {etag}'}, 200),
            ({"If-Match": "*"}, 200),
            ({"If-Match": '"x"', "Range": "bytes=0-9"}, 412),
            ({"If-Match": f"W/{etag}"}, 412),  # RFC 9110 13.1.1: a weak one never matches
        ):
            answer = await running.nobody.get(url, headers=given)
            assert (answer.status_code, answer.content == whole) == (status, status == 200), given
            assert answer.headers.get("ETag", "") == (etag if status != 412 else ""), given
        told: list[str] = []
        monkeypatch.setattr(running.archive.witness, "read", lambda by, study, sop_class: told.append(study))
        answer = await running.nobody.head(url, headers={"Range": "bytes=0-9"})  # RFC 9110 14.2: only GET has ranges
        assert (answer.status_code, answer.headers["Content-Length"], answer.content) == (200, str(len(whole)), b"")
        assert (await running.nobody.get(url, headers={"If-None-Match": etag})).status_code == 304
        assert told == [], "nobody has read anything of it"
        assert (await running.nobody.get(url)).status_code == 200
        assert told == [STUDY]
        path.unlink()
        assert (await running.nobody.get(url)).status_code == 404
        assert (await running.nobody.get(f"/api/instances/{INSTANCE}/tags")).status_code == 404


async def test_a_large_file_goes_out_in_pieces_and_survives_its_deletion(tmp_path: Path) -> None:
    sample = Sample(1, size=30 << 20)
    await fill(tmp_path, [sample])
    async with web(tmp_path, users=False, filled=False) as running:
        received = 0
        async with running.nobody.stream("GET", f"/api/instances/{sample.uid}/file") as answer:
            async for piece in answer.aiter_bytes():
                if not received:
                    assert (await running.nobody.delete(f"/api/studies/{sample.study_uid}")).status_code == 200
                    await running.archive.deletion.swept()
                received += len(piece)
        assert received == int(answer.headers["Content-Length"]) > 30 << 20
        assert (await running.nobody.get(f"/api/studies/{sample.study_uid}")).status_code == 404


async def test_who_goes_away_in_the_middle_of_a_file_leaves_nothing(tmp_path: Path) -> None:
    sample = Sample(1, size=30 << 20)
    await fill(tmp_path, [sample])
    async with web(tmp_path, users=False, filled=False) as running:
        for _ in range(3):
            async with running.nobody.stream("GET", f"/api/instances/{sample.uid}/file") as answer:
                async for _piece in answer.aiter_bytes():
                    break
        for _ in range(100):
            if not objects_open():
                break
            await asyncio.sleep(0.05)
        else:
            pytest.fail("a file is still open")


def objects_open() -> list[str]:
    found = []
    for descriptor in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):  # that of the listing itself
            found.append(os.readlink(f"/proc/self/fd/{descriptor}"))
    return [name for name in found if name.endswith(".dcm")]


async def test_tags_are_the_dicom_json_model_without_bulk_data(tmp_path: Path) -> None:
    nested = {0x00100010: ("PN", "Müller^Jörg"), 0x00080005: ("CS", "ISO_IR 192"), 0x00281053: ("DS", "nonsense")}
    await fill(tmp_path, [Sample(1, overrides=nested)])
    async with web(tmp_path, users=False, filled=False) as running:
        tags = (await get(running, f"/api/instances/{Sample(1).uid}/tags"))["tags"]
        assert tags["00100010"] == {"vr": "PN", "Value": [{"Alphabetic": "Müller^Jörg"}]}
        assert tags["0020000D"] == {"vr": "UI", "Value": [Sample(1).study_uid]}
        assert tags["00281053"] == {"vr": "DS"}, "a value that is wrong does not hide the others"
        assert "7FE00010" not in tags
        answer = await running.nobody.get(f"/api/instances/{Sample(1).uid}/file")
        (tmp_path / "out.dcm").write_bytes(answer.content)
        expected = json.loads(
            pydicom.dcmread(tmp_path / "out.dcm", stop_before_pixels=True)[0x00100010].to_json(None, 0)
        )
        assert expected == tags["00100010"]


async def test_deleting_and_protecting(tmp_path: Path, index_url: str | None) -> None:
    async with web(tmp_path, index_url=index_url, users=False) as running:
        client = running.nobody
        made = await client.put(f"/api/studies/{STUDY}/protection", json={"reason": "legal hold"})
        assert (made.status_code, made.json()["reason"], made.json()["protected_by"]) == (200, "legal hold", "anybody")
        for url in (f"/api/studies/{STUDY}", f"/api/series/{SERIES}", f"/api/instances/{INSTANCE}"):
            assert (await client.delete(url)).status_code == 409
            assert (await client.get(url)).status_code == 200
        assert (await get(running, f"/api/studies/{STUDY}"))["protection"]["reason"] == "legal hold"
        assert (await client.delete(f"/api/studies/{STUDY}/protection")).status_code == 204
        assert (await client.delete(f"/api/studies/{STUDY}/protection")).status_code == 404
        gone = (await client.delete(f"/api/instances/{INSTANCE}")).json()
        assert (gone["instances"], gone["studies"][0]["is_whole_study"]) == (1, False)
        assert (await client.delete(f"/api/series/{SERIES}")).json()["instances"] == 2
        gone = (await client.delete(f"/api/studies/{STUDY}")).json()
        assert (gone["instances"], gone["studies"]) == (
            2,
            [{"study_instance_uid": STUDY, "instances": 2, "is_whole_study": True}],
        )
        for url in (f"/api/studies/{STUDY}", f"/api/series/{SERIES}", f"/api/instances/{INSTANCE}"):
            assert (await client.get(url)).status_code == 404
            assert (await client.delete(url)).status_code == 404
        assert len((await get(running, "/api/studies"))["studies"]) == 3


async def test_a_study_is_protected_or_deleted_and_never_both(tmp_path: Path, index_url: str | None) -> None:
    """Both are asked for at the same moment. Who was told that it is protected has it."""
    samples = [Sample(number, study=number) for number in range(1, 41)]
    await fill(tmp_path, samples, index_url=index_url)
    async with web(tmp_path, index_url=index_url, users=False, filled=False) as running:
        client = running.nobody

        async def contend(uid: str) -> None:
            url = f"/api/studies/{uid}"
            protected, deleted = await asyncio.gather(client.put(f"{url}/protection", json={}), client.delete(url))
            assert (protected.status_code, deleted.status_code) in ((200, 409), (404, 200)), uid
            assert (await client.get(url)).status_code == protected.status_code

        for start in range(0, len(samples), 8):
            await asyncio.gather(*(contend(sample.study_uid) for sample in samples[start : start + 8]))


async def test_the_statistics_are_those_after_the_change(
    tmp_path: Path, index_url: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tomowire.web.api.statistics._QUICK", 60.0)  # on any machine
    async with web(tmp_path, index_url=index_url, users=False) as running:
        assert (await get(running, "/api/statistics"))["counts"]["instances"] == 11
        for url, left in (
            (f"/api/instances/{INSTANCE}", 10),
            (f"/api/series/{SERIES}", 8),
            (f"/api/studies/{STUDY}", 6),
        ):
            assert (await running.nobody.delete(url)).status_code == 200
            answers = await asyncio.gather(*(get(running, "/api/statistics") for _ in range(10)))
            assert {answer["counts"]["instances"] for answer in answers} == {left}, url
        assert sum(each["instances"] for each in answers[0]["modalities"]) == 6


HOSTILE = [
    "..",
    "../../etc/passwd",
    "..%2f..%2fetc%2fpasswd",
    "%2e%2e%2f%2e%2e%2fetc%2fpasswd",
    "%00",
    "1.2.3%00",
    "1.2%0d%0aX-Evil:%201",
    "1" * 10_000,
    "1." * 5_000 + "1",
    "%C3%BC",
    "%ff%fe",
    "%ED%A0%80",
    "1.2.3'%20OR%201=1--",
    "*",
    "1.2.3%5C1.2.4",
    "\N{ARABIC-INDIC DIGIT ONE}.2",
    "%F0%9F%92%80",
    "1.2.3;ls",
    "-1",
    "",
]


async def test_ids_that_are_none(tmp_path: Path) -> None:
    async with web(tmp_path, users=False) as running:
        for what in ("studies", "series", "instances", "associations", "nodes", "jobs", "users", "users/x/tokens"):
            for hostile in HOSTILE:
                for method, tail in (("GET", ""), ("DELETE", ""), ("GET", "/file"), ("PUT", "/protection")):
                    answer = await running.nobody.request(
                        method, f"{running.http.url}/api/{what}/{hostile}{tail}", json={} if method == "PUT" else None
                    )
                    assert answer.status_code in (200, 400, 404, 405, 409, 422), (method, what, hostile, answer.text)
                    assert answer.status_code != 200 or (what == "users" and hostile == ""), (method, what, hostile)
                    assert "X-Evil" not in answer.headers
        assert (await get(running, "/api/statistics"))["counts"]["instances"] == 11


async def test_a_data_set_that_inflates_to_a_gigabyte_does_not_take_it(tmp_path: Path) -> None:
    """PS3.5 A.5 allows deflated data sets, and a file of one megabyte can hold a thousand."""
    small = Sample(1, transfer_syntax_uid=DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN)
    bomb = Sample(2, transfer_syntax_uid=DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN, size=64 << 20)
    private = Sample(3, overrides={0x00091010: ("LO", "x" * 60)})
    await store_deflated(tmp_path, small, bomb)
    await fill(tmp_path, [private])
    async with web(tmp_path, users=False, filled=False) as running:
        tags = (await get(running, f"/api/instances/{small.uid}/tags"))["tags"]
        assert tags["0020000D"] == {"vr": "UI", "Value": [small.study_uid]}
        answer = await running.nobody.get(f"/api/instances/{bomb.uid}/tags")
        assert (answer.status_code, "look at its file" in answer.json()["detail"]) == (409, True)
        assert (await running.nobody.get(f"/api/instances/{private.uid}/tags")).status_code == 200


async def store_deflated(root: Path, *samples: Sample) -> None:
    async with ArchiveStorage(root, fsync=False) as storage:
        for sample in samples:
            deflating = zlib.compressobj(wbits=-zlib.MAX_WBITS)
            data = deflating.compress(sample.data_set) + deflating.flush()
            await storage.ingest.receive(sample.incoming(), stream(chunks_of(data)))


async def test_a_data_set_with_much_in_it_is_not_read_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tomowire.web.api.tags.MOST", 100_000)
    many = {0x00091000 + number: ("LO", "x" * 60) for number in range(0x10, 0x800)}
    await fill(tmp_path, [Sample(1, overrides=many), Sample(2, size=1 << 20)])
    async with web(tmp_path, users=False, filled=False) as running:
        assert (await running.nobody.get(f"/api/instances/{Sample(1).uid}/tags")).status_code == 409
        assert (await running.nobody.get(f"/api/instances/{Sample(2).uid}/tags")).status_code == 200, (
            "pixels do not count"
        )


async def test_long_values_do_not_hide_the_other_tags(tmp_path: Path) -> None:
    """What is longer than 64 KiB and binary is left out, as Siemens' private headers are; the items of a sequence are not."""
    values = "".join(chr(0x41 + number % 26) for number in range(60))
    item = element(0x00081030, "LO", values)
    items = b"".join(struct.pack("<HHI", 0xFFFE, 0xE000, len(item)) + item for _ in range(1200))
    data = Sample(1).data_set
    end = data.index(struct.pack("<HH", 0x7FE0, 0x0010))
    long_ones = (
        element(0x00291010, "OB", bytes(70_000))
        + struct.pack("<HH2sHI", 0x0029, 0x1020, b"UT", 0, 70_000)
        + b"x" * 70_000
        + struct.pack("<HH2sHI", 0x5200, 0x9230, b"SQ", 0, len(items))
        + items
    )
    async with ArchiveStorage(tmp_path, fsync=False) as storage:
        await storage.ingest.receive(
            Sample(1).incoming(), stream(chunks_of(data[:end] + long_ones + data[end:], 1 << 16))
        )
    async with web(tmp_path, users=False, filled=False) as running:
        tags = (await get(running, f"/api/instances/{Sample(1).uid}/tags"))["tags"]
        assert tags["0020000D"] == {"vr": "UI", "Value": [Sample(1).study_uid]}
        assert (tags["00291010"], tags["00291020"]) == ({"vr": "OB"}, {"vr": "UT"})
        assert len(items) > 64 * 1024
        assert tags["52009230"] == {"vr": "SQ", "Value": [{"00081030": {"vr": "LO", "Value": [values]}}] * 1200}
