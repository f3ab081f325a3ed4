"""What is asked of a peer, as a person types it: the options that `query` shares with whatever else names objects by their keys."""

from __future__ import annotations

import functools
import re
from dataclasses import replace
from datetime import date, datetime
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

from tomowire.errors import UsageError
from tomowire.services.models import Level, Model
from tomowire.services.query import Query
from tomowire.services.query_values import keyword_of
from tomowire.wire.value import value

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

T = TypeVar("T")

MODELS: Final = {"patient": Model.PATIENT_ROOT, "study": Model.STUDY_ROOT}
_DAY: Final = r"(\d{8}|\d{4}-\d{2}-\d{2}|today)"
_DAYS: Final = re.compile(rf"{_DAY}?(?:(-|\.\.){_DAY}?)?")
# PS3.5 6.2: binary numbers; and texts in which a backslash is a character like others.
_NUMBERS: Final[dict[str, type]] = {
    **dict.fromkeys(("US", "SS", "UL", "SL", "UV", "SV"), int),
    "FL": float,
    "FD": float,
}
_ONE_VALUE: Final = frozenset({"ST", "LT", "UT", "UR"})


@value(kw_only=True)
class Keys:
    """What a person has typed: a level, and the keys that the objects must match or that the answers shall hold."""

    level: Level = Level.STUDY
    model: Model | None = None
    keys: tuple[str, ...] = ()
    """`Keyword=value` or `gggg,eeee=value`, in a sequence `Sequence.Keyword=value`; without `=` it is only to be returned."""
    patient: str | None = None
    patient_id: str | None = None
    accession: str | None = None
    study_uid: tuple[str, ...] = ()
    series_uid: tuple[str, ...] = ()
    modality: tuple[str, ...] = ()
    date: str | None = None
    confirm: bool = True
    """Whether answers must confirm that they match, for what they are about to be retrieved."""

    def query(self) -> Query:
        """What to ask. Raises `UsageError` for what cannot be asked."""
        if self.series_uid and self.level in (Level.PATIENT, Level.STUDY):
            raise UsageError("--series-uid needs -L series, or -L image")
        query = Query(self.level)
        wanted: dict[str | int, Any] = {}
        for option, key, text in self._pairs():
            *sequences, name = map(keyword_of, key.split("."))
            place = wanted
            for sequence in sequences:
                if _vr(sequence) != "SQ":
                    raise UsageError(f"{option}: {sequence} is no sequence, and has no items")
                place = place.setdefault(sequence, {})
                if not isinstance(place, dict):
                    raise UsageError(f"{option}: {sequence} has been asked for as a whole")
            if text is None:
                place.setdefault(name, None)  # it comes back with a value to match, too
                continue
            if place.get(name) is not None:
                raise UsageError(f"{option} asks once more for the same attribute: give all its values in one")
            place[name] = _value(name, text)
        if self.modality and any(wanted.get(each) is not None for each in ("Modality", "ModalitiesInStudy")):
            raise UsageError("-k and --modality ask for the same: leave one of them out")
        for name, each in wanted.items():
            query = query.where(name, each)
        return query.modality(*_modalities(self.modality)) if self.modality else query

    def _pairs(self) -> Iterator[tuple[str, str, str | None]]:
        """Each key: the option that it comes from, its keyword or tag, and its value; None if it has none."""
        shortcuts = (
            ("--patient", "PatientName", self.patient),
            ("--patient-id", "PatientID", self.patient_id),
            ("--accession", "AccessionNumber", self.accession),
            ("--study-uid", "StudyInstanceUID", "\\".join(self.study_uid) or None),
            ("--series-uid", "SeriesInstanceUID", "\\".join(self.series_uid) or None),
            ("--date", "StudyDate", None if self.date is None else days(self.date)),
        )
        yield from (each for each in shortcuts if each[2] is not None)
        for key in self.keys:
            name, separator, text = key.partition("=")
            if not name:
                raise UsageError(f"-k {key}: which attribute? Write Keyword=value, or gggg,eeee=value")
            yield f"-k {name}", name, text if separator else None


def key_options(command: Callable[..., T]) -> Callable[..., T]:
    """Options that say what is asked for; the command gets them together as `keys`, a `Keys`."""

    @functools.wraps(command)
    def gathered(
        *,
        level: str,
        model: str | None,
        keys: tuple[str, ...],
        patient: str | None,
        patient_id: str | None,
        accession: str | None,
        study_uid: tuple[str, ...],
        series_uid: tuple[str, ...],
        modality: tuple[str, ...],
        date: str | None,
        **others: Any,
    ) -> T:
        asked = Keys(
            level=Level(level.upper()),
            model=None if model is None else MODELS[model],
            keys=keys,
            patient=patient,
            patient_id=patient_id,
            accession=accession,
            study_uid=study_uid,
            series_uid=series_uid,
            modality=modality,
            date=date,
        )
        return command(keys=asked, **others)

    with_options: Callable[..., T] = gathered
    for option in reversed(_OPTIONS):  # decorators work from the bottom up
        with_options = option(with_options)
    return with_options


