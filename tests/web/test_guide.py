"""What docs/how-to/rest.md has a person type works as it stands there."""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path

from support.doc_blocks import blocks
from support.requirements import REPOSITORY
from support.web import web
from tomowire import Storage, Verification, listen
from tomowire.services.storage_scp import StoreRequest

GUIDE = REPOSITORY / "docs" / "how-to" / "rest.md"


async def keep(request: StoreRequest) -> int:
    async for _ in request.data:
        pass
    return 0


async def test_the_guide(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    environment = {**os.environ, "TOKEN": ""}
    ran = 0
    async with (
        listen(port=0, services=[Verification(), Storage(keep)]) as peer,
        web(tmp_path / "data", users=False) as running,
    ):
        for block in blocks("sh", GUIDE):
            text = block.text.replace("http://127.0.0.1:8080", running.http.url).replace("11113", str(peer.port))
            process = await asyncio.create_subprocess_exec(
                *("bash", "-euc", text),
                cwd=folder,
                env=environment,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
            )
            out, err = await process.communicate()
            assert process.returncode == 0, (block.place, out, err)
            ran += 1
            if "token.json" in text:
                environment["TOKEN"] = json.loads((folder / "token.json").read_text())["token"]
        job = json.loads((folder / "job.json").read_text())
        assert (job["kind"], job["progress"]["total"]) == ("send", 5)
    assert ran == len(list(blocks("sh", GUIDE))) >= 7
    assert (folder / "image.dcm").read_bytes()[128:132] == b"DICM"
    assert all(json.loads(line)["number"] for line in (folder / "audit.jsonl").read_text().splitlines())
