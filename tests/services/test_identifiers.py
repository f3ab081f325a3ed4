"""Identifiers to bytes and back. pydicom's own reader and writer of files are the oracle."""

from __future__ import annotations

import zlib
from io import BytesIO
from struct import pack
from time import process_time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom import DataElement, Dataset, Sequence, dcmread
from pydicom.valuerep import PersonName

from tomowire.errors import DataSetError
from tomowire.services.identifiers import TRANSFER_SYNTAXES, decode, encode
from tomowire.wire.part10 import FileMeta, encode_file_meta

IMPLICIT, EXPLICIT = "1.2.840.10008.1.2", "1.2.840.10008.1.2.1"
BIG_ENDIAN, DEFLATED = "1.2.840.10008.1.2.2", "1.2.840.10008.1.2.1.99"
ALL = sorted(TRANSFER_SYNTAXES)


def as_file(encoded: bytes, transfer_syntax_uid: str) -> Dataset:
    """What pydicom reads when these bytes are the data set of a DICOM file."""
    meta = FileMeta("1.2.3", "1.2.4", transfer_syntax_uid)
    return dcmread(BytesIO(encode_file_meta(meta) + encoded))


def a_query(**values: Any) -> Dataset:
    made = Dataset()
    made.QueryRetrieveLevel = "STUDY"
    made.StudyInstanceUID = ["1.2.3", "1.2.34"]
    made.StudyDate = "20260101-20260131"
    made.NumberOfStudyRelatedInstances = None
    item = Dataset()
    item.ScheduledProcedureStepID = "S1"
    made.RequestAttributesSequence = [item]
    for keyword, value in values.items():
        setattr(made, keyword, value)
    return made


@pytest.mark.parametrize("transfer_syntax", ALL)
def test_there_and_back(transfer_syntax: str) -> None:
    query = a_query(PatientName="Müller^Jörg", PatientID="")
    encoded = encode(query, transfer_syntax)
    assert len(encoded) % 2 == 0
    for got in (decode(encoded, transfer_syntax), as_file(encoded, transfer_syntax)):
        assert got.SpecificCharacterSet == "ISO_IR 192"
        del got.SpecificCharacterSet
        assert {element.tag: element.value for element in got} == {element.tag: element.value for element in query}


@pytest.mark.parametrize(
    ("named", "name", "declared"),
    [
        # PS3.5 6.1.2.2: without Specific Character Set it is the default repertoire, which ASCII text fits
        (None, "Smith^John", None),
        ("ISO_IR 100", "Smith^John", None),
        (None, "Müller", "ISO_IR 192"),
        ("ISO_IR 100", "Müller", "ISO_IR 100"),
        ("ISO_IR 192", "Müller", "ISO_IR 192"),
        ("ISO_IR 6", "Müller", "ISO_IR 192"),
        ("", "Müller", "ISO_IR 192"),
        ("ISO_IR 100", "Łukasz", "ISO_IR 192"),
        ("ISO_IR 101", "Łukasz", "ISO_IR 101"),
        ("ISO_IR 144", "Люкceмбypг", "ISO_IR 144"),
        ("ISO_IR 144", "山田", "ISO_IR 192"),
        ("GB18030", "王^小东", "GB18030"),
        # PS3.5 H.3.1 and I.2; several names mean code extensions
        (["", "ISO 2022 IR 87"], "Yamada^Tarou=山田^太郎=やまだ^たろう", ["", "ISO 2022 IR 87"]),
        (["", "ISO 2022 IR 149"], "Hong^Gildong=洪^吉洞=홍^길동", ["", "ISO 2022 IR 149"]),
        (["", "ISO 2022 IR 87"], "Müller", "ISO_IR 192"),
        ("ISO_IR 13", "ﾔﾏﾀﾞ^ﾀﾛｳ", "ISO_IR 13"),
        ("ISO_IR 13", "山田^太郎", "ISO_IR 192"),  # it has Katakana, no Kanji
        ("NO SUCH SET", "Müller", "ISO_IR 192"),
        ("utf8", "Müller", "ISO_IR 192"),  # Python's name, not DICOM's
    ],
)
def test_the_character_set_declared_can_carry_the_text(
    named: str | list[str] | None, name: str, declared: str | list[str] | None
) -> None:
    query = a_query(PatientName=name)
    if named is not None:
        query.SpecificCharacterSet = named
    encoded = encode(query, EXPLICIT)
    for got in (decode(encoded, EXPLICIT), as_file(encoded, EXPLICIT)):
        assert got.get("SpecificCharacterSet") == declared
        assert str(got.PatientName) == name
    assert query.get("SpecificCharacterSet") == named


