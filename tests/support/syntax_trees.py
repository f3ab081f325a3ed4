"""Syntax trees, whole, though another thread makes one at the same moment (CPython gh-106905).

Before 3.11.8 and 3.12.2 the interpreter counts the depth of all trees that are being made in one place. What is made of it in
C is not interrupted, except by the garbage collector, and that runs Python where somebody asked to be told of it, as Hypothesis
does (`gc.callbacks`). Then another thread may begin a tree of its own, and the first ends with "SystemError: AST constructor
recursion depth mismatch". Trees are made far oftener than one would think: by pytest for each module that it imports, and by
`traceback` for each line of a traceback.
"""

from __future__ import annotations

import ast
import functools
import gc
import sys
import threading
from typing import Any

IS_NEEDED = (3, 11) <= sys.version_info < (3, 11, 8) or (3, 12) <= sys.version_info < (3, 12, 2)


def parse_without_interruption() -> None:
    """Have `ast.parse` keep the garbage collector, and other threads that call it, away until it is done."""
    if not IS_NEEDED or hasattr(ast.parse, "__wrapped__"):
        return
    parse = ast.parse
    one_at_a_time = threading.RLock()

    @functools.wraps(parse)
    def alone(*arguments: Any, **options: Any) -> Any:
        with one_at_a_time:
            was_enabled = gc.isenabled()
            gc.disable()
            try:
                return parse(*arguments, **options)
            finally:
                if was_enabled:
                    gc.enable()

    ast.parse = alone
