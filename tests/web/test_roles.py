"""Each endpoint and each role: what is allowed and what is refused."""

from __future__ import annotations

import gzip
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from support.objects import ROOT
from support.web import Web, web
from tomowire.server.users import Role

READER, OPERATOR, ADMINISTRATOR = Role
NOBODY = None

UNKNOWN = "2.25.999"
JOB = "00000000-0000-4000-8000-000000000000"


@dataclass(frozen=True)
class Row:
    """An endpoint. `allowed` is what those get who may use it. What would be changed for good is not there."""

    operation: str
    least: Role | None
    method: str
    path: str
    allowed: int
    body: Any = None


TABLE = [
    # operation, least role, request, status for who may
    Row("getStatus", READER, "GET", "/api/status", 200),
    Row("getMe", READER, "GET", "/api/me", 200),
    Row("listStudies", READER, "GET", "/api/studies", 200),
    Row("getStudy", READER, "GET", f"/api/studies/{ROOT}.1.1", 200),
    Row("deleteStudy", OPERATOR, "DELETE", f"/api/studies/{UNKNOWN}", 404),
    Row("protectStudy", OPERATOR, "PUT", f"/api/studies/{UNKNOWN}/protection", 404, {}),
    Row("unprotectStudy", OPERATOR, "DELETE", f"/api/studies/{UNKNOWN}/protection", 404),
    Row("listSeries", READER, "GET", "/api/series", 200),
    Row("getSeries", READER, "GET", f"/api/series/{ROOT}.2.1.1", 200),
    Row("deleteSeries", OPERATOR, "DELETE", f"/api/series/{UNKNOWN}", 404),
    Row("listInstances", READER, "GET", "/api/instances", 200),
    Row("getInstance", READER, "GET", f"/api/instances/{ROOT}.3.1", 200),
    Row("getInstanceTags", READER, "GET", f"/api/instances/{ROOT}.3.1/tags", 200),
    Row("getInstanceFile", READER, "GET", f"/api/instances/{ROOT}.3.1/file", 200),
    Row("deleteInstance", OPERATOR, "DELETE", f"/api/instances/{UNKNOWN}", 404),
    Row("getStatistics", READER, "GET", "/api/statistics", 200),
    Row("listAssociations", READER, "GET", "/api/associations", 200),
    Row("getAssociation", READER, "GET", "/api/associations/999999", 404),
    Row("abortAssociation", OPERATOR, "DELETE", "/api/associations/999999", 404),
    Row("listNodes", READER, "GET", "/api/nodes", 200),
    Row("getNode", READER, "GET", "/api/nodes/UNKNOWN", 404),
    Row("putNode", ADMINISTRATOR, "PUT", "/api/nodes/SOMEBODY", 200, {"host": "127.0.0.1", "port": 104}),
    Row("removeNode", ADMINISTRATOR, "DELETE", "/api/nodes/UNKNOWN", 404),
    Row("echoNode", OPERATOR, "POST", "/api/nodes/UNKNOWN/echo", 404),
    Row("send", OPERATOR, "POST", "/api/send", 409, {"node": "UNKNOWN", "uids": [f"{ROOT}.1.1"]}),
    Row("retrieve", OPERATOR, "POST", "/api/retrieve", 409, {"node": "UNKNOWN", "uids": [UNKNOWN]}),
    Row("query", OPERATOR, "POST", "/api/query", 409, {"node": "UNKNOWN"}),
    Row("delete", OPERATOR, "POST", "/api/delete", 409, {"uids": [UNKNOWN]}),
    Row("reindex", ADMINISTRATOR, "POST", "/api/reindex", 409, {"study_instance_uids": [UNKNOWN]}),
    Row("listJobs", READER, "GET", "/api/jobs", 200),
    Row("getJob", READER, "GET", f"/api/jobs/{JOB}", 404),
    Row("listJobItems", READER, "GET", f"/api/jobs/{JOB}/items", 404),
    Row("retryJob", OPERATOR, "POST", f"/api/jobs/{JOB}/retry", 404),
    Row("cancelJob", OPERATOR, "POST", f"/api/jobs/{JOB}/cancel", 404),
    Row("getLogs", OPERATOR, "GET", "/api/logs", 200),
    Row("followLogs", OPERATOR, "GET", "/api/logs/stream?limit=0", 422),
    Row("listAudit", ADMINISTRATOR, "GET", "/api/audit", 200),
    Row("exportAudit", ADMINISTRATOR, "GET", "/api/audit/export", 200),
    Row("verifyAudit", ADMINISTRATOR, "GET", "/api/audit/verification", 200),
    Row("getConfiguration", ADMINISTRATOR, "GET", "/api/configuration", 200),
    Row("checkConfiguration", ADMINISTRATOR, "POST", "/api/configuration/check", 200, {"configuration": {}}),
    Row("applyConfiguration", ADMINISTRATOR, "PUT", "/api/configuration", 422, {"configuration": {"nix": 1}}),
    Row("reloadConfiguration", ADMINISTRATOR, "POST", "/api/configuration/reload", 409),
    Row("listUsers", ADMINISTRATOR, "GET", "/api/users", 200),
    Row("addUser", ADMINISTRATOR, "POST", "/api/users", 409, {"name": "reader"}),
    Row("getUser", ADMINISTRATOR, "GET", "/api/users/reader", 200),
    Row("changeUser", ADMINISTRATOR, "PATCH", "/api/users/unknown", 404, {"role": "reader"}),
    Row("removeUser", ADMINISTRATOR, "DELETE", "/api/users/unknown", 404),
    Row("listUserTokens", ADMINISTRATOR, "GET", "/api/users/reader/tokens", 200),
    Row("makeToken", ADMINISTRATOR, "POST", "/api/users/unknown/tokens", 404, {}),
    Row("revokeToken", ADMINISTRATOR, "DELETE", "/api/tokens/000000000000", 404),
    Row("shutDown", ADMINISTRATOR, "POST", "/api/shutdown", 202),
    # What is not in the document
    Row("", READER, "GET", "/api/openapi.json", 200),
    Row("", READER, "GET", "/metrics", 200),
    Row("", NOBODY, "GET", "/healthz", 200),
    Row("", NOBODY, "GET", "/readyz", 200),
    Row("", READER, "GET", "/nothing", 404),
    Row("", READER, "GET", "/api/nothing", 404),
]


