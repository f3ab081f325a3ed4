"""The codes of audit messages: PS3.16 CID 400 to 405 and the annexes D and A.5.1.2 of PS3.15, as far as they are used."""

from __future__ import annotations

from typing import Final

from tomowire.wire.value import value


@value()
class Code:
    """A coded value: `csd-code`, `codeSystemName` and `originalText` of the schema."""

    value: str
    meaning: str
    system: str = "DCM"


# CID 400, Audit Event ID
APPLICATION_ACTIVITY: Final = Code("110100", "Application Activity")
AUDIT_LOG_USED: Final = Code("110101", "Audit Log Used")
BEGIN_TRANSFERRING: Final = Code("110102", "Begin Transferring DICOM Instances")
INSTANCES_ACCESSED: Final = Code("110103", "DICOM Instances Accessed")
INSTANCES_TRANSFERRED: Final = Code("110104", "DICOM Instances Transferred")
STUDY_DELETED: Final = Code("110105", "DICOM Study Deleted")
EXPORT: Final = Code("110106", "Export")
IMPORT: Final = Code("110107", "Import")
QUERY: Final = Code("110112", "Query")
SECURITY_ALERT: Final = Code("110113", "Security Alert")
USER_AUTHENTICATION: Final = Code("110114", "User Authentication")

ASSOCIATION_ENDED: Final = Code("association-ended", "Association Ended", "99TOMOWIRE")
"""The standard has no message for it."""

# CID 401, Audit Event Type Code, and CID 403, Security Alert Type Code
APPLICATION_START: Final = Code("110120", "Application Start")
APPLICATION_STOP: Final = Code("110121", "Application Stop")
LOGIN: Final = Code("110122", "Login")
LOGOUT: Final = Code("110123", "Logout")
NODE_AUTHENTICATION: Final = Code("110126", "Node Authentication")
NETWORK_CONFIGURATION: Final = Code("110128", "Network Configuration")
SECURITY_CONFIGURATION: Final = Code("110129", "Security Configuration")
SOFTWARE_CONFIGURATION: Final = Code("110131", "Software Configuration")
RESTRICTED_FUNCTION: Final = Code("110132", "Use of Restricted Function")
RECORDING_STOPPED: Final = Code("110133", "Audit Recording Stopped")
OBJECT_SECURITY_CHANGED: Final = Code("110135", "Object Security Attributes Changed")
SECURITY_ROLES_CHANGED: Final = Code("110136", "Security Roles Changed")
USER_SECURITY_CHANGED: Final = Code("110137", "User Security Attributes Changed")

# CID 402, Audit Active Participant Role ID Code
APPLICATION: Final = Code("110150", "Application")
APPLICATION_LAUNCHER: Final = Code("110151", "Application Launcher")
DESTINATION: Final = Code("110152", "Destination Role ID")
SOURCE: Final = Code("110153", "Source Role ID")
DESTINATION_MEDIA: Final = Code("110154", "Destination Media")
SOURCE_MEDIA: Final = Code("110155", "Source Media")

# CID 404, Audit Participant Object ID Type Code, and PS3.15 A.5.1.2.4
STUDY_INSTANCE_UID: Final = Code("110180", "Study Instance UID")
SOP_CLASS_UID: Final = Code("110181", "SOP Class UID")
NODE_ID: Final = Code("110182", "Node ID")
PATIENT_NUMBER: Final = Code("2", "Patient Number", "RFC-3881")
URI: Final = Code("12", "URI", "RFC-3881")

# CID 405, Media Type Code
URI_MEDIA: Final = Code("110037", "URI")
