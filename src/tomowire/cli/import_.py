"""`tomowire import`: files into an archive that is not running."""

from __future__ import annotations

import json
from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import click

from tomowire.cli.configured import settings_options
from tomowire.cli.options import json_option, verbose_option
from tomowire.cli.progress import open_counter
from tomowire.cli.running import ExitCode, complain, readable, run, set_up_logging
from tomowire.errors import InUse, UsageError
from tomowire.server.counting import counted

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tomowire.server.importing import How, Imported
    from tomowire.server.settings import Settings

_AT_ONCE = 16
_EVERY = 100


@click.command
@click.argument("paths", nargs=-1, required=True, type=click.Path(exists=True, path_type=Path), metavar="PATH...")
@settings_options
@click.option(
    "--move", is_flag=True, help="Remove each file when the archive has its object; no copy on the same disk."
)
@click.option("--link", is_flag=True, help="Make hard links on the same disk: the files are not to be changed then.")
@click.option(
    "--resume",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Remember in this file what was imported, and pass over what an earlier run has.",
)
@click.option(
    "-j", "at_once", type=click.IntRange(1, 256), default=_AT_ONCE, show_default=True, help="Files at the same time."
)
@json_option
@verbose_option
def command(
    paths: tuple[Path, ...],
    settings: Settings,
    move: bool,
    link: bool,
    resume: Path | None,
    at_once: int,
    as_json: bool,
    verbose: int,
) -> None:
    """Take DICOM files into an archive: files, folders with all that is below them, or the storage folder of an Orthanc.

    The archive must not be running; to one that is, send them. What is not DICOM is passed over, a bad file does not stop the
    others, and a run that was interrupted can be begun again. Exit code 0 means that the archive has every object.
    """
    from tomowire.server.importing import How

    set_up_logging(verbose)
    if move and link:
        raise click.UsageError("--move and --link exclude each other")
    how = How.MOVE if move else How.LINK if link else How.COPY
    run(_import(paths, settings, how, resume, at_once, _Rows(as_json=as_json)))


async def _import(
    paths: Sequence[Path], settings: Settings, how: How, resume: Path | None, at_once: int, rows: _Rows
) -> int:
    from tomowire.server.archive import ArchiveStorage
    from tomowire.server.audit.audit import Audit
    from tomowire.server.audit.counted import Imports
    from tomowire.server.audit.teller import person, teller_of
    from tomowire.server.audit.upgraded import UpgradeNoted
    from tomowire.server.import_state import Taken
    from tomowire.server.importing import Importer
    from tomowire.server.incoming import DuplicatePolicy

    storage = ArchiveStorage(
        settings.data_dir,
        policy=DuplicatePolicy(settings.duplicates),
        index_url=settings.index_url,
        on_upgrade=UpgradeNoted(settings, person()),
    )
    _require_outside(paths, settings.data_dir)
    with ExitStack() as stack:
        taken = stack.enter_context(Taken(resume)) if resume is not None else None
        stack.enter_context(rows)
        progress = stack.enter_context(open_counter("importing"))

        def report(imported: Imported) -> None:
            rows.show(imported)
            if progress is not None and rows.count % _EVERY == 0:
                progress(rows.count, None)

        try:
            await storage.__aenter__()
        except InUse as error:
            raise InUse(f"{error}: stop the archive first, or send the files to it") from error
        try:
            audit = Audit(storage.records, storage.root, teller_of(settings), settings=settings.audit, first_write=0)
            async with audit:
                imports = Imports(audit.record, person(), ", ".join(path.absolute().as_uri() for path in paths))
                try:
                    await Importer(storage, how=how, at_once=at_once, taken=taken, account=imports.add).run(
                        paths, report
                    )
                finally:
                    imports.end()
        finally:
            await storage.__aexit__(None, None, None)
    complain(rows.summary())
    if not rows.has_objects:
        complain(f"there is nothing to import: no DICOM file in {', '.join(map(str, paths))}")
        return ExitCode.FAILED
    return ExitCode.FAILED if rows.has_failures else ExitCode.OK


def _require_outside(paths: Sequence[Path], data_dir: Path) -> None:
    """What an archive imported from itself would move away under its feet."""
    root = data_dir.resolve()
    for path in paths:
        found = path.resolve()
        if found.is_relative_to(root) or root.is_relative_to(found):
            raise UsageError(f"{path} and the data directory {data_dir} are in one another: name other files")


class _Rows:
    """What became of each file: with `as_json` rows of one JSON object, otherwise a line on stderr for what needs one."""

    def __init__(self, *, as_json: bool) -> None:
        self.count = 0
        self._as_json = as_json
        self._results: Counter[str] = Counter()
        self._bytes = 0

    def __enter__(self) -> None:
        if self._as_json:
            click.echo('{"files": [', nl=False)

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self._as_json:
            facts = {"results": dict(self._results), "bytes": self._bytes, "complete": kind is None}
            click.echo(f"], {json.dumps(facts)[1:]}")

    @property
    def has_objects(self) -> bool:
        """Whether there was any file that is one, or was meant to be."""
        return self.count > self._results["skipped"]

    @property
    def has_failures(self) -> bool:
        return bool(self._results["failed"] or self._results["conflict"])

    def show(self, imported: Imported) -> None:
        result = imported.result.value
        self._results[result] += 1
        self._bytes += imported.bytes
        if self._as_json:
            row = {"path": readable(imported.path), "result": result, "sop_instance_uid": imported.sop_instance_uid}
            row |= {"reason": imported.reason} if imported.reason else {}
            click.echo((", " if self.count else "") + json.dumps(row), nl=False)
        elif result in ("failed", "conflict"):
            complain(f"{readable(imported.path)}: {imported.reason}")
        self.count += 1

    def summary(self) -> str:
        parts = [f"{count} {name}" for name, count in sorted(self._results.items())]
        return f"{counted(self.count, 'file')}: {', '.join(parts) or 'nothing there'}; {self._bytes / 1e6:.1f} MB came"
