"""The declarations agree with the dictionary, and hold what the standard requires at each level."""

from __future__ import annotations

import dataclasses
import re
from typing import Any

import pytest
from pydicom.datadict import dictionary_VR, keyword_for_tag

from tomowire.server.index.attributes import (
    LEVELS,
    CodedConcept,
    ContentTemplate,
    InstanceAttributes,
    PatientAttributes,
    ReferencedInstance,
    RequestAttributes,
    SeriesAttributes,
    Specimen,
    StudyAttributes,
    attributes_of,
)

ITEMS = (CodedConcept, ContentTemplate, ReferencedInstance, RequestAttributes, Specimen)

# Type R, U and O of PS3.4 Tables C.6-1 to C.6-4, and R, U and C of PS3.18 Tables 10.6.1-5, 10.6.3-3 to 10.6.3-5; without
# what only an archive can say of itself.
REQUIRED = {
    PatientAttributes: """00100010 00100020 00100021 00081120 00100030 00100032 00100040 00101001 00102160 00104000""",
    StudyAttributes: """00080020 00080030 00080050 00200010 0020000D 00080090 00081030 00081032 00081060 00081080 00081110
        00101010 00101020 00101030 00102180 001021B0 00201070""",
    SeriesAttributes: "00080060 00200011 0020000E 0008103E 00400244 00400245 00400275",
    InstanceAttributes: """00200013 00080018 00080016 0008001A 0040A043 0040A504 00400512 00400560 00080005 00080201 00280010
        00280011 00280100 00280008""",
}


@pytest.mark.parametrize("level", [*LEVELS, *ITEMS])
def test_names_and_vrs_are_those_of_the_dictionary(level: type[Any]) -> None:
    for name, attribute in attributes_of(level).items():
        keyword = keyword_for_tag(attribute.tag)
        assert name.replace("_", "").lower() == keyword.lower()
        assert re.fullmatch(r"[a-z]+(_[a-z]+)*", name)
        assert attribute.vr == dictionary_VR(attribute.tag)


@pytest.mark.parametrize("level", LEVELS)
def test_every_key_of_the_standard_is_there(level: type[Any]) -> None:
    required = {int(tag, 16) for tag in REQUIRED[level].split()}
    assert required <= {attribute.tag for attribute in attributes_of(level).values()}


def test_no_attribute_is_at_two_levels() -> None:
    tags = [attribute.tag for level in LEVELS for attribute in attributes_of(level).values()]
    assert len(tags) == len(set(tags))


def test_without_anything_all_is_empty() -> None:
    assert {getattr(PatientAttributes(), field.name) for field in dataclasses.fields(PatientAttributes)} == {"", ()}
    assert StudyAttributes().patient_size is None
    assert list(attributes_of(PatientAttributes))[-1] != "patient_name_normalized"  # computed: not from an element
