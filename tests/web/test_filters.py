"""Filters, and what is behind the `?` of an address: what is written wrong is said to be, and how it should be."""

from __future__ import annotations

from pathlib import Path

import pytest

from support.objects import ROOT
from support.web import web
from tomowire.server.audit.events import Outcome
from tomowire.server.audit.specific import KINDS

# PS3.5 Table 6.2-1 and PS3.4 C.2.2.2: how each is written, and what is to be said where it is not.
WRONG = [
    ("studies", "StudyDate", ["2020-01-01", "01/31/2020", "20201301", "20200132", "2020*", "*", "-", "20200101--"], "YYYYMMDD"),
    ("studies", "PatientBirthDate", ["31.01.1970", "19700101-1971-01-01"], "YYYYMMDD"),
    ("studies", "StudyTime", ["10:30", "2400", "1060", "10*", "-", "103000.1234567"], "HHMM"),
    ("studies", "StudyInstanceUID", ["1.2.*", "1..2", "abc", ".1", "1.2,1.3", "1.2\\x"], "a UID is"),
    ("series", "SeriesInstanceUID", ["1.2.3?"], "a UID is"),
    ("series", "SeriesNumber", ["one", "1.5", "1-3", "1e3", "٣"], "whole number"),
    ("instances", "SOPInstanceUID", ["1.2 "], "a UID is"),
    ("instances", "InstanceNumber", ["0x10"], "whole number"),
]  # fmt: skip

RIGHT = [
    ("studies", "StudyDate", ["20200101", "20200101-", "-20200101", "20200101-20200131", "2020", "202001-202003", ""]),
    ("studies", "StudyTime", ["10", "1030", "103000", "103000.5", "10-1130", "-10", "235960"]),
    ("studies", "StudyInstanceUID", [f"{ROOT}.1.1", f"{ROOT}.1.1\\{ROOT}.1.2", "1.02.3", "\\".join(["1.2.840.10008"] * 500)]),
    ("series", "SeriesNumber", ["1", "-1", "+1", "1\\2"]),
    ("studies", "PatientName", ["*", "d?e*", "doe^jane\\müller*"]),
]  # fmt: skip


async def test_what_a_value_representation_does_not_allow_is_said_with_the_form_that_is_due(tmp_path: Path) -> None:
    async with web(tmp_path, users=False) as running:
        for what, name, values, words in WRONG:
            for value in values:
                answer = await running.nobody.get(f"/api/{what}", params={name: value})
                assert answer.status_code == 422, (name, value)
                (error,) = answer.json()["errors"]
                assert (error["in"], error["name"]) == ("query", name)
                assert words in error["detail"], (value, answer.text)
                assert words in answer.json()["detail"]
                if len(value) > 2:
                    assert value not in answer.text, "it may be about a patient"


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("StudyDate", "20200131-20200101", "a range of dates begins with the earlier one: YYYYMMDD-YYYYMMDD"),
        ("StudyDate", "2021-2020", "begins with the earlier one"),
        ("StudyDate", "202002-20200131", "begins with the earlier one"),
        ("StudyDate", "20200101\\20200131-20200101", "begins with the earlier one"),
        ("PatientBirthDate", "1970-1969", "begins with the earlier one"),
        ("StudyTime", "2200-0600", "a range of times begins with the earlier one, and ends on the same day"),
        ("StudyTime", "10-0959", "begins with the earlier one"),
    ],
)
async def test_a_range_that_ends_before_it_begins(tmp_path: Path, name: str, value: str, words: str) -> None:
    async with web(tmp_path, users=False, filled=False) as running:
        answer = await running.nobody.get("/api/studies", params={name: value})
        assert answer.status_code == 422
        [error] = answer.json()["errors"]
        assert (error["in"], error["name"]) == ("query", name)
        assert words in error["detail"]
        assert "Value error" not in answer.text
        for right in ("2020-2020", "202001-20200101", "2020-202012", "20200101-20200101", "20200101-2020"):
            if name.endswith("Date"):
                assert (await running.nobody.get("/api/studies", params={name: right})).status_code == 200, right


