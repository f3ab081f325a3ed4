"""New settings for an archive that runs: what may fail comes first, so that nothing is done by halves."""

from __future__ import annotations

import logging
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from tomowire.aio.opening import certificate_host
from tomowire.errors import IndexUnavailable
from tomowire.server.access import Access
from tomowire.server.audit.events import Change, ConfigurationChanged
from tomowire.server.audit.teller import teller_of
from tomowire.server.changes import Reconfigured, compare
from tomowire.server.logs import set_level

if TYPE_CHECKING:
    from tomowire.server.app import Archive
    from tomowire.server.audit.events import Party
    from tomowire.server.quotas import Foreseen
    from tomowire.server.settings import Settings

logger: Final = logging.getLogger("tomowire.archive")


async def reconfigure(archive: Archive, settings: Settings, by: Party | None) -> Reconfigured:
    """`Archive.reconfigure`, one at a time."""
    taken, report = compare(archive.settings, settings)
    await load_certificates(taken)
    Access.of(taken)  # what it would refuse
    if taken.tls is not None:
        await archive.server.reload_tls(taken.tls)
    for each in archive.on_reload:
        await each()
    foreseen = await foresee_quota(archive, taken)
    # From here on nothing is refused.
    await archive.access.apply(taken)
    await archive.quotas.apply(taken.quota, foreseen)
    if foreseen is not None:
        report = replace(report, warnings=(str(foreseen),))
    await _tell_audit(archive, taken, report, by)
    if taken.logs.level != archive.settings.logs.level:
        set_level(taken.logs.level)
    before = archive.settings
    archive.put_in_force(taken)
    with suppress(IndexUnavailable):  # then jobs wait for their time
        for node in set(taken.nodes) - set(before.nodes):
            await archive.jobs.node_changed(node.ae_title)
    if report.needs_restart:
        logger.warning("not in force before a restart: %s", ", ".join(report.needs_restart))
    logger.info("reconfigured: %s", report)
    return report


async def foresee_quota(archive: Archive, settings: Settings) -> Foreseen | None:
    """What another quota will take; None where it is the same, takes nothing, or the index cannot be asked now."""
    if settings.quota == archive.settings.quota:
        return None
    with suppress(IndexUnavailable):
        return await archive.quotas.foresee(settings.quota)
    return None


async def load_certificates(settings: Settings) -> None:
    """For the nodes with TLS: what cannot be used is better known now than when a C-MOVE comes. Raises `UsageError`."""
    if not any(node.tls for node in settings.nodes):
        return
    from tomowire.aio.tls import TlsClient
    from tomowire.aio.tls_context import context_of_client

    for node in settings.nodes:
        if (tls := node.way(settings.node_tls or TlsClient())) is not None:
            certificate_host(tls.server_hostname or node.host)
            await context_of_client(tls)


async def _tell_audit(archive: Archive, taken: Settings, report: Reconfigured, by: Party | None) -> None:
    """Also that there will be none from now on: that is the last it hears of."""
    read_again = _has_certificates(taken)  # whether they say something else now is not known
    what = f"{report}; certificates were read again" if read_again else str(report)
    event = ConfigurationChanged(by=by, change=_kind_of(report), what=what)
    is_news = bool(report.changed) or read_again
    if is_news and not taken.audit.enabled:
        archive.audit.record(event)
    await archive.audit.apply(taken.audit, teller_of(taken))
    if is_news and taken.audit.enabled:
        archive.audit.record(event)


def _has_certificates(settings: Settings) -> bool:
    http = settings.http
    by_http = http is not None and http.certificate is not None
    return by_http or settings.tls is not None or any(node.tls for node in settings.nodes)


def _kind_of(report: Reconfigured) -> Change:
    """Who may do what is more than where somebody is."""
    is_of_nodes = report.changed and set(report.changed) <= {"nodes", "nodes_tls"}
    return Change.NETWORK if is_of_nodes else Change.SECURITY
