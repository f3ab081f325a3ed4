"""A table of DICOM attributes for people: on a terminal as wide as that, anywhere else as wide as it needs to be."""

from __future__ import annotations

import sys
from functools import cached_property
from typing import TYPE_CHECKING, Final

import click

from tomowire.cli.running import complain

if TYPE_CHECKING:
    from collections.abc import Sequence

# What people look at first, and what it is called here. The other columns come after these, in the order of their tags; then UIDs.
_TITLES: Final = {
    "PatientName": "Patient",
    "PatientID": "ID",
    "PatientBirthDate": "Born",
    "PatientSex": "Sex",
    "StudyDate": "Date",
    "StudyTime": "Time",
    "AccessionNumber": "Accession",
    "ModalitiesInStudy": "Modality",
    "Modality": "Modality",
    "StudyDescription": "Study",
    "SeriesNumber": "Series",
    "InstanceNumber": "Number",
    "SeriesDescription": "Description",
    "NumberOfPatientRelatedStudies": "Studies",
    "NumberOfStudyRelatedSeries": "Series",
    "NumberOfStudyRelatedInstances": "Objects",
    "NumberOfSeriesRelatedInstances": "Objects",
    "ReferringPhysicianName": "Referred by",
}
_UID_TITLES: Final = {
    "StudyInstanceUID": "Study UID",
    "SeriesInstanceUID": "Series UID",
    "SOPClassUID": "SOP class UID",
    "SOPInstanceUID": "SOP instance UID",
}
# Where there is not room for all, these go first, in this order. So do the UIDs above the last one: mostly the same in all rows.
_FIRST_TO_GO: Final = (
    "StudyID",
    "ReferringPhysicianName",
    "PatientSex",
    "SeriesTime",
    "SeriesDate",
    "SOPClassUID",
    "PatientBirthDate",
    "NumberOfStudyRelatedSeries",
    "StudyTime",
    "AccessionNumber",
    "BodyPartExamined",
    "NumberOfStudyRelatedInstances",
)
# A column of longer text, or of UIDs, is not made narrower than this.
_NARROW_TEXT: Final = 12
_NARROW_UID: Final = 20
_GAP: Final = 2


class Table:
    """Rows with a value for each attribute; `print` leaves out the attributes that none of them has."""

    def __init__(self, tags: Sequence[int]) -> None:
        self._places = sorted(range(len(tags)), key=lambda place: _rank(tags[place]))
        self._columns = [_Column(tags[place]) for place in self._places]

    def add(self, row: Sequence[str]) -> None:
        """The values of one row, in the order of the tags."""
        for column, place in zip(self._columns, self._places, strict=True):
            column.texts.append(row[place])

    def print(self) -> None:
        """Print the table on stdout; nothing at all, without a row."""
        columns = [column for column in self._columns if any(column.texts)]
        if columns and sys.stdout.isatty():
            _print_fitted(columns)
        elif columns:
            _print_plain(columns)


class _Column:
    def __init__(self, tag: int) -> None:
        import pydicom  # noqa: F401 - whole, before its parts
        from pydicom.datadict import dictionary_description, dictionary_has_tag, dictionary_VR

        is_known = dictionary_has_tag(tag)
        self.keyword = keyword_of(tag)
        self.title = _title(self.keyword, dictionary_description(tag) if is_known else self.keyword)
        self.is_numeric = is_known and dictionary_VR(tag) in ("DS", "FD", "FL", "IS", "SL", "SS", "UL", "US")
        self.texts: list[str] = []

    @property
    def narrowest(self) -> int:
        """How narrow it may get: words of the title are not broken."""
        narrow = _NARROW_UID if self.keyword in _UID_TITLES else _NARROW_TEXT
        return max(*map(len, self.title.split()), min(self.widest, narrow))

    @cached_property
    def widest(self) -> int:
        from rich.cells import cell_len

        return max(map(cell_len, [self.title, *self.texts]))


def _print_fitted(columns: list[_Column]) -> None:
    """As wide as the terminal, at most: what is longer than its column goes on in the next line, and columns without room go."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table as RichTable
    from rich.text import Text

    console = Console(highlight=False, emoji=False, markup=False)
    left_out = _leave_out(columns, console.width)
    table = RichTable(box=SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, _GAP - 1, 0, 0))
    for column, width in zip(columns, _widths(columns, console.width), strict=True):
        table.add_column(column.title, justify="right" if column.is_numeric else "left", overflow="fold", width=width)
    for row in zip(*(column.texts for column in columns), strict=True):
        table.add_row(*map(Text, row))
    console.print(table)
    if left_out:
        names = ", ".join(column.keyword for column in left_out)
        complain(f"no room for {names}: a wider terminal shows them, and so does --format csv")


def _leave_out(columns: list[_Column], width: int) -> list[_Column]:
    """Take out of `columns` what is not to be shown on a terminal of this width; gives those."""
    uids = [column.keyword for column in columns if column.keyword in _UID_TITLES]
    first = [*_FIRST_TO_GO[:4], *uids[:-1], *_FIRST_TO_GO[4:]]
    order = sorted(
        columns[1:], key=lambda column: first.index(column.keyword) if column.keyword in first else len(first)
    )
    left_out: list[_Column] = []
    while order and sum(column.narrowest + _GAP for column in columns) - _GAP > width:
        left_out.append(order.pop(0))
        columns.remove(left_out[-1])
    return left_out


def _widths(columns: Sequence[_Column], width: int) -> list[int]:
    """What each column gets of a line: what is left when all have what they need goes to the narrowest that could use more."""
    widths = [column.narrowest for column in columns]
    for _ in range(width - sum(widths) - _GAP * (len(widths) - 1)):
        wanting = [place for place, column in enumerate(columns) if widths[place] < column.widest]
        if not wanting:
            break
        widths[min(wanting, key=widths.__getitem__)] += 1
    return widths


def _print_plain(columns: Sequence[_Column]) -> None:
    """Columns as wide as they need to be, one line for each row."""
    from rich.cells import cell_len

    parts = []
    for column in columns:
        cells = [column.title, *column.texts]
        fills = [" " * (column.widest - cell_len(cell)) for cell in cells]
        parts.append(
            [fill + cell if column.is_numeric else cell + fill for cell, fill in zip(cells, fills, strict=True)]
        )
    for line in zip(*parts, strict=True):
        click.echo((" " * _GAP).join(line).rstrip())


def _rank(tag: int) -> tuple[int, int]:
    keyword = keyword_of(tag)
    for group, titles in ((0, _TITLES), (2, _UID_TITLES)):
        if keyword in titles:
            return group, list(titles).index(keyword)
    return 1, tag


def _title(keyword: str, description: str) -> str:
    return _TITLES.get(keyword) or _UID_TITLES.get(keyword) or description


def keyword_of(tag: int) -> str:
    """The keyword of PS3.6; where there is none, the tag as eight digits."""
    import pydicom  # noqa: F401 - whole, before its parts
    from pydicom.datadict import keyword_for_tag

    return keyword_for_tag(tag) or f"{tag:08X}"
