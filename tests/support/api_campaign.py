"""Hostile requests against the REST API of a running archive, made from its OpenAPI document by schemathesis.

    python -m support.api_campaign --seconds 600

runs it for longer than the tests have time for. It ends with 0 when no answer was an error of the server and all were such as the
document describes.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import logging
import sys
import tempfile
from asyncio.subprocess import PIPE, STDOUT
from pathlib import Path

from support.network import free_port
from support.web import web
from tomowire.server.nodes import Node
from tomowire.server.users import Role

# `followLogs` goes on for ever; `shutDown` has a test of its own.
_LEFT_OUT = ("followLogs", "shutDown")

# What is in the text of a configuration, which characters can be seen, the keywords of DICOM, and that a range goes forwards are
# beyond a schema.
_CONFIGURATION = """
[[operations]]
include-operation-id = ["applyConfiguration", "addUser", "changeUser", "makeToken", "query", "listStudies"]
checks.positive_data_acceptance.enabled = false
"""


async def campaign(folder: Path, *, seconds: int, seed: int | None = None) -> tuple[int, str]:
    """Exit status and output of schemathesis, after about so many seconds."""
    # Wherever the node is, nobody is there.
    settings = {"nodes": (Node("WORKSTATION", "127.0.0.1", free_port()),)}
    many = 1_000_000
    async with web(folder / "data", settings=settings, failed_logins=many) as running:
        (folder / "schemathesis.toml").write_text(_CONFIGURATION)
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "schemathesis.cli", "--config-file", str(folder / "schemathesis.toml"), "run"),
            f"{running.http.url}/api/openapi.json",
            *("--header", f"Authorization: Bearer {running.tokens[Role.ADMINISTRATOR]}"),
            *(part for name in _LEFT_OUT for part in ("--exclude-operation-id", name)),
            *("--phases", "examples,coverage,fuzzing", "--max-time", str(seconds), "--continue-on-failure"),
            *("--request-timeout", "20", "--no-color", "--generation-database", "none", "--warnings", "off"),
            *(("--seed", str(seed)) if seed is not None else ()),
            cwd=folder,
            stdout=PIPE,
            stderr=STDOUT,
        )
        try:
            output, _ = await process.communicate()
        finally:
            if process.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    process.kill()
                await process.wait()
        assert (await running.nobody.get("/readyz")).status_code == 200, "the archive is as well as before"
    assert process.returncode is not None
    return process.returncode, output.decode(errors="replace")


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=int, default=600)
    parser.add_argument("--seed", type=int)
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.ERROR)
    logging.getLogger("tomowire.http").setLevel(logging.DEBUG)
    logging.getLogger("tomowire.http").addFilter(
        lambda record: record.levelno >= logging.ERROR or bool(record.exc_info)
    )
    with tempfile.TemporaryDirectory() as folder:
        status, output = asyncio.run(campaign(Path(folder), seconds=arguments.seconds, seed=arguments.seed))
    sys.stdout.write(output)
    return status


if __name__ == "__main__":
    raise SystemExit(main())
