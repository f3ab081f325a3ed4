"""Reading identifiers of C-FIND requests, and refusing those that PS3.4 C.4.1 does not allow."""

from __future__ import annotations

from typing import Any

import pytest
from pydicom import Dataset

from support.data_sets import ENCODERS, EXPLICIT, IMPLICIT, Encoder
from support.queries import Attributes, identifier, keys_of
from tomowire.errors import DataSetError, QueryFailed
from tomowire.server.index.keys import Key, parse_keys, parse_unique_keys
from tomowire.services.identifiers import encode as encode_identifier
from tomowire.services.models import Level, Model

PATIENT_ID, STUDY_UID, SERIES_UID = 0x00100020, 0x0020000D, 0x0020000E
EXPLICIT_LITTLE = EXPLICIT.transfer_syntax


@pytest.mark.parametrize("vr", [b"U\xe3", b"ZZ"])
def test_what_is_no_vr_is_taken_for_the_one_that_the_dictionary_has(vr: bytes) -> None:
    known = EXPLICIT.element(0x0020000D, "UI", b"1.2.3\0").replace(b"UI", vr)
    level = EXPLICIT.element(0x00080052, "CS", b"STUDY ")
    keys = parse_keys(level + known, EXPLICIT.transfer_syntax, Model.STUDY_ROOT)
    assert keys.entries == (Key(0x0020000D, "UI", ("1.2.3",)),)


@pytest.mark.parametrize("encoder", ENCODERS, ids=lambda encoder: encoder.transfer_syntax)
def test_all_kinds_of_keys(encoder: Encoder) -> None:
    e = encoder
    item = e.item(e.element(0x00080100, "SH", b"P5* ") + e.element(0x00080104, "LO", b""))
    data = b"".join(
        [
            e.element(0x00080000, "UL", (0).to_bytes(4, "little")),  # group length, retired
            e.element(0x00080005, "CS", b"ISO_IR 100"),
            e.element(0x00080020, "DA", b"20240101-20240131 "),
            e.element(0x00080052, "CS", b"STUDY "),
            e.element(0x00080054, "AE", b""),
            e.element(0x00080056, "CS", b""),
            e.element(0x00080061, "CS", b"CT\\MR "),
            e.sequence(0x00081032, item),
            e.sequence(0x00081110),
            e.element(0x00100010, "PN", "Müller^*".encode("latin-1")),
            e.element(0x00104000, "LT", b" a\\b"),
            e.element(0x0020000D, "UI", b"1.2.3\\1.2.4\0"),
            e.element(0x00201208, "IS", b""),
            e.element(0x00280010, "US", e.number(512)),
        ]
    )
    keys = parse_keys(data, e.transfer_syntax, Model.STUDY_ROOT)
    assert (keys.level, keys.model, keys.character_set) == (Level.STUDY, Model.STUDY_ROOT, "ISO_IR 100")
    assert keys.entries == (
        Key(0x00080020, "DA", ("20240101-20240131",)),
        Key(0x00080061, "CS", ("CT", "MR")),
        Key(0x00081032, "SQ", (), ((Key(0x00080100, "SH", ("P5*",)), Key(0x00080104, "LO")),)),
        Key(0x00081110, "SQ"),
        Key(0x00100010, "PN", ("Müller^*",)),
        Key(0x00104000, "LT", (" a\\b",)),
        Key(0x0020000D, "UI", ("1.2.3", "1.2.4")),
        Key(0x00201208, "IS"),
        Key(0x00280010, "US", ("512",)),
    )


@pytest.mark.parametrize("transfer_syntax", [encoder.transfer_syntax for encoder in ENCODERS])
def test_what_pydicom_writes_is_read(transfer_syntax: str) -> None:
    dataset = Dataset()
    dataset.QueryRetrieveLevel = "STUDY"
    dataset.PatientName = "山田^太郎"
    dataset.StudyDate = ""
    dataset.Rows = 7
    keys = parse_keys(encode_identifier(dataset, transfer_syntax), transfer_syntax, Model.STUDY_ROOT)
    assert [(key.tag, key.values) for key in keys.entries] == [
        (0x00080020, ()),
        (0x00100010, ("山田^太郎",)),
        (0x00280010, ("7",)),
    ]


def test_text_by_the_character_set_of_the_query() -> None:
    # PS3.5 H.3.1: Yamada^Tarou=山田^太郎=やまだ^たろう with code extensions of ISO 2022
    name = b"Yamada^Tarou=\x1b$B;3ED\x1b(B^\x1b$BB@O:\x1b(B=\x1b$B$d$^$@\x1b(B^\x1b$B$?$m$&\x1b(B"
    keys = keys_of("STUDY", {0x00080005: ("CS", "\\ISO 2022 IR 87"), 0x00100010: ("PN", name)})
    assert keys.character_set == "\\ISO 2022 IR 87"
    assert keys.entries[0].values == ("Yamada^Tarou=山田^太郎=やまだ^たろう",)


