"""Every section and key of a configuration: what it may hold, its default, what it does, and whether a reload takes it.

The documentation is made of what stands here. Defaults are those of `server.settings`.
"""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Annotated, Any, Final, TypeAlias

from pydantic import BaseModel, ConfigDict, Field

from tomowire.aio.budget import LEAST_MEMORY
from tomowire.aio.tls_profiles import DEFAULT_PROFILE, TlsProfile
from tomowire.server import settings
from tomowire.server.config import kinds
from tomowire.server.nodes import MOST_ASSOCIATIONS
from tomowire.server.rights import OF_CALLERS, Right

AeTitle: TypeAlias = Annotated[str, kinds.ae_title()]
Host: TypeAlias = Annotated[str, kinds.host()]
Name: TypeAlias = Annotated[str, kinds.text("a name")]
File: TypeAlias = Annotated[Path, kinds.path()]
Flag: TypeAlias = Annotated[bool, kinds.flag()]
Port: TypeAlias = Annotated[int, kinds.whole(1, 65535)]
FreePort: TypeAlias = Annotated[int, kinds.whole(0, 65535)]
Count: TypeAlias = Annotated[int, kinds.whole(1, 1_000_000)]
Seconds: TypeAlias = Annotated[float, kinds.seconds()]
NodeRight: TypeAlias = Annotated[str, kinds.choice(*Right)]
CallerRight: TypeAlias = Annotated[str, kinds.choice(*(each for each in Right if each in OF_CALLERS))]


def setting(default: Any, says: str, *, example: Any = None, reload: bool = False, secret: bool = False) -> Any:
    """A key: its default (`...`: it has to be said), what it does, an example for the documentation if the default is none, and
    whether a reload takes it."""
    return Field(
        default,
        description=says,
        examples=[default if example is None else example],
        json_schema_extra={"reload": reload, "secret": secret},
    )


class Section(BaseModel):
    """A part of a configuration; its docstring is the text above its keys."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=False)


_ARCHIVE: Final = {each.name: each.default for each in fields(settings.Settings)}
_HTTP: Final = settings.HttpSettings()
_QUOTA: Final = settings.QuotaSettings()
_AUDIT: Final = settings.AuditSettings()
_JOBS: Final = settings.JobSettings()
_LOGS: Final = settings.LogSettings()


class DicomTls(Section):
    """TLS on the DICOM port. The files are PEM; what they hold is read again by a reload."""

    certificate: File = setting(
        ...,
        "One's own certificate, followed by those between it and its authority.",
        example="archive.pem",
        reload=True,
    )
    key: File | None = setting(None, "Its private key, if it is in another file.", example="archive.key", reload=True)
    authorities: File | None = setting(
        None, "Authorities that may have signed callers' certificates.", example="hospital-ca.pem", reload=True
    )
    client_auth: Annotated[str, kinds.choice("none", "optional", "require")] | None = setting(
        None,
        "Whether callers must show a certificate. Without this key: `require` with `authorities`, otherwise `none`.",
        example="require",
        reload=True,
    )
    profile: Annotated[str, kinds.choice(*TlsProfile)] = setting(
        DEFAULT_PROFILE.value, "The secure transport connection profile (PS3.15 Annex B).", reload=True
    )


class Dicom(Section):
    """The DICOM port: where the archive listens, what it is called, and how much it takes at once."""

    ae_title: AeTitle = setting(_ARCHIVE["ae_title"], "The archive's AE title; who calls another one is rejected.")
    aliases: tuple[AeTitle, ...] = setting(
        (), "Further AE titles that it may be called by.", example=["PACS", "OLDPACS"], reload=True
    )
    bind: Host = setting(
        _ARCHIVE["bind"],
        "The address to listen on; `0.0.0.0` or `::` for all. On another address than those of this machine itself only nodes and "
        "callers may associate.",
    )
    port: FreePort = setting(_ARCHIVE["port"], "The TCP port; 0 is any that is free.")
    allow_unknown_callers: Flag = setting(
        False, "Let in any calling AE title from anywhere: for networks in which only friends are.", reload=True
    )
    any_sop_class: Flag = setting(False, "Store private and unknown SOP classes too.")
    maximum_associations: Count = setting(_ARCHIVE["maximum_associations"], "Callers beyond this many are rejected.")
    memory: Annotated[int, kinds.size(LEAST_MEMORY)] = setting(
        _ARCHIVE["memory"],
        "What the data of all associations may take together. With little, fewer callers are let in.",
        example="1 GB",
    )
    shutdown_grace: Seconds = setting(
        _ARCHIVE["shutdown_grace"], "How long associations in progress may go on when the archive is ended."
    )
    tls: DicomTls | None = None


class Storage(Section):
    """Where objects are kept."""

    data_dir: Annotated[Path, kinds.path("the path of a folder")] = setting(
        Path("tomowire-data"),
        "The folder of objects and index. Without this key it is `tomowire-data` in the folder in which the archive is started.",
        example="/var/lib/tomowire",
    )
    duplicates: Annotated[str, kinds.choice("keep", "replace", "reject")] = setting(
        _ARCHIVE["duplicates"],
        "An object that is stored already, with other content: keep the first, replace it, or reject the second.",
    )


class Index(Section):
    """What is known about the objects."""

    url: Annotated[str, kinds.database_url()] | None = setting(
        None,
        "Where the index is, as `postgresql://user@host/database`. Without this key it is an SQLite file in the data directory. A "
        "password is better kept in the environment variable `TOMOWIRE_INDEX__URL`, or in a `.pgpass` file.",
        example="postgresql://tomowire@db.example.org/tomowire",
        secret=True,
    )


class Node(Section):
    """A peer: where C-MOVE may send to, and who may call from there. Commands and the API know it by the name
    in the section's title, and by its AE title."""

    ae_title: AeTitle | None = setting(
        None, "Its AE title. Without this key it is the name of the section.", example="VIEWER", reload=True
    )
    host: Host = setting(..., "Its host name or address.", example="viewer.example.org", reload=True)
    port: Port = setting(..., "Its TCP port.", example=104, reload=True)
    associations: Annotated[int, kinds.whole(1, MOST_ASSOCIATIONS)] = setting(
        1, "How many associations it takes from here at once.", reload=True
    )
    tls: Flag = setting(False, "Call it with TLS, as `nodes_tls` says.", reload=True)
    tls_name: Host | None = setting(
        None,
        "The name that its certificate must be for, if that is not `host`.",
        example="viewer.example.org",
        reload=True,
    )
    may: tuple[NodeRight, ...] = setting(
        tuple(each.value for each in Right),
        "What it may do when it calls, and whether a C-MOVE may send to it (`move-destination`). Without this key: all of it, "
        "storing, querying and retrieving too. With it only what it names; an empty list is nothing.",
        example=["echo", "move-destination"],
        reload=True,
    )


