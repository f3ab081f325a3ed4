"""What the index knows about one stored object, at the four levels of PS3.4 C.6: patient, study, series, instance.

Each field is declared once, with its tag and its VR in the dictionary (PS3.6); the scanner's list of wanted tags, the
extraction and the index's columns are all derived from these declarations. A field is named after the keyword of its
attribute: `study_instance_uid` is StudyInstanceUID.

Which attributes: every required, unique and listed optional key of PS3.4 Tables C.6-1 to C.6-6 and every matching and
return attribute of PS3.18 10.6, except those that only the archive can know (counts, Modalities in Study, Instance
Availability, Retrieve URL); and, of the optional keys "all other attributes at this level", those that viewers ask for.
Equipment and frame of reference belong to the series (PS3.4 C.3.1).

Values: text is decoded, without padding and without NULs; several values stay one text, separated by backslashes.
"" means absent or empty, which no query can tell apart (PS3.4 C.2.2.2.3). Numbers are None if absent or not to be read.
"""

from __future__ import annotations

from dataclasses import Field, field, fields
from typing import Any, Final

from tomowire.wire.value import value


@value()
class Attribute:
    """The declaration behind a field: tag, VR of the dictionary, and for a sequence the dataclass of its items."""

    tag: int
    vr: str
    item: type[Any] | None = None


NUMBER_VRS: Final = frozenset({"IS", "DS", "US"})


def attribute(tag: int, vr: str) -> Any:
    """A field that is filled from the element `tag`; text, or a number (int for IS and US, float for DS)."""
    return field(default=None if vr in NUMBER_VRS else "", metadata={"attribute": Attribute(tag, vr)})


def sequence(tag: int, item: type[Any]) -> Any:
    """A field that is filled from the items of the sequence `tag`: a tuple of `item`, empty if absent."""
    return field(default=(), metadata={"attribute": Attribute(tag, "SQ", item)})


def attribute_of(declared: Field[Any]) -> Attribute | None:
    """The `Attribute` behind a dataclass field; None for a field that is computed."""
    return declared.metadata.get("attribute")


def attributes_of(level: type[Any]) -> dict[str, Attribute]:
    """Field name -> `Attribute`, in the order of declaration, for one of the dataclasses below; no computed fields."""
    found = ((declared.name, attribute_of(declared)) for declared in fields(level))
    return {name: declaration for name, declaration in found if declaration is not None}


@value()
class CodedConcept:
    """One item of a code sequence (PS3.3 8.8), as far as PS3.4 C.6 lists it."""

    code_value: str = attribute(0x00080100, "SH")
    coding_scheme_designator: str = attribute(0x00080102, "SH")
    coding_scheme_version: str = attribute(0x00080103, "SH")
    code_meaning: str = attribute(0x00080104, "LO")


@value()
class ReferencedInstance:
    """One item that refers to a SOP instance (PS3.3 Table 10-11)."""

    referenced_sop_class_uid: str = attribute(0x00081150, "UI")
    referenced_sop_instance_uid: str = attribute(0x00081155, "UI")


@value()
class RequestAttributes:
    """One item of the Request Attributes Sequence: the order that led to the series (PS3.18 Table 10.6.3-4)."""

    scheduled_procedure_step_id: str = attribute(0x00400009, "SH")
    requested_procedure_id: str = attribute(0x00401001, "SH")


@value()
class ContentTemplate:
    """The one item of the Content Template Sequence of a structured report (PS3.4 Table C.6-4)."""

    mapping_resource: str = attribute(0x00080105, "CS")
    template_identifier: str = attribute(0x0040DB00, "CS")


@value()
class Specimen:
    """One item of the Specimen Description Sequence (PS3.4 Table C.6-4)."""

    specimen_identifier: str = attribute(0x00400551, "LO")
    specimen_uid: str = attribute(0x00400554, "UI")


@value()
class PatientAttributes:
    """Patient level: PS3.4 Table C.6-1."""

    patient_name: str = attribute(0x00100010, "PN")  # the whole text: alphabetic=ideographic=phonetic
    patient_id: str = attribute(0x00100020, "LO")
    issuer_of_patient_id: str = attribute(0x00100021, "LO")
    type_of_patient_id: str = attribute(0x00100022, "CS")
    patient_birth_date: str = attribute(0x00100030, "DA")
    patient_birth_time: str = attribute(0x00100032, "TM")
    patient_sex: str = attribute(0x00100040, "CS")
    other_patient_ids: str = attribute(0x00101000, "LO")  # retired, but still sent and asked for
    other_patient_names: str = attribute(0x00101001, "PN")
    ethnic_group: str = attribute(0x00102160, "SH")
    patient_comments: str = attribute(0x00104000, "LT")
    referenced_patient_sequence: tuple[ReferencedInstance, ...] = sequence(0x00081120, ReferencedInstance)
    patient_name_normalized: str = ""  # computed: `text.normalize_person_name(patient_name)`


