"""The first schema: patients, studies, series, instances, and the archive's own row."""

from __future__ import annotations

import uuid

import sqlalchemy as sa
from alembic import op

revision: str = "0001"
down_revision: str | None = None
branch_labels: str | None = None
depends_on: str | None = None

_TEXT = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


def upgrade() -> None:
    archive = op.create_table(
        "archive",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("archive_id", _TEXT, nullable=False),
        sa.Column("last_batch", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_archive")),
    )
    op.bulk_insert(archive, [{"id": 1, "archive_id": uuid.uuid4().hex, "last_batch": 0}])
    op.create_table(
        "patients",
        sa.Column("patient_key", sa.Integer().with_variant(sa.BigInteger(), "postgresql"), nullable=False),
        sa.Column("identity", _TEXT, nullable=False),
        sa.Column("patient_name", _TEXT, nullable=False),
        sa.Column("patient_id", _TEXT, nullable=False),
        sa.Column("issuer_of_patient_id", _TEXT, nullable=False),
        sa.Column("type_of_patient_id", _TEXT, nullable=False),
        sa.Column("patient_birth_date", _TEXT, nullable=False),
        sa.Column("patient_birth_time", _TEXT, nullable=False),
        sa.Column("patient_sex", _TEXT, nullable=False),
        sa.Column("other_patient_ids", _TEXT, nullable=False),
        sa.Column("other_patient_names", _TEXT, nullable=False),
        sa.Column("ethnic_group", _TEXT, nullable=False),
        sa.Column("patient_comments", _TEXT, nullable=False),
        sa.Column("referenced_patient_sequence", _TEXT, nullable=False),
        sa.Column("patient_name_normalized", _TEXT, nullable=False),
        sa.PrimaryKeyConstraint("patient_key", name=op.f("pk_patients")),
        sa.UniqueConstraint("identity", name=op.f("uq_patients_identity")),
    )
    op.create_index(op.f("ix_patients_patient_birth_date"), "patients", ["patient_birth_date"], unique=False)
    op.create_index(op.f("ix_patients_patient_id"), "patients", ["patient_id"], unique=False)
    op.create_index(op.f("ix_patients_patient_name_normalized"), "patients", ["patient_name_normalized"], unique=False)
    op.create_table(
        "studies",
        sa.Column("study_key", sa.Integer().with_variant(sa.BigInteger(), "postgresql"), nullable=False),
        sa.Column("patient_key", sa.Integer().with_variant(sa.BigInteger(), "postgresql"), nullable=False),
        sa.Column("study_instance_uid", _TEXT, nullable=False),
        sa.Column("study_date", _TEXT, nullable=False),
        sa.Column("study_time", _TEXT, nullable=False),
        sa.Column("accession_number", _TEXT, nullable=False),
        sa.Column("study_id", _TEXT, nullable=False),
        sa.Column("study_description", _TEXT, nullable=False),
        sa.Column("referring_physician_name", _TEXT, nullable=False),
        sa.Column("physicians_of_record", _TEXT, nullable=False),
        sa.Column("name_of_physicians_reading_study", _TEXT, nullable=False),
        sa.Column("admitting_diagnoses_description", _TEXT, nullable=False),
        sa.Column("patient_age", _TEXT, nullable=False),
        sa.Column("patient_size", sa.Float(), nullable=True),
        sa.Column("patient_weight", sa.Float(), nullable=True),
        sa.Column("occupation", _TEXT, nullable=False),
        sa.Column("additional_patient_history", _TEXT, nullable=False),
        sa.Column("other_study_numbers", sa.BigInteger(), nullable=True),
        sa.Column("procedure_code_sequence", _TEXT, nullable=False),
        sa.Column("referenced_study_sequence", _TEXT, nullable=False),
        sa.ForeignKeyConstraint(["patient_key"], ["patients.patient_key"], name=op.f("fk_studies_patient_key")),
        sa.PrimaryKeyConstraint("study_key", name=op.f("pk_studies")),
        sa.UniqueConstraint("study_instance_uid", name=op.f("uq_studies_study_instance_uid")),
    )
    op.create_index(op.f("ix_studies_accession_number"), "studies", ["accession_number"], unique=False)
    op.create_index(op.f("ix_studies_patient_key"), "studies", ["patient_key"], unique=False)
    op.create_index(op.f("ix_studies_study_date_study_time"), "studies", ["study_date", "study_time"], unique=False)
    op.create_index(op.f("ix_studies_study_id"), "studies", ["study_id"], unique=False)
    op.create_table(
        "series",
        sa.Column("series_key", sa.Integer().with_variant(sa.BigInteger(), "postgresql"), nullable=False),
        sa.Column("study_key", sa.Integer().with_variant(sa.BigInteger(), "postgresql"), nullable=False),
        sa.Column("series_instance_uid", _TEXT, nullable=False),
        sa.Column("modality", _TEXT, nullable=False),
        sa.Column("series_number", sa.BigInteger(), nullable=True),
        sa.Column("series_description", _TEXT, nullable=False),
        sa.Column("series_date", _TEXT, nullable=False),
        sa.Column("series_time", _TEXT, nullable=False),
        sa.Column("body_part_examined", _TEXT, nullable=False),
        sa.Column("laterality", _TEXT, nullable=False),
        sa.Column("protocol_name", _TEXT, nullable=False),
        sa.Column("performing_physician_name", _TEXT, nullable=False),
        sa.Column("operators_name", _TEXT, nullable=False),
        sa.Column("performed_procedure_step_start_date", _TEXT, nullable=False),
        sa.Column("performed_procedure_step_start_time", _TEXT, nullable=False),
        sa.Column("performed_procedure_step_id", _TEXT, nullable=False),
        sa.Column("performed_procedure_step_description", _TEXT, nullable=False),
        sa.Column("request_attributes_sequence", _TEXT, nullable=False),
        sa.Column("institution_name", _TEXT, nullable=False),
        sa.Column("institutional_department_name", _TEXT, nullable=False),
        sa.Column("station_name", _TEXT, nullable=False),
        sa.Column("manufacturer", _TEXT, nullable=False),
        sa.Column("manufacturer_model_name", _TEXT, nullable=False),
        sa.Column("frame_of_reference_uid", _TEXT, nullable=False),
        sa.ForeignKeyConstraint(["study_key"], ["studies.study_key"], name=op.f("fk_series_study_key")),
        sa.PrimaryKeyConstraint("series_key", name=op.f("pk_series")),
        sa.UniqueConstraint("series_instance_uid", "study_key", name=op.f("uq_series_series_instance_uid_study_key")),
    )
    op.create_index(op.f("ix_series_modality"), "series", ["modality"], unique=False)
    op.create_index(
        op.f("ix_series_performed_procedure_step_start_date"),
        "series",
        ["performed_procedure_step_start_date"],
        unique=False,
    )
    op.create_index(op.f("ix_series_study_key_modality"), "series", ["study_key", "modality"], unique=False)
    op.create_table(
        "instances",
        sa.Column("instance_key", sa.Integer().with_variant(sa.BigInteger(), "postgresql"), nullable=False),
        sa.Column("series_key", sa.Integer().with_variant(sa.BigInteger(), "postgresql"), nullable=False),
        sa.Column("sop_instance_uid", _TEXT, nullable=False),
        sa.Column("sop_class_uid", _TEXT, nullable=False),
        sa.Column("related_general_sop_class_uid", _TEXT, nullable=False),
        sa.Column("instance_number", sa.BigInteger(), nullable=True),
        sa.Column("specific_character_set", _TEXT, nullable=False),
        sa.Column("timezone_offset_from_utc", _TEXT, nullable=False),
        sa.Column("image_type", _TEXT, nullable=False),
        sa.Column("instance_creation_date", _TEXT, nullable=False),
        sa.Column("instance_creation_time", _TEXT, nullable=False),
        sa.Column("acquisition_date", _TEXT, nullable=False),
        sa.Column("acquisition_time", _TEXT, nullable=False),
        sa.Column("acquisition_date_time", _TEXT, nullable=False),
        sa.Column("acquisition_number", sa.BigInteger(), nullable=True),
        sa.Column("content_date", _TEXT, nullable=False),
        sa.Column("content_time", _TEXT, nullable=False),
        sa.Column("observation_date_time", _TEXT, nullable=False),
        sa.Column("rows", sa.Integer(), nullable=True),
        sa.Column("columns", sa.Integer(), nullable=True),
        sa.Column("bits_allocated", sa.Integer(), nullable=True),
        sa.Column("number_of_frames", sa.BigInteger(), nullable=True),
        sa.Column("completion_flag", _TEXT, nullable=False),
        sa.Column("verification_flag", _TEXT, nullable=False),
        sa.Column("content_label", _TEXT, nullable=False),
        sa.Column("content_description", _TEXT, nullable=False),
        sa.Column("presentation_creation_date", _TEXT, nullable=False),
        sa.Column("presentation_creation_time", _TEXT, nullable=False),
        sa.Column("container_identifier", _TEXT, nullable=False),
        sa.Column("concept_name_code_sequence", _TEXT, nullable=False),
        sa.Column("content_template_sequence", _TEXT, nullable=False),
        sa.Column("specimen_description_sequence", _TEXT, nullable=False),
        sa.Column("transfer_syntax_uid", _TEXT, nullable=False),
        sa.Column("generation", sa.Integer(), nullable=False),
        sa.Column("header_size", sa.Integer(), nullable=False),
        sa.Column("data_set_size", sa.BigInteger(), nullable=False),
        sa.Column("checksum", sa.LargeBinary(), nullable=False),
        sa.Column("received_at", sa.BigInteger(), nullable=False),
        sa.Column("received_from", _TEXT, nullable=False),
        sa.ForeignKeyConstraint(["series_key"], ["series.series_key"], name=op.f("fk_instances_series_key")),
        sa.PrimaryKeyConstraint("instance_key", name=op.f("pk_instances")),
        sa.UniqueConstraint("sop_instance_uid", name=op.f("uq_instances_sop_instance_uid")),
    )
    op.create_index(op.f("ix_instances_series_key"), "instances", ["series_key"], unique=False)
