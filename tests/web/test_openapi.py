"""The OpenAPI document, and that the API is as it says."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from support.api_campaign import campaign
from support.web import web


@pytest.mark.timeout(150)
async def test_what_schemathesis_makes_of_the_document_finds_nothing(tmp_path: Path) -> None:
    status, output = await campaign(tmp_path, seconds=25)
    assert status == 0, output[-20000:]


async def test_many_who_ask_for_the_document_first_get_the_same(tmp_path: Path) -> None:
    async with web(tmp_path, filled=False) as running:
        asked = (running.administrator.get("/api/openapi.json") for _ in range(8))
        answers = await asyncio.gather(*asked)
    assert {each.status_code for each in answers} == {200}
    assert len({each.content for each in answers}) == 1


async def test_every_operation_is_described(tmp_path: Path) -> None:
    async with web(tmp_path, filled=False) as running:
        document = (await running.administrator.get("/api/openapi.json")).json()
    assert document["openapi"].startswith("3.1")
    tags = {tag["name"] for tag in document["tags"]}
    names: list[str] = []
    for methods in document["paths"].values():
        for operation in methods.values():
            names.append(operation["operationId"])
            assert operation["description"], "what it does"
            assert len(operation["summary"]) < 120
            assert operation["description"].replace("\n", " ").startswith(operation["summary"])
            assert {"401", "403", "422", "429"} <= set(operation["responses"])
            for parameter in operation.get("parameters", ()):
                assert parameter["description"], (operation["operationId"], parameter["name"])
                assert "null" not in str(parameter["schema"]), "nobody can write that into an address"
            assert set(operation["tags"]) <= tags
            for status, response in operation["responses"].items():
                assert response["description"] not in ("", "Successful Response")
                if status == "202" and "transfers" in operation["tags"]:
                    assert "Location" in response["headers"]
                if int(status) >= 400:
                    assert list(response["content"]) == ["application/problem+json"], (operation["operationId"], status)
    assert len(names) == len(set(names))
    assert tags == {tag for methods in document["paths"].values() for one in methods.values() for tag in one["tags"]}
    assert set(document["components"]["securitySchemes"]) == {"basic", "bearer"}
