"""From what pydantic finds to problems in plain words, each with the place where it was said."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from tomowire.server.config.problems import Origin, Path, Problem, dotted, kind_of, nearest
from tomowire.server.config.schema import known_keys, place_at

if TYPE_CHECKING:
    from pydantic import ValidationError
    from pydantic_core import ErrorDetails


def origin_of(path: Path, origins: Mapping[Path, Origin]) -> Origin | None:
    """Where `path` was said, or the nearest place above it."""
    for length in range(len(path), -1, -1):
        if (found := origins.get(path[:length])) is not None:
            return found
    return None


def problems_of(error: ValidationError, origins: Mapping[Path, Origin]) -> list[Problem]:
    """All that is wrong, in the order of the lines."""
    found = [_problem(each, origins) for each in error.errors(include_url=False)]
    return sorted(found, key=in_order)


def in_order(problem: Problem) -> tuple[str, int]:
    """To sort by: source and line."""
    origin = problem.origin
    return (origin.source, origin.line or 0) if origin is not None else ("", 0)


def _problem(details: ErrorDetails, origins: Mapping[Path, Origin]) -> Problem:
    path: Path = tuple(each for each in details["loc"] if each != "[key]")
    origin = origin_of(path, origins)
    if details["type"] == "extra_forbidden":
        *above, name = path
        known = known_keys(tuple(above))
        meant = nearest(str(name), known)
        there = "" if meant is not None else f"; there are {', '.join(known)}"
        kind = "section" if isinstance(details["input"], dict) and not above else "key"
        return Problem(origin, dotted(path), f"is no {kind} that is known{there}", meant)
    return Problem(origin, dotted(path), _sentence(details, path))


def _sentence(details: ErrorDetails, path: Path) -> str:
    context: Mapping[str, Any] = details.get("ctx", {})
    match details["type"]:
        case "value_error":
            return str(context["error"])
        case "missing":
            return "is missing"
        case "model_type" | "model_attributes_type" | "dict_type":
            return f"must be a section with keys of its own, and not {kind_of(details['input'])}"
        case "tuple_type" | "list_type":
            place = place_at(path)
            is_of_sections = place is not None and place.element is not None and hasattr(place.element, "model_fields")
            form = f"written [[{dotted(path)}]]" if is_of_sections else 'written ["...", "..."]'
            return f"must be a list, {form}, and not {kind_of(details['input'])}"
    return details["msg"][:1].lower() + details["msg"][1:]
