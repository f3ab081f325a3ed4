"""The parameters behind the `?` of an address: one that an operation does not know, or that is given twice, is an error and not
passed over. Who has written it wrong would get an answer to another question."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from itertools import islice
from typing import TYPE_CHECKING, Any, Final, get_origin

from tomowire.server.config.problems import nearest
from tomowire.web.problems import MOST_ERRORS, Problem

if TYPE_CHECKING:
    from starlette.datastructures import QueryParams

_LONGEST: Final = 64


class QueryParameters:
    """Those that an operation knows; those in `lists` may be given more than once."""

    def __init__(self, known: Collection[str], lists: Collection[str]) -> None:
        self._known = sorted(known)
        self._lists = frozenset(lists)

    @classmethod
    def of(cls, fields: Iterable[Any]) -> QueryParameters:
        """From the declarations of an operation: FastAPI gives the parameters, each of them a model or a value."""
        declared: dict[str, Any] = {}
        for field in fields:
            annotation = field.field_info.annotation
            models: Mapping[str, Any] | None = getattr(annotation, "model_fields", None)
            declared |= (
                {name: each.annotation for name, each in models.items()}
                if models is not None
                else {field.alias: annotation}
            )
        return cls(declared, {name for name, annotation in declared.items() if get_origin(annotation) is list})

    def check(self, given: QueryParams) -> None:
        """Raises `Problem`."""
        names = [name for name, _ in given.multi_items()]
        errors = [
            {"in": "query", "name": name[:_LONGEST], "detail": self._unknown(name)}
            for name in islice((each for each in given if each not in self._known), MOST_ERRORS)
        ]
        errors += [
            {"in": "query", "name": name, "detail": "is given more than once: it takes one value"}
            for name in self._known
            if name not in self._lists and names.count(name) > 1
        ]
        if errors:
            first = errors[0]
            raise Problem(422, f"the query cannot be understood: {first['name']!r} {first['detail']}", errors=errors)

    def _unknown(self, name: str) -> str:
        if not self._known:
            return "is not known: there are no parameters here"
        near = nearest(name, self._known)
        return (
            f"is not known; known are {', '.join(self._known)}" if near is None else f"is not known; is {near} meant?"
        )
