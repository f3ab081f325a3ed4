"""The options of commands that know a configuration. pydantic is imported only when there is one to read."""

from __future__ import annotations

import functools
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

from tomowire.cli.running import ExitCode, complain
from tomowire.errors import ConfigurationInvalid
from tomowire.server.variables import is_configuration
from tomowire.wire.value import value

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from tomowire.server.config import Loaded
    from tomowire.server.config.problems import Problem

T = TypeVar("T")

DEFAULT_DATA_DIR: Final = Path("tomowire-data")

CONFIG: Final = "TOMOWIRE_CONFIG"


def _config_option(text: str) -> Callable[[Callable[..., T]], Callable[..., T]]:
    """It is read before all arguments: a peer may be the name of a node in it."""
    kind = click.Path(exists=True, dir_okay=False, path_type=Path)
    return click.option("--config", type=kind, envvar=CONFIG, show_envvar=True, is_eager=True, help=text)


config_option = _config_option("A configuration file, TOML or JSON.")
nodes_option = _config_option("A configuration file, TOML or JSON: PEER may be the name of a node in it.")
data_dir_option = click.option(
    "--data-dir",
    type=click.Path(file_okay=False, path_type=Path),
    default=DEFAULT_DATA_DIR,
    show_default=True,
    help="Where objects and index live.",
)
index_url_option = click.option(
    "--index-url",
    metavar="URL",
    help="Where the index is, as postgresql://user@host/database. Default: a file in the data directory.",
)


@value()
class Source:
    """Where a configuration comes from: it can be read again. `options` is a tree as a file would have it."""

    file: Path | None
    options: Mapping[str, Any]

    def load(self) -> Loaded:
        """Raises `ConfigurationInvalid`."""
        from tomowire.server.config import load

        return load(self.file, os.environ, self.options)

    def load_for_serving(self) -> tuple[Loaded, Sequence[Problem]]:
        """For an archive that is to run with it, and what it is to be warned of. Raises `ConfigurationInvalid`."""
        from tomowire.server.config import load_for_serving

        return load_for_serving(self.file, os.environ, self.options)


def is_configured(file: Path | None) -> bool:
    """Whether there is anything besides options: a file, or variables such as `TOMOWIRE_DICOM__PORT` and `TOMOWIRE_CALLERS`."""
    return file is not None or any(map(is_configuration, os.environ))


def settings_options(command: Callable[..., T]) -> Callable[..., T]:
    """For commands that work on an archive's data: `--config`, `--data-dir` and `--index-url`. It gets `settings`."""

    @functools.wraps(command)
    def gathered(*, config: Path | None, data_dir: Path, index_url: str | None, **others: Any) -> T:
        if not is_configured(config):
            from tomowire.server.settings import Settings

            return command(settings=Settings(data_dir=data_dir, index_url=index_url), **others)
        options: dict[str, Any] = {}
        if is_given("data_dir"):
            options["storage"] = {"data_dir": data_dir}
        if index_url is not None:
            options["index"] = {"url": index_url}
        return command(settings=loaded(Source(config, options).load).settings, **others)

    decorated: Callable[..., T] = gathered
    for option in (index_url_option, data_dir_option, config_option):  # decorators work from the bottom up
        decorated = option(decorated)
    return decorated


def is_given(name: str) -> bool:
    """Whether a person has given the option."""
    source = click.get_current_context().get_parameter_source(name)
    return source is not None and source is not click.core.ParameterSource.DEFAULT


def loaded(load: Callable[[], T]) -> T:
    """What a source says; every mistake in it is a line on stderr, and they end the command."""
    try:
        return load()
    except ConfigurationInvalid as invalid:
        complain_of(invalid)
        sys.exit(ExitCode.USAGE)


def warn_of(problems: Iterable[Problem]) -> None:
    """A line for each."""
    for problem in problems:
        complain(f"warning: {problem}", "warning")


def complain_of(invalid: ConfigurationInvalid) -> None:
    """A line for each mistake."""
    for problem in invalid.problems:
        complain(str(problem))