def test_an_item_may_have_its_own_character_set() -> None:
    # PS3.5 7.5.3
    item: Attributes = {0x00080005: ("CS", "ISO_IR 100"), 0x00080104: ("LO", "Schädel".encode("latin-1"))}
    keys = keys_of("STUDY", {0x00080005: ("CS", "ISO_IR 192"), 0x00081032: ("SQ", [item]), 0x00100010: ("PN", "Ä")})
    assert keys.entries[0].items == ((Key(0x00080104, "LO", ("Schädel",)),),)
    assert keys.entries[1].values == ("Ä",)


def test_keys_that_are_not_known() -> None:
    keys = keys_of("STUDY", {0x00091001: ("UN", b"ab"), 0x00090010: ("LO", "ACME"), 0x00100010: ("UN", b"Doe*")})
    assert keys.entries == (
        Key(0x00090010, "LO", ("ACME",)),
        Key(0x00091001, "UN"),
        Key(0x00100010, "PN", ("Doe*",)),  # PS3.5 6.2.2: VR UN says only that the sender did not know it
    )
    private = IMPLICIT.element(0x00080052, "CS", b"STUDY ") + IMPLICIT.element(0x00091001, "", b"ab")
    assert parse_keys(private, IMPLICIT.transfer_syntax, Model.STUDY_ROOT).entries == (Key(0x00091001, "UN"),)


@pytest.mark.parametrize(
    ("tag", "vr", "text"), [(0x00200011, "IS", "1*"), (0x00101030, "DS", "x"), (0x00080020, "DA", "-")]
)
def test_values_that_are_none_of_their_vr_are_kept(tag: int, vr: str, text: str) -> None:
    assert keys_of("STUDY", {tag: (vr, text)}).entries == (Key(tag, vr, (text,)),)


# PS3.4 C.4.1.1.3.1, C.4.1.2.1


@pytest.mark.parametrize(
    ("level", "model"),
    [
        pytest.param(None, Model.STUDY_ROOT, id="missing"),
        pytest.param("", Model.STUDY_ROOT, id="empty"),
        pytest.param("STUDIES", Model.STUDY_ROOT, id="no level"),
        pytest.param("study", Model.STUDY_ROOT, id="code strings are upper case"),
        pytest.param("STUDY\\SERIES", Model.STUDY_ROOT, id="two"),
        pytest.param("PATIENT", Model.STUDY_ROOT, id="Study Root begins with the study"),
        pytest.param("SERIES", Model.PATIENT_STUDY_ONLY, id="Patient/Study Only ends with the study"),
    ],
)
def test_a_level_that_is_not_allowed(level: str | None, model: Model) -> None:
    with pytest.raises(QueryFailed) as failed:
        parse_keys(identifier(level, {PATIENT_ID: ("LO", "1")}), EXPLICIT_LITTLE, model)
    assert (failed.value.status, failed.value.offending_elements) == (0xA900, (0x00080052,))


PATH: dict[int, tuple[str, Any]] = {PATIENT_ID: ("LO", "1"), STUDY_UID: ("UI", "1.2"), SERIES_UID: ("UI", "1.3")}


@pytest.mark.parametrize(
    ("model", "level", "above"),
    [
        (Model.PATIENT_ROOT, "PATIENT", []),
        (Model.PATIENT_ROOT, "STUDY", [PATIENT_ID]),
        (Model.PATIENT_ROOT, "SERIES", [PATIENT_ID, STUDY_UID]),
        (Model.PATIENT_ROOT, "IMAGE", [PATIENT_ID, STUDY_UID, SERIES_UID]),
        (Model.STUDY_ROOT, "STUDY", []),
        (Model.STUDY_ROOT, "SERIES", [STUDY_UID]),
        (Model.STUDY_ROOT, "IMAGE", [STUDY_UID, SERIES_UID]),
        (Model.PATIENT_STUDY_ONLY, "STUDY", [PATIENT_ID]),
    ],
)
def test_unique_keys_above_the_level(model: Model, level: str, above: list[int]) -> None:
    path = {tag: PATH[tag] for tag in above}
    assert keys_of(level, path, model).level == level
    for tag in above:
        vr = PATH[tag][0]
        without = {each: PATH[each] for each in above if each != tag}
        for wrong in [without, *({**path, tag: (vr, text)} for text in ("", "1\\2", "1*", "?"))]:
            with pytest.raises(QueryFailed) as failed:
                keys_of(level, wrong, model)
            assert (failed.value.status, failed.value.offending_elements) == (0xA900, (tag,))
            assert len(failed.value.error_comment or "") in range(1, 65)  # VR LO of the Error Comment


