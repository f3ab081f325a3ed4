"""A storage SCP with tomowire: `tomowire_scp.py PORT FOLDER WINDOW` writes files, and grants a window of so many requests."""

from __future__ import annotations

import asyncio
import sys

from tomowire import Folder, Storage, listen


async def main(port: int, folder: str, window: int) -> None:
    received = Folder(folder)
    async with listen("127.0.0.1", port, services=[Storage(received.keep)], window=window) as server:
        await server.wait_closed()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), sys.argv[2], int(sys.argv[3])))
