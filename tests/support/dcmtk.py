"""DCMTK's `storescu` and `storescp`, set up so that they do with objects what tomowire does: nothing."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from support.network import LOOPBACK, free_port, listening_process
from tomowire.services.dicom_file import DicomFile
from tomowire.wire.part10 import decode_file_meta

# Without it a peer's delayed acknowledgement costs 40 ms for every object.
NO_DELAY = {"TCP_NODELAY": "1"}

# SOP class and transfer syntax.
Pair = tuple[str, str]


@dataclass(frozen=True)
class Received:
    """An object as it came over the network: the command and the data set, bit by bit."""

    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax_uid: str
    data_set: bytes


def read_object(path: Path) -> Received:
    """An object that DCMTK or tomowire has written. Both begin with the group length (PS3.10 7.1), and it is believed."""
    content = path.read_bytes()
    meta, _ = decode_file_meta(content)
    assert content[128:140] == b"DICM\x02\0\0\0UL\x04\0"
    offset = 144 + int.from_bytes(content[140:144], "little")
    return Received(
        meta.media_storage_sop_class_uid,
        meta.media_storage_sop_instance_uid,
        meta.transfer_syntax_uid,
        content[offset:],
    )


def objects_below(folder: Path) -> list[Received]:
    """All objects in a folder, in the order in which they were written."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    return [read_object(path) for path in sorted(files, key=lambda path: path.stat().st_mtime_ns)]


def as_sent(file: DicomFile) -> Received:
    """The data set of a file, and the byte that one of odd length lacks (PS3.8 E.1: fragments are even; PS3.5 A.5)."""
    data_set = file.path.read_bytes()[file.offset :]
    return Received(
        file.sop_class_uid, file.sop_instance_uid, file.transfer_syntax_uid, data_set + b"\0" * (len(data_set) % 2)
    )


def write_profile(path: Path, pairs: Iterable[Pair], *, together: bool) -> Path:
    """An association profile named All: a presentation context for each pair; `together`, one for each SOP class instead."""
    pairs = sorted(set(pairs))
    syntaxes = sorted({syntax for _, syntax in pairs})
    classes = sorted({sop_class for sop_class, _ in pairs})
    lines = ["[[TransferSyntaxes]]", "[Every]"]
    lines += [f"TransferSyntax{number} = {syntax}" for number, syntax in enumerate(syntaxes, 1)]
    for number, syntax in enumerate(syntaxes):
        lines += [f"[Only{number}]", f"TransferSyntax1 = {syntax}"]
    lines += ["[[PresentationContexts]]", "[All]"]
    if together:
        lines += [f"PresentationContext{number} = {each}\\Every" for number, each in enumerate(classes, 1)]
    else:
        lines += [
            f"PresentationContext{number} = {sop_class}\\Only{syntaxes.index(syntax)}"
            for number, (sop_class, syntax) in enumerate(pairs, 1)
        ]
    lines += ["[[Profiles]]", "[All]", "PresentationContexts = All"]
    path.write_text("\n".join(lines) + "\n")
    return path


def storescu(
    program: Path, port: int, paths: Sequence[Path], *, profile: Path, called: str = "ANY"
) -> dict[str, str | None]:
    """Send files and folders as they are; gives for each file that it tried the answer in DCMTK's words, None if there was none."""
    command = [program, "-v", "-nh", "-xf", profile, "All", "+sd", "+r", "-aec", called, LOOPBACK, str(port), *paths]
    done = subprocess.run(command, env=NO_DELAY, capture_output=True, check=False, timeout=120)
    answers = read_answers(done.stdout + done.stderr)
    if not answers:
        raise RuntimeError(f"storescu sent nothing: {done.stderr[-2000:]!r}")
    return answers


def read_answers(output: bytes) -> dict[str, str | None]:
    """What `storescu -v` said of each file that it tried: the answer in DCMTK's words, None if there was none."""
    answers: dict[str, str | None] = {}
    current = ""
    # File names need not be UTF-8, nor free of control characters.
    for line in output.decode("utf-8", "surrogateescape").split("\n"):
        if match := re.match(r"I: Sending file: (.*)", line):
            current = match[1]
            answers[current] = None
        elif match := re.match(r"I: Received Store Response \((.*)\)", line):
            answers[current] = match[1]
    return answers


@contextmanager
def storescp(
    program: Path,
    folder: Path,
    *options: str,
    profile: Path | None = None,
    log: Path | None = None,
    port: int | None = None,
) -> Iterator[int]:
    """A `storescp` that writes each object as it came to a file of its own in `folder`; gives its port."""
    port = port or free_port()
    folder.mkdir(parents=True, exist_ok=True)
    contexts = ["-xf", profile, "All"] if profile is not None else ["+xa"]
    command = [
        program,
        "+B",
        "+uf",
        *contexts,
        "-od",
        folder,
        "-aet",
        "STORESCP",
        "-pdu",
        "131072",
        *options,
        str(port),
    ]
    with listening_process(command, port, log=log or folder.with_suffix(".log"), env=NO_DELAY):
        yield port