@pytest.mark.parametrize(
    ("method", "address", "body", "detail"),
    [
        ("GET", "/api/studies?limit=x", None, "must be a whole number"),
        ("GET", "/api/studies?limit=1.5", None, "must be a whole number"),
        ("GET", "/api/studies?limit=0", None, "must be 1 or more"),
        ("GET", "/api/studies?limit=1001", None, "must be 1000 or less"),
        ("GET", "/api/studies?newest_first=maybe", None, "must be true or false"),
        ("GET", f"/api/studies?PatientID={'1' * 257}", None, "must have at most 256 characters"),
        ("PUT", "/api/nodes/A", {"host": 5, "port": 104}, "must be text"),
        ("PUT", "/api/nodes/A", {"host": "a", "port": 104, "tls": "yes"}, "must be true or false"),
        ("PUT", "/api/nodes/A", {"host": "a", "port": 0}, "must be 1 or more"),
        ("PUT", "/api/nodes/A", {"host": "a", "port": 1.5}, "must be a whole number"),
        ("PUT", "/api/nodes/A", {"host": "a", "port": 104, "may": "echo"}, "must be a list"),
        ("PUT", "/api/nodes/A", [], "must be an object"),
        ("PUT", "/api/configuration", {"configuration": 5}, "must be an object"),
        ("POST", "/api/delete", {"uids": []}, "must have at least 1 entry"),
    ],
)
async def test_what_is_wrong_with_a_value_is_said_in_our_own_words(
    tmp_path: Path, method: str, address: str, body: object, detail: str
) -> None:
    async with web(tmp_path, users=False, filled=False) as running:
        answer = await running.nobody.request(method, address, json=body)
        assert answer.status_code == 422
        [error] = answer.json()["errors"]
        assert error["detail"] == detail


async def test_what_it_allows_is_matched(tmp_path: Path) -> None:
    async with web(tmp_path, users=False) as running:
        for what, name, values in RIGHT:
            for value in values:
                answer = await running.nobody.get(f"/api/{what}", params={name: value})
                assert answer.status_code == 200, (name, value, answer.text)
        both = await running.nobody.get(
            "/api/studies", params={"StudyInstanceUID": f"{ROOT}.1.1\\1.2.3\\{ROOT}.1.2", "newest_first": "false"}
        )
        assert [each["study_instance_uid"] for each in both.json()["studies"]] == [f"{ROOT}.1.1", f"{ROOT}.1.2"]


@pytest.mark.parametrize(
    ("address", "name", "words"),
    [
        ("/api/studies?StudyDat=20200101", "StudyDat", "is StudyDate meant?"),
        ("/api/studies?studydate=20200101", "studydate", "is StudyDate meant?"),
        ("/api/instances?Modality=CT&limit=1", "Modality", "known are InstanceNumber, SOPClassUID"),
        ("/api/jobs?status=done", "status", "is state meant?"),
        ("/api/status?verbose=1", "verbose", "there are no parameters here"),
        ("/api/studies?limit=1&limit=2", "limit", "more than once"),
        ("/api/audit?After=1&after=", "After", "is after meant?"),
    ],
)
async def test_parameters_that_are_not_known_or_given_twice(
    tmp_path: Path, address: str, name: str, words: str
) -> None:
    async with web(tmp_path, users=False, filled=False) as running:
        answer = await running.nobody.get(address)
        assert answer.status_code == 422
        assert answer.json()["errors"][0]["name"] == name
        assert words in answer.json()["detail"]
        assert (await running.nobody.get("/api/jobs?state=done&state=failed")).status_code == 200, "that is a list"