def test_the_unique_key_of_the_level_itself_is_free() -> None:
    for text in ("", "1.2\\1.3", "1.2"):
        assert keys_of("STUDY", {STUDY_UID: ("UI", text)}).level is Level.STUDY


def test_a_sequence_has_one_item_to_match() -> None:
    with pytest.raises(QueryFailed) as failed:
        keys_of("STUDY", {0x00081032: ("SQ", [{}, {}])})
    assert (failed.value.status, failed.value.offending_elements) == (0xA900, (0x00081032,))


@pytest.mark.parametrize(
    ("keys", "tag"),
    [
        ({0x00100010: ("SQ", [{PATIENT_ID: ("LO", "1")}])}, 0x00100010),
        ({STUDY_UID: ("SQ", [{}])}, STUDY_UID),
        ({0x00081110: ("LO", "1.2.3")}, 0x00081110),
        ({0x00081110: ("OB", b"\0\1")}, 0x00081110),
        ({0x00081110: ("SQ", [{0x00081155: ("SQ", [{}])}])}, 0x00081155),
    ],
)
def test_a_sequence_is_no_value_and_a_value_is_no_sequence(keys: Attributes, tag: int) -> None:
    """As if nothing had been asked, the answer would be everything."""
    with pytest.raises(QueryFailed, match="belongs") as refused:
        keys_of("STUDY", keys)
    assert (refused.value.status, refused.value.offending_elements) == (0xA900, (tag,))


@pytest.mark.parametrize("key", [("SQ", []), ("LO", ""), ("OB", b"")])
def test_without_a_value_it_does_not_matter(key: tuple[str, Any]) -> None:
    assert [each.values for each in keys_of("STUDY", {0x00100010: key, 0x00081110: key}).entries] == [(), ()]


@pytest.mark.parametrize("vr", ["OB", "OW", "UN"])
def test_text_that_is_said_to_be_bytes_is_text(vr: str) -> None:
    """Were it passed over, a key that names one study would match all of them."""
    assert keys_of("STUDY", {STUDY_UID: (vr, b"1.2.3\0")}).entries == (Key(STUDY_UID, "UI", ("1.2.3",)),)


def test_only_uids_may_be_many() -> None:
    assert keys_of("STUDY", {STUDY_UID: ("UI", "\\".join(["1.2"] * 2000))}).entries[0].values == ("1.2",) * 2000
    with pytest.raises(QueryFailed) as failed:
        keys_of("STUDY", {0x00081030: ("LO", "\\".join(["A"] * 2000))})
    assert (failed.value.status, failed.value.offending_elements) == (0xA900, (0x00081030,))


@pytest.mark.parametrize(("tag", "vr", "longest"), [(0x00081030, "LO", 1024), (0x00104000, "LT", 10240)])
def test_values_have_an_end(tag: int, vr: str, longest: int) -> None:
    assert len(keys_of("STUDY", {tag: (vr, "A" * longest)}).entries[0].values[0]) == longest
    with pytest.raises(QueryFailed) as failed:
        keys_of("STUDY", {tag: (vr, "A" * (longest + 1))})
    assert (failed.value.status, failed.value.offending_elements) == (0xA900, (tag,))


@pytest.mark.parametrize("cut", [1, 5, 9, 12])
def test_bytes_that_are_no_data_set(cut: int) -> None:
    data = identifier("STUDY", {0x00100010: ("PN", "Doe^Jane")})
    with pytest.raises(DataSetError):
        parse_keys(data[:-cut], EXPLICIT_LITTLE, Model.STUDY_ROOT)


def test_sequences_without_end_in_each_other() -> None:
    data = b""
    for _ in range(3000):
        data = IMPLICIT.sequence(0x00081110, IMPLICIT.item(data))
    with pytest.raises(DataSetError):
        parse_keys(data, IMPLICIT.transfer_syntax, Model.STUDY_ROOT)


def test_what_would_take_long_to_answer_is_refused() -> None:
    """Alternatives multiply, and it takes few bytes to ask for many."""
    data_set = Dataset()
    data_set.QueryRetrieveLevel = "STUDY"
    data_set.PatientName = [f"*^{number}^*" for number in range(40)]
    data_set.ReferringPhysicianName = [f"*^{number}^*" for number in range(25)]
    with pytest.raises(QueryFailed) as caught:
        parse_keys(encode_identifier(data_set, EXPLICIT_LITTLE), EXPLICIT_LITTLE, Model.STUDY_ROOT)
    assert caught.value.status == 0xA900
    many = Dataset()
    many.QueryRetrieveLevel = "STUDY"
    for number in range(1001):
        many.add_new(0x00190000 + 0x1000 + number, "LO", "")
    with pytest.raises(QueryFailed) as caught:
        parse_keys(encode_identifier(many, EXPLICIT_LITTLE), EXPLICIT_LITTLE, Model.STUDY_ROOT)
    assert caught.value.status == 0xA900


