"""Loading a configuration: a file, then the environment, then options, each over the one before."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path as FilePath
from typing import Any

from pydantic import ValidationError

from tomowire.errors import ConfigurationInvalid
from tomowire.server.config.checks import check, check_nodes
from tomowire.server.config.environment import read_environment
from tomowire.server.config.explain import in_order, problems_of
from tomowire.server.config.mapping import settings_of
from tomowire.server.config.models import Configuration
from tomowire.server.config.problems import Origin, Path, Problem
from tomowire.server.config.reading import Layer, read_file
from tomowire.server.config.schema import place_at
from tomowire.server.settings import Settings
from tomowire.wire.value import value


@value()
class Loaded:
    """A configuration that holds no mistake by itself: what was said of each key, or its default, and where it was said."""

    configuration: Configuration
    origins: Mapping[Path, Origin]

    @property
    def settings(self) -> Settings:
        """For the archive."""
        return settings_of(self.configuration)

    def is_said(self, *path: str | int) -> bool:
        """Whether anybody has said this, or something of it."""
        return any(each[: len(path)] == path for each in self.origins)


def load_settings(
    file: FilePath | None = None,
    environment: Mapping[str, str] | None = None,
    options: Mapping[str, Any] | None = None,
) -> Settings:
    """The settings that `file` (TOML, or JSON by its name) says, the `environment` over it, and over both the `options`.

    `options` is a tree as the file would have it; its nodes and callers come to those of the file, and a node takes the place of
    one with the same AE title. Paths in the file are relative to its folder.

    Raises `ConfigurationInvalid` that knows all mistakes.
    """
    return load(file, environment, options).settings


def load(
    file: FilePath | None = None,
    environment: Mapping[str, str] | None = None,
    options: Mapping[str, Any] | None = None,
) -> Loaded:
    """The same, with the places where everything was said."""
    layers = [Layer({}, {})]
    if file is not None:
        layers.append(relative_to(file.absolute().parent, read_file(file)))
    nodes = layers[-1].tree.get("nodes")
    names = {name.upper(): name for name in nodes} if isinstance(nodes, dict) else {}
    said, problems = read_environment(environment or {}, names)
    layers.append(said)
    layers.append(Layer(options or {}, {path: Origin("options") for path in _paths(options or {})}))
    return _validated(layers, problems)


def load_for_serving(
    file: FilePath | None, environment: Mapping[str, str], options: Mapping[str, Any]
) -> tuple[Loaded, list[Problem]]:
    """The configuration of an archive that is to run with it, and warnings. What does not fit together is refused too.

    Raises `ConfigurationInvalid`. Files are read: not for the event loop.
    """
    loaded = load(file, environment, options)
    return loaded, _refuse_mistakes(loaded)


def settings_from(tree: Mapping[str, Any], source: str, folder: FilePath | None = None) -> Settings:
    """The settings that a `tree` of sections says, as a request of the API has it; `source` is its name in errors.

    Raises `ConfigurationInvalid`, for what does not fit together too. Files are read: not for the event loop.
    """
    layer = Layer(tree, {(): Origin(source)})
    loaded = _validated([layer if folder is None else relative_to(folder, layer), Layer({}, {})], [])
    _refuse_mistakes(loaded)
    return loaded.settings


def _refuse_mistakes(loaded: Loaded) -> list[Problem]:
    """The warnings."""
    found = check(loaded)
    if mistakes := [each for each in found if not each.is_warning]:
        raise ConfigurationInvalid(mistakes)
    return found


def _validated(layers: list[Layer], problems: list[Problem]) -> Loaded:
    tree: dict[str, Any] = {}
    origins: dict[Path, Origin] = {}
    *below, options = layers
    for layer in below:
        tree = _over(tree, layer.tree)
        origins = {path: each for path, each in origins.items() if not _is_hidden(path, layer.tree)}
        origins |= layer.origins
    tree = _over(_without_nodes(tree, options.tree), _after_callers(tree, options.tree))
    origins |= options.origins
    try:
        configuration = Configuration.model_validate(tree)
    except ValidationError as error:
        found = sorted([*problems_of(error, origins), *_of_nodes(tree, origins)], key=in_order)
        raise ConfigurationInvalid([*found, *problems]) from None
    if problems:
        raise ConfigurationInvalid([*problems, *check_nodes(configuration, origins)])
    return Loaded(configuration, origins)


def _of_nodes(tree: Mapping[str, Any], origins: Mapping[Path, Origin]) -> list[Problem]:
    """What is wrong with nodes that are right by themselves: names that are no AE titles, and an AE title twice."""
    names: dict[str, dict[str, Any]] = {}
    for section, key in (("nodes", "ae_title"), ("knownDestinations", "aeTitle")):
        nodes = tree.get(section)
        for name, node in nodes.items() if isinstance(nodes, dict) else ():
            if isinstance(node, Mapping):
                named = {"host": "localhost", "port": 1} | ({key: node[key]} if key in node else {})
                with suppress(ValidationError):  # which is told already
                    Configuration.model_validate({section: {name: named}})
                    names.setdefault(section, {})[name] = named
    return check_nodes(Configuration.model_validate(names), origins)


def _over(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Sections are merged key by key; everything else of `above` takes the place of what was there."""
    merged = dict(below)
    for name, given in above.items():
        before = merged.get(name)
        merged[name] = _over(before, given) if isinstance(before, dict) and isinstance(given, Mapping) else given
    return merged


