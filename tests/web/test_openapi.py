"""The OpenAPI document, and that the API is as it says."""

from __future__ import annotations

from pathlib import Path

import pytest

from support.api_campaign import campaign
from support.web import web


@pytest.mark.timeout(150)
async def test_what_schemathesis_makes_of_the_document_finds_nothing(tmp_path: Path) -> None:
    status, output = await campaign(tmp_path, seconds=25)
    assert status == 0, output[-20000:]


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
            assert set(operation["tags"]) <= tags
            for status, response in operation["responses"].items():
                assert response["description"]
                if int(status) >= 400:
                    assert list(response["content"]) == ["application/problem+json"], (operation["operationId"], status)
    assert len(names) == len(set(names))
    assert tags == {tag for methods in document["paths"].values() for one in methods.values() for tag in one["tags"]}
    assert set(document["components"]["securitySchemes"]) == {"basic", "bearer"}
