"""An archive that runs as a process of its own, and what it holds."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from support.programs import Program
from support.stored import contents, files_below


@dataclass(frozen=True)
class RunningArchive:
    """`tomowire serve` with its data directory."""

    program: Program
    data_dir: Path

    @property
    def port(self) -> int:
        return self.program.port

    def stored(self) -> dict[str, bytes]:
        return contents(self.data_dir)

    def objects(self) -> set[str]:
        return files_below(self.data_dir)

    def unfinished(self) -> list[Path]:
        return list((self.data_dir / "incoming").glob("*.part"))
