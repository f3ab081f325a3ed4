"""Character sets, padding, and person names made comparable."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom import config

from tomowire.server.index.text import decode, is_extended, normalize_person_name, without_padding


@pytest.mark.parametrize(
    ("character_set", "raw", "text"),
    [
        ("", b"Doe^John", "Doe^John"),
        ("", b"M\xfcller", "Müller"),  # outside of the default repertoire: read as pydicom does
        ("ISO_IR 100", b"M\xfcller", "Müller"),
        ("ISO-IR 100", b"M\xfcller", "Müller"),
        ("ISO IR 100", b"M\xfcller", "Müller"),
        ("ISO_IR 192", "Łukasz".encode(), "Łukasz"),
        ("ISO_IR 144", b"\xbb\xee\xda", "Люк"),
        ("GB18030", "Wang^王".encode("gb18030"), "Wang^王"),
        ("ISO_IR 192\\ISO 2022 IR 87", "王".encode(), "王"),  # PS3.3 C.12.1.1.2: no code extension with UTF-8
        ("\\ISO 2022 IR 87", b"Yamada^Tarou=\x1b$B;3ED\x1b(B^\x1b$BB@O:\x1b(B", "Yamada^Tarou=山田^太郎"),
        ("utf_16", b"AB", "AB"),  # names of Python's codecs are not taken from a data set
        ("hex", b"4142", "4142"),
        ("ISO_IR 192", b"\xff\xfe", "\ufffd\ufffd"),
    ],
)  # fmt: skip
def test_decode(character_set: str, raw: bytes, text: str) -> None:
    assert decode(raw, character_set, is_name=True) == text


def test_a_delimiter_brings_the_initial_character_set_back() -> None:
    """PS3.5 6.1.2.5.3: without an escape sequence back, ^ = and the backslash do it."""
    greek, latin = b"\x1b-F\xc1", b"\xc1"
    sets = "ISO 2022 IR 100\\ISO 2022 IR 126"
    assert decode(greek + b"^" + latin, sets, is_name=True) == "Α^Á"
    assert decode(greek + b"\\" + latin, sets) == "Α\\Á"
    assert decode(greek + b"^" + latin, sets) == "Α^Α"  # in other texts ^ is a character like any other


SNIPPETS = [b"\x1b$B", b"\x1b$)C", b"\x1b-F", b"\xb0\xa1", b"^", b"=", b"a"]
TERMS = ["", "ISO_IR 100", "ISO 2022 IR 87", "ISO 2022 IR 149", "ISO 2022 IR 58", "ISO_IR 192", "GBK", "undefined"]


@given(
    raw=st.binary(max_size=40) | st.lists(st.sampled_from(SNIPPETS)).map(b"".join),
    character_set=st.text(max_size=20) | st.lists(st.sampled_from(TERMS)).map("\\".join),
    is_name=st.booleans(),
)
def test_decode_never_raises(raw: bytes, character_set: str, is_name: bool) -> None:
    decode(raw, character_set, is_name=is_name).encode("utf-8")


def test_pydicom_may_be_set_to_be_strict(monkeypatch: pytest.MonkeyPatch) -> None:
    """The setting is the process's, and the caller's own code may want it; the archive still takes the object."""
    monkeypatch.setattr(config.settings, "_reading_validation_mode", config.RAISE)
    assert decode(b"A\x1b$Zx\xff", "\\ISO 2022 IR 87") == "A\x1b$Zx\ufffd"


@given(
    st.text(st.characters(max_codepoint=127, exclude_characters="\x1b")),
    st.sampled_from(["", "ISO_IR 13", "ISO_IR 192", "GBK", "ISO_IR 166"]),
)
def test_ascii_is_ascii_without_code_extension(text: str, character_set: str) -> None:
    """What lets the extraction decode ASCII without asking for the character set."""
    assert not is_extended(character_set)
    assert decode(text.encode(), character_set) == text


@pytest.mark.parametrize(
    ("text", "expected"),
    [("A ", "A"), (" A\0", "A"), ("A \\ B ", "A\\B"), ("\\", "\\"), ("A\0B", "AB"), (" \0 ", ""), ("A B", "A B")],
)
def test_without_padding(text: str, expected: str) -> None:
    assert without_padding(text) == expected


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("Müller^Jörg^^Dr.", "muller jorg dr."),
        ("SMITH^JOHN^^^", "smith john"),
        ("Smith*", "smith*"),
        ("*MITH^J?", "*mith j?"),
        ("Großmann^Łukasz", "grossmann lukasz"),
        ("Çelik^Işık", "celik isik"),
        ("Sørensen^Æsa", "sorensen aesa"),
        ("van  der Berg ^ Anna", "van der berg anna"),
        ("Yamada^Tarou=山田^太郎=やまだ^たろう", "yamada tarou=山田 太郎=やまだ たろう"),
        ("Wada=和田=わだ", "wada=和田=わだ"),  # the voiced sound mark of だ is no accent
        ("Hong^Gildong=洪^吉洞=홍^길동", "hong gildong=洪 吉洞=홍 길동"),
        ("Йорданов^Ёлка", "иорданов елка"),
        ("Smith==", "smith"),
        ("=山田", "=山田"),
        ("", ""),
    ],
)
def test_normalize_person_name(name: str, expected: str) -> None:
    assert normalize_person_name(name) == expected


@given(st.text(max_size=300))
def test_a_normal_name_is_independent_of_composition_and_stays_as_it_is(name: str) -> None:
    normal = normalize_person_name(name)
    assert normalize_person_name(normal) == normal
    assert normalize_person_name(unicodedata.normalize("NFD", name)) == normal