@value()
class StudyAttributes:
    """Study level: PS3.4 Tables C.6-2 and C.6-5, PS3.18 Tables 10.6.1-5 and 10.6.3-3."""

    study_instance_uid: str = attribute(0x0020000D, "UI")  # raw text: whether it is a UID is for the ingest to say
    study_date: str = attribute(0x00080020, "DA")
    study_time: str = attribute(0x00080030, "TM")
    accession_number: str = attribute(0x00080050, "SH")
    study_id: str = attribute(0x00200010, "SH")
    study_description: str = attribute(0x00081030, "LO")
    referring_physician_name: str = attribute(0x00080090, "PN")
    physicians_of_record: str = attribute(0x00081048, "PN")
    name_of_physicians_reading_study: str = attribute(0x00081060, "PN")
    admitting_diagnoses_description: str = attribute(0x00081080, "LO")
    patient_age: str = attribute(0x00101010, "AS")
    patient_size: float | None = attribute(0x00101020, "DS")  # m
    patient_weight: float | None = attribute(0x00101030, "DS")  # kg
    occupation: str = attribute(0x00102180, "SH")
    additional_patient_history: str = attribute(0x001021B0, "LT")
    other_study_numbers: int | None = attribute(0x00201070, "IS")
    procedure_code_sequence: tuple[CodedConcept, ...] = sequence(0x00081032, CodedConcept)
    referenced_study_sequence: tuple[ReferencedInstance, ...] = sequence(0x00081110, ReferencedInstance)


@value()
class SeriesAttributes:
    """Series level: PS3.4 Table C.6-3, PS3.18 Tables 10.6.1-5 and 10.6.3-4."""

    series_instance_uid: str = attribute(0x0020000E, "UI")  # raw text, as for the study
    modality: str = attribute(0x00080060, "CS")
    series_number: int | None = attribute(0x00200011, "IS")
    series_description: str = attribute(0x0008103E, "LO")
    series_date: str = attribute(0x00080021, "DA")
    series_time: str = attribute(0x00080031, "TM")
    body_part_examined: str = attribute(0x00180015, "CS")
    laterality: str = attribute(0x00200060, "CS")
    protocol_name: str = attribute(0x00181030, "LO")
    performing_physician_name: str = attribute(0x00081050, "PN")
    operators_name: str = attribute(0x00081070, "PN")
    performed_procedure_step_start_date: str = attribute(0x00400244, "DA")
    performed_procedure_step_start_time: str = attribute(0x00400245, "TM")
    performed_procedure_step_id: str = attribute(0x00400253, "SH")
    performed_procedure_step_description: str = attribute(0x00400254, "LO")
    request_attributes_sequence: tuple[RequestAttributes, ...] = sequence(0x00400275, RequestAttributes)
    institution_name: str = attribute(0x00080080, "LO")
    institutional_department_name: str = attribute(0x00081040, "LO")
    station_name: str = attribute(0x00081010, "SH")
    manufacturer: str = attribute(0x00080070, "LO")
    manufacturer_model_name: str = attribute(0x00081090, "LO")
    frame_of_reference_uid: str = attribute(0x00200052, "UI")


@value()
class InstanceAttributes:
    """Composite object instance level: PS3.4 Tables C.6-4 and C.6-6, PS3.18 Tables 10.6.1-5 and 10.6.3-5."""

    sop_instance_uid: str = attribute(0x00080018, "UI")  # raw text, as for the study
    sop_class_uid: str = attribute(0x00080016, "UI")
    related_general_sop_class_uid: str = attribute(0x0008001A, "UI")
    instance_number: int | None = attribute(0x00200013, "IS")
    specific_character_set: str = attribute(0x00080005, "CS")
    timezone_offset_from_utc: str = attribute(0x00080201, "SH")
    image_type: str = attribute(0x00080008, "CS")
    instance_creation_date: str = attribute(0x00080012, "DA")
    instance_creation_time: str = attribute(0x00080013, "TM")
    acquisition_date: str = attribute(0x00080022, "DA")
    acquisition_time: str = attribute(0x00080032, "TM")
    acquisition_date_time: str = attribute(0x0008002A, "DT")
    acquisition_number: int | None = attribute(0x00200012, "IS")
    content_date: str = attribute(0x00080023, "DA")
    content_time: str = attribute(0x00080033, "TM")
    observation_date_time: str = attribute(0x0040A032, "DT")
    rows: int | None = attribute(0x00280010, "US")
    columns: int | None = attribute(0x00280011, "US")
    bits_allocated: int | None = attribute(0x00280100, "US")
    number_of_frames: int | None = attribute(0x00280008, "IS")
    completion_flag: str = attribute(0x0040A491, "CS")
    verification_flag: str = attribute(0x0040A493, "CS")
    content_label: str = attribute(0x00700080, "CS")
    content_description: str = attribute(0x00700081, "LO")
    presentation_creation_date: str = attribute(0x00700082, "DA")
    presentation_creation_time: str = attribute(0x00700083, "TM")
    container_identifier: str = attribute(0x00400512, "LO")
    concept_name_code_sequence: tuple[CodedConcept, ...] = sequence(0x0040A043, CodedConcept)
    content_template_sequence: tuple[ContentTemplate, ...] = sequence(0x0040A504, ContentTemplate)
    specimen_description_sequence: tuple[Specimen, ...] = sequence(0x00400560, Specimen)


@value()
class InstanceRecord:
    """All that the index keeps of one object, ready to be stored."""

    transfer_syntax_uid: str  # that of the stored bytes
    patient: PatientAttributes
    study: StudyAttributes
    series: SeriesAttributes
    instance: InstanceAttributes


LEVELS: Final = (PatientAttributes, StudyAttributes, SeriesAttributes, InstanceAttributes)
