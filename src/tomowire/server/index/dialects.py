"""What matching needs of SQL that each database says in its own way, with both ways beside each other.

Everything here is a condition, a value or a list of rows to SQLAlchemy; which way it is written is settled when a statement is
compiled for a dialect. The answers are the same: tests ask both databases the same questions.

This module imports SQLAlchemy.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, Final

from sqlalchemy import ARRAY, ColumnElement, Text, literal, literal_column, or_
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement
from sqlalchemy.sql.selectable import TableValuedAlias

Condition = ColumnElement[bool]
Value = ColumnElement[Any]

_WILDCARDS: Final = "*?"


class _Element(FunctionElement[Any]):
    """Its clauses are what it is made of, so that SQLAlchemy finds the tables in them."""

    inherit_cache = False


# Texts within a text


class _Contains(_Element):
    pass


def contains(text: Value, part: str) -> Condition:
    """Whether `part` stands somewhere in `text`."""
    return _Contains(text, literal(part)) > 0


@compiles(_Contains, "sqlite")
def _contains_sqlite(element: _Contains, compiler: SQLCompiler, **options: Any) -> str:
    return f"instr({compiler.process(element.clauses, **options)})"


@compiles(_Contains, "postgresql")
def _contains_postgresql(element: _Contains, compiler: SQLCompiler, **options: Any) -> str:
    return f"strpos({compiler.process(element.clauses, **options)})"


class _Parts(_Element):
    pass


def parts(text: Value, separator: str) -> TableValuedAlias:
    """The parts of a text, as rows with `value` and `key`: their number, counted from 0."""
    return _Parts(text, literal(separator)).table_valued("key", "value")


@compiles(_Parts, "sqlite")
def _parts_sqlite(element: _Parts, compiler: SQLCompiler, **options: Any) -> str:
    text, separator = element.clauses
    escaped = literal(json.dumps(separator.value)[1:-1])
    quoted = f"json_quote({compiler.process(text, **options)})"
    return f"""json_each('[' || replace({quoted}, {compiler.process(escaped, **options)}, '","') || ']')"""


@compiles(_Parts, "postgresql")
def _parts_postgresql(element: _Parts, compiler: SQLCompiler, **options: Any) -> str:
    whole = compiler.process(element.clauses, **options)
    split = f"unnest(string_to_array({whole})) WITH ORDINALITY AS part(value, place)"
    return f"(SELECT value, place - 1 AS key FROM {split})"


# Wild cards


class _Glob(_Element):
    pass


def glob(text: Value, pattern: str) -> Condition:
    """Wild card matching (PS3.4 C.2.2.2.4): case counts, and a character is a character and not a byte."""
    if not any(wildcard in pattern for wildcard in _WILDCARDS):
        return text == pattern
    return _Glob(text, literal(pattern))


@compiles(_Glob, "sqlite")
def _glob_sqlite(element: _Glob, compiler: SQLCompiler, **options: Any) -> str:
    """GLOB has the wild cards of DICOM and brackets; LIKE would take upper and lower case for the same."""
    text, pattern = element.clauses
    wanted = literal(pattern.value.replace("[", "[[]"))
    return f"{compiler.process(text, **options)} GLOB {compiler.process(wanted, **options)}"


@compiles(_Glob, "postgresql")
def _glob_postgresql(element: _Glob, compiler: SQLCompiler, **options: Any) -> str:
    text, pattern = element.clauses
    wanted = literal(pattern.value.translate(_LIKE))
    return f"{compiler.process(text, **options)} LIKE {compiler.process(wanted, **options)}"


_LIKE: Final = str.maketrans({"*": "%", "?": "_", "%": r"\%", "_": r"\_", "\\": r"\\"})


class _Somewhere(_Element):
    pass


def somewhere(column: Value, patterns: Sequence[str]) -> Condition:
    """What holds wherever one of the patterns matches a part of `column`: for an index that finds letters in the middle of a text.

    PostgreSQL has one on patients' names if it has pg_trgm. SQLite has none, and is not made to look twice.
    """
    return _Somewhere(or_(*(glob(column, f"*{pattern.strip('*')}*") for pattern in patterns)))


@compiles(_Somewhere, "sqlite")
def _somewhere_sqlite(_element: _Somewhere, _compiler: SQLCompiler, **_options: Any) -> str:
    return "1"


@compiles(_Somewhere, "postgresql")
def _somewhere_postgresql(element: _Somewhere, compiler: SQLCompiler, **options: Any) -> str:
    return f"({compiler.process(element.clauses, **options)})"


# Lists


class _OneOf(_Element):
    pass


def one_of(column: Value, values: Sequence[str]) -> Condition:
    """Whether `column` is one of the values: one parameter, however many they are; there are queries for thousands."""
    return _OneOf(column, literal(list(values), ARRAY(Text())))


@compiles(_OneOf, "sqlite")
def _one_of_sqlite(element: _OneOf, compiler: SQLCompiler, **options: Any) -> str:
    column, values = element.clauses
    wanted = compiler.process(literal(json.dumps(values.value)), **options)
    return f"{compiler.process(column, **options)} IN (SELECT value FROM json_each({wanted}))"


@compiles(_OneOf, "postgresql")
def _one_of_postgresql(element: _OneOf, compiler: SQLCompiler, **options: Any) -> str:
    column, values = element.clauses
    return f"{compiler.process(column, **options)} = ANY({compiler.process(values, **options)})"


class _Distinct(_Element):
    pass


def distinct_values(column: Value) -> Value:
    """An aggregate: the values that a column has, with backslashes between them; none has a comma or a backslash itself."""
    return _Distinct(column)


@compiles(_Distinct, "sqlite")
def _distinct_sqlite(element: _Distinct, compiler: SQLCompiler, **options: Any) -> str:
    """Distinct values can be separated by commas alone."""
    return f"replace(group_concat(DISTINCT {compiler.process(element.clauses, **options)}), ',', '\\')"


@compiles(_Distinct, "postgresql")
def _distinct_postgresql(element: _Distinct, compiler: SQLCompiler, **options: Any) -> str:
    return f"string_agg(DISTINCT {compiler.process(element.clauses, **options)}, '\\')"


# Sequences, which are JSON lists of objects


class _Items(_Element):
    pass


def items(column: Value) -> TableValuedAlias:
    """The items of a sequence, as rows with `value`."""
    return _Items(column).table_valued("value")


@compiles(_Items, "sqlite")
def _items_sqlite(element: _Items, compiler: SQLCompiler, **options: Any) -> str:
    return f"json_each({compiler.process(element.clauses, **options)})"


@compiles(_Items, "postgresql")
def _items_postgresql(element: _Items, compiler: SQLCompiler, **options: Any) -> str:
    column = compiler.process(element.clauses, **options)
    return f"(SELECT value FROM json_array_elements(CAST({column} AS json)) AS item(value))"


class _Member(_Element):
    pass


def member(item: Value, name: str) -> Value:
    """The text that an item has under this name, "" if it has none."""
    return _Member(item, literal(name))


@compiles(_Member, "sqlite")
def _member_sqlite(element: _Member, compiler: SQLCompiler, **options: Any) -> str:
    item, name = element.clauses
    path = compiler.process(literal(f"$.{name.value}"), **options)
    return f"coalesce(json_extract({compiler.process(item, **options)}, {path}), '')"


@compiles(_Member, "postgresql")
def _member_postgresql(element: _Member, compiler: SQLCompiler, **options: Any) -> str:
    item, name = (compiler.process(each, **options) for each in element.clauses)
    return f"""(coalesce({item} ->> {name}, '') COLLATE "C")"""


class _Gathered(_Element):
    pass


def list_of_items(item: Value) -> Value:
    """An aggregate: the items as the JSON list that a sequence is."""
    return _Gathered(item)


@compiles(_Gathered, "sqlite")
def _gathered_sqlite(element: _Gathered, compiler: SQLCompiler, **options: Any) -> str:
    return f"json_group_array(json({compiler.process(element.clauses, **options)}))"


@compiles(_Gathered, "postgresql")
def _gathered_postgresql(element: _Gathered, compiler: SQLCompiler, **options: Any) -> str:
    item = compiler.process(element.clauses, **options)
    return f"('[' || coalesce(string_agg(CAST({item} AS text), ','), '') || ']')"


# What the planner is to expect


class _Expected(_Element):
    pass


def expected(condition: Condition, share: float) -> Condition:
    """Tells SQLite for how many of the rows a condition holds; PostgreSQL counts. Only for comparisons with an index."""
    return _Expected(condition, literal_column(f"{share:.4f}"))


@compiles(_Expected, "sqlite")
def _expected_sqlite(element: _Expected, compiler: SQLCompiler, **options: Any) -> str:
    return f"likelihood({compiler.process(element.clauses, **options)})"


@compiles(_Expected, "postgresql")
def _expected_postgresql(element: _Expected, compiler: SQLCompiler, **options: Any) -> str:
    condition, _ = element.clauses
    return f"({compiler.process(condition, **options)})"
