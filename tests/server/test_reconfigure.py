"""New settings for a running archive: what it takes at once, what waits for a restart, and that no association is dropped."""

from __future__ import annotations

import asyncio
import logging
import re
from base64 import b64decode, b64encode
from collections.abc import AsyncIterator
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest

from support.certificates import Authority
from support.filled import fill, small_hospital
from support.network import LOOPBACK
from tomowire import associate
from tomowire.aio.tls import TlsClient, TlsServer
from tomowire.errors import AssociationRejected, TlsFailed, UsageError
from tomowire.server.access import CallerRule, Right
from tomowire.server.app import Archive, Settings
from tomowire.server.audit.events import Party
from tomowire.server.audit.trail import Filter
from tomowire.server.changes import Reconfigured, compare
from tomowire.server.nodes import Node
from tomowire.server.settings import AuditSettings, HttpSettings, JobSettings, LogSettings, QuotaSettings
from tomowire.services.verification import CEchoScu, verification

VIEWER = Node("VIEWER", "127.0.0.1", 104)


@pytest.fixture
async def archive(tmp_path: Path) -> AsyncIterator[Archive]:
    async with Archive(Settings(tmp_path, port=0, callers=(CallerRule("CT1"),), nodes=(VIEWER,))) as archive:
        yield archive


async def echo(archive: Archive, title: str, called: str = "TOMOWIRE", **options: Any) -> int:
    async with associate(f"{called}@{LOOPBACK}:{archive.port}", [verification()], aet=title, **options) as association:
        return int(await CEchoScu(association).echo())


async def test_callers_nodes_and_aliases_change_and_nobody_is_dropped(archive: Archive) -> None:
    async with associate(f"TOMOWIRE@{LOOPBACK}:{archive.port}", [verification()], aet="CT1") as there:
        report = await archive.reconfigure(
            replace(
                archive.settings,
                callers=(CallerRule("CT1"), CallerRule("CT2", may=frozenset({Right.ECHO}))),
                nodes=(Node("OTHER", "127.0.0.1", 105),),
                aliases=("PACS",),
            )
        )
        assert report == Reconfigured(("callers", "dicom.aliases", "nodes"), ())
        assert await CEchoScu(there).echo() == 0
        assert [await echo(archive, title, "PACS") for title in ("CT2", "OTHER")] == [0, 0]
        assert set(archive.nodes) == {"OTHER"}
        await archive.reconfigure(replace(archive.settings, callers=(CallerRule("CT2"),)))
        with pytest.raises(AssociationRejected):
            await echo(archive, "CT1")
        assert there.is_established


@pytest.mark.parametrize(
    "wrong",
    [
        {"nodes": (VIEWER, replace(VIEWER, port=105))},
        {"callers": (CallerRule("CT9"), CallerRule())},
        {"callers": (CallerRule("CT9"),), "nodes": (replace(VIEWER, tls=True),), "node_tls": TlsClient("missing.pem")},
        {"allow_unknown_callers": True},
        {"aliases": ("a title that is too long",), "callers": (CallerRule("CT9"),)},
    ],
    ids=["two nodes", "a rule for nobody", "certificates", "contradiction", "alias"],
)
async def test_what_cannot_be_used_changes_nothing(archive: Archive, wrong: dict[str, Any]) -> None:
    before = archive.settings
    with pytest.raises(UsageError):
        await archive.reconfigure(replace(before, **wrong))
    assert archive.settings == before
    assert await echo(archive, "CT1") == 0
    assert dict(archive.nodes) == {"VIEWER": VIEWER}
    with pytest.raises(AssociationRejected):
        await echo(archive, "CT9")


