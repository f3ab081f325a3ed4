"""`@value()`: a frozen, slotted dataclass that is cheap to make.

`dataclass(frozen=True, slots=True)` compiles six functions for each class, one by one. There are some fifty value classes in
this layer, and every command pays for them when it starts: measured, 23 ms, against 6 ms with the decorator below. Only
`__init__` has to be compiled for the sake of its own speed, and that is done when the first value is made: a command makes values
of a third of the classes. The rest is the same for all classes and stands here once.

The result is a dataclass like others: `fields`, `replace`, `asdict`, `match`, `copy` and `pickle` work, and type checkers
treat it as one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import MISSING, FrozenInstanceError, dataclass, field, fields
from typing import Any, Final, NoReturn, TypeVar, dataclass_transform

T = TypeVar("T")


@dataclass_transform(frozen_default=True, field_specifiers=(field,))
def value(*, kw_only: bool = False) -> Callable[[type[T]], type[T]]:
    """Make the class a frozen, slotted dataclass; a `__repr__` of its own is kept. There are no default factories."""

    def decorate(plain: type[T]) -> type[T]:
        made = dataclass(init=False, repr=False, eq=False, slots=True, kw_only=kw_only)(plain)
        names = tuple(each.name for each in fields(made))  # type: ignore[arg-type]
        for name, own in {"__init__": _Uncompiled(made), "_value_names": names, **_METHODS}.items():
            if name not in plain.__dict__:
                setattr(made, name, own)
        return made

    return decorate


class _Uncompiled:
    """The `__init__` of a class until it is looked up for the first time."""

    __slots__ = ("_cls",)

    def __init__(self, cls: type[Any]) -> None:
        self._cls = cls

    def __get__(self, instance: Any, owner: type[Any]) -> Any:
        init = _compile_init(self._cls)
        self._cls.__init__ = init
        return init.__get__(instance, owner)


def _compile_init(cls: type[Any]) -> Callable[..., None]:
    """`def __init__(self, a, *, b=default_b): set_a(self, a); set_b(self, b)`, where each `set_` writes its slot directly."""
    names: dict[str, Any] = {}
    positional, keyword, body = ["self"], ["*"], ["pass"]
    for each in fields(cls):
        names[f"set_{each.name}"] = getattr(cls, each.name).__set__
        names[f"default_{each.name}"] = each.default
        parameter = each.name if each.default is MISSING else f"{each.name}=default_{each.name}"
        (keyword if each.kw_only else positional).append(parameter)
        body.append(f"set_{each.name}(self, {each.name})")
    parameters = positional + keyword if len(keyword) > 1 else positional
    exec(f"def __init__({', '.join(parameters)}): {'; '.join(body)}", names)  # the names come from our own classes
    init: Callable[..., None] = names["__init__"]
    return init


def _values(self: Any) -> tuple[Any, ...]:
    return tuple([getattr(self, name) for name in self._value_names])


def _repr(self: Any) -> str:
    shown = (f"{name}={getattr(self, name)!r}" for name in self._value_names)
    return f"{type(self).__qualname__}({', '.join(shown)})"


def _eq(self: Any, other: object) -> bool:
    return _values(self) == _values(other) if type(self) is type(other) else NotImplemented


def _hash(self: Any) -> int:
    return hash((type(self), _values(self)))


def _refuse(self: Any, name: str, *_: Any) -> NoReturn:
    raise FrozenInstanceError(f"{type(self).__name__} is frozen: {name}")


def _reduce(self: Any) -> tuple[Any, ...]:
    return _restore, (type(self), _values(self))


def _restore(cls: type[Any], values: tuple[Any, ...]) -> Any:
    made = object.__new__(cls)
    for name, each in zip(cls._value_names, values, strict=True):
        object.__setattr__(made, name, each)
    return made


_METHODS: Final = {
    "__repr__": _repr,
    "__eq__": _eq,
    "__hash__": _hash,
    "__setattr__": _refuse,
    "__delattr__": _refuse,
    "__reduce__": _reduce,
}
