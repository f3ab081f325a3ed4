"""The configuration of an archive: a file (TOML or JSON), environment variables, options. Imports pydantic.

`load_settings` gives the `Settings` that the archive takes, or raises `ConfigurationInvalid` that knows all mistakes, each with its
file, key and line. `settings_from` does so with a tree of sections that came otherwise, and `shown_settings` makes one of settings,
without secrets.
"""

from __future__ import annotations

from tomowire.errors import ConfigurationInvalid
from tomowire.server.config.checks import check
from tomowire.server.config.load import Loaded, load, load_for_serving, load_settings, settings_from
from tomowire.server.config.problems import Origin, Problem
from tomowire.server.config.shown import as_toml, shown, shown_settings

__all__ = [
    "ConfigurationInvalid",
    "Loaded",
    "Origin",
    "Problem",
    "as_toml",
    "check",
    "load",
    "load_for_serving",
    "load_settings",
    "settings_from",
    "shown",
    "shown_settings",
]