async def test_certificates_of_another_place(tmp_path: Path) -> None:
    folders = tmp_path / "1", tmp_path / "2"
    for folder in folders:
        folder.mkdir()
    first, second = map(Authority, folders)

    def showing(authority: Authority) -> TlsServer:
        identity = authority.sign()
        return TlsServer(identity.certificate, identity.key)

    async with Archive(Settings(tmp_path / "data", port=0, tls=showing(first))) as archive:
        assert await echo(archive, "A", ssl=TlsClient(first.file)) == 0
        with pytest.raises(UsageError, match="missing"):
            await archive.reconfigure(replace(archive.settings, tls=TlsServer("missing.pem")))
        assert await echo(archive, "A", ssl=TlsClient(first.file)) == 0
        report = await archive.reconfigure(replace(archive.settings, tls=showing(second)))
        assert report == Reconfigured(("dicom.tls",))
        assert await echo(archive, "A", ssl=TlsClient(second.file)) == 0
        with pytest.raises(TlsFailed):
            await echo(archive, "A", ssl=TlsClient(first.file))
        # The next one reads the files of the settings that are in force.
        assert str(await archive.reconfigure(archive.settings)) == "nothing has changed"
        assert await echo(archive, "A", ssl=TlsClient(second.file)) == 0
        assert await archive.audit.flush(30)
        *_, told = await archive.audit.list(Filter(event="configuration-changed"))
        assert b64encode(b"nothing has changed; certificates were read again").decode() in told.message
        assert "Security Configuration" in told.message
        assert await archive.reconfigure(replace(archive.settings, tls=None)) == Reconfigured((), ("dicom.tls",))
        assert await echo(archive, "A", ssl=TlsClient(second.file)) == 0


async def test_rules_by_certificate_wait_for_the_restart_that_the_first_tls_needs(
    archive: Archive, tmp_path: Path
) -> None:
    authority = Authority(tmp_path)
    identity = authority.sign()
    tls = TlsServer(identity.certificate, identity.key, authority.file)
    by_certificate = CallerRule("CT2", certificate="CN:ct2")
    wanted = replace(archive.settings, tls=tls, callers=(by_certificate,), nodes=())
    report = await archive.reconfigure(wanted)
    assert report == Reconfigured(("nodes",), ("callers", "dicom.tls"))
    assert await echo(archive, "CT1") == 0, "the rules of before hold"
    with pytest.raises(AssociationRejected):
        await echo(archive, "CT2")


async def test_what_waits_for_a_restart_is_told_and_not_in_force(
    archive: Archive, caplog: pytest.LogCaptureFixture
) -> None:
    port = archive.port
    report = await archive.reconfigure(
        replace(archive.settings, port=1, ae_title="OTHER", jobs=JobSettings(1), quota=QuotaSettings(age=5.0))
    )
    assert report == Reconfigured(("quota",), ("dicom.ae_title", "dicom.port", "jobs"))
    assert str(report) == "changed: quota; needs a restart: dicom.ae_title, dicom.port, jobs"
    assert "not in force before a restart: dicom.ae_title, dicom.port, jobs" in caplog.text
    assert (archive.port, archive.settings.ae_title, archive.settings.jobs) == (port, "TOMOWIRE", JobSettings())
    assert await echo(archive, "CT1") == 0


async def test_the_level_of_the_log(archive: Archive) -> None:
    log = logging.getLogger("tomowire")
    before = log.level
    try:
        report = await archive.reconfigure(replace(archive.settings, logs=LogSettings("json", "debug")))
        assert report == Reconfigured(("logs.level",), ("logs.format",))
        assert log.level == logging.DEBUG
    finally:
        log.setLevel(before)


async def test_the_audit_hears_who_changed_what_and_that_it_is_silenced(archive: Archive) -> None:
    await archive.reconfigure(replace(archive.settings, aliases=("PACS",)), by=Party("alice"))
    await archive.reconfigure(replace(archive.settings, audit=AuditSettings(enabled=False)))
    await archive.reconfigure(replace(archive.settings, aliases=("SILENT",)))
    await archive.audit.flush()
    messages = [entry.message for entry in await archive.audit.list(Filter(), limit=1000)]
    # PS3.15 A.5.3.11: the text of an alert is base64.
    told = [
        (message, b64decode(value).decode())
        for message in messages
        for value in re.findall(r'value="([A-Za-z0-9+/]+=*)"', message)
    ]
    changes = [(text, "alice" in message) for message, text in told if text.startswith("changed: ")]
    assert changes == [("changed: dicom.aliases", True), ("changed: audit", False)]


