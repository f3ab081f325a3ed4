"""Every rule of attribute matching, PS3.4 C.2.2.2, against an index in each of the databases that it may be in.

Each row of a table has what is stored, one value for each object, a key, and those of the values that it has to match.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import permutations
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from support.queries import ROOT, SERIES_UID, STUDY_UID, Attributes, queried_index
from tomowire.server.index.backend import IndexBackend

PATIENT_NAME = 0x00100010
PATIENT_COMMENTS = 0x00104000
READING_PHYSICIANS = 0x00081060
ACCESSION_NUMBER = 0x00080050
STUDY_DESCRIPTION = 0x00081030
STUDY_DATE = 0x00080020
STUDY_TIME = 0x00080030
PATIENT_AGE = 0x00101010
PATIENT_WEIGHT = 0x00101030
OTHER_STUDY_NUMBERS = 0x00201070
PROCEDURE_CODES = 0x00081032
OTHER_PATIENT_IDS = 0x00101000
ACQUISITION_DATE_TIME = 0x0008002A
IMAGE_TYPE = 0x00080008
TIMEZONE = 0x00080201
ROWS = 0x00280010

VRS = {
    PATIENT_NAME: "PN",
    PATIENT_COMMENTS: "LT",
    READING_PHYSICIANS: "PN",
    ACCESSION_NUMBER: "SH",
    STUDY_DESCRIPTION: "LO",
    STUDY_DATE: "DA",
    STUDY_TIME: "TM",
    PATIENT_AGE: "AS",
    PATIENT_WEIGHT: "DS",
    OTHER_STUDY_NUMBERS: "IS",
    OTHER_PATIENT_IDS: "LO",
    ACQUISITION_DATE_TIME: "DT",
    IMAGE_TYPE: "CS",
    ROWS: "US",
}
IN_IMAGES = {ACQUISITION_DATE_TIME, IMAGE_TYPE, ROWS}
UTF_8: Attributes = {0x00080005: ("CS", "ISO_IR 192")}


@pytest.fixture
def postgres_url(emptied_postgres_url: str) -> str:
    """These tests leave nothing but objects in a database."""
    return emptied_postgres_url


def matched(backend: IndexBackend, tag: int, stored: Sequence[Any], key: Any) -> list[Any]:
    """Those of the stored values that the key matches."""
    vr = VRS[tag]
    objects: list[Attributes] = [{tag: (vr, each), STUDY_UID: ("UI", f"{ROOT}.1.1")} for each in stored]
    if tag in IN_IMAGES:
        one_series: Attributes = {SERIES_UID: ("UI", f"{ROOT}.2.1")}
        path: Attributes = {STUDY_UID: ("UI", f"{ROOT}.1.1"), **one_series}
        with queried_index(backend, [{**each, **one_series} for each in objects]) as index:
            numbers = index.numbers("IMAGE", {**UTF_8, **path, tag: (vr, key)})
    else:
        with queried_index(backend, [{tag: (vr, each)} for each in stored]) as index:
            numbers = index.numbers("STUDY", {**UTF_8, tag: (vr, key)})
    return [stored[number - 1] for number in numbers]


def check(backend: IndexBackend, tag: int, stored: str, key: str, expected: str) -> None:
    """The values are separated by bars; one that is empty is an absent value."""
    values = stored.split("|")
    assert matched(backend, tag, values, key) == (
        [each for each in values if each in expected.split("|")] if expected != "-" else []
    )


# C.2.2.2.1: single value matching


@pytest.mark.parametrize(
    ("tag", "stored", "key", "expected"),
    [
        # "only entities with values that match exactly the value specified in the request shall match"
        pytest.param(STUDY_DESCRIPTION, "CHEST|CHESTS|A CHEST|", "CHEST", "CHEST", id="exactly"),
        # "This matching is case-sensitive", and "whether it is accented" is a difference
        pytest.param(STUDY_DESCRIPTION, "Chest|CHEST|chest", "Chest", "Chest", id="case"),
        pytest.param(STUDY_DESCRIPTION, "Schädel|Schadel|SCHÄDEL", "Schädel", "Schädel", id="accent"),
        pytest.param(ACCESSION_NUMBER, "a1|A1", "A1", "A1", id="case, by an index"),
        # PS3.5 6.2: spaces around a value are padding, but for those before a long text
        pytest.param(STUDY_DESCRIPTION, "CHEST", "  CHEST  ", "CHEST", id="padding"),
        pytest.param(PATIENT_COMMENTS, "  no|no", "  no ", "  no", id="leading spaces of a long text"),
        # PS3.5 6.2: a backslash is text in LT
        pytest.param(PATIENT_COMMENTS, "a\\b|a|b", "a\\b", "a\\b", id="backslash in a long text"),
        # characters that mean something to SQL, to LIKE, to GLOB or to a regular expression are text
        pytest.param(STUDY_DESCRIPTION, "a%b|axb|a%", "a%b", "a%b", id="percent"),
        pytest.param(STUDY_DESCRIPTION, "a_b|axb", "a_b", "a_b", id="underscore"),
        pytest.param(STUDY_DESCRIPTION, "a.b|axb", "a.b", "a.b", id="dot"),
        pytest.param(STUDY_DESCRIPTION, "' OR 1=1 --|x", "' OR 1=1 --", "' OR 1=1 --", id="quote"),
        pytest.param(STUDY_DESCRIPTION, ":instr_1|:c|x", ":instr_1", ":instr_1", id="colon"),
        pytest.param(STUDY_DESCRIPTION, "[.$^{(x)+`|x", "[.$^{(x)+`", "[.$^{(x)+`", id="brackets"),
        pytest.param(STUDY_DESCRIPTION, 'a"b|a', 'a"b', 'a"b', id="double quote"),
        # "of any other VR"
        pytest.param(PATIENT_AGE, "045Y|045M", "045Y", "045Y", id="age"),
        pytest.param(OTHER_STUDY_NUMBERS, "5|50|-5|", "5", "5", id="integer string"),
        pytest.param(OTHER_STUDY_NUMBERS, "5|50", " +05 ", "5", id="integer string by its meaning"),
        pytest.param(PATIENT_WEIGHT, "72.5|72|7.25|", "7.25e1", "72.5", id="decimal string by its meaning"),
        pytest.param(PATIENT_WEIGHT, "0|", "0", "0", id="zero is not absent"),
        pytest.param(PATIENT_WEIGHT, "72.5", "heavy", "-", id="no number"),
    ],
)
def test_single_value(backend: IndexBackend, tag: int, stored: str, key: str, expected: str) -> None:
    check(backend, tag, stored, key, expected)


def test_single_value_of_binary_integers(backend: IndexBackend) -> None:
    rows = [number.to_bytes(2, "little") for number in (512, 256, 2)]
    assert matched(backend, ROWS, rows, (512).to_bytes(2, "little")) == [rows[0]]


@pytest.mark.parametrize(
    ("stored", "key", "expected"),
    [
        # C.2.2.2.1.1: without regard to case and accents
        pytest.param(
            "Müller^Jörg|MULLER^JORG|Mueller^Jorg", "muller^JÖRG", "Müller^Jörg|MULLER^JORG", id="case and accents"
        ),
        pytest.param("Doe^Jane|Doe^Jane^A|Doe", "Doe^Jane", "Doe^Jane", id="all components"),
        # PS3.5 6.2.1.1: delimiters at the end may be left out, and so may padding
        pytest.param("Doe^Jane|Doe^Jane^^^", "Doe^Jane^^^^ ", "Doe^Jane|Doe^Jane^^^", id="delimiters at the end"),
        pytest.param("Doe^Jane^^^=|Doe^Jane", "Doe^Jane==", "Doe^Jane^^^=|Doe^Jane", id="groups at the end"),
        pytest.param("Doe^Jane|", "^", "Doe^Jane|", id="nothing but delimiters"),
        # PS3.5 6.2.1.1: three component groups; note of C.2.2.2.1.1: a name in one of them, or more than one
        pytest.param(
            "Yamada^Tarou=山田^太郎=やまだ^たろう|Yamada^Jirou",
            "Yamada^Tarou",
            "Yamada^Tarou=山田^太郎=やまだ^たろう",
            id="1st group",
        ),
        pytest.param(
            "Yamada^Tarou=山田^太郎=やまだ^たろう|山田^太郎|x",
            "山田^太郎",
            "Yamada^Tarou=山田^太郎=やまだ^たろう|山田^太郎",
            id="2nd group",
        ),
        pytest.param(
            "Yamada^Tarou=山田^太郎=やまだ^たろう|x",
            "やまだ^たろう",
            "Yamada^Tarou=山田^太郎=やまだ^たろう",
            id="3rd group",
        ),
        pytest.param("A=山田|B=山田|A=田中|A", "A=山田", "A=山田", id="two groups"),
        pytest.param("A=山田|B=山田|A=田中|A", "=山田", "A=山田|B=山田", id="the second group alone"),
        pytest.param("=Yamada|Yamada|x=Yamada", "Yamada", "=Yamada|Yamada", id="ASCII, and no first group"),
        pytest.param("Yamada=x|Yamadas=x|Yamad=a", "Yamada", "Yamada=x", id="the whole group"),
        # C.2.2.2.4: "this matching is case sensitive, except for Attributes with a PN Value Representation"
        pytest.param("Smith^John|SMITHSON|Asmith|", "smith*", "Smith^John|SMITHSON", id="begins with"),
        pytest.param("Smith^John|Goldsmith|Smythe", "*MITH*", "Smith^John|Goldsmith", id="contains"),
        pytest.param("Smith^John|Smith^Joan|Smith^Jon", "Smith^Jo?n", "Smith^John|Smith^Joan", id="one character"),
        pytest.param(
            "Smith^John|Smithson^John|Smith|Smith^",
            "Smith^*",
            "Smith^John|Smith|Smith^",
            id="a component may be absent",
        ),
        pytest.param(
            "Smith^John^Q|Smith^^Q|Smith^John", "Smith^*^Q", "Smith^John^Q|Smith^^Q", id="one in the middle, too"
        ),
        pytest.param("Smith^John|^John|John|x", "*^John", "Smith^John|^John|John", id="and the first"),
        pytest.param("A=山田^太郎|B=田中^太郎|C", "*太郎", "A=山田^太郎|B=田中^太郎", id="within a group"),
        pytest.param("A=山田^太郎|B=田中^太郎|C", "*=山*", "A=山田^太郎", id="a group that is left open"),
        pytest.param("Anna=x^Bea|Anna^Bea", "Anna*Bea", "Anna^Bea", id="not from one group into the next"),
        pytest.param("A|", "*", "A|", id="any"),
        pytest.param("A=B|", "*=*", "A=B|", id="any in each group"),
        pytest.param("A^B|", "*^*", "A^B|", id="any in each component"),
        pytest.param("O'Neil^[x|O'Neil^x|Oneil", "o'neil^[*", "O'Neil^[x", id="brackets and quotes"),
    ],
)
@pytest.mark.parametrize(
    "tag", [PATIENT_NAME, READING_PHYSICIANS], ids=["normalized when stored", "normalized when asked"]
)
def test_person_name(backend: IndexBackend, tag: int, stored: str, key: str, expected: str) -> None:
    check(backend, tag, stored, key, expected)


# C.2.2.2.1.3 and C.2.2.2.5: dates and times


@pytest.mark.parametrize(
    ("tag", "stored", "key", "expected"),
    [
        pytest.param(STUDY_DATE, "20240228|20240229|20240301|", "20240229", "20240229", id="DA"),
        pytest.param(STUDY_DATE, "2024.02.29|20240301", "20240229", "2024.02.29", id="DA of ACR-NEMA, stored"),
        pytest.param(STUDY_DATE, "20240229|20240301", "2024.02.29", "20240229", id="DA of ACR-NEMA, asked"),
        # C.2.2.2.5.1 a to c: "between <date1> and <date2> inclusive", "prior to and including", "and subsequent"
        pytest.param(
            STUDY_DATE,
            "20231231|20240101|20240115|20240131|20240201|",
            "20240101-20240131",
            "20240101|20240115|20240131",
            id="DA a",
        ),
        pytest.param(STUDY_DATE, "20231231|20240101|20240102|", "-20240101", "20231231|20240101", id="DA b"),
        pytest.param(STUDY_DATE, "20231231|20240101|20240102|unknown|", "20240101-", "20240101|20240102", id="DA c"),
        pytest.param(STUDY_DATE, "20240101|20240102", "20240101 - 20240101", "20240101", id="DA with spaces"),
        pytest.param(STUDY_DATE, "20240101|20240102", "20240102-20240101", "-", id="DA the wrong way round"),
        pytest.param(STUDY_DATE, "20240101|", "-", "-", id="DA without an end"),
        # C.2.2.2.4: no wild cards in dates and times
        pytest.param(STUDY_DATE, "20240101|", "*", "-", id="DA with a wild card"),
        pytest.param(STUDY_DATE, "20240101|20240102", "2024010?", "-", id="DA with another"),
        pytest.param(STUDY_TIME, "101500|", "10*", "-", id="TM with a wild card"),
        # C.2.2.2.1.3 note 1: "matched by their meaning [...] the TM 2230 matches 223000"
        pytest.param(
            STUDY_TIME, "2230|223000|223000.0000|2231|22", "2230", "2230|223000|223000.0000", id="TM by its meaning"
        ),
        pytest.param(
            STUDY_TIME, "2230|223000|223000.00|223001", "223000.0000", "2230|223000|223000.00", id="TM to a fraction"
        ),
        pytest.param(STUDY_TIME, "22:30:00|223100", "2230", "22:30:00", id="TM of ACR-NEMA, stored"),
        pytest.param(STUDY_TIME, "223000|223100", "22:30:00", "223000", id="TM of ACR-NEMA, asked"),
        # PS3.5 6.2: what a TM leaves out makes it less precise: "12" is the hour
        pytest.param(
            STUDY_TIME,
            "115959|12|1200|123456|125959.999999|130000|",
            "12",
            "12|1200|123456|125959.999999",
            id="TM precision",
        ),
        # C.2.2.2.5.2 a to c
        pytest.param(STUDY_TIME, "095959|100000|10|1130|125959.5|13|", "10-12", "100000|10|1130|125959.5", id="TM a"),
        pytest.param(
            STUDY_TIME,
            "095959|100000|10|101500|1015|101501|",
            "100000-101500",
            "100000|10|101500|1015",
            id="TM a, exactly",
        ),
        pytest.param(STUDY_TIME, "000000|101500|101500.5|101501|", "-101500", "000000|101500|101500.5", id="TM b"),
        pytest.param(STUDY_TIME, "000000|101459|101500|1015|235960|", "101500-", "101500|1015|235960", id="TM c"),
        pytest.param(STUDY_TIME, "1015|", "noon", "-", id="TM that is none"),
        # C.2.2.2.1.3 note 1: "the DT 19980128103000.0000 matches 19980128103000"
        pytest.param(
            ACQUISITION_DATE_TIME,
            "19980128103000|19980128103001|",
            "19980128103000.0000",
            "19980128103000",
            id="DT by its meaning",
        ),
        pytest.param(
            ACQUISITION_DATE_TIME,
            "19980128103000|1998012810|19980129",
            "19980128",
            "19980128103000|1998012810",
            id="DT precision",
        ),
        pytest.param(ACQUISITION_DATE_TIME, "19980128103000|", "199801281*", "-", id="DT with a wild card"),
        # C.2.2.2.5.3 a to d
        pytest.param(
            ACQUISITION_DATE_TIME,
            "19971231235959|19980101|19980228120000|199803|",
            "199801-199802",
            "19980101|19980228120000",
            id="DT a",
        ),
        pytest.param(
            ACQUISITION_DATE_TIME,
            "19971231|19980101235959|19980102|",
            "-19980101",
            "19971231|19980101235959",
            id="DT b",
        ),
        pytest.param(ACQUISITION_DATE_TIME, "19971231|19980101|1999|", "19980101-", "19980101|1999", id="DT c"),
        pytest.param(
            ACQUISITION_DATE_TIME,
            "19980128103000+0100|19980128073000-0200|19980128103000+0000",
            "19980128093000+0000",
            "19980128103000+0100|19980128073000-0200",
            id="DT d",
        ),
        pytest.param(
            ACQUISITION_DATE_TIME,
            "19980128103000-0500|19980128103000",
            "19980128153000+0000-",
            "19980128103000-0500",
            id="DT d, range",
        ),
        pytest.param(
            ACQUISITION_DATE_TIME, "1997|1998|1999|2000", "1998-1999", "1998|1999", id="DT years are no offset"
        ),
    ],
)
def test_dates_and_times(backend: IndexBackend, tag: int, stored: str, key: str, expected: str) -> None:
    check(backend, tag, stored, key, expected)


def test_dates_and_times_are_independent_of_each_other(backend: IndexBackend) -> None:
    # C.2.2.2.5.4, note: without extended negotiation "three time periods of 10am until 6pm on each of July 5, July 6 and July 7"
    times = [("20060705", "093000"), ("20060705", "120000"), ("20060706", "020000"), ("20060706", "170000")]
    objects: list[Attributes] = [{STUDY_DATE: ("DA", date), STUDY_TIME: ("TM", time)} for date, time in times]
    with queried_index(backend, objects) as index:
        keys: Attributes = {STUDY_DATE: ("DA", "20060705-20060707"), STUDY_TIME: ("TM", "1000-1800")}
        assert index.numbers("STUDY", keys) == [2, 4]


def test_a_date_time_without_an_offset_has_that_of_its_object(backend: IndexBackend) -> None:
    # PS3.3 C.12.1.1.8: Timezone Offset From UTC is that of all DT of the object that have none
    same: Attributes = {
        STUDY_UID: ("UI", "1.2.3"),
        SERIES_UID: ("UI", "1.2.3.4"),
        ACQUISITION_DATE_TIME: ("DT", "202401011200"),
    }
    zones = ["+0100", "+0200"]
    with queried_index(backend, [{**same, TIMEZONE: ("SH", zone)} for zone in zones]) as index:
        assert index.numbers("IMAGE", {**same, ACQUISITION_DATE_TIME: ("DT", "202401011100+0000")}) == [1]


# C.2.2.2.2: list of UID matching


def test_a_list_of_uids_of_any_length(backend: IndexBackend) -> None:
    with queried_index(backend, [{}] * 4) as index:
        wanted = [f"{ROOT}.1.{number}" for number in (2, 4, *range(100, 1500))]
        assert index.numbers("STUDY", {STUDY_UID: ("UI", "\\".join(wanted))}) == [2, 4]


@pytest.mark.parametrize("key", [f"{ROOT}.1.*", f"{ROOT}.1.?", "*", f"{ROOT}.1", f"{ROOT}.1.11"])
def test_no_wild_cards_in_uids(backend: IndexBackend, key: str) -> None:
    with queried_index(backend, [{}]) as index:
        assert index.find("STUDY", {STUDY_UID: ("UI", key)}) == []


# C.2.2.2.3: universal matching


@pytest.mark.parametrize("tag", VRS)
def test_an_empty_key_matches_what_is_absent_too(backend: IndexBackend, tag: int) -> None:
    stored = {PATIENT_WEIGHT: "1", OTHER_STUDY_NUMBERS: "1", ROWS: b"\1\0", STUDY_DATE: "20240101"}.get(tag, "A")
    empty: Any = b"" if tag == ROWS else ""
    assert matched(backend, tag, [stored, empty], empty) == [stored, empty]


@pytest.mark.parametrize("key", [" ", "\\", "*", "**", "*\\X"])
def test_keys_that_come_to_the_same(backend: IndexBackend, key: str) -> None:
    # C.2.2.2.4 note 1: "Wild card matching on a value of * is equivalent to Universal Matching"
    assert matched(backend, STUDY_DESCRIPTION, ["A", ""], key) == ["A", ""]


# C.2.2.2.4: wild card matching


@pytest.mark.parametrize(
    ("tag", "stored", "key", "expected"),
    [
        # "* shall match any sequence of characters (including a zero length value) and ? shall match any single character"
        pytest.param(STUDY_DESCRIPTION, "CT|CT CHEST|ACT|ct|", "CT*", "CT|CT CHEST", id="at the end"),
        pytest.param(STUDY_DESCRIPTION, "CT|ACT|CTA", "*CT", "CT|ACT", id="at the start"),
        pytest.param(STUDY_DESCRIPTION, "CT|ACTA|TC|", "*CT*", "CT|ACTA", id="around"),
        pytest.param(STUDY_DESCRIPTION, "AB|AxxB|ABx", "A*B", "AB|AxxB", id="within"),
        pytest.param(STUDY_DESCRIPTION, "CT1|CT|CT12", "CT?", "CT1", id="one"),
        pytest.param(STUDY_DESCRIPTION, "é|ab|a|", "?", "é|a", id="a character, not a byte"),
        pytest.param(STUDY_DESCRIPTION, "山田太郎|山田", "山?*郎", "山田太郎", id="of any script"),
        pytest.param(ACCESSION_NUMBER, "A1|a1|A2|B1", "A*", "A1|A2", id="case, by an index"),
        pytest.param(PATIENT_COMMENTS, "see a\\b|see a", "*\\b", "see a\\b", id="long text"),
        # what means something to LIKE or to GLOB is text
        pytest.param(STUDY_DESCRIPTION, "100%|100|100x", "100%*", "100%", id="percent"),
        pytest.param(STUDY_DESCRIPTION, "a_b|axb", "a_*", "a_b", id="underscore"),
        pytest.param(STUDY_DESCRIPTION, "[ab]|a|b|[ab]c", "[ab]*", "[ab]|[ab]c", id="brackets"),
        pytest.param(STUDY_DESCRIPTION, "a]b|a[^x]b|axb", "?[^x]?", "a[^x]b", id="negated brackets"),
        # not of VR DS, IS, AS
        pytest.param(OTHER_STUDY_NUMBERS, "5|50|", "5*", "-", id="integer string"),
        pytest.param(PATIENT_WEIGHT, "5|", "*", "-", id="decimal string"),
        pytest.param(PATIENT_AGE, "045Y|", "045?", "-", id="age string"),
    ],
)
def test_wild_cards(backend: IndexBackend, tag: int, stored: str, key: str, expected: str) -> None:
    check(backend, tag, stored, key, expected)


PIECES = ["A", "a", "[", "]", "^", "-", "%", "_", "'", '"', "é", "\\"]
STORED = ["".join(pair) for pair in permutations(PIECES, 2) if "\\" not in (pair[0], pair[1])] + ["A\\a", "[\\Aa]", "é"]


def reference(key: str) -> re.Pattern[str]:
    return re.compile("".join({"*": ".*", "?": "."}.get(each, re.escape(each)) for each in key), re.DOTALL)


def test_wild_cards_mean_what_they_mean(backend: IndexBackend) -> None:
    with queried_index(backend, [{STUDY_DESCRIPTION: ("LO", each)} for each in STORED]) as index:

        @settings(max_examples=60, deadline=None)
        @given(st.text(alphabet="Aa[]^-%_'\"é*?", min_size=1, max_size=4))
        def check(key: str) -> None:
            found = index.numbers("STUDY", {**UTF_8, STUDY_DESCRIPTION: ("LO", key)})
            matches = reference(key).fullmatch
            assert [STORED[n - 1] for n in found] == [each for each in STORED if any(map(matches, each.split("\\")))]

        check()


# C.2.2.2.6: sequence matching


def code(value: str, scheme: str, meaning: str = "") -> Attributes:
    return {0x00080100: ("SH", value), 0x00080102: ("SH", scheme), 0x00080104: ("LO", meaning)}


CODED = [
    [code("P5-1", "SRT"), code("113076", "DCM", "Segmentation")],
    [code("P5-1", "DCM")],
    [],
    [code("p5-1", "SRT", "山田")],
]


@pytest.mark.parametrize(
    ("items", "expected"),
    [
        # "If all the Item Key Attributes match, for at least one of the Items"
        pytest.param([code("P5-1", "SRT")], [1], id="all keys in one item"),
        pytest.param([code("113076", "SRT")], [], id="not one key in each of two items"),
        pytest.param([code("P5-*", "")], [1, 2], id="wild card"),
        pytest.param([code("", "", "*田")], [4], id="another character set"),
        # "zero-length Item Tag": all entities match
        pytest.param([{}], [1, 2, 3, 4], id="empty item"),
        pytest.param([], [1, 2, 3, 4], id="no item"),
        pytest.param([code("", "")], [1, 2, 3, 4], id="empty keys"),
    ],
)
def test_sequences(backend: IndexBackend, items: list[Attributes], expected: list[int]) -> None:
    with queried_index(backend, [{PROCEDURE_CODES: ("SQ", each)} for each in CODED]) as index:
        assert index.numbers("STUDY", {**UTF_8, PROCEDURE_CODES: ("SQ", items)}) == expected


def test_a_list_of_uids_in_a_sequence(backend: IndexBackend) -> None:
    objects: list[Attributes] = [{0x00081110: ("SQ", [{0x00081155: ("UI", uid)}])} for uid in ("1.2", "1.3", "1.4")]
    with queried_index(backend, objects) as index:
        assert index.numbers("STUDY", {0x00081110: ("SQ", [{0x00081155: ("UI", "1.4\\1.2")}])}) == [1, 3]


# C.2.2.3: matching multiple values


@pytest.mark.parametrize(
    ("tag", "stored", "key", "expected"),
    [
        # "if any of the values match, then all values shall be returned"
        pytest.param(OTHER_PATIENT_IDS, "A\\B|B\\C|C|", "B", "A\\B|B\\C", id="any"),
        pytest.param(OTHER_PATIENT_IDS, "A\\B|AB|B", "A*", "A\\B|AB", id="wild card"),
        pytest.param(OTHER_PATIENT_IDS, "A\\B|AxB", "A*B", "AxB", id="not from one value into the next"),
        pytest.param(OTHER_PATIENT_IDS, 'A"\\B|B', 'A"', 'A"\\B', id="quote"),
        pytest.param(
            IMAGE_TYPE, "ORIGINAL\\PRIMARY|DERIVED\\PRIMARY", "ORIGINAL", "ORIGINAL\\PRIMARY", id="of an image"
        ),
        pytest.param(READING_PHYSICIANS, "Doe^A\\Müller^B|Roe", "muller*", "Doe^A\\Müller^B", id="person name"),
        # several values of a key are not defined without extended negotiation: here they are alternatives
        pytest.param(STUDY_DESCRIPTION, "A|B|C", "A\\C", "A|C", id="alternatives"),
        pytest.param(
            STUDY_DATE, "20240101|20240201|20240301", "20240101\\20240301-", "20240101|20240301", id="of dates"
        ),
        pytest.param(PATIENT_NAME, "Doe^A|Roe^B|Poe", "doe*\\ROE*", "Doe^A|Roe^B", id="of names"),
    ],
)
def test_several_values(backend: IndexBackend, tag: int, stored: str, key: str, expected: str) -> None:
    check(backend, tag, stored, key, expected)


# C.2.2.2: what is never matched


def test_the_character_set_of_a_query_is_not_matched(backend: IndexBackend) -> None:
    # "present in the Identifier but is never matched": stored is UTF-8, asked is Latin-1
    with queried_index(backend, [{PATIENT_NAME: ("PN", "Müller^Jörg")}, {}]) as index:
        latin: Attributes = {0x00080005: ("CS", "ISO_IR 100"), PATIENT_NAME: ("PN", "Müller^J*".encode("latin-1"))}
        assert index.numbers("STUDY", latin) == [1]


def test_the_time_zone_of_a_query_is_not_matched(backend: IndexBackend) -> None:
    path: Attributes = {STUDY_UID: ("UI", "1.2.3"), SERIES_UID: ("UI", "1.2.3.4")}
    with queried_index(backend, [{**path, TIMEZONE: ("SH", "+0100")}]) as index:
        assert index.numbers("IMAGE", {**path, TIMEZONE: ("SH", "+0900")}) == [1]
