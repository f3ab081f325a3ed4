"""A job as who has asked for it sees it: in the words of the request, and with an error that is said once."""

from __future__ import annotations

import asyncio
import base64
from pathlib import Path

from support.filled import fill, small_hospital
from support.network import LOOPBACK, free_port
from support.objects import ROOT
from support.web import web
from tomowire.server.app import Archive
from tomowire.server.audit.trail import Filter
from tomowire.server.nodes import Node
from tomowire.server.settings import Settings
from tomowire.server.users import Role

STUDY = f"{ROOT}.1.1"


async def test_what_was_asked_for_is_shown_as_it_was_asked(tmp_path: Path) -> None:
    nodes = (Node("AWAY", LOOPBACK, port := free_port()),)
    async with web(tmp_path, users=False, settings={"nodes": nodes}) as running:

        async def made(path: str, **body: object) -> dict[str, object]:
            answer = await running.nobody.post(
                f"/api/{path}", json={name: each for name, each in {"node": "AWAY", **body}.items() if each}
            )
            assert answer.status_code == 202, answer.text
            job = (await running.nobody.get(answer.headers["Location"])).json()
            return dict(job)

        sent = await made("send", level="instance", uids=[f"{ROOT}.3.1"])
        assert sent["parameters"] == {"level": "instance", "uids": [f"{ROOT}.3.1"]}
        got = await made("retrieve", level="series", uids=["1.2.3"], study_instance_uid="1.2")
        assert got["parameters"] == {"level": "series", "uids": ["1.2.3"], "method": "get", "study_instance_uid": "1.2"}
        deleted = await made("delete", node=None, uids=[STUDY])
        assert deleted["parameters"] == {"level": "study", "uids": [STUDY]}
        reindexed = await made("reindex", node=None, study_instance_uids=[f"{ROOT}.1.2"])
        assert reindexed["parameters"] == {"level": "study", "study_instance_uids": [f"{ROOT}.1.2"]}
        asked = await made("query", keys={"PatientID": "JANE"}, most=5)
        assert asked["parameters"] == {"level": "study", "keys": {"PatientID": "JANE"}, "most": 5}
        async with asyncio.timeout(60):
            while not (error := (await running.nobody.get(f"/api/jobs/{sent['id']}")).json()["error"]):
                pass
        assert error.count(f"AWAY@{LOOPBACK}:{port}") == 1
        assert error.count("connect") == 1


async def test_who_looks_at_what_a_node_has_answered_is_in_the_audit_trail(tmp_path: Path) -> None:
    port = free_port()
    await fill(tmp_path / "remote", small_hospital())
    nodes = (Node("REMOTE", LOOPBACK, port),)
    async with (
        Archive(Settings(tmp_path / "remote", port=port, ae_title="REMOTE")),
        web(tmp_path / "local", filled=False, settings={"nodes": nodes}) as running,
    ):
        ended = asyncio.get_running_loop().create_future()
        running.archive.jobs.on_end = ended.set_result
        asking = running.clients[Role.OPERATOR].post("/api/query", json={"node": "REMOTE"})
        path = (await asking).headers["Location"]
        async with asyncio.timeout(60):
            await ended
        for _ in range(2):
            assert len((await running.clients[Role.READER].get(path)).json()["result"]) == 4
        assert await running.archive.audit.flush(20)
        asked, seen = await running.archive.audit.list(Filter(event="query"))
        assert (asked.actor, seen.actor) == ("operator", "reader")
        assert base64.b64encode(path.encode()).decode() in seen.message


async def test_keys_that_cannot_be_asked_for_make_no_job(tmp_path: Path) -> None:
    nodes = (Node("AWAY", LOOPBACK, free_port()),)
    async with web(tmp_path, users=False, filled=False, settings={"nodes": nodes}) as running:
        for keys, words in (
            ({"StudyDate": "2020/01/01"}, "is not a date: YYYYMMDD"),
            ({"PatientNam": "x"}, "near it are PatientName"),
            ({"Rows": "many"}, "is not a number"),
            ({"PixelData": "x"}, "no values that could be matched"),
        ):
            answer = await running.nobody.post("/api/query", json={"node": "AWAY", "keys": keys})
            assert answer.status_code == 422
            [error] = answer.json()["errors"]
            assert (error["in"], error["name"]) == ("body", "keys")
            assert words in error["detail"]
        assert (await running.nobody.get("/api/jobs")).json()["jobs"] == []
