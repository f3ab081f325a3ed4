"""From keys that a person has typed to what C-MOVE and C-GET take: nothing but unique keys (PS3.4 C.4.2.1.4.1, C.4.3.1.3.1)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from tomowire.errors import UsageError
from tomowire.services.models import Level, Model
from tomowire.services.query import Query
from tomowire.services.retrieve_plan import Part
from tomowire.wire.value import value

if TYPE_CHECKING:
    from collections.abc import Container, Mapping

    from tomowire.cli.keys import Keys
    from tomowire.services.retrieve_plan import Planner

_NO_KEYS: Final = frozenset({"SpecificCharacterSet", "QueryRetrieveLevel"})


@value()
class Selection:
    """What a person has asked for, and the model in which it is."""

    query: Query
    model: Model
    outright: tuple[Part, ...]
    """The same if it is made of unique keys alone: then nobody needs to be asked what matches. Else empty."""
    confirm: bool = True
    """Whether answers of the peer must confirm that they match."""

    @classmethod
    def of(cls, keys: Keys) -> Selection:
        """Raises `UsageError` for what cannot be asked, and where there is no key: everything that a peer has may be a lot."""
        query = keys.query()
        model = keys.model or query.model
        given = {
            element.keyword: _texts(element.value)
            for element in query.dataset(model)
            if not element.is_empty and element.keyword not in _NO_KEYS
        }
        if not given:
            raise UsageError("which ones? Name at least one key, such as --study-uid or --patient-id")
        return cls(query, model, _outright(query.level, model, given), keys.confirm)


def _outright(level: Level, model: Model, given: Mapping[str, list[str]]) -> tuple[Part, ...]:
    above = [each.unique_key for each in model.levels[: model.levels.index(level)]]
    if given.keys() != {*above, level.unique_key}:
        return ()
    if any("*" in each or "?" in each for values in given.values() for each in values):
        return ()
    if any(len(given[keyword]) > 1 for keyword in above):
        return ()  # PS3.4 C.4.2.1.4.1: above the level each has a single value
    keys = tuple((keyword, given[keyword][0]) for keyword in above)
    own = given[level.unique_key]
    if level is Level.IMAGE:
        return (Part(level, keys, tuple(own), count=len(own)),)
    return tuple(Part(level, (*keys, (level.unique_key, each))) for each in own)


def _texts(said: Any) -> list[str]:
    return (
        [said] if isinstance(said, str) else [str(each) for each in said] if hasattr(said, "__iter__") else [str(said)]
    )


async def missing(planner: Planner, query: Query, model: Model, there: Container[str]) -> tuple[list[Part], list[str]]:
    """What of that which matches is not `there` yet, by SOP Instance UIDs: whole series, or images of series; and the UIDs of the
    images that are.

    It is looked through from the top down, since a peer wants a value for each unique key above the level that it is asked for.
    """
    below = model.levels[model.levels.index(query.level) + 1 :]
    queries = [query]
    for level in below:
        entities = [each for query in queries for each in await planner.entities(query)]
        queries = [Query(level, dict(each.keys)) for each in entities]
    parts: list[Part] = []
    present: list[str] = []
    for each in queries:
        images = await planner.parts(each)
        absent = [_without(part, there) for part in images]
        present += (uid for part in images for uid in part.uids if uid in there)
        if below and images == absent and images:
            parts.append(_whole_series(images))
        else:
            parts += (part for part in absent if part.uids)
    return parts, present


def _without(part: Part, there: Container[str]) -> Part:
    uids = tuple(uid for uid in part.uids if uid not in there)
    return Part(part.level, part.keys, uids, part.sop_classes, len(uids))


def _whole_series(images: list[Part]) -> Part:
    classes = frozenset().union(*(part.sop_classes for part in images))
    return Part(Level.SERIES, images[0].keys, (), classes, sum(len(part.uids) for part in images))
