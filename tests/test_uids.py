"""The tables against two dictionaries that nobody here wrote, and the rules of PS3.5 9.1."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom import config
from pydicom._uid_dict import UID_dictionary
from pydicom.uid import UID

from tomowire import __name__ as package
from tomowire import uids
from tomowire.errors import InvalidUid

ALL_STORAGE = {**uids.STORAGE_SOP_CLASSES, **uids.NON_PATIENT_STORAGE_SOP_CLASSES}

# The two keywords of PS3.6 that are not just the name without its punctuation.
KEYWORDS_UNLIKE_THEIR_NAMES = {"TwelveLeadECGWaveformStorage", "DICOSQuadrupoleResonanceStorage"}

# Table B.5-1 has no Storage Commitment, and a DICOMDIR is never sent (PS3.4 I.4).
NOT_STORED_OVER_THE_NETWORK = {"1.2.840.10008.1.20.1", "1.2.840.10008.1.20.2", uids.MEDIA_STORAGE_DIRECTORY}


def in_pydicom(kind: str) -> dict[str, str]:
    return {uid: name for uid, (name, of_kind, *_) in UID_dictionary.items() if of_kind == kind}


def test_every_storage_class_of_pydicoms_dictionary_is_known() -> None:
    expected = {uid for uid, name in in_pydicom("SOP Class").items() if "Storage" in name}
    assert expected - NOT_STORED_OVER_THE_NETWORK <= ALL_STORAGE.keys()


def test_the_service_classes_are_those_of_pynetdicom() -> None:
    sop_class = pytest.importorskip("pynetdicom.sop_class", reason="pynetdicom is the oracle here")
    non_patient = set(sop_class._NON_PATIENT_OBJECT_CLASSES.values())
    assert uids.NON_PATIENT_STORAGE_SOP_CLASSES.keys() == non_patient
    assert set(sop_class._STORAGE_CLASSES.values()) <= uids.STORAGE_SOP_CLASSES.keys()


def test_every_transfer_syntax_of_pydicoms_dictionary_is_known() -> None:
    assert in_pydicom("Transfer Syntax").keys() <= uids.TRANSFER_SYNTAXES.keys()


@pytest.mark.parametrize(
    ("uid", "name"),
    [  # PS3.5 A.4.12 and A.4.13, younger than the dictionary
        ("1.2.840.10008.1.2.4.110", "JPEG XL Lossless"),
        ("1.2.840.10008.1.2.4.111", "JPEG XL JPEG Recompression"),
        ("1.2.840.10008.1.2.4.112", "JPEG XL"),
        ("1.2.840.10008.1.2.8.1", "Deflated Image Frame Compression"),
    ],
)
def test_the_newest_transfer_syntaxes_are_known(uid: str, name: str) -> None:
    assert uids.TRANSFER_SYNTAXES[uid] == name


@pytest.mark.parametrize("table", [ALL_STORAGE, uids.TRANSFER_SYNTAXES], ids=["storage", "transfer syntaxes"])
def test_names_are_those_of_pydicom_and_retired_ones_say_so(table: dict[str, str]) -> None:
    for uid in table.keys() & UID_dictionary.keys():
        name, _, _, retired, _ = UID_dictionary[uid]
        assert table[uid] == name.removesuffix(" SOP Class") + (" (Retired)" if retired else "")


@pytest.mark.parametrize(
    "table",
    [uids.STORAGE_SOP_CLASSES, uids.NON_PATIENT_STORAGE_SOP_CLASSES, uids.TRANSFER_SYNTAXES],
    ids=["storage", "non-patient", "transfer syntaxes"],
)
def test_tables_hold_valid_uids_in_numerical_order(table: dict[str, str]) -> None:
    assert all(map(uids.is_valid_uid, table))
    assert list(table) == sorted(table, key=lambda uid: [int(part) for part in uid.split(".")])


def test_the_classes_of_other_services_have_their_names() -> None:
    """A Meta SOP class is one of them; what is retired is missing, but for the retired models of queries, which peers have."""
    classes = in_pydicom("SOP Class") | in_pydicom("Meta SOP Class")
    for uid, name in uids.SERVICE_SOP_CLASSES.items():
        if uid != "1.2.840.10008.5.1.1.33":  # which the dictionary calls "... SOP Class UID"
            assert classes[uid].removesuffix(" (Retired)").removesuffix(" SOP Class") == name
    assert not uids.SERVICE_SOP_CLASSES.keys() & ALL_STORAGE.keys()
    current = {uid for uid in classes if not UID_dictionary[uid][3] and not uid.startswith("1.2.840.10008.10.")}
    assert (
        current - ALL_STORAGE.keys() - {uids.VERIFICATION, uids.MEDIA_STORAGE_DIRECTORY}
        <= uids.SERVICE_SOP_CLASSES.keys()
    )


def test_the_storage_tables_do_not_overlap() -> None:
    assert not uids.STORAGE_SOP_CLASSES.keys() & uids.NON_PATIENT_STORAGE_SOP_CLASSES.keys()


def test_well_known_uids_carry_their_names() -> None:
    assert UID_dictionary[uids.VERIFICATION][4] == "Verification"
    assert UID_dictionary[uids.APPLICATION_CONTEXT][4] == "DICOMApplicationContext"
    assert UID_dictionary[uids.IMPLICIT_VR_LITTLE_ENDIAN][4] == "ImplicitVRLittleEndian"
    assert UID_dictionary[uids.EXPLICIT_VR_LITTLE_ENDIAN][4] == "ExplicitVRLittleEndian"
    assert UID_dictionary[uids.EXPLICIT_VR_BIG_ENDIAN][4] == "ExplicitVRBigEndian"
    assert UID_dictionary[uids.DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN][4] == "DeflatedExplicitVRLittleEndian"


def test_our_own_identification_fits_its_fields() -> None:
    assert uids.is_valid_uid(uids.IMPLEMENTATION_CLASS_UID)
    assert uids.IMPLEMENTATION_VERSION_NAME.startswith(f"{package.upper()}_")
    assert 1 <= len(uids.IMPLEMENTATION_VERSION_NAME) <= 16  # PS3.7 D.3.3.2.3


@pytest.mark.parametrize("text", ["0", "1.2", "1.0.3", "2.25.0", "9" * 64, uids.IMPLEMENTATION_CLASS_UID])
def test_uids_are_recognised(text: str) -> None:
    assert uids.is_valid_uid(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        ".",
        "1.",
        ".1",
        "1..2",
        "01.2",
        "1.02",
        "1.2 ",
        " 1.2",
        "1.2\n",
        "1.2\0",
        "1.a",
        "-1.2",
        "1,2",
        "../../etc/passwd",
        "/1.2",
        "1.2/3",
        "\u0661.\u0662",
        "1" * 65,
        "CT Image Storage",
    ],
)
def test_what_is_not_a_uid_is_refused(text: str) -> None:
    assert not uids.is_valid_uid(text)


@given(st.text("0123456789.", max_size=70) | st.text(max_size=70))
def test_validity_agrees_with_pydicom(text: str) -> None:
    assert uids.is_valid_uid(text) == UID(text, validation_mode=config.IGNORE).is_valid


@pytest.mark.parametrize(
    ("uid", "name"),
    [
        ("1.2.840.10008.5.1.4.1.1.2", "CT Image Storage"),
        ("1.2.840.10008.5.1.4.38.1", "Hanging Protocol Storage"),
        ("1.2.840.10008.1.2.1", "Explicit VR Little Endian"),
        (uids.VERIFICATION, "Verification SOP Class"),
        ("1.3.6.1.4.1.99999.7", "1.3.6.1.4.1.99999.7"),
    ],
)
def test_names_are_found_and_unknown_uids_stand_for_themselves(uid: str, name: str) -> None:
    assert uids.name_of(uid) == name


@pytest.mark.parametrize("uid", ALL_STORAGE)
def test_every_storage_class_is_found_by_name_keyword_and_uid(uid: str) -> None:
    assert uids.storage_uid(ALL_STORAGE[uid]) == uid
    assert uids.storage_uid(uid) == uid
    _, _, _, retired, keyword = UID_dictionary.get(uid, ("", "", "", "Retired", ""))
    if not retired and keyword not in KEYWORDS_UNLIKE_THEIR_NAMES:
        assert uids.storage_uid(keyword) == uid


@pytest.mark.parametrize("name", ["ct image", "CT  IMAGE storage", "CTImage", "ct-image-storage"])
def test_a_storage_name_may_be_written_loosely(name: str) -> None:
    assert uids.storage_uid(name) == "1.2.840.10008.5.1.4.1.1.2"


def test_a_private_sop_class_is_taken_as_it_is() -> None:
    assert uids.storage_uid("1.2.840.113619.4.30") == "1.2.840.113619.4.30"


def test_a_misspelt_name_gets_a_proposal() -> None:
    with pytest.raises(InvalidUid, match=r"'CT Imge Storage' is neither .* near it are .*\bCT Image Storage\b"):
        uids.storage_uid("CT Imge Storage")


@pytest.mark.parametrize("name", ["", "storage", "nothing like it at all"])
def test_a_name_like_no_other_gets_none(name: str) -> None:
    with pytest.raises(InvalidUid) as caught:
        uids.storage_uid(name)
    assert "near it" not in str(caught.value)


@pytest.mark.parametrize("uid", ["1.2.03.4", "1.2.3", "0", "00.1", "1" * 64])
def test_tolerable_uids_may_have_leading_zeros(uid: str) -> None:
    assert uids.is_tolerable_uid(uid)


@pytest.mark.parametrize(
    "uid", ["", ".", "..", "1..2", ".1", "1.", "1.2/3", "../1", "1.2\0", "1.2\n", "1" * 65, "1.a", "\u0661.\u0662"]
)
def test_what_is_not_made_like_a_uid_is_not_tolerable(uid: str) -> None:
    assert not uids.is_tolerable_uid(uid)
