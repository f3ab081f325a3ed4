"""What the archive does, over HTTP: associations, nodes, jobs, the log, the audit trail, the configuration, users."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from support.certificates import Authority
from support.network import free_port
from support.objects import ROOT
from support.web import PASSWORD, Web, web
from tomowire import Peer, Storage, Verification, associate, listen, verification
from tomowire.aio.tls import TlsClient, TlsServer
from tomowire.errors import AssociationAborted, AssociationRejected
from tomowire.server.access import CallerRule
from tomowire.server.audit.trail import Filter
from tomowire.server.nodes import Node
from tomowire.server.settings import HttpSettings, JobSettings, QuotaSettings
from tomowire.server.users import Role
from tomowire.web.server import HttpServer


async def result(running: Web, method: str, path: str, expected: int = 200, **options: Any) -> Any:
    answer = await running.nobody.request(method, path, **options)
    assert answer.status_code == expected, answer.text
    return answer.json() if answer.content else None


async def test_associations_are_shown_and_aborted(tmp_path: Path) -> None:
    async with web(tmp_path, users=False, filled=False) as running:
        address = f"TOMOWIRE@127.0.0.1:{running.archive.port}"
        async with Peer(address, aet="CT1") as peer:
            await peer.echo()
            [shown] = (await result(running, "GET", "/api/associations"))["associations"]
            assert (shown["calling_ae_title"], shown["called_ae_title"], shown["tls"]) == ("CT1", "TOMOWIRE", None)
            assert shown["messages_received"] == shown["messages_sent"] == 1
            assert shown["bytes_received"] > 200
            assert shown["bytes_sent"] > 200
            assert 0 <= shown["seconds_quiet"] <= shown["seconds"] < 60
            assert shown["contexts"][0]["abstract_syntax_name"] == "Verification SOP Class"
        async with associate(address, contexts=[verification()], aet="CT2") as association:
            [shown] = (await result(running, "GET", "/api/associations"))["associations"]
            url = f"/api/associations/{shown['id']}"
            assert (await result(running, "GET", url))["calling_ae_title"] == "CT2"
            await result(running, "DELETE", url, 204)
            await association.wait_closed()
            assert isinstance(association.error, AssociationAborted)
        await result(running, "GET", url, 404)
        await result(running, "DELETE", url, 404)
        assert await running.archive.audit.flush(20)
        ended = (await result(running, "GET", "/api/audit", params={"event": "association-ended"}))["entries"]
        assert [each["actor"] for each in ended] == ["anybody", "CT1"], "who had it aborted is told"


async def test_nodes_are_added_changed_and_removed_while_associations_go_on(tmp_path: Path) -> None:
    settings = {"nodes": (Node("OTHER", "127.0.0.1", 4),), "bind": "0.0.0.0"}
    async with web(tmp_path, users=False, filled=False, settings=settings) as running:
        address = f"TOMOWIRE@127.0.0.1:{running.archive.port}"
        async with Peer(address, aet="OTHER") as other, Peer(address, aet="CT1") as new:
            await other.echo()
            with pytest.raises(AssociationRejected):
                await new.echo()
            url = "/api/nodes/CT1"
            made = await result(running, "PUT", url, json={"host": "127.0.0.1", "port": 104, "may": ["echo"]})
            assert made == {
                "ae_title": "CT1", "host": "127.0.0.1", "port": 104, "associations": 1, "tls": False, "tls_name": None,
                "may": ["echo"],
            }  # fmt: skip
            await new.echo()
            assert [each["ae_title"] for each in (await result(running, "GET", "/api/nodes"))["nodes"]] == [
                "CT1",
                "OTHER",
            ]
            await result(running, "PUT", url, json={"host": "127.0.0.1", "port": 105})
            assert (await result(running, "GET", url))["port"] == 105
            await result(running, "DELETE", url, 204)
            await result(running, "DELETE", url, 404)
            assert "OTHER" in [each.calling_ae_title for each in running.archive.server.associations]
            await other.echo()
        async with Peer(address, aet="CT1") as new:
            with pytest.raises(AssociationRejected):
                await new.echo()
        for wrong in (
            {"host": "", "port": 1},
            {"host": "x", "port": 0},
            {"host": "a b", "port": 1},
            {"host": "x"},
            {"host": "x", "port": 1, "prot": 2},
            [],
        ):
            await result(running, "PUT", url, 422, json=wrong)
        await result(running, "PUT", f"/api/nodes/{'X' * 17}", 422, json={"host": "x", "port": 1})


async def test_a_node_undoes_nothing_that_is_changed_at_the_same_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with web(tmp_path, users=False, filled=False) as running:
        archive = running.archive
        begun, asked, goes_on = asyncio.Event(), asyncio.Event(), asyncio.Event()
        reconfigure = archive.reconfigure

        async def wait() -> None:
            begun.set()
            await goes_on.wait()

        async def told(*given: Any, **options: Any) -> Any:
            asked.set()
            return await reconfigure(*given, **options)

        archive.on_reload.append(wait)
        first = asyncio.create_task(reconfigure(replace(archive.settings, callers=(CallerRule("CT1"),))))
        await begun.wait()
        monkeypatch.setattr(archive, "reconfigure", told)
        url = "/api/nodes/CT2"
        second = asyncio.create_task(result(running, "PUT", url, json={"host": "127.0.0.1", "port": 104}))
        await asked.wait()
        goes_on.set()
        await asyncio.gather(first, second)
        assert archive.settings.callers == (CallerRule("CT1"),)
        assert set(archive.nodes) == {"CT2"}


async def test_an_echo_from_here(tmp_path: Path) -> None:
    async with listen(port=0, services=[Verification()]) as peer:
        nodes = (Node("THERE", "127.0.0.1", peer.port), Node("AWAY", "127.0.0.1", free_port()))
        async with web(tmp_path, users=False, filled=False, settings={"nodes": nodes}) as running:
            there = await result(running, "POST", "/api/nodes/THERE/echo")
            assert (there["succeeded"], there["status"], there["error"]) == (True, "0000", "")
            away = await result(running, "POST", "/api/nodes/AWAY/echo")
            assert (away["succeeded"], away["status"]) == (False, None)
            assert "refused" in away["error"]


async def test_an_echo_over_tls_says_which_key_is_wrong(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    root = tmp_path / "data"
    tls = TlsServer(**authority.sign("viewer.example.org").options)
    async with listen(port=0, services=[Verification()], ssl=tls) as peer:
        nodes = (Node("NAMED", "127.0.0.1", peer.port, tls=True), Node("PLAIN", "127.0.0.1", peer.port))
        settings = {"nodes": nodes, "node_tls": TlsClient(authorities=authority.file)}
        async with web(root, users=False, filled=False, settings=settings) as running:
            named = await result(running, "POST", "/api/nodes/NAMED/echo")
            assert named["error"].endswith("or say which to look for (tls_name)")
            plain = await result(running, "POST", "/api/nodes/PLAIN/echo")
            assert plain["error"].endswith("this connection is without (tls)")


async def test_a_study_is_sent_and_the_job_tells(tmp_path: Path, index_url: str | None) -> None:
    received: list[str] = []

    async def keep(request: Any) -> int:
        received.append(request.sop_instance_uid)
        async for _ in request.data:
            pass
        return 0

    async with listen(port=0, services=[Storage(keep)]) as peer:
        settings = {"nodes": (Node("THERE", "127.0.0.1", peer.port),)}
        async with web(tmp_path, index_url=index_url, users=False, settings=settings) as running:
            answer = await running.nobody.post("/api/send", json={"node": "THERE", "uids": [f"{ROOT}.1.1"]})
            assert answer.status_code == 202
            job = answer.json()
            assert (job["kind"], job["node"], job["created_by"], job["progress"]["total"]) == (
                "send",
                "THERE",
                "anybody",
                5,
            )
            url = answer.headers["Location"]
            job = await over(running, url)
            assert (job["state"], job["progress"]["done"], job["error"]) == ("done", 5, "")
            assert sorted(received) == [f"{ROOT}.3.{number}" for number in (1, 2, 3, 4, 5)]
            items, after = [], {}
            while True:
                page = await result(running, "GET", f"{url}/items", params={"limit": 2, **after})
                items += page["items"]
                if page["next"] is None:
                    break
                after = {"after": page["next"]}
            assert sorted(each["uid"] for each in items) == sorted(received)
            assert {(each["state"], each["status"]) for each in items} == {("done", "0000")}
            listed = await result(running, "GET", "/api/jobs", params={"state": "done", "kind": "send"})
            assert [each["id"] for each in listed["jobs"]] == [job["id"]]
            assert (await result(running, "GET", "/api/jobs", params={"state": "failed"}))["jobs"] == []


async def test_jobs_are_cancelled_and_retried(tmp_path: Path) -> None:
    settings = {"nodes": (Node("AWAY", "127.0.0.1", free_port()),)}
    async with web(tmp_path, users=False, settings=settings) as running:
        made = await result(running, "POST", "/api/query", 202, json={"node": "AWAY", "keys": {"PatientID": "JANE"}})
        url = f"/api/jobs/{made['id']}"
        await result(running, "POST", f"{url}/cancel")
        assert (await over(running, url))["state"] == "cancelled"
        assert (await result(running, "POST", f"{url}/retry"))["state"] in ("waiting", "running")
        await result(running, "POST", f"{url}/cancel")
        assert (await over(running, url))["state"] == "cancelled"
        for wrong in (
            {"node": "NOBODY", "uids": [f"{ROOT}.1.1"]},
            {"node": "AWAY", "uids": ["1.2.3.4"]},
        ):
            problem = await result(running, "POST", "/api/send", 409, json=wrong)
            assert "NOBODY" in problem["detail"] or "1.2.3.4" in problem["detail"]
        problem = await result(running, "POST", "/api/send", 409, json={"node": "AWYA", "uids": [f"{ROOT}.1.1"]})
        assert problem["detail"] == "the archive knows no node AWYA: did you mean AWAY?"
        for wrong in ({"node": "AWAY", "uids": []}, {"node": "AWAY", "uids": ["x"]}, {"uids": ["1.2"]}):
            await result(running, "POST", "/api/send", 422, json=wrong)


async def test_a_node_is_named_by_its_name_or_its_ae_title(tmp_path: Path) -> None:
    port = free_port()
    nodes = (
        Node("ORTHANC", "127.0.0.1", port, name="orthanc"),
        Node("A", "127.0.0.1", port, name="B"),
        Node("B", "127.0.0.1", port, name="b"),
    )
    async with web(tmp_path, users=False, settings={"nodes": nodes}) as running:
        for name in ("orthanc", "ORTHANC"):
            made = await result(running, "POST", "/api/send", 202, json={"node": name, "uids": [f"{ROOT}.1.1"]})
            assert made["node"] == "ORTHANC"
            assert (await result(running, "GET", f"/api/nodes/{name}"))["ae_title"] == "ORTHANC"
            assert (await result(running, "POST", f"/api/nodes/{name}/echo"))["ae_title"] == "ORTHANC"
        problem = await result(running, "POST", "/api/query", 409, json={"node": "B"})
        assert problem["detail"] == "B is the name of one node and the AE title of another: say A or b"
        assert (await result(running, "GET", "/api/nodes/B"))["ae_title"] == "B"
        changed = {"host": "127.0.0.1", "port": port, "associations": 2}
        assert (await result(running, "PUT", "/api/nodes/orthanc", json=changed))["ae_title"] == "ORTHANC"
        assert set((await result(running, "GET", "/api/configuration"))["configuration"]["nodes"]) == {
            "orthanc",
            "A",
            "b",
        }
        await result(running, "DELETE", "/api/nodes/orthanc", 204)
        assert "ORTHANC" not in running.archive.nodes


async def over(running: Web, url: str) -> dict[str, Any]:
    for _ in range(400):
        job: dict[str, Any] = await result(running, "GET", url)
        if job["state"] in ("done", "failed", "cancelled"):
            return job
        await asyncio.sleep(0.05)
    pytest.fail(f"the job is not over: {job}")


async def test_the_audit_trail_is_looked_through_exported_and_verified(tmp_path: Path, index_url: str | None) -> None:
    async with web(tmp_path, index_url=index_url, users=False, filled=False) as running:
        await result(
            running, "POST", "/api/users", 201, json={"name": "jane", "password": PASSWORD, "role": "administrator"}
        )
        running.nobody.auth = ("jane", PASSWORD)
        for _ in range(3):
            await result(running, "GET", "/api/audit")
        await running.archive.audit.flush(10)
        found = await result(running, "GET", "/api/audit", params={"event": "configuration-changed"})
        assert [each["actor"] for each in found["entries"]] == ["anybody"]
        assert "User Security Attributes Changed" in found["entries"][0]["message"]
        assert "<AuditMessage" in found["entries"][0]["message"]
        numbers: list[int] = []
        parameters: dict[str, Any] = {"limit": 2, "newest_first": False}
        while True:
            page = await result(running, "GET", "/api/audit", params=parameters)
            numbers += [each["number"] for each in page["entries"]]
            if page["next"] is None:
                break
            parameters["after"] = page["next"]
        assert numbers == list(range(1, len(numbers) + 1))
        answer = await running.nobody.get("/api/audit/export")
        assert answer.headers["Content-Type"].startswith("application/jsonl")
        assert [json.loads(line)["number"] for line in answer.text.splitlines()][: len(numbers)] == numbers
        answer = await running.nobody.get("/api/audit/export", params={"format": "xml", "actor": "anybody"})
        from xml.etree import ElementTree

        root = ElementTree.fromstring(answer.text)
        assert root.tag == "AuditMessages"
        assert {child.tag for child in root} == {"AuditMessage"}
        assert await result(running, "GET", "/api/audit/verification") == {"is_whole": True, "problems": []}
        future = {"since": "2999-01-01T00:00:00Z"}
        assert (await result(running, "GET", "/api/audit", params=future))["entries"] == []
        for wrong in ("0.5", "yesterday", "2026-01-01", "2026-01-01T00:00:00"):
            await result(running, "GET", "/api/audit", 422, params={"since": wrong})


async def test_the_configuration_is_shown_checked_and_applied(tmp_path: Path) -> None:
    async with web(tmp_path, users=False, filled=False) as running:
        shown = (await result(running, "GET", "/api/configuration"))["configuration"]
        assert shown["dicom"]["ae_title"] == "TOMOWIRE"
        wanted = {**shown, "nodes": {"CT1": {"host": "127.0.0.1", "port": 104}}}
        checked = await result(running, "POST", "/api/configuration/check", json={"configuration": wanted})
        assert checked == {"is_valid": True, "problems": [], "changed": ["nodes"], "needs_restart": [], "reset": []}
        assert (await result(running, "GET", "/api/nodes"))["nodes"] == []
        applied = await result(running, "PUT", "/api/configuration", json={"configuration": wanted})
        assert applied == {"changed": ["nodes"], "needs_restart": [], "reset": [], "warnings": []}
        assert (await result(running, "GET", "/api/nodes"))["nodes"][0]["ae_title"] == "CT1"
        wrong = {"dicom": {"prot": 104}}
        checked = await result(running, "POST", "/api/configuration/check", json={"configuration": wrong})
        assert not checked["is_valid"]
        assert (checked["problems"][0]["key"], checked["problems"][0]["nearest"]) == ("dicom.prot", "port")
        problem = await result(running, "PUT", "/api/configuration", 422, json={"configuration": wrong})
        assert problem["errors"][0]["name"] == "dicom.prot"
        assert (await result(running, "GET", "/api/nodes"))["nodes"][0]["ae_title"] == "CT1", "all is as it was"


async def test_what_a_configuration_leaves_out_is_named(tmp_path: Path) -> None:
    async with web(tmp_path, users=False, filled=False, settings={"quota": QuotaSettings(bytes=1 << 40)}) as running:
        shown = (await result(running, "GET", "/api/configuration"))["configuration"]
        nodes = {name: {"host": "127.0.0.1", "port": 104} for name in ("CT1", "CT2")}
        more = {**shown, "nodes": nodes}
        applied = await result(running, "PUT", "/api/configuration", json={"configuration": more})
        assert applied["reset"] == []
        less = {name: each for name, each in shown.items() if name != "quota"} | {"nodes": {"CT1": nodes["CT1"]}}
        less["dicom"] = {**shown["dicom"], "aliases": ["PACS"]}
        checked = await result(running, "POST", "/api/configuration/check", json={"configuration": less})
        assert checked["changed"] == ["dicom.aliases", "nodes", "quota"]
        assert checked["reset"] == ["nodes.CT2", "quota.bytes"]
        applied = await result(running, "PUT", "/api/configuration", json={"configuration": less})
        assert applied["reset"] == checked["reset"]
        checked = await result(running, "POST", "/api/configuration/check", json={"configuration": {}})
        assert {"nodes", "dicom.aliases"} <= set(checked["reset"])


async def test_what_is_left_out_and_needs_a_restart_is_not_said_to_be_reset(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    settings = {"jobs": JobSettings(attempts=2), "quota": QuotaSettings(bytes=1 << 40)}
    async with web(tmp_path, users=False, filled=False, settings=settings) as running:
        shown = (await result(running, "GET", "/api/configuration"))["configuration"]
        less = {name: each for name, each in shown.items() if name not in ("jobs", "quota")}
        checked = await result(running, "POST", "/api/configuration/check", json={"configuration": less})
        applied = await result(running, "PUT", "/api/configuration", json={"configuration": less})
        for account in (checked, applied):
            assert account["changed"] == ["quota"]
            assert account["needs_restart"] == ["jobs"]
            assert account["reset"] == ["quota.bytes"]
        now = (await result(running, "GET", "/api/configuration"))["configuration"]
        assert now["jobs"] == shown["jobs"]
    put = "the configuration was put without these keys, which"
    assert [text for text in caplog.messages if text.startswith(put)] == [
        f"{put} have their defaults now: quota.bytes",
        f"{put} stay as they are, as they need a restart: jobs.attempts",
    ]


async def test_what_a_lower_quota_takes_is_said_before_and_after(tmp_path: Path) -> None:
    async with web(tmp_path, users=False) as running:
        wanted = {**(await result(running, "GET", "/api/configuration"))["configuration"], "quota": {"bytes": 1}}
        checked = await result(running, "POST", "/api/configuration/check", json={"configuration": wanted})
        assert checked["is_valid"]
        [warning] = checked["problems"]
        assert (warning["severity"], warning["key"]) == ("warning", "quota")
        assert "bytes too many for the quota of 1" in warning["text"]
        applied = await result(running, "PUT", "/api/configuration", json={"configuration": wanted})
        assert applied["warnings"] == [warning["text"]]
        checked = await result(running, "POST", "/api/configuration/check", json={"configuration": wanted})
        assert checked["problems"] == [], "it is in force"


async def test_a_user_named_like_a_part_of_the_archive_deletes_in_its_own_name(tmp_path: Path) -> None:
    async with web(tmp_path) as running:
        await running.archive.users.add("quota", Role.OPERATOR, PASSWORD)
        running.nobody.auth = ("quota", PASSWORD)
        [study, *_] = (await result(running, "GET", "/api/studies"))["studies"]
        await result(running, "DELETE", f"/api/studies/{study['study_instance_uid']}")
        await running.archive.audit.flush(10)
        [entry] = await running.archive.audit.list(Filter(event="study-deleted"))
        assert entry.actor == "quota"


async def test_the_audit_trail_has_from_where_it_was_asked_to_delete(tmp_path: Path) -> None:
    async with web(tmp_path) as running:
        operator = running.clients[Role.OPERATOR]
        [first, *_] = (await operator.get("/api/series")).json()["series"]
        [second, *_] = (await operator.get("/api/instances")).json()["instances"]
        [third, *_] = (await operator.get("/api/studies", params={"newest_first": False})).json()["studies"]
        for path in (
            f"instances/{second['sop_instance_uid']}",
            f"series/{first['series_instance_uid']}",
            f"studies/{third['study_instance_uid']}",
        ):
            answer = await operator.delete(f"/api/{path}")
            assert answer.status_code == 200, (path, answer.text)
        gone = (await operator.get("/api/studies")).json()["studies"]
        made = await operator.post("/api/delete", json={"uids": [each["study_instance_uid"] for each in gone]})
        async with asyncio.timeout(60):
            while (await operator.get(made.headers["Location"])).json()["state"] != "done":
                pass
        await running.archive.audit.flush(10)
        told = [
            each
            for event in ("study-deleted", "instances-accessed")
            for each in await running.archive.audit.list(Filter(event=event))
        ]
        assert len(told) == 3 + len(gone)
        assert {(each.actor, each.source) for each in told} == {("operator", "127.0.0.1")}
        assert all('NetworkAccessPointID="127.0.0.1"' in each.message for each in told)


async def test_the_file_is_read_again_and_the_audit_trail_says_who_wanted_it(tmp_path: Path) -> None:
    from tomowire.cli.configured import Source
    from tomowire.cli.reloading import Reload

    file = tmp_path / "tomowire.toml"
    file.write_text(f'storage.data_dir = "{tmp_path / "data"}"\nnodes.CT1 = {{ host = "127.0.0.1", port = 104 }}\n')
    async with web(tmp_path / "data", filled=False) as running:
        archive = running.archive
        reload = Reload(archive, Source(file, {}))
        async with HttpServer(archive, HttpSettings(port=0), reload=reload) as http:
            answer = await running.administrator.post(f"{http.url}/api/configuration/reload")
        assert (answer.status_code, answer.json()["changed"]) == (200, ["nodes"])
        assert set(archive.nodes) == {"CT1"}
        await archive.audit.flush(10)
        [entry] = await archive.audit.list(Filter(event="configuration-changed"))
        assert (entry.actor, entry.source) == ("administrator", "127.0.0.1")


@pytest.mark.skipif(sys.platform != "linux", reason="file names are bytes on Linux only")
async def test_a_folder_whose_name_is_no_text_is_shown_all_the_same(tmp_path: Path) -> None:
    async with web(tmp_path / os.fsdecode(b"\xff"), users=False, filled=False) as running:
        shown = (await result(running, "GET", "/api/configuration"))["configuration"]
        assert shown["storage"]["data_dir"] == str(tmp_path / "\ufffd")


async def test_secrets_of_the_configuration_are_not_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from dataclasses import replace

    async with web(tmp_path, users=False, filled=False) as running:
        monkeypatch.setattr(
            running.archive, "settings", replace(running.archive.settings, index_url="postgresql://me:hunter2@host/db")
        )
        text = (await running.nobody.get("/api/configuration")).text
        assert "postgresql://me:***@host/db" in text
        assert "hunter2" not in text


async def test_users_and_tokens(tmp_path: Path, index_url: str | None) -> None:
    async with web(tmp_path, index_url=index_url, filled=False) as running:
        client = running.administrator
        made = await client.post("/api/users", json={"name": "jane", "role": "operator", "password": PASSWORD})
        assert (made.status_code, made.json()["has_password"]) == (201, True)
        assert "password" not in {*made.json()} - {"has_password"}
        assert (await client.post("/api/users", json={"name": "jane"})).status_code == 409
        token = (await client.post("/api/users/jane/tokens", json={"description": "router"})).json()
        headers = {"Authorization": f"Bearer {token['token']}"}
        assert (await running.nobody.get("/api/me", headers=headers)).json() == {"name": "jane", "role": "operator"}
        listed = (await client.get("/api/users/jane/tokens")).json()["tokens"]
        assert [each["id"] for each in listed] == [token["id"]]
        assert "token" not in listed[0], "it is shown once"
        await client.patch("/api/users/jane", json={"role": "reader"})
        assert (await running.nobody.get("/api/me", headers=headers)).json()["role"] == "reader"
        assert (await client.delete(f"/api/tokens/{token['id']}")).status_code == 204
        assert (await running.nobody.get("/api/me", headers=headers)).status_code == 401
        assert (await client.delete("/api/users/jane")).status_code == 204
        assert (await client.delete("/api/users/jane")).status_code == 404
        refused = await client.delete("/api/users/administrator")
        assert (refused.status_code, refused.headers["Content-Type"]) == (409, "application/problem+json")
        for wrong in (
            {"name": ""},
            {"name": "x y"},
            {"name": "x", "password": "short"},
            {"name": "x", "rule": "reader"},
            {"name": "x", "role": "god"},
        ):
            answer = await client.post("/api/users", json=wrong)
            assert answer.status_code == 422, wrong
            assert "short" not in answer.text
        for length, said in ((7, "must have at least 8 characters"), (1025, "must have no more than 1024 characters")):
            answer = await client.post("/api/users", json={"name": "x", "password": "\u00e4" * length})
            assert answer.json()["errors"] == [{"in": "body", "name": "password", "detail": said}]
        assert {each["name"] for each in (await client.get("/api/users")).json()["users"]} == {
            each.value for each in Role
        }


async def test_a_quota_that_cannot_be_kept_is_told(tmp_path: Path) -> None:
    """All that there is has just come."""
    async with web(tmp_path, users=False, settings={"quota": QuotaSettings(bytes=1, every=3600, grace=300)}) as running:
        assert await running.archive.quotas.enforce() == 0
        quota = (await result(running, "GET", "/api/status"))["quota"]
        used = running.archive.quotas.bytes
        assert used is not None
        assert (quota["bytes"], quota["used"]) == (1, used)
        assert "within the last 300 seconds" in quota["trouble"]
        metrics = (await running.nobody.get("/metrics")).text
        assert f"\ntomowire_quota_excess_bytes {float(used - 1)}\n" in metrics
        await running.archive.reconfigure(replace(running.archive.settings, quota=QuotaSettings()))
        assert (await result(running, "GET", "/api/status"))["quota"] is None
        assert "\ntomowire_quota_excess_bytes " not in (await running.nobody.get("/metrics")).text


async def test_a_change_of_users_is_in_the_trail_when_it_is_answered(tmp_path: Path) -> None:
    """Whoever ends the program then, however hard, leaves no user or token of which nothing tells."""
    ways: list[tuple[str, str, dict[str, str] | None]] = [
        ("POST", "users", {"name": "jane"}),
        ("PATCH", "users/jane", {"role": "operator"}),
        ("POST", "users/jane/tokens", {}),
        ("DELETE", "tokens/{token}", None),
        ("DELETE", "users/jane", None),
    ]
    async with web(tmp_path, filled=False) as running:
        token = ""
        for count, (method, path, body) in enumerate(ways, 1):
            answer = await running.administrator.request(method, f"/api/{path.format(token=token)}", json=body)
            assert answer.is_success
            told = await running.archive.audit.list(Filter(event="configuration-changed"))
            assert len(told) == count
            if body == {}:
                token = answer.json()["id"]


async def test_the_first_user_is_one_who_can_add_others(tmp_path: Path) -> None:
    """With it everybody has to log in: a reader, or somebody without a password, would lock everybody out."""
    async with web(tmp_path, filled=False, users=False) as running:
        client = running.nobody
        for first in (
            {"name": "jane", "password": PASSWORD},
            {"name": "jane", "role": "operator", "password": PASSWORD},
            {"name": "jane", "role": "administrator"},
        ):
            refused = await client.post("/api/users", json=first)
            assert (refused.status_code, "administrator" in refused.json()["detail"]) == (409, True), first
        assert (await client.get("/api/users")).json() == {"users": []}
        first = {"name": "jane", "role": "administrator", "password": PASSWORD}
        assert (await client.post("/api/users", json=first)).status_code == 201
        added = await client.post("/api/users", json={"name": "export"}, auth=("jane", PASSWORD))
        assert (added.status_code, added.json()["role"]) == (201, "reader")


async def test_a_node_whose_name_has_outer_spaces_is_that_ae_title(tmp_path: Path) -> None:
    """PS3.5 6.2, VR AE: spaces at the ends say nothing."""
    async with web(tmp_path, filled=False) as running:
        wanted = {"nodes": {" VIEWER ": {"host": "127.0.0.1", "port": 104}}}
        answer = await running.administrator.put("/api/configuration", json={"configuration": wanted})
        assert answer.status_code == 200, answer.text
        listed = await running.administrator.get("/api/nodes")
        assert [node["ae_title"] for node in listed.json()["nodes"]] == ["VIEWER"]
