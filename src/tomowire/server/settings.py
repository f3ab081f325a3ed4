"""What an archive needs to know, as values: `config` makes them of a file, the environment and options; the parts take them.

All times are in seconds and all sizes in bytes. What is not said has the defaults that stand here, and nowhere else.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from tomowire.aio.budget import DEFAULT_MEMORY
from tomowire.aio.listen import DEFAULT_MAXIMUM_ASSOCIATIONS
from tomowire.wire.value import value

if TYPE_CHECKING:
    from tomowire.aio.tls import TlsClient, TlsServer
    from tomowire.server.caller_rules import CallerRule
    from tomowire.server.nodes import Node


@value()
class HttpSettings:
    """The HTTP port: REST, metrics and health. On the loopback address, and as long as there is no user, nobody has to log in.

    `hosts` are the names by which the server may be called besides its address (`Host`, `Origin`). `metrics_login` says whether
    `/metrics` needs a login like the rest. `failed_logins` within `failed_login_window` close an address out.
    """

    bind: str = "127.0.0.1"
    port: int = 8080
    certificate: Path | None = None
    key: Path | None = None
    hosts: tuple[str, ...] = ()
    metrics_login: bool = True
    failed_logins: int = 10
    failed_login_window: float = 300.0


@value()
class QuotaSettings:
    """What the archive keeps at most; None: no limit. What is beyond goes study by study, the one that came first before the
    others; protected studies stay. `age` is since the last object of the study came; of what came within `grace` nothing goes to
    make room."""

    bytes: int | None = None
    age: float | None = None
    every: float = 60.0
    grace: float = 10.0


@value()
class AuditSettings:
    """Where audit messages (PS3.15 A.5) go besides the index: a syslog server, over UDP (RFC 5426) or TLS (RFC 5425)."""

    enabled: bool = True
    syslog_host: str | None = None
    syslog_port: int = 514
    syslog_tls: bool = False
    syslog_authorities: Path | None = None
    syslog_certificate: Path | None = None
    syslog_key: Path | None = None


@value()
class JobSettings:
    """How jobs are worked on: so many at once, and of those for one node; each is tried so often without getting on, with waits
    whose bound doubles from `first_wait` to `longest_wait`: half an hour in all. A process that says nothing for `lease` has lost
    its jobs to the next. `keep_finished` is how long those that are over can be looked at."""

    at_once: int = 4
    at_once_for_node: int = 1
    attempts: int = 15
    first_wait: float = 2.0
    longest_wait: float = 600.0
    lease: float = 30.0
    keep_finished: float = 30 * 86400.0


@value()
class LogSettings:
    """How the program logs to stderr: `format` is "text", "json", or "auto" (text on a terminal, JSON lines elsewhere)."""

    format: str = "auto"
    level: str = "warning"


@value()
class Settings:
    """What an archive needs to know. All have defaults but `data_dir`.

    An archive that listens on more than the loopback address lets in only `callers`, the AE titles in `allowed_callers`, and
    `nodes`, each from its host, unless `allow_unknown_callers`; on the loopback address it lets in everyone if there are no
    `callers` and no `allowed_callers`. The first that fits, in this order, says what a caller may do. `nodes` are also the peers
    that C-MOVE may send to. `aliases` are AE titles that the archive answers to besides `ae_title`.

    `shutdown_grace` are the seconds that associations in progress get at the end. `tls` makes the DICOM port one with TLS,
    `node_tls` is how the nodes with TLS are called.
    `index_url` is where the index is, `postgresql://user@host/database`; None is a file in `data_dir`. `http=None`: no HTTP port.
    """

    data_dir: Path
    ae_title: str = "TOMOWIRE"
    aliases: tuple[str, ...] = ()
    bind: str = "127.0.0.1"
    port: int = 11112
    duplicates: str = "keep"
    any_sop_class: bool = False
    callers: tuple[CallerRule, ...] = ()
    allowed_callers: tuple[str, ...] = ()
    allow_unknown_callers: bool = False
    nodes: tuple[Node, ...] = ()
    maximum_associations: int = DEFAULT_MAXIMUM_ASSOCIATIONS
    memory: int = DEFAULT_MEMORY
    shutdown_grace: float = 5.0
    tls: TlsServer | None = None
    node_tls: TlsClient | None = None
    index_url: str | None = None
    http: HttpSettings | None = None
    quota: QuotaSettings = QuotaSettings()
    audit: AuditSettings = AuditSettings()
    jobs: JobSettings = JobSettings()
    logs: LogSettings = LogSettings()