def unconfirmed_option(command: Callable[..., T]) -> Callable[..., T]:
    """For commands that retrieve what their `keys` find; outside of `key_options`."""

    @functools.wraps(command)
    def with_keys(*, unconfirmed: bool, keys: Keys, **others: Any) -> T:
        return command(keys=replace(keys, confirm=not unconfirmed), **others)

    option = click.option(
        "--unconfirmed",
        is_flag=True,
        help="Take also what the answers of PEER do not confirm to match: it may not know a key, and answer with all that it has.",
    )
    return option(with_keys)


_OPTIONS: Final = (
    click.option(
        "-L",
        "--level",
        type=click.Choice([level.lower() for level in Level], case_sensitive=False),
        default=Level.STUDY.lower(),
        show_default=True,
        help="What an answer is about.",
    ),
    click.option(
        "-k",
        "--key",
        "keys",
        multiple=True,
        metavar="KEY[=VALUE]",
        help="An attribute that must match, by keyword or as gggg,eeee; without a value it is only to be printed. "
        "May be repeated.",
    ),
    click.option("--patient", metavar="NAME", help="Patient's name, for example 'Smith*'."),
    click.option("--patient-id", metavar="ID", help="Patient ID."),
    click.option("--accession", metavar="NUMBER", help="Accession number."),
    click.option("--study-uid", metavar="UID", multiple=True, help="Study Instance UID; several: any of them."),
    click.option("--series-uid", metavar="UID", multiple=True, help="Series Instance UID; several: any of them."),
    click.option("--modality", metavar="CT", multiple=True, help="Modality; several, also as CT,MR: any of them."),
    click.option(
        "--date",
        metavar="DAY[-DAY]",
        help="Study date: 2026-01-31, 20260131 or today; a range has '-' or '..' between its ends, either may be left out.",
    ),
    click.option(
        "--model",
        type=click.Choice(list(MODELS)),
        help="Information model: Patient Root or Study Root. [default: Study Root; Patient Root for -L patient]",
    ),
)


def other_model(level: Level, model: Model) -> str:
    """What to say to who asks a peer that does not know the model."""
    others = [name for name, other in MODELS.items() if other is not model and level in other.levels]
    return f"; it may know another: --model {others[0]}" if others else ""


def _vr(name: str | int) -> str:
    import pydicom  # noqa: F401 - whole, before its parts
    from pydicom.datadict import dictionary_VR

    return dictionary_VR(name) if isinstance(name, str) else "LO"


def _modalities(texts: Iterable[str]) -> list[str]:
    """Each once. Codes (CS) have no small letters (PS3.5 6.2), and no modality has a comma in its name."""
    found: dict[str, None] = {}
    for text in texts:
        for each in text.split(","):
            if not each.strip():
                raise UsageError(f"{text!r} is no list of modalities: write CT, or CT,MR")
            found[each.strip().upper()] = None
    return list(found)


def _value(name: str | int, text: str) -> object:
    """What a person has typed as the value of a key: numbers are read, and a backslash separates values as it does in DICOM."""
    vr = _vr(name)
    if vr == "SQ":
        raise UsageError(f"{name} is a sequence: write -k {name}.Keyword={text}, with a keyword of its items")
    if vr in _ONE_VALUE or not text:
        return text
    kind = _NUMBERS.get(vr, str)
    try:
        values = [kind(each) for each in text.split("\\")]
    except ValueError:
        raise UsageError(f"{name}: {text!r} is not {'a whole' if kind is int else 'a'} number") from None
    return values[0] if len(values) == 1 else values


def days(text: str) -> str:
    """A day or a range of days as PS3.4 C.2.2.2.5 writes it. Raises `UsageError`."""
    match = _DAYS.fullmatch(text)
    if match is None or not (match[1] or match[3]):
        raise UsageError(
            f"{text!r} is no date: write 2026-01-31, 20260131 or today; for a range two of them with '-' or '..' between"
        )
    first, last = (None if each is None else _day(each) for each in (match[1], match[3]))
    if first is not None and last is not None and first > last:
        raise UsageError(f"{text!r} ends before it begins")
    separator = "-" if match[2] else ""
    return separator.join(f"{each:%Y%m%d}" if each is not None else "" for each in (first, last))


def _day(text: str) -> date:
    if text == "today":
        return date.today()  # noqa: DTZ011 - the day it is where the person sits
    try:
        return datetime.strptime(text.replace("-", ""), "%Y%m%d").date()  # noqa: DTZ007 - a day has no time zone
    except ValueError:
        raise UsageError(f"there is no day {text!r}") from None
