"""The archive as a whole, in a process of its own: what it imports, and where."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from support.subprocesses import python_environment

_IMPORTS = """
import asyncio, sys, threading
from pathlib import Path
from tomowire.server import app
from tomowire.server.app import Archive, Settings
from tomowire.server.find import load_queries

imported = []

def hook(event, arguments):
    if event == "import" and arguments[0].startswith(("pydicom", "sqlalchemy")):
        imported.append(threading.current_thread() is threading.main_thread())

async def main():
    sys.addaudithook(hook)
    app._LOAD_AFTER = 0
    async with Archive(Settings(Path(sys.argv[1]), port=0)):
        assert imported == [], "the port is open before"
        assert "tomowire.services.move_scp" not in sys.modules
        [loading] = [task for task in asyncio.all_tasks() if task.get_coro().__name__ == "_load_soon"]
        await loading
        assert True not in imported
        assert {"tomowire.services.move_scp", "tomowire.services.get_scp"} <= sys.modules.keys()
    from tomowire.server.index.text import decode
    before = len(imported)
    assert decode(b"M\\xfcller", "ISO_IR 100") == "M\u00fcller"
    assert decode(b"\\x1b$B;3ED", "\\\\ISO 2022 IR 87") == "\u5c71\u7530"
    load_queries("sqlite")
    assert imported and imported[before:] == []

asyncio.run(main())
"""


def test_character_sets_and_queries_are_imported_in_a_thread_and_before_they_are_needed(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-c", _IMPORTS, str(tmp_path)], env=python_environment(), check=True, timeout=60)
