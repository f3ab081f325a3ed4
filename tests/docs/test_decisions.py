"""Each point of what was decided about the library has a heading, and names tests that exist."""

from __future__ import annotations

import inspect
import re
import subprocess
import sys

from support.doc_site import DOCS
from support.requirements import REPOSITORY
from support.subprocesses import python_environment
from tomowire.aio.connect import associate
from tomowire.aio.listen import listen
from tomowire.services.find import CFindScu
from tomowire.services.get import CGetScu
from tomowire.services.move import CMoveScu
from tomowire.services.storage import CStoreScu

DECIDED = (
    "Services",
    "C-STORE SCU input",
    "C-STORE SCU options",
    "C-STORE response",
    "Transfer progress",
    "C-FIND, C-MOVE, C-GET",
    "Partial failures",
    "Timeouts",
    "Cancellation",
    "C-GET cancellation",
    "Malformed DIMSE",
    "SCP storage handler",
    "Queries",
    "Asynchronous operations window",
    "More than 128 presentation contexts",
    "Transfer syntaxes",
    "Sockets",
    "Handlers see who calls",
    "Logs name objects by UID and never carry patient data",
)
PAGE = (DOCS / "reference" / "decisions.md").read_text()
SECTIONS = {text.partition("\n")[0]: text for text in PAGE.split("\n## ")[1:]}
_TEST = re.compile(r"^- `(tests/\S+::\w+)`$", re.MULTILINE)


def test_every_decision_has_its_heading() -> None:
    assert tuple(SECTIONS) == DECIDED


def test_every_decision_names_a_test_and_a_page() -> None:
    assert [name for name, text in SECTIONS.items() if not _TEST.search(text)] == []
    assert [name for name, text in SECTIONS.items() if "\n<!-- pages: " not in text] == []


def test_every_test_that_is_named_exists() -> None:
    named = sorted(set(_TEST.findall(PAGE)))
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "--collect-only", "-q", "-p", "no:cacheprovider", *named],
        cwd=REPOSITORY,
        env=python_environment(),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, "\n".join(line for line in done.stderr.splitlines() if "ERROR" in line)
    collected = {line.partition("[")[0] for line in done.stdout.splitlines() if "::" in line}
    assert collected == set(named)


def test_the_time_outs_are_those_that_were_decided() -> None:
    """In seconds; each is an argument, and so can be set for a client (which passes them on) and for a call."""
    decided = {
        (CStoreScu.send, "timeout"): 30,
        (CFindScu.find, "timeout"): 10,
        (CMoveScu.move, "timeout"): 120,
        (CGetScu.get, "timeout"): 120,
        (associate, "association_timeout"): 30,
        (associate, "connect_timeout"): 10,
        (associate, "artim_timeout"): 30,
        (listen, "artim_timeout"): 30,
    }
    assert {each: inspect.signature(each[0]).parameters[each[1]].default for each in decided} == decided