async def test_quotas_are_those_of_now(tmp_path: Path) -> None:
    await fill(tmp_path, small_hospital())
    async with Archive(Settings(tmp_path, port=0, quota=QuotaSettings(bytes=1 << 40))) as archive:
        listening = len(archive.deletion.listeners)
        for quota in (QuotaSettings(bytes=1 << 41), QuotaSettings(), QuotaSettings(bytes=1, every=0.05, grace=0)):
            assert (await archive.storage.index.counts()).instances > 0
            await archive.reconfigure(replace(archive.settings, quota=quota))
            assert len(archive.deletion.listeners) == listening - (quota == QuotaSettings())
        async with asyncio.timeout(30):
            while (await archive.storage.index.counts()).instances:  # noqa: ASYNC110 - a deletion is heard of in the index only
                await asyncio.sleep(0.02)


async def test_a_quota_below_what_is_stored_is_told_before_anything_goes(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    await fill(tmp_path, small_hospital())
    async with Archive(Settings(tmp_path, port=0, quota=QuotaSettings(bytes=1 << 40))) as archive:
        before = (await archive.storage.index.counts()).instances
        less = QuotaSettings(bytes=1, every=3600.0, grace=0)
        report = await archive.reconfigure(replace(archive.settings, quota=less))
        [told] = [each.getMessage() for each in caplog.records if "too many" in each.getMessage()]
        assert [(each.levelno, each.name) for each in caplog.records if each.getMessage() == told] == [
            (logging.WARNING, "tomowire.server.quotas")
        ]
        assert list(report.warnings) == [told]
        assert "protected studies hold 0 bytes" in told
        assert "3600 seconds" in told
        assert (await archive.storage.index.counts()).instances == before
        await archive.reconfigure(replace(archive.settings, quota=replace(less, bytes=1 << 40)))
        assert (await archive.reconfigure(archive.settings)).warnings == ()
        assert caplog.text.count("too many") == 1


def other(settings: Settings, name: str) -> Any:
    """A value that the setting does not have."""
    others: dict[str, Any] = {
        "data_dir": Path("other"),
        "aliases": ("A",),
        "callers": (CallerRule("A"),),
        "allowed_callers": ("A",),
        "nodes": (VIEWER,),
        "tls": TlsServer("a"),
        "node_tls": TlsClient(),
        "http": HttpSettings(),
        "quota": QuotaSettings(1),
        "audit": AuditSettings(False),
        "jobs": JobSettings(1),
        "logs": LogSettings(level="debug"),
    }
    value = getattr(settings, name)
    if name in others:
        return others[name]
    return f"{value}x" if isinstance(value, str | None) else not value if isinstance(value, bool) else value + 1


@pytest.mark.parametrize("name", [each.name for each in fields(Settings)])
def test_each_setting_is_taken_or_named(name: str) -> None:
    """None is lost: it is in force, or the report says that it is not, by a key of the configuration."""
    from tomowire.server.config.schema import place_at

    before = Settings(Path("data"), tls=TlsServer("before"))
    after = replace(before, **{name: other(before, name)})
    taken, report = compare(before, after)
    (key,) = report.changed + report.needs_restart
    assert place_at(tuple(key.split("."))) is not None, key
    assert getattr(taken, name) == getattr(after if report.changed else before, name)


def test_a_url_that_was_shown_is_no_change() -> None:
    before = Settings(Path("data"), index_url="postgresql://me:secret@db/x")
    taken, report = compare(before, replace(before, index_url="postgresql://me:***@db/x"))
    assert (taken, report) == (before, Reconfigured())
    _, report = compare(before, replace(before, index_url="postgresql://me:***@other/x"))
    assert report == Reconfigured((), ("index.url",))