@pytest.mark.parametrize(
    ("address", "name", "known"),
    [
        (
            "/api/audit?event=nope",
            "event",
            ["application-started", "association-begun", "instances-transferred", "events-lost"],
        ),
        ("/api/audit?event=Login", "event", ["login", "logout"]),
        ("/api/audit/export?event=", "event", ["login", "logout"]),
        ("/api/audit?outcome=5", "outcome", ["0, 4, 8 or 12"]),
        ("/api/audit?outcome=success", "outcome", ["0, 4, 8 or 12"]),
        ("/api/audit/export?format=pdf", "format", ["jsonl, csv or xml"]),
        ("/api/jobs?state=nope", "state.0", ["waiting, running", "done"]),
        ("/api/jobs?kind=send&kind=fetch", "kind.1", ["send, retrieve"]),
        ("/api/jobs/0b9f3c1e-5a43-4c5e-9d6b-8a3f4f1f2f60/items?state=x", "state.0", ["done"]),
        ("/api/logs?level=loud", "level", ["debug, info, warning, error or critical"]),
    ],
)
async def test_of_what_is_to_be_one_of_a_few_they_are_named(
    tmp_path: Path, address: str, name: str, known: list[str]
) -> None:
    async with web(tmp_path, users=False, filled=False) as running:
        answer = await running.nobody.get(address)
        assert answer.status_code == 422
        (error,) = answer.json()["errors"]
        assert (error["in"], error["name"]) == ("query", name)
        assert error["detail"].startswith("is not known; known are ")
        assert error["detail"] in answer.json()["detail"], "all of them"
        for each in known:
            assert each in error["detail"]


async def test_what_a_page_of_one_list_ends_with_is_not_taken_by_another(tmp_path: Path) -> None:
    async with web(tmp_path, users=False) as running:
        lists = ("studies", "series", "instances", "audit")
        found = {
            each: (await running.nobody.get(f"/api/{each}", params={"limit": 1})).json()["next"] for each in lists[:3]
        }
        assert all(found.values())
        for of, after in found.items():
            for other in lists:
                answer = await running.nobody.get(f"/api/{other}", params={"after": after})
                assert answer.status_code == (200 if of == other else 422), (of, other)
                if of != other:
                    assert f"not what a page of {other} ends with" in answer.json()["detail"]


async def test_every_kind_of_event_can_be_asked_for(tmp_path: Path, index_url: str | None) -> None:
    async with web(tmp_path, users=False, filled=False, index_url=index_url) as running:
        for kind in KINDS:
            for outcome in Outcome:
                parameters = {"event": kind, "outcome": int(outcome)}
                answer = await running.nobody.get("/api/audit", params=parameters)
                assert answer.status_code == 200, answer.text
                assert {each["event"] for each in answer.json()["entries"]} <= {kind}


async def test_ids_and_bodies_that_have_no_form(tmp_path: Path) -> None:
    async with web(tmp_path, users=False, filled=False) as running:
        for method, address, words in (
            ("GET", "/api/studies/1.2.x", "a UID is made of numbers with dots"),
            ("DELETE", "/api/instances/..", "nothing at this address"),
            ("GET", f"/api/series/{'1' * 65}", "at most 64 characters"),
            ("GET", "/api/jobs/1", "the id of a job looks like"),
            ("PUT", "/api/nodes/A%5CB", "an AE title has 1 to 16 characters"),
            ("DELETE", "/api/tokens/x", "12 hexadecimal digits"),
            ("GET", "/api/audit?after=-1", "take 'next' of the page before"),
        ):
            answer = await running.nobody.request(method, address)
            assert answer.status_code in (404, 422)
            assert words in answer.json()["detail"], answer.text
        body = {"host": "127.0.0.1", "prot": 104}
        answer = await running.nobody.put("/api/nodes/CT1", json=body)
        details = {each["name"]: each["detail"] for each in answer.json()["errors"]}
        assert details == {"port": "is missing", "prot": "is not known; is port meant?"}