@given(
    text=st.text(st.characters(codec="utf-8", exclude_categories=("Cc", "Cs"), exclude_characters="\\=^"), max_size=20)
)
@pytest.mark.parametrize("named", [None, "ISO_IR 100", ["ISO 2022 IR 6", "ISO 2022 IR 100", "ISO 2022 IR 144"]])
def test_no_text_is_lost(named: str | list[str] | None, text: str) -> None:
    query = Dataset()
    if named is not None:
        query.SpecificCharacterSet = named
    query.StudyDescription = text
    query.PatientName = text
    got = decode(encode(query, IMPLICIT), IMPLICIT)
    # Outer spaces are padding (PS3.5 6.2).
    assert (got.StudyDescription or "").strip(" ") == text.strip(" ")
    assert str(got.PatientName).strip(" ") == text.strip(" ")


def test_text_in_items_counts_and_items_do_not_differ() -> None:
    """PS3.5 7.5.3: an item without a character set has that of what it is in."""
    item = Dataset()
    item.SpecificCharacterSet = "ISO_IR 101"
    item.ScheduledProcedureStepDescription = "Łódź"
    got = decode(encode(a_query(RequestAttributesSequence=[item]), EXPLICIT), EXPLICIT)
    assert got.SpecificCharacterSet == "ISO_IR 192"
    assert "SpecificCharacterSet" not in got.RequestAttributesSequence[0]
    assert got.RequestAttributesSequence[0].ScheduledProcedureStepDescription == "Łódź"


def test_what_is_encoded_stays_as_it_was() -> None:
    query = a_query(PatientName="Müller", SpecificCharacterSet="ISO_IR 100")
    before = query.to_json()
    names: PersonName = query.PatientName
    assert encode(query, EXPLICIT) == encode(query, EXPLICIT)
    other = a_query(PatientName=names, StudyDescription="Łódź")
    assert str(decode(encode(other, EXPLICIT), EXPLICIT).PatientName) == "Müller"
    assert query.to_json() == before
    assert names.encode(["latin_1"]) == b"M\xfcller"


def test_a_decoded_data_set_can_be_encoded_in_another_character_set() -> None:
    latin = decode(encode(a_query(PatientName="Müller", SpecificCharacterSet="ISO_IR 100"), IMPLICIT), IMPLICIT)
    latin.StudyDescription = "Łódź"
    got = decode(encode(latin, EXPLICIT), EXPLICIT)
    assert (got.SpecificCharacterSet, str(got.PatientName), got.StudyDescription) == ("ISO_IR 192", "Müller", "Łódź")


def test_what_is_no_data_is_left_out() -> None:
    query = a_query()
    query.add_new(0x00020010, "UI", EXPLICIT)
    query.add_new(0x00100000, "UL", 12)
    got = decode(encode(query, EXPLICIT), EXPLICIT)
    assert {0x00020010, 0x00100000}.isdisjoint(int(element.tag) for element in got)


@pytest.mark.parametrize("transfer_syntax", ALL)
def test_attributes_whose_vr_depends_on_others_can_be_asked_for(transfer_syntax: str) -> None:
    query = Dataset()
    for tag, vr in ((0x00280106, "US or SS"), (0x00283006, "US or OW"), (0x54001010, "OB or OW")):
        query.add(DataElement(tag, vr, None))
    got = decode(encode(query, transfer_syntax), transfer_syntax)
    assert [(int(element.tag), element.is_empty) for element in got] == [
        (0x00280106, True),
        (0x00283006, True),
        (0x54001010, True),
    ]
    assert len(encode(got, transfer_syntax)) == len(encode(query, transfer_syntax))


@pytest.mark.parametrize("transfer_syntax", ALL)
def test_what_is_cut_short_is_an_error_at_every_byte(transfer_syntax: str) -> None:
    query = Dataset()
    query.PatientName = "Müller"
    query.PatientID = "4711"
    whole = encode(query, transfer_syntax)
    # At the ends of elements it is a data set, if a shorter one; a deflated one has no such ends. Their headers are 8 bytes,
    # whether the VR is explicit or not (PS3.5 7.1.2, 7.1.3).
    character_set, name = 8 + len("ISO_IR 192"), 8 + len("Müller ".encode())
    ends = () if transfer_syntax == DEFLATED else (character_set, character_set + name)
    for size in range(1, len(whole)):
        if size in ends:
            decode(whole[:size], transfer_syntax)
        else:
            with pytest.raises(DataSetError):
                decode(whole[:size], transfer_syntax)


def test_an_empty_identifier_is_an_empty_data_set() -> None:
    assert len(decode(b"", EXPLICIT)) == 0


@pytest.mark.parametrize(
    "data",
    [b"\0" * 9, b"\x10\0\x10\0PN\xff\xff" + b"x" * 100, b"\x08\0\x40\x11\xff\xff\xff\xff" + b"\xfe\xff\0\xe0" * 3],
)
@pytest.mark.parametrize("transfer_syntax", ALL)
def test_what_is_no_data_set_is_an_error(data: bytes, transfer_syntax: str) -> None:
    with pytest.raises(DataSetError):
        decode(data, transfer_syntax)


