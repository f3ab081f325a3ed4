"""pydicom is imported when it is first needed, by whatever thread that is.

While one thread imports a package, another that asks for a part of it does not wait: it goes on with half a package, and fails. Who
asks for the package itself waits. So every place that needs a part asks for the whole first.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import tomowire

SOURCE = Path(tomowire.__file__).parent


def lazy_imports(function: ast.AST) -> Iterator[str]:
    """The modules of pydicom that a function imports, in order."""
    for node in ast.iter_child_nodes(function):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        if isinstance(node, ast.ImportFrom):
            yield node.module or ""
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        else:
            yield from lazy_imports(node)


def test_the_whole_is_imported_before_its_parts() -> None:
    seen = 0
    for path in SOURCE.rglob("*.py"):
        for function in ast.walk(ast.parse(path.read_text())):
            if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
                of_pydicom = [name for name in lazy_imports(function) if name.partition(".")[0] == "pydicom"]
                assert of_pydicom[:1] in ([], ["pydicom"]), f"{path}: {function.name}"
                seen += bool(of_pydicom)
    assert seen > 20


THREADS = """
import threading
from tomowire.server.index.text import decode, load_character_sets
from tomowire.services.identifiers import decode as read, encode
from tomowire.services.query import Query
from tomowire.services.decoding import decoders_of

work = [
    load_character_sets,
    lambda: decode(b"M\\xfcller", "ISO_IR 100"),
    lambda: decode(b"\\x1b$B", "\\\\ISO 2022 IR 87"),
    lambda: encode(Query.studies().dataset(), "1.2.840.10008.1.2.1"),
    lambda: read(b"\\x08\\0\\x52\\0\\x06\\0\\0\\0STUDY ", "1.2.840.10008.1.2"),
    lambda: decoders_of("1.2.840.10008.1.2.5"),
]
barrier = threading.Barrier(len(work))

def at_once(function):
    barrier.wait()
    function()

failures = []
threading.excepthook = lambda failure: failures.append(repr(failure.exc_value))
threads = [threading.Thread(target=at_once, args=(each,)) for each in work]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print(failures)
"""


@pytest.mark.parametrize("_attempt", range(5))
def test_many_threads_need_it_first(_attempt: int) -> None:
    done = subprocess.run([sys.executable, "-c", THREADS], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout == "[]\n"


def test_who_only_asks_whether_it_is_a_data_set_meets_no_half_of_it() -> None:
    """Another thread may be at the beginning of the import: the module is there, and nothing in it."""
    code = (
        "import sys, types; sys.modules['pydicom'] = types.ModuleType('pydicom');"
        " from tomowire.services.sources import is_dataset; print(is_dataset(b''))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout == "False\n"