async def answer(running: Web, row: Row, role: Role | None) -> int:
    response = await running.clients[role].request(row.method, row.path, json=row.body)
    assert response.status_code < 400 or response.headers["Content-Type"] == "application/problem+json", row
    return int(response.status_code)


async def test_what_each_role_may_do(tmp_path: Path, index_url: str | None) -> None:
    async with web(tmp_path, index_url=index_url) as running:
        document = (await running.administrator.get("/api/openapi.json")).json()
        documented = {
            operation["operationId"]: (operation["x-role"], method.upper(), path)
            for path, methods in document["paths"].items()
            for method, operation in methods.items()
        }
        assert documented.keys() == {row.operation for row in TABLE if row.operation}, "an endpoint without a row"
        refused, allowed = [], []
        for row in TABLE:
            if row.operation:
                least, method, path = documented[row.operation]
                assert row.least is not None
                assert (least, method) == (row.least.value, row.method)
                pieces, given = path.split("/"), row.path.partition("?")[0].removeprefix("/api").split("/")
                assert len(pieces) == len(given)
                assert all(piece == one or piece.startswith("{") for piece, one in zip(pieces, given, strict=True)), row
            for role in (NOBODY, *Role):
                got = await answer(running, row, role)
                if row.least is not None and role is None:
                    assert got == 401, row
                elif row.least is not None and role is not None and role < row.least:
                    assert got == 403, (row, role)
                    refused.append((row, role))
                else:
                    assert got == row.allowed, (row, role, got)
                    allowed.append((row, role))
        assert refused
        assert running.events == ["shut down"], "the administrator, and nobody else"


async def test_a_body_is_not_looked_at_before_the_role(tmp_path: Path) -> None:
    kind = {"Content-Type": "application/json"}
    async with web(tmp_path, filled=False) as running:
        for body in (b"{", b"[[", b'{"name": 1}', b"\xff", b"[" * 100_000, b'{"name": ' + b"9" * 10_000 + b"}"):
            response = await running.clients[READER].post("/api/users", content=body, headers=kind)
            assert response.status_code == 403
            response = await running.administrator.post("/api/users", content=body, headers=kind)
            assert response.status_code in (400, 422), body[:20]
        response = await running.administrator.post(
            "/api/users", content=b"name=x", headers={"Content-Type": "text/plain"}
        )
        assert response.status_code == 415
        packed = {**kind, "Content-Encoding": "gzip"}
        response = await running.administrator.post("/api/users", content=gzip.compress(b"{}"), headers=packed)
        assert (response.status_code, "compressed" in response.json()["detail"]) == (415, True)
        response = await running.administrator.post("/api/users", content=b"", headers=kind)
        assert response.json()["detail"] == "the request cannot be understood: body: is missing"