class KnownDestination(Section):
    """A node, as other programs write it (in JSON). It may do what a node may do without `may`."""

    aeTitle: AeTitle | None = setting(  # noqa: N815
        None, "Its AE title. Without this key it is the name.", example="VIEWER", reload=True
    )
    host: Host = setting(..., "Its host name or address.", example="viewer.example.org", reload=True)
    port: Port = setting(..., "Its TCP port.", example=104, reload=True)


class NodesTls(Section):
    """How nodes with TLS are called. What is not said is as in `dicom.tls`."""

    authorities: File | None = setting(
        None, "Authorities that may have signed their certificates.", example="hospital-ca.pem", reload=True
    )
    certificate: File | None = setting(None, "The certificate to show to them.", example="archive.pem", reload=True)
    key: File | None = setting(None, "Its private key, if it is in another file.", example="archive.key", reload=True)


class Caller(Section):
    """Who may call, besides the nodes, and what for. There may be several; all that is said of a caller must be true of it."""

    ae_title: AeTitle | None = setting(None, "Its AE title. Without this key: any.", example="CT1", reload=True)
    addresses: tuple[Annotated[str, kinds.addresses()], ...] = setting(
        (), "Addresses and ranges it may call from. None: any.", example=["10.1.0.0/16", "192.0.2.7"], reload=True
    )
    certificate: Annotated[str, kinds.certificate()] | None = setting(
        None,
        "What its TLS certificate must have. Without this key: any, or none.",
        example="DNS:ct1.example.org",
        reload=True,
    )
    may: tuple[CallerRight, ...] = setting(
        tuple(each.value for each in Right if each in OF_CALLERS),
        "What it may do. Without this key: all of it, storing, querying and retrieving too. With it only what it names; an "
        "empty list is nothing.",
        example=["echo", "store"],
        reload=True,
    )
    maximum_associations: Count | None = setting(
        None, "How many associations it may have at once.", example=4, reload=True
    )


