-- Generated: python -m tomowire.server.index.ddl
CREATE TABLE archive (
	id INTEGER NOT NULL,
	archive_id TEXT NOT NULL,
	last_batch BIGINT NOT NULL,
	CONSTRAINT pk_archive PRIMARY KEY (id)
);
CREATE TABLE audit_events (
	event_key INTEGER NOT NULL,
	recorded_at BIGINT NOT NULL,
	event TEXT NOT NULL,
	outcome INTEGER NOT NULL,
	actor TEXT NOT NULL,
	source TEXT NOT NULL,
	message TEXT NOT NULL,
	previous_hash BLOB NOT NULL,
	hash BLOB NOT NULL,
	CONSTRAINT pk_audit_events PRIMARY KEY (event_key)
);
CREATE INDEX ix_audit_events_event ON audit_events (event);
CREATE INDEX ix_audit_events_recorded_at ON audit_events (recorded_at);
CREATE TABLE jobs (
	job_key INTEGER NOT NULL,
	job_id TEXT NOT NULL,
	kind TEXT NOT NULL,
	node TEXT NOT NULL,
	parameters TEXT NOT NULL,
	state TEXT NOT NULL,
	created_at BIGINT NOT NULL,
	created_by TEXT NOT NULL,
	started_at BIGINT,
	finished_at BIGINT,
	not_before BIGINT NOT NULL,
	attempts INTEGER NOT NULL,
	lease_owner TEXT,
	lease_until BIGINT,
	cancel_requested BOOLEAN NOT NULL,
	error TEXT NOT NULL,
	items_total INTEGER NOT NULL,
	items_done INTEGER NOT NULL,
	items_warning INTEGER NOT NULL,
	items_failed INTEGER NOT NULL,
	bytes_total BIGINT,
	bytes_done BIGINT NOT NULL,
	resumed_at BIGINT,
	resumed_items INTEGER NOT NULL,
	resumed_bytes BIGINT NOT NULL,
	result TEXT NOT NULL,
	CONSTRAINT pk_jobs PRIMARY KEY (job_key),
	CONSTRAINT uq_jobs_job_id UNIQUE (job_id)
);
CREATE INDEX ix_jobs_state_not_before ON jobs (state, not_before);
CREATE TABLE patients (
	patient_key INTEGER NOT NULL,
	identity TEXT NOT NULL,
	patient_name TEXT NOT NULL,
	patient_id TEXT NOT NULL,
	issuer_of_patient_id TEXT NOT NULL,
	type_of_patient_id TEXT NOT NULL,
	patient_birth_date TEXT NOT NULL,
	patient_birth_time TEXT NOT NULL,
	patient_sex TEXT NOT NULL,
	other_patient_ids TEXT NOT NULL,
	other_patient_names TEXT NOT NULL,
	ethnic_group TEXT NOT NULL,
	patient_comments TEXT NOT NULL,
	referenced_patient_sequence TEXT NOT NULL,
	patient_name_normalized TEXT NOT NULL,
	other_patient_names_normalized TEXT DEFAULT '' NOT NULL,
	CONSTRAINT pk_patients PRIMARY KEY (patient_key),
	CONSTRAINT uq_patients_identity UNIQUE (identity)
);
CREATE INDEX ix_patients_patient_birth_date ON patients (patient_birth_date);
CREATE INDEX ix_patients_patient_id ON patients (patient_id);
CREATE INDEX ix_patients_patient_name_normalized ON patients (patient_name_normalized);
CREATE TABLE protected_studies (
	study_instance_uid TEXT NOT NULL,
	protected_at BIGINT NOT NULL,
	protected_by TEXT NOT NULL,
	reason TEXT NOT NULL,
	CONSTRAINT pk_protected_studies PRIMARY KEY (study_instance_uid)
);
CREATE TABLE removals (
	removal_key INTEGER NOT NULL,
	study_instance_uid TEXT NOT NULL,
	series_instance_uid TEXT NOT NULL,
	sop_instance_uid TEXT NOT NULL,
	generation INTEGER NOT NULL,
	CONSTRAINT pk_removals PRIMARY KEY (removal_key)
);
CREATE INDEX ix_removals_sop_instance_uid ON removals (sop_instance_uid);
CREATE TABLE users (
	user_name TEXT NOT NULL,
	password_hash TEXT NOT NULL,
	role TEXT NOT NULL,
	created_at BIGINT NOT NULL,
	CONSTRAINT pk_users PRIMARY KEY (user_name)
);
CREATE TABLE job_items (
	job_key INTEGER NOT NULL,
	position INTEGER NOT NULL,
	uid TEXT NOT NULL,
	state TEXT NOT NULL,
	status INTEGER,
	comment TEXT NOT NULL,
	CONSTRAINT pk_job_items PRIMARY KEY (job_key, position),
	CONSTRAINT fk_job_items_job_key FOREIGN KEY(job_key) REFERENCES jobs (job_key) ON DELETE CASCADE
);
CREATE INDEX ix_job_items_job_key_state_position ON job_items (job_key, state, position);
CREATE TABLE studies (
	study_key INTEGER NOT NULL,
	patient_key INTEGER NOT NULL,
	study_instance_uid TEXT NOT NULL,
	study_date TEXT NOT NULL,
	study_time TEXT NOT NULL,
	accession_number TEXT NOT NULL,
	study_id TEXT NOT NULL,
	study_description TEXT NOT NULL,
	referring_physician_name TEXT NOT NULL,
	physicians_of_record TEXT NOT NULL,
	name_of_physicians_reading_study TEXT NOT NULL,
	admitting_diagnoses_description TEXT NOT NULL,
	patient_age TEXT NOT NULL,
	patient_size FLOAT,
	patient_weight FLOAT,
	occupation TEXT NOT NULL,
	additional_patient_history TEXT NOT NULL,
	other_study_numbers BIGINT,
	procedure_code_sequence TEXT NOT NULL,
	referenced_study_sequence TEXT NOT NULL,
	referring_physician_name_normalized TEXT DEFAULT '' NOT NULL,
	physicians_of_record_normalized TEXT DEFAULT '' NOT NULL,
	name_of_physicians_reading_study_normalized TEXT DEFAULT '' NOT NULL,
	CONSTRAINT pk_studies PRIMARY KEY (study_key),
	CONSTRAINT uq_studies_study_instance_uid UNIQUE (study_instance_uid),
	CONSTRAINT fk_studies_patient_key FOREIGN KEY(patient_key) REFERENCES patients (patient_key)
);
CREATE INDEX ix_studies_accession_number ON studies (accession_number);
CREATE INDEX ix_studies_patient_key ON studies (patient_key);
CREATE INDEX ix_studies_study_date_study_time ON studies (study_date, study_time);
CREATE INDEX ix_studies_study_id ON studies (study_id);
CREATE TABLE tokens (
	token_id TEXT NOT NULL,
	token_hash BLOB NOT NULL,
	user_name TEXT NOT NULL,
	description TEXT NOT NULL,
	created_at BIGINT NOT NULL,
	expires_at BIGINT,
	CONSTRAINT pk_tokens PRIMARY KEY (token_id),
	CONSTRAINT uq_tokens_token_hash UNIQUE (token_hash),
	CONSTRAINT fk_tokens_user_name FOREIGN KEY(user_name) REFERENCES users (user_name) ON DELETE CASCADE
);
CREATE INDEX ix_tokens_user_name ON tokens (user_name);
CREATE TABLE series (
	series_key INTEGER NOT NULL,
	study_key INTEGER NOT NULL,
	series_instance_uid TEXT NOT NULL,
	modality TEXT NOT NULL,
	series_number BIGINT,
	series_description TEXT NOT NULL,
	series_date TEXT NOT NULL,
	series_time TEXT NOT NULL,
	body_part_examined TEXT NOT NULL,
	laterality TEXT NOT NULL,
	protocol_name TEXT NOT NULL,
	performing_physician_name TEXT NOT NULL,
	operators_name TEXT NOT NULL,
	performed_procedure_step_start_date TEXT NOT NULL,
	performed_procedure_step_start_time TEXT NOT NULL,
	performed_procedure_step_id TEXT NOT NULL,
	performed_procedure_step_description TEXT NOT NULL,
	request_attributes_sequence TEXT NOT NULL,
	institution_name TEXT NOT NULL,
	institutional_department_name TEXT NOT NULL,
	station_name TEXT NOT NULL,
	manufacturer TEXT NOT NULL,
	manufacturer_model_name TEXT NOT NULL,
	frame_of_reference_uid TEXT NOT NULL,
	performing_physician_name_normalized TEXT DEFAULT '' NOT NULL,
	operators_name_normalized TEXT DEFAULT '' NOT NULL,
	CONSTRAINT pk_series PRIMARY KEY (series_key),
	CONSTRAINT uq_series_series_instance_uid_study_key UNIQUE (series_instance_uid, study_key),
	CONSTRAINT fk_series_study_key FOREIGN KEY(study_key) REFERENCES studies (study_key)
);
CREATE INDEX ix_series_modality ON series (modality);
CREATE INDEX ix_series_performed_procedure_step_start_date ON series (performed_procedure_step_start_date);
CREATE INDEX ix_series_study_key_modality ON series (study_key, modality);
CREATE TABLE instances (
	instance_key INTEGER NOT NULL,
	series_key INTEGER NOT NULL,
	sop_instance_uid TEXT NOT NULL,
	sop_class_uid TEXT NOT NULL,
	related_general_sop_class_uid TEXT NOT NULL,
	instance_number BIGINT,
	specific_character_set TEXT NOT NULL,
	timezone_offset_from_utc TEXT NOT NULL,
	image_type TEXT NOT NULL,
	instance_creation_date TEXT NOT NULL,
	instance_creation_time TEXT NOT NULL,
	acquisition_date TEXT NOT NULL,
	acquisition_time TEXT NOT NULL,
	acquisition_date_time TEXT NOT NULL,
	acquisition_number BIGINT,
	content_date TEXT NOT NULL,
	content_time TEXT NOT NULL,
	observation_date_time TEXT NOT NULL,
	rows INTEGER,
	columns INTEGER,
	bits_allocated INTEGER,
	number_of_frames BIGINT,
	completion_flag TEXT NOT NULL,
	verification_flag TEXT NOT NULL,
	content_label TEXT NOT NULL,
	content_description TEXT NOT NULL,
	presentation_creation_date TEXT NOT NULL,
	presentation_creation_time TEXT NOT NULL,
	container_identifier TEXT NOT NULL,
	concept_name_code_sequence TEXT NOT NULL,
	content_template_sequence TEXT NOT NULL,
	specimen_description_sequence TEXT NOT NULL,
	transfer_syntax_uid TEXT NOT NULL,
	generation INTEGER NOT NULL,
	header_size INTEGER NOT NULL,
	data_set_size BIGINT NOT NULL,
	checksum BLOB NOT NULL,
	received_at BIGINT NOT NULL,
	received_from TEXT NOT NULL,
	CONSTRAINT pk_instances PRIMARY KEY (instance_key),
	CONSTRAINT uq_instances_sop_instance_uid UNIQUE (sop_instance_uid),
	CONSTRAINT fk_instances_series_key FOREIGN KEY(series_key) REFERENCES series (series_key)
);
CREATE INDEX ix_instances_series_key_received_at_data_set_size ON instances (series_key, received_at, data_set_size);
CREATE TRIGGER audit_events_no_update BEFORE UPDATE ON audit_events BEGIN SELECT RAISE(ABORT, 'audit events are only added'); END;
CREATE TRIGGER audit_events_no_delete BEFORE DELETE ON audit_events BEGIN SELECT RAISE(ABORT, 'audit events are only added'); END;