def test_nesting_without_an_end_is_an_error() -> None:
    level = b"\x08\x00\x40\x11\xff\xff\xff\xff" + b"\xfe\xff\x00\xe0\xff\xff\xff\xff"
    with pytest.raises(DataSetError):
        decode(level * 50_000, IMPLICIT)


@pytest.mark.parametrize("transfer_syntax", [IMPLICIT, EXPLICIT])
@pytest.mark.parametrize("kind", ["elements", "items", "elements of an item"])
def test_four_megabytes_of_nothing_are_refused_at_once(kind: str, transfer_syntax: str) -> None:
    """pydicom would be busy with them for ten seconds or more, and hold up everybody else."""
    is_implicit = transfer_syntax == IMPLICIT
    many = 500_000
    if kind == "items":
        content = b"\xfe\xff\x00\xe0\0\0\0\0" * many
    else:
        content = b"".join(
            pack("<HH", 0x0010, 1 + n % 0xFFFF) + (b"\0\0" if is_implicit else b"LO") + b"\0\0" for n in range(many)
        )
    if kind == "elements of an item":
        content = b"\xfe\xff\x00\xe0" + pack("<I", len(content)) + content
    if kind != "elements":
        content = b"\x08\0\x32\x10" + (b"" if is_implicit else b"SQ\0\0") + pack("<I", len(content)) + content
    began = process_time()
    with pytest.raises(DataSetError, match="more than 10000 elements and items"):
        decode(content, transfer_syntax)
    assert process_time() - began < 2


def test_a_list_of_sixty_thousand_uids_is_not_too_much() -> None:
    query = Dataset()
    query.QueryRetrieveLevel = "STUDY"
    query.StudyInstanceUID = [f"1.2.{number}" for number in range(60_000)]
    found = decode(encode(query, IMPLICIT), IMPLICIT)
    assert len(found.StudyInstanceUID) == 60_000


def test_a_deflate_bomb_does_not_fill_the_memory() -> None:
    compressor = zlib.compressobj(9, wbits=-zlib.MAX_WBITS)
    bomb = b"".join(compressor.compress(bytes(1 << 20)) for _ in range(64)) + compressor.flush()
    assert len(bomb) < 100_000
    with pytest.raises(DataSetError, match="holds more than"):
        decode(bomb, DEFLATED)


def test_errors_of_the_caller() -> None:
    query = Dataset()
    query.add(DataElement(0x00280010, "US", "many", already_converted=True))
    with pytest.raises(DataSetError, match="cannot be encoded"):
        encode(query, EXPLICIT)
    for work in (lambda: encode(a_query(), "1.2.840.10008.1.2.4.50"), lambda: decode(b"", "1.2.840.10008.1.2.4.50")):
        with pytest.raises(DataSetError, match=r"transfer syntax 1\.2\.840\.10008\.1\.2\.4\.50"):
            work()


def test_a_sequence_without_items_and_one_with_an_empty_item_stay_different() -> None:
    """PS3.4 C.2.2.2.6: both are universal matching, but what is asked to be returned differs."""
    for items in ([], [Dataset()]):
        query = Dataset()
        query.RequestAttributesSequence = Sequence(items)
        assert len(decode(encode(query, EXPLICIT), EXPLICIT).RequestAttributesSequence) == len(items)


def test_letters_of_a_device_in_a_code_string_do_not_keep_a_match_from_its_answer() -> None:
    """An answer is often what was read from a file; for one such object the whole query would fail."""
    data = b"\x18\x00\x15\x00CS\x04\x00K\xd6PF"
    assert encode(decode(data, EXPLICIT), EXPLICIT) == data
    own = Dataset()
    own.BodyPartExamined = "KÖPF"
    with pytest.raises(
        DataSetError, match=r"^the identifier cannot be encoded: \(0018,0015\) BodyPartExamined: CS cannot hold"
    ):
        encode(own, EXPLICIT)


def test_of_a_wrong_value_in_items_one_line_says_where() -> None:
    made = inner = Dataset()
    for _ in range(5):  # pydicom itself doubles its text at every one
        inner.ContentSequence = [Dataset()]
        inner = inner.ContentSequence[0]
    inner.add(DataElement(0x00280010, "US", "x", validation_mode=0))
    with pytest.raises(DataSetError) as raised:
        encode(made, EXPLICIT)
    where = "(0040,A730) ContentSequence: " * 5
    assert (
        str(raised.value)
        == f"the identifier cannot be encoded: {where}(0028,0010) Rows: its value cannot be encoded as US"
    )
