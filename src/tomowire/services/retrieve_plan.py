"""What to ask for to get all that a query matches: the peer is asked first, with C-FIND, down to the SOP classes of the objects."""

from __future__ import annotations

from collections import Counter
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, Final

from tomowire.errors import DataSetError, NotConfirmed, PeerMisbehaved
from tomowire.services.confirming import Confirmation
from tomowire.services.models import Level, Model
from tomowire.services.query import Query
from tomowire.wire.value import value

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterable, Sequence

    from pydicom import Dataset

    from tomowire.services.find import CFindScu

MOST_SOP_CLASSES: Final = 4
"""What has more is taken apart: each class has room for 31 contexts then, and so for all transfer syntaxes that matter."""
MOST_TOGETHER: Final = MOST_SOP_CLASSES
"""So many classes of different parts share an association, for the same reason."""
# UIDs in one request: 64 KB at most, so that the identifier fits where lengths have two bytes.
_UIDS_AT_ONCE: Final = 500
_SEVERAL: Final = 2
_MOST_KEPT: Final = 100

_WHAT_TO_RETURN: Final = {
    Level.PATIENT: (),
    Level.STUDY: ("SOPClassesInStudy", "NumberOfStudyRelatedInstances"),
    Level.SERIES: (),
    Level.IMAGE: ("SOPClassUID",),
}


@value()
class Part:
    """What one request asks for. `sop_classes` and `count` tell of the objects: no classes, or None, where nobody knows."""

    level: Level
    keys: tuple[tuple[str, str], ...]
    """The unique keys with one value each."""
    uids: tuple[str, ...] = ()
    """The instances, if it names any."""
    sop_classes: frozenset[str] = frozenset()
    count: int | None = None

    @property
    def query(self) -> Query:
        named = Query(self.level, dict(self.keys))
        return named.sop_instance_uid(*self.uids) if self.uids else named

    def one_by_one(self) -> list[Part]:
        """The same for a peer that knows no lists of UIDs; nothing if that would be the same again."""
        if len(self.uids) < _SEVERAL:
            return []
        return [Part(self.level, self.keys, (uid,), self.sop_classes, 1) for uid in self.uids]


class Planner:
    """Asks a peer what there is, in `model`. A part with more than `most` classes is taken apart, level by level.

    What the peer answers and cannot be retrieved is left out, and so is what its answers do not `confirm` to match (see
    `tomowire.services.confirming`); `failures` tells of it.
    """

    def __init__(
        self, scu: CFindScu, model: Model, *, most: int = MOST_SOP_CLASSES, confirm: bool = True, **options: Any
    ) -> None:
        self._scu = scu
        self._model = model
        self._most = most
        self._confirm = confirm
        self._options = options
        self._unnamed: Counter[Level] = Counter()
        self._unconfirmed: Counter[tuple[Level, tuple[str, ...]]] = Counter()
        self._unreadable: list[Exception] = []

    @property
    def failures(self) -> list[Exception]:
        """What was left out, and why: `PeerMisbehaved`, `NotConfirmed`, and `DataSetError`."""
        return [
            *self._unreadable,
            *(PeerMisbehaved(_without_key(level, count)) for level, count in self._unnamed.items()),
            *(
                NotConfirmed(_without_confirmation(level, keywords, count), keywords, count)
                for (level, keywords), count in self._unconfirmed.items()
            ),
        ]

    async def entities(self, query: Query | Dataset) -> list[Part]:
        """One part for each patient, study or series that matches, and one for the instances of each series."""
        return [part async for part, _ in self._entities(query)]

    async def parts(self, query: Query | Dataset) -> list[Part]:
        """The same, with the SOP classes of the objects; none has more than `most`, unless it is a single series of images."""
        found = [pair async for pair in self._entities(query)]
        return [each for part, answer in found for each in await self._with_classes(part, answer)]

    async def _with_classes(self, part: Part, answer: Dataset | None) -> list[Part]:
        level = part.level
        if answer is None:
            return [part]
        classes = frozenset(_texts(answer, "SOPClassesInStudy")) if level is Level.STUDY else frozenset()
        if 0 < len(classes) <= self._most:
            return [Part(level, part.keys, (), classes, _number(answer, "NumberOfStudyRelatedInstances"))]
        below = _LEVEL_BELOW[level]
        # The retired Patient/Study Only model ends with the study.
        planner = self if below in self._model.levels else self._in_study_root()
        known = {each.unique_key for each in planner._model.levels}
        parts = await planner.parts(Query(below, {name: key for name, key in part.keys if name in known}))
        classes = _union(parts)
        if not parts or (len(classes) > self._most and planner is self):
            return parts
        return [Part(level, part.keys, (), classes, total(parts))]

    def _in_study_root(self) -> Planner:
        planner = Planner(self._scu, Model.STUDY_ROOT, confirm=self._confirm, **self._options)
        planner._unnamed, planner._unconfirmed = self._unnamed, self._unconfirmed
        planner._unreadable = self._unreadable
        return planner

    async def _entities(self, query: Query | Dataset) -> AsyncGenerator[tuple[Part, Dataset | None], None]:
        asked = _asking(query, self._model)
        level = Level(asked.QueryRetrieveLevel)
        path = [each.unique_key for each in self._model.levels[: self._model.levels.index(level) + 1]]
        confirmation = Confirmation(asked, path[:-1])
        seen: set[tuple[str, ...]] = set()
        images: dict[tuple[str, ...], dict[str, str]] = {}  # class by instance, for each series
        async with aclosing(self._answers(asked)) as answers:
            async for answer in answers:
                try:
                    key = tuple(_one(answer, keyword) or _one(asked, keyword) for keyword in path)
                    sop_class = _one(answer, "SOPClassUID") if level is Level.IMAGE else ""
                except DataSetError as error:
                    self._cannot_read([error])
                    continue
                doubts = confirmation.doubts(answer) if self._confirm else []
                if not key[-1]:
                    self._unnamed[level] += 1
                elif doubts:
                    self._unconfirmed[level, tuple(doubts)] += 1
                elif level is Level.IMAGE:
                    images.setdefault(key[:-1], {})[key[-1]] = sop_class
                elif key not in seen:
                    seen.add(key)
                    yield Part(level, _named(path, key)), answer
        for above, class_of in images.items():
            for part in _image_parts(_named(path, above), class_of):
                yield part, None

    async def _answers(self, asked: Dataset) -> AsyncGenerator[Dataset, None]:
        """All that can be read."""
        async with aclosing(self._scu.find(asked, model=self._model, **self._options)) as answers:
            try:
                async for answer in answers:
                    yield answer
            except ExceptionGroup as group:
                self._cannot_read(group.exceptions)

    def _cannot_read(self, errors: Sequence[Exception]) -> None:
        """Keep some of them: a peer may send a million such answers."""
        self._unreadable += errors[: _MOST_KEPT - len(self._unreadable)]


