"""Python processes that can import what the tests can."""

from __future__ import annotations

import os
import sys


def python_environment() -> dict[str, str]:
    """This process' environment, with its import path."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