@pytest.mark.parametrize("model", Model)
def test_a_relational_query_needs_no_key_above_its_level(model: Model) -> None:
    """PS3.4 C.4.1.2.2.1; its level, and that it is one of the model, it still needs."""
    for level in model.levels:
        assert keys_of(level, {}, model, relational=True).level == level
        assert keys_of(level, {PATIENT_ID: ("LO", "P*")}, model, relational=True).entries[0].values == ("P*",)
    with pytest.raises(QueryFailed) as failed:
        keys_of("SERIES" if model is Model.PATIENT_STUDY_ONLY else "STUDIES", {}, model, relational=True)
    assert failed.value.offending_elements == (0x00080052,)


# Of what is to be retrieved: PS3.4 C.4.2.1.4.1, C.4.2.2.1, and the same for C-GET in C.4.3.1.3.1, C.4.3.2.1


def unique_keys(
    level: str, keys: Attributes, model: Model = Model.PATIENT_ROOT, *, relational: bool = False
) -> dict[Level, tuple[str, ...]]:
    return parse_unique_keys(identifier(level, keys), EXPLICIT_LITTLE, model, relational=relational)


WHOLE: dict[int, tuple[str, Any]] = PATH | {0x00080018: ("UI", "1.4")}


@pytest.mark.parametrize("model", Model)
def test_unique_keys_of_what_is_to_be_retrieved(model: Model) -> None:
    """One at each level down to that of the retrieval; other keys, and those of the levels below, are no part of it."""
    named = {Level.PATIENT: ("1",), Level.STUDY: ("1.2",), Level.SERIES: ("1.3",), Level.IMAGE: ("1.4",)}
    for level in model.levels:
        expected = {each: named[each] for each in model.levels[: model.levels.index(level) + 1]}
        assert unique_keys(level, {**WHOLE, 0x00100010: ("PN", "Doe*")}, model) == expected


def test_several_are_retrieved_by_a_list_of_uids() -> None:
    uids = ("UI", "1.2\\1.3\\1.4")
    for level, tag in ((Level.STUDY, STUDY_UID), (Level.SERIES, SERIES_UID), (Level.IMAGE, 0x00080018)):
        assert unique_keys(level, {**WHOLE, tag: uids})[level] == ("1.2", "1.3", "1.4")


@pytest.mark.parametrize(
    ("level", "changed", "tag"),
    [
        pytest.param("STUDY", {STUDY_UID: ("UI", "")}, STUDY_UID, id="nothing named"),
        pytest.param("PATIENT", {PATIENT_ID: ("LO", "")}, PATIENT_ID, id="not even a patient"),
        pytest.param("PATIENT", {PATIENT_ID: ("LO", "1\\2")}, PATIENT_ID, id="two patients"),
        pytest.param("PATIENT", {PATIENT_ID: ("LO", "1*")}, PATIENT_ID, id="patients by a pattern"),
        pytest.param("SERIES", {STUDY_UID: ("UI", "1.2\\1.3")}, STUDY_UID, id="series in two studies"),
        pytest.param("IMAGE", {SERIES_UID: ("UI", "")}, SERIES_UID, id="images without a series"),
    ],
)
def test_what_is_no_request_to_retrieve(level: str, changed: Attributes, tag: int) -> None:
    with pytest.raises(QueryFailed) as failed:
        unique_keys(level, {**WHOLE, **changed})
    assert (failed.value.status, failed.value.offending_elements) == (0xA900, (tag,))
    assert len(failed.value.error_comment or "") in range(1, 65)  # VR LO of the Error Comment


def test_a_relational_retrieval_needs_no_key_above_its_level() -> None:
    """PS3.4 C.4.2.2.2.1. That of the level itself it needs: otherwise it would name all there is."""
    images: Attributes = {0x00080018: ("UI", "1.4\\1.5")}
    assert unique_keys("IMAGE", images, relational=True) == {Level.IMAGE: ("1.4", "1.5")}
    with pytest.raises(QueryFailed) as failed:
        unique_keys("IMAGE", {STUDY_UID: ("UI", "1.2")}, relational=True)
    assert failed.value.offending_elements == (0x00080018,)
    with pytest.raises(QueryFailed):
        unique_keys("STUDY", {**PATH, PATIENT_ID: ("LO", "1*")}, relational=True)