def _without_key(level: Level, count: int) -> str:
    hint = "; ask for their studies, at STUDY level" if level is Level.PATIENT else ""
    return (
        f"{count} of the answers at {level} level {_have(count)} no {level.unique_key}: they cannot be retrieved{hint}"
    )


def _without_confirmation(level: Level, keywords: Sequence[str], count: int) -> str:
    asked, one = ", ".join(keywords), len(keywords) == 1
    return (
        f"{count} of the answers at {level} level {_have(count, 'does', 'do')} not confirm {asked}, and what"
        f" {_have(count, 'it is', 'they are')} about is not retrieved: the peer may not match by {'it' if one else 'them'} there;"
        f" leave {'it' if one else 'them'} out, or ask at another level"
    )


def _have(count: int, one: str = "has", several: str = "have") -> str:
    return one if count == 1 else several


_LEVEL_BELOW: Final = {Level.PATIENT: Level.STUDY, Level.STUDY: Level.SERIES, Level.SERIES: Level.IMAGE}


def _asking(query: Query | Dataset, model: Model) -> Dataset:
    """The identifier to find out with: what is asked for, and what has to come back."""
    from copy import deepcopy

    asked = query.dataset(model) if isinstance(query, Query) else deepcopy(query)
    level = Level(asked.QueryRetrieveLevel)
    for keyword in (
        *(each.unique_key for each in model.levels[: model.levels.index(level) + 1]),
        *_WHAT_TO_RETURN[level],
    ):
        if keyword not in asked:
            setattr(asked, keyword, None)
    return asked


def _named(path: Sequence[str], key: Sequence[str]) -> tuple[tuple[str, str], ...]:
    return tuple((keyword, each) for keyword, each in zip(path, key, strict=False) if each)


def _image_parts(keys: tuple[tuple[str, str], ...], class_of: dict[str, str]) -> list[Part]:
    """The instances of one series, those of each class by themselves."""
    by_class: dict[str, list[str]] = {}
    for uid, sop_class in class_of.items():
        by_class.setdefault(sop_class, []).append(uid)
    return [
        Part(Level.IMAGE, keys, chunk, frozenset({sop_class} if sop_class else ()), len(chunk))
        for sop_class, uids in by_class.items()
        for start in range(0, len(uids), _UIDS_AT_ONCE)
        if (chunk := tuple(uids[start : start + _UIDS_AT_ONCE]))
    ]


def _union(parts: Sequence[Part]) -> frozenset[str]:
    """The classes of all; none where they are not known of one of them."""
    if not all(each.sop_classes for each in parts):
        return frozenset()
    return frozenset[str]().union(*(each.sop_classes for each in parts))


def total(parts: Iterable[Part]) -> int | None:
    """How many objects the parts have together; None when that is not known of one of them."""
    counts = [each.count for each in parts]
    known = [each for each in counts if each is not None]
    return sum(known) if len(known) == len(counts) else None


def _texts(answer: Dataset, keyword: str) -> list[str]:
    if keyword not in answer:
        return []
    try:
        element = answer[keyword]
    except Exception as error:  # pydicom converts a value when it is asked for, and raises whatever it meets
        raise DataSetError(f"{keyword} in an answer of the peer cannot be read: {error}") from error
    if element.is_empty:
        return []
    values = [element.value] if element.VM == 1 else element.value
    return [text for each in values if (text := str(each).strip(" \0"))]


def _one(answer: Dataset, keyword: str) -> str:
    """The only value of a key; empty when there is none, or several."""
    found = _texts(answer, keyword)
    return found[0] if len(found) == 1 else ""


def _number(answer: Dataset, keyword: str) -> int | None:
    try:
        return int(_one(answer, keyword))
    except ValueError:
        return None


def grouped(parts: Iterable[Part], most: int = MOST_TOGETHER) -> list[tuple[frozenset[str], list[Part]]]:
    """The parts for each association, with all their classes, of which it has no more than `most` if it can be helped.

    Those whose classes are not known stand together, with no classes.
    """
    groups: list[tuple[frozenset[str], list[Part]]] = []
    for part in parts:
        for number, (classes, members) in enumerate(groups):
            both = classes | part.sop_classes
            if bool(classes) is bool(part.sop_classes) and (both == classes or len(both) <= most):
                members.append(part)
                groups[number] = (both, members)
                break
        else:
            groups.append((part.sop_classes, [part]))
    return groups
