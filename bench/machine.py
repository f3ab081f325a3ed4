"""What a measurement was made on and with: a time without them says nothing."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import subprocess
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from postgres import postgres_programs
from processes import ProgramFailed
from programs import system_program, tomowire


def machine() -> str:
    """Processor, cores, memory, system and date, in a sentence."""
    cpu_info = Path("/proc/cpuinfo").read_text()
    model = re.search(r"^model name\s*: (.+)$", cpu_info, re.MULTILINE)
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return (
        f"{model[1] if model else platform.machine()}, {len(os.sched_getaffinity(0))} cores, {memory / 1e9:.0f} GB, "
        f"Linux {platform.release()}, {datetime.now(UTC):%Y-%m-%d}"
    )


def versions() -> str:
    """Of all programs, those that are not installed left out."""
    found = [
        _first_number("tomowire", tomowire("--version")),
        _debian("DCMTK", "storescp", "dcmtk"),
        _debian("Orthanc", "Orthanc", "orthanc"),
        _postgres(),
        _installed("pynetdicom"),
        _installed("pydicom"),
        _installed("uvloop"),
        f"Python {platform.python_version()}",
    ]
    return ", ".join(version for version in found if version)


def _installed(package: str) -> str | None:
    try:
        return f"{package} {importlib.metadata.version(package)}"
    except importlib.metadata.PackageNotFoundError:
        return None


def _debian(title: str, name: str, package: str) -> str | None:
    try:
        return _first_number(title, [system_program(name, package), "--version"])
    except ProgramFailed:
        return None


def _postgres() -> str | None:
    try:
        return _first_number("PostgreSQL", [str(postgres_programs() / "postgres"), "--version"])
    except ProgramFailed:
        return None


def _first_number(title: str, command: Sequence[str]) -> str:
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    number = re.search(r"\d+(\.\d+)+", output)
    return f"{title} {number[0] if number else 'of unknown version'}"
