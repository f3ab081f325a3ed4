"""What the audit trail keeps: events as values, for whoever has something to record. `specific` makes DICOM's messages of them.

The time of an event is that at which it is recorded. A study whose `patient` is None is looked up in the index when the event is
written; of one that is being deleted the patient must be told.
"""

from __future__ import annotations

from enum import Enum, IntEnum
from typing import Literal, TypeAlias

from tomowire.wire.value import value


class Outcome(IntEnum):
    """EventOutcomeIndicator (PS3.15 Table A.5.2-1)."""

    SUCCESS = 0
    MINOR_FAILURE = 4
    SERIOUS_FAILURE = 8
    MAJOR_FAILURE = 12


@value()
class Party:
    """Who takes part in an event: a DICOM node, a person, or a program.

    `address` is where it is on the network, `host`, `host:port` or nothing; `ae_title` is nothing for who has none.
    """

    name: str
    address: str = ""
    ae_title: str = ""

    @classmethod
    def node(cls, ae_title: str, address: str = "") -> Party:
        """A DICOM node, which has no other name than its AE title."""
        return cls(ae_title or "unknown", address, ae_title)


@value()
class Patient:
    """Whose objects they are: the two attributes that identify a patient to a reader of the trail."""

    patient_id: str
    name: str = ""


@value()
class Study:
    """A study, and how many objects of which SOP classes of it an event is about."""

    uid: str
    sop_classes: tuple[tuple[str, int], ...] = ()
    patient: Patient | None = None

    @property
    def instances(self) -> int:
        return sum(count for _, count in self.sop_classes)


@value(kw_only=True)
class _Event:
    """What all have: how it went, and for what did not go well, why. The reason names no patients."""

    outcome: Outcome = Outcome.SUCCESS
    reason: str = ""


@value(kw_only=True)
class ApplicationStarted(_Event):
    """The archive is listening."""


@value(kw_only=True)
class ApplicationStopped(_Event):
    """The archive has been told to end, by `by`; None: by a signal."""

    by: Party | None = None


@value(kw_only=True)
class AuditLogUsed(_Event):
    """`by` has read the trail."""

    by: Party


@value(kw_only=True)
class AssociationBegun(_Event):
    """An association with `caller` is established; `authenticated` says by what: a TLS certificate, a user identity, or nothing."""

    caller: Party
    called_ae_title: str = ""
    authenticated: str = ""


@value(kw_only=True)
class AssociationRefused(_Event):
    """`caller` did not get an association, or not even a TLS connection: then it has no AE title. `reason` says why."""

    caller: Party
    called_ae_title: str = ""
    outcome: Outcome = Outcome.MINOR_FAILURE


@value(kw_only=True)
class AssociationEnded(_Event):
    """It is over; `how` as in `Ending`, `by` whom, if it was neither of its two ends. `stored` and `refused` are objects that it
    brought."""

    caller: Party
    by: Party | None = None
    called_ae_title: str = ""
    how: str = "released"
    stored: int = 0
    refused: int = 0


@value(kw_only=True)
class TransferBegun(_Event):
    """Objects of `study` are about to leave for `destination`, as `requested_by` wanted it, if that is somebody else."""

    destination: Party
    study: Study
    requested_by: Party | None = None


Held = Literal["C", "R", "U"]
"""What the receiver made of instances (PS3.15 Table A.5.3.7-1): it created them, had them, or changed those that it had."""


@value(kw_only=True)
class InstancesTransferred(_Event):
    """Objects of `study` have come from `source` and are kept, one event for each association and study."""

    source: Party
    study: Study
    held: Held = "C"


@value(kw_only=True)
class InstancesAccessed(_Event):
    """Objects of `study` were read, changed or deleted by `by`, with the study as such still there."""

    by: Party | None
    study: Study
    action: Literal["C", "R", "U", "D"] = "R"


@value(kw_only=True)
class StudyDeleted(_Event):
    """`by` has deleted `study` with all that belonged to it; None is the archive itself, which keeps to its quota."""

    by: Party | None
    study: Study


@value(kw_only=True)
class Query(_Event):
    """`by` has asked for what fits `identifier`, a data set encoded in `transfer_syntax_uid`; without one, it was over HTTP.

    It was this archive that was asked, or another node, `of`, that this archive asked on behalf of `by`.
    """

    by: Party | None
    sop_class_uid: str
    identifier: bytes
    transfer_syntax_uid: str = ""
    of: Party | None = None


@value(kw_only=True)
class Export(_Event):
    """Objects of `studies` were sent to `destination`, as `requested_by` wanted it; None: the destination itself did (C-GET).

    What was written to a medium, a folder of backups, has no destination but a `uri`. With another outcome than success they were
    not.
    """

    studies: tuple[Study, ...]
    destination: Party | None = None
    uri: str = ""
    requested_by: Party | None = None


@value(kw_only=True)
class Import(_Event):
    """`by` has taken in objects of `studies` from `uri`, a folder or another medium."""

    by: Party
    uri: str
    studies: tuple[Study, ...]


@value(kw_only=True)
class Login(_Event):
    """`user`, who need not exist, has tried to log in from where it is. A failure is minor, or serious once it is locked out."""

    user: Party


@value(kw_only=True)
class Logout(_Event):
    """`user` has logged out."""

    user: Party


class Change(Enum):
    """What kind of configuration was changed: the types of PS3.16 CID 403 that there are for it."""

    NETWORK = "network"
    """Nodes, addresses, ports."""

    SECURITY = "security"
    """Who may call, TLS, logins."""

    SOFTWARE = "software"
    """All else."""

    OBJECT = "object"
    """A study was protected, or is not any more."""

    ROLES = "roles"
    """What a role may do, or who has which."""

    USER = "user"
    """A user or a token was made, changed or removed."""


@value(kw_only=True)
class ConfigurationChanged(_Event):
    """`by` has changed the configuration; None is who runs the process (a file, a signal). `what` tells it in words, no secrets."""

    by: Party | None
    change: Change
    what: str


@value(kw_only=True)
class AccessRefused(_Event):
    """`by` wanted what it may not."""

    by: Party
    what: str
    outcome: Outcome = Outcome.MINOR_FAILURE


@value(kw_only=True)
class EventsLost(_Event):
    """`count` events could not be recorded, or are not there any more; 0: nobody knows. Recorded by the audit itself."""

    count: int
    outcome: Outcome = Outcome.SERIOUS_FAILURE


AuditEvent: TypeAlias = (
    ApplicationStarted
    | ApplicationStopped
    | AuditLogUsed
    | AssociationBegun
    | AssociationRefused
    | AssociationEnded
    | TransferBegun
    | InstancesTransferred
    | InstancesAccessed
    | StudyDeleted
    | Query
    | Export
    | Import
    | Login
    | Logout
    | ConfigurationChanged
    | AccessRefused
    | EventsLost
)