def _is_hidden(path: Path, above: Mapping[str, Any]) -> bool:
    """Whether `path` is in a list, or a section, whose place something else takes."""
    given: Any = above
    for name in path:
        if not isinstance(given, Mapping):
            return True
        if name not in given:
            return False
        given = given[name]
    return False


def _without_nodes(tree: Mapping[str, Any], options: Mapping[str, Any]) -> dict[str, Any]:
    """The tree without the nodes whose place those of the options take."""
    titles = {each["ae_title"] for each in options.get("nodes", {}).values()}
    found = dict(tree)
    for section, key in (("nodes", "ae_title"), ("knownDestinations", "aeTitle")) if titles else ():
        nodes = tree.get(section)
        if isinstance(nodes, dict):
            found[section] = {name: each for name, each in nodes.items() if _title(name, each, key) not in titles}
    return found


def _title(name: str, node: Any, key: str) -> str:
    title = node.get(key, name) if isinstance(node, dict) else name
    return title.strip(" ") if isinstance(title, str) else name


def _after_callers(tree: Mapping[str, Any], options: Mapping[str, Any]) -> Mapping[str, Any]:
    """The options, with their callers behind those of the tree."""
    there = tree.get("callers")
    if "callers" not in options or not isinstance(there, list):
        return options
    return {**options, "callers": [*there, *options["callers"]]}


def _paths(tree: Mapping[str, Any], above: Path = ()) -> list[Path]:
    found: list[Path] = []
    for name, given in tree.items():
        found += _paths(given, (*above, name)) if isinstance(given, Mapping) else [(*above, name)]
    return found


def relative_to(folder: FilePath, layer: Layer) -> Layer:
    """The layer with its relative paths taken from `folder`."""
    return Layer(_with_folder(folder, layer.tree, ()), layer.origins)


def _with_folder(folder: FilePath, tree: Any, path: Path) -> Any:
    if isinstance(tree, dict):
        return {name: _with_folder(folder, each, (*path, name)) for name, each in tree.items()}
    if not isinstance(tree, str) or not tree.strip() or tree.startswith("~") or "://" in tree:
        return tree
    place = place_at(path)
    is_path = place is not None and place.kind is not None and place.kind.name.startswith("the path")
    return str(folder / tree) if is_path else tree