class Http(Section):
    """The HTTP port: the REST API, metrics and health."""

    enabled: Flag = setting(True, "Whether there is one.")
    bind: Host = setting(
        _HTTP.bind, "The address to listen on. On another one than those of this machine itself, who calls must log in."
    )
    port: FreePort = setting(_HTTP.port, "The TCP port; 0 is any that is free.")
    certificate: File | None = setting(
        None, "Use TLS: the certificate, PEM, followed by those between it and its authority.", example="archive.pem"
    )
    key: File | None = setting(None, "Its private key, if it is in another file.", example="archive.key")
    hosts: tuple[Host, ...] = setting(
        (), "Names by which it may be called besides its address.", example=["archive.example.org"]
    )
    metrics_login: Flag = setting(_HTTP.metrics_login, "Whether `/metrics` needs a login where the rest does.")
    failed_logins: Count = setting(_HTTP.failed_logins, "So many failed logins close an address out for a while.")
    failed_login_window: Seconds = setting(
        _HTTP.failed_login_window, "The time in which they are counted.", example="5 min"
    )


class Quota(Section):
    """What the archive keeps at most. What is beyond goes study by study, the one that came first before the others; protected
    studies stay."""

    bytes: Annotated[int, kinds.size(1)] | None = setting(
        None, "How much objects may take.", example="500 GB", reload=True
    )
    age: Seconds | None = setting(
        None, "How long a study is kept after its last object came.", example="90 d", reload=True
    )
    every: Seconds = setting(_QUOTA.every, "How often it is looked at.", reload=True)
    grace: Seconds = setting(
        _QUOTA.grace,
        "A study of which an object came so recently does not go to make room: the others may still be on their way.",
        example="5 min",
        reload=True,
    )


class Audit(Section):
    """Audit messages (PS3.15 A.5): kept in the index, and sent to a syslog server if there is one."""

    enabled: Flag = setting(_AUDIT.enabled, "Whether there are any.", reload=True)
    syslog_host: Host | None = setting(None, "The syslog server.", example="syslog.example.org", reload=True)
    syslog_port: Port = setting(_AUDIT.syslog_port, "Its port. Over TLS it is usually 6514.", reload=True)
    syslog_tls: Flag = setting(_AUDIT.syslog_tls, "Send over TLS (RFC 5425) and not UDP (RFC 5426).", reload=True)
    syslog_authorities: File | None = setting(
        None, "Authorities that may have signed its certificate.", example="hospital-ca.pem", reload=True
    )
    syslog_certificate: File | None = setting(
        None, "The certificate to show to it.", example="archive.pem", reload=True
    )
    syslog_key: File | None = setting(
        None, "Its private key, if it is in another file.", example="archive.key", reload=True
    )


class Jobs(Section):
    """How jobs (sending on, retrieving, deleting, reindexing) are worked on."""

    at_once: Annotated[int, kinds.whole(1, 64)] = setting(_JOBS.at_once, "How many at the same time.")
    at_once_for_node: Annotated[int, kinds.whole(1, 64)] = setting(
        _JOBS.at_once_for_node, "How many of them for one node."
    )
    attempts: Annotated[int, kinds.whole(1, 1000)] = setting(
        _JOBS.attempts, "How often one is tried without getting on before it has failed."
    )
    first_wait: Seconds = setting(_JOBS.first_wait, "The wait before the second attempt; it doubles with each.")
    longest_wait: Seconds = setting(_JOBS.longest_wait, "The longest wait.", example="5 min")
    lease: Annotated[float, kinds.seconds(1.0)] = setting(
        _JOBS.lease, "A process that says nothing for so long has lost its jobs to the next."
    )
    keep_finished: Seconds = setting(_JOBS.keep_finished, "How long finished jobs are listed.", example="30 d")


class Logs(Section):
    """What the program says on stderr."""

    format: Annotated[str, kinds.choice("auto", "text", "json")] = setting(
        _LOGS.format, "Text, or a JSON object per line; `auto` is text on a terminal and JSON elsewhere."
    )
    level: Annotated[str, kinds.choice("debug", "info", "warning", "error")] = setting(
        _LOGS.level, "What is said at least. Errors of commands are always said.", reload=True
    )


class Configuration(Section):
    """All of it."""

    dicom: Dicom = Dicom()
    storage: Storage = Storage()
    index: Index = Index()
    nodes: dict[Name, Node] = {}
    knownDestinations: dict[Name, KnownDestination] = {}  # noqa: N815 - other programs write it so
    nodes_tls: NodesTls | None = None
    callers: tuple[Caller, ...] = ()
    http: Http = Http()
    quota: Quota = Quota()
    audit: Audit = Audit()
    jobs: Jobs = Jobs()
    logs: Logs = Logs()
