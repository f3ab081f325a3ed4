"""Finding one's way in the models: which keys there are at a place, and what a key may hold."""

from __future__ import annotations

from collections.abc import Iterator
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic.fields import FieldInfo

from tomowire.server.config.kinds import Kind
from tomowire.server.config.models import Configuration, Section
from tomowire.server.config.problems import Path
from tomowire.wire.value import value


@value()
class Place:
    """What stands at a path: a `section` of known keys, a `table` of sections with names of their own, a list (`element`), or one
    value of a `kind`. `field` is what the model says of it."""

    field: FieldInfo | None = None
    section: type[Section] | None = None
    table: Any = None
    element: Any = None
    kind: Kind | None = None

    @property
    def keys(self) -> tuple[str, ...]:
        """The keys that are known here."""
        return () if self.section is None else tuple(self.section.model_fields)


def place_of(annotation: Any, field: FieldInfo | None = None) -> Place:
    """What an annotation of the models stands for."""
    kinds = [each for each in (field.metadata if field is not None else ()) if isinstance(each, Kind)]
    if kinds:
        return Place(field, kind=kinds[0])
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return Place(field, kind=next(each for each in arguments if isinstance(each, Kind)))
    if origin in (Union, UnionType):
        return place_of(next(each for each in arguments if each is not type(None)), field)
    if origin is dict:
        return Place(field, table=arguments[1])
    if origin is tuple:
        return Place(field, element=arguments[0])
    return Place(field, section=annotation)


def place_at(path: Path) -> Place | None:
    """What stands at `path`; None where the models know nothing."""
    place = place_of(Configuration)
    for part in path:
        if place.section is not None and isinstance(part, str) and part in place.section.model_fields:
            field = place.section.model_fields[part]
            place = place_of(field.annotation, field)
        elif place.table is not None and isinstance(part, str):
            place = place_of(place.table)
        elif place.element is not None and isinstance(part, int):
            place = place_of(place.element)
        else:
            return None
    return place


def known_keys(path: Path) -> tuple[str, ...]:
    """The keys of the section at `path`."""
    place = place_at(path)
    return place.keys if place is not None else ()


def sections() -> Iterator[tuple[Path, type[Section]]]:
    """All sections in the order of the models; `NAME` stands for a name of one's own, 0 for each element of a list."""
    yield from _sections((), Configuration)


def _sections(path: Path, section: type[Section]) -> Iterator[tuple[Path, type[Section]]]:
    for name, field in section.model_fields.items():
        place = place_of(field.annotation, field)
        below: Path = (*path, name)
        if place.table is not None:
            place, below = place_of(place.table), (*below, "NAME")
        elif place.element is not None:
            place, below = place_of(place.element), (*below, 0)
        if place.section is not None:
            yield below, place.section
            yield from _sections(below, place.section)
