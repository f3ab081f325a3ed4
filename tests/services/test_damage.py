"""What is said of identifiers that cannot be read."""

from __future__ import annotations

import random

import pytest
from pydicom import Dataset

from tomowire.errors import DataSetError
from tomowire.services.damage import what_is_wrong
from tomowire.services.identifiers import decode, encode
from tomowire.uids import EXPLICIT_VR_BIG_ENDIAN, EXPLICIT_VR_LITTLE_ENDIAN, IMPLICIT_VR_LITTLE_ENDIAN

SYNTAXES = [IMPLICIT_VR_LITTLE_ENDIAN, EXPLICIT_VR_LITTLE_ENDIAN, EXPLICIT_VR_BIG_ENDIAN]
NAME = b"\x10\0\x10\0"
SEQUENCE, OPEN = b"\x08\0\x32\x10", b"\xff\xff\xff\xff"
ITEM, ITEM_END, SEQUENCE_END = b"\xfe\xff\0\xe0", b"\xfe\xff\x0d\xe0\0\0\0\0", b"\xfe\xff\xdd\xe0\0\0\0\0"


def a_query() -> Dataset:
    query, item = Dataset(), Dataset()
    query.QueryRetrieveLevel = "STUDY"
    query.PatientName = "Müller"
    query.Rows = 5
    item.CodeValue = "X"
    query.ProcedureCodeSequence = [item, Dataset()]
    query.ReferencedStudySequence = []
    return query


def wrong(data: bytes, syntax: str) -> str | None:
    is_little = syntax != EXPLICIT_VR_BIG_ENDIAN
    return what_is_wrong(data, is_implicit=syntax == IMPLICIT_VR_LITTLE_ENDIAN, is_little=is_little)


@pytest.mark.parametrize("syntax", SYNTAXES)
def test_nothing_is_wrong(syntax: str) -> None:
    assert wrong(encode(a_query(), syntax), syntax) is None
    assert wrong(b"", syntax) is None


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (NAME + b"\x05\0\0\0" + b"Doe", "(0010,0010) says 5 bytes, has 3"),
        (NAME + b"\0\0", "6 bytes are left over"),
        (NAME + b"\0\0\0\0" + b"\0" * 7, "7 bytes are left over after (0010,0010)"),
        (ITEM + b"\0\0\0\0", "(FFFE,E000) is where an element belongs"),
        (SEQUENCE + OPEN, "(0008,1032) has no end"),
        (SEQUENCE + OPEN + ITEM + b"\0\0\0\0" + SEQUENCE_END, None),
        (SEQUENCE + OPEN + ITEM + OPEN + ITEM_END + SEQUENCE_END, None),
        (SEQUENCE + OPEN + ITEM + OPEN + SEQUENCE_END, "(FFFE,E0DD) is where an element belongs"),
        (SEQUENCE + OPEN + ITEM + OPEN, "(0008,1032) has an item without an end"),
        (SEQUENCE + OPEN + ITEM + b"\x01\0\0\0", "(0008,1032) has an item cut short"),
        (SEQUENCE + OPEN + ITEM, "(0008,1032) has an item cut short"),
        (SEQUENCE + OPEN + NAME + b"\0\0\0\0", "(0008,1032) has (0010,0010) for an item"),
        (SEQUENCE + b"\x0a\0\0\0" + ITEM + b"\x02\0\0\0\x08\0", "2 bytes are left over in (0008,1032)"),
        (SEQUENCE + b"\x09\0\0\0" + ITEM + b"\0\0\0\0", "(0008,1032) says 9 bytes, has 8"),
        ((SEQUENCE + OPEN + ITEM + OPEN) * 65, "sequences in sequences, more than 64 deep"),
    ],
)
def test_what_is_wrong_in_implicit_vr(data: bytes, said: str | None) -> None:
    """PS3.5 7.1.3 and 7.5."""
    assert wrong(data, IMPLICIT_VR_LITTLE_ENDIAN) == said


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (NAME + b"PN\x05\0Doe", "(0010,0010) says 5 bytes, has 3"),
        (NAME + b"\x04\0\0\0Doe^", "(0010,0010) has no VR"),
        (NAME + b"UT\0\0\0\0", "(0010,0010) ends inside its length"),
        (SEQUENCE + b"SQ\0\0" + OPEN, "(0008,1032) has no end"),
        # PS3.5 6.2.2: inside of UN everything is in Implicit VR.
        (SEQUENCE + b"UN\0\0" + OPEN + ITEM + b"\x08\0\0\0" + NAME + b"\0\0\0\0" + SEQUENCE_END, None),
    ],
)
def test_what_is_wrong_in_explicit_vr(data: bytes, said: str | None) -> None:
    """PS3.5 7.1.2."""
    assert wrong(data, EXPLICIT_VR_LITTLE_ENDIAN) == said


@pytest.mark.parametrize("syntax", SYNTAXES)
def test_whatever_is_wrong_is_said_in_64_characters_and_not_in_words_of_a_library(syntax: str) -> None:
    whole = encode(a_query(), syntax)
    chance = random.Random(3)
    refused = 0
    for _ in range(3000):
        data = bytearray(whole[: chance.choice((len(whole), chance.randrange(len(whole))))])
        for _ in range(min(2, len(data))):
            data[chance.randrange(len(data))] = chance.choice((0, 1, 0x41, 0xFE, 0xFF))
        try:
            decode(bytes(data), syntax)
        except DataSetError as error:
            refused += 1
            assert len(str(error)) <= 64
            assert str(error).startswith("the identifier")
            assert "Error" not in str(error)
    assert refused > 1000
