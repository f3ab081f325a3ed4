"""Who may do what: every kind of rule and every service, allowed and refused, on real associations."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from support.asking import SERVICES, STORED, ask, everything, offered
from support.certificates import Authority, Identity
from support.filled import fill
from support.network import LOOPBACK
from support.raw_peer import RawPeer, associate_rq
from support.receiver import Receiver
from tomowire import Storage, associate, listen
from tomowire.aio.tls import TlsClient, TlsServer
from tomowire.errors import AssociationRejected, NoAcceptedContext, UsageError
from tomowire.protocol.negotiation import ProposedContext
from tomowire.server.access import CallerRule, Right
from tomowire.server.app import Archive, Settings
from tomowire.server.nodes import Node
from tomowire.server.rights import OF_CALLERS, OF_NODES
from tomowire.services.verification import CEchoScu, verification
from tomowire.wire.items import ContextResult
from tomowire.wire.pdu import AAbort, AAssociateRJ, encode_pdu

NOT_AUTHORIZED = 0x0124
FOR_GOOD_CALLING, FOR_GOOD_CALLED, FOR_NOW_LIMIT = (1, 1, 3), (1, 1, 7), (2, 3, 2)

RIGHTS = sorted(OF_CALLERS)
SETS = [frozenset(), *(frozenset({right}) for right in RIGHTS), *(OF_CALLERS - {right} for right in RIGHTS), OF_CALLERS]
"""None, each alone, each left out, all."""
FEW = [may for may in SETS if len(may) != len(OF_CALLERS) - 1]
"""None, each alone, all."""


def serving(may: Iterable[Right]) -> set[str]:
    return {name for name, (right, _) in SERVICES.items() if right in may}


@asynccontextmanager
async def archive_in(folder: Path, **settings: Any) -> AsyncIterator[tuple[Archive, Receiver]]:
    """An archive that holds one object and knows a node, VIEWER, that takes objects."""
    await fill(folder, [STORED])
    receiver = Receiver()
    async with listen(LOOPBACK, 0, services=[Storage(receiver.keep)], aet="VIEWER") as viewer:
        receiver.server = viewer
        node = Node("VIEWER", LOOPBACK, viewer.port)
        known = (node, *settings.pop("nodes", ()))
        async with Archive(Settings(folder, port=0, nodes=known, **settings)) as archive:
            yield archive, receiver


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def mine(authority: Authority) -> Identity:
    return authority.sign("ct1.example.org", common_name="ct1")


async def check_services(port: int, may: frozenset[Right], **caller: Any) -> None:
    """There is a context for what may be done, and it works; for all else there is none, refused by the user (PS3.8 Table 9-18)."""
    async with everything(port, as_scp=True, **caller) as association:
        accepted = offered(association)
        # C-GET sends objects: with it there is a context for storage too, on which the archive is SCU.
        assert accepted - {"C-STORE"} == serving(may) - {"C-STORE"}
        assert ("C-STORE" in accepted) == bool({Right.STORE, Right.RETRIEVE} & may)
        assert {each.result for each in association.agreement.refused} <= {ContextResult.USER_REJECTION}
        for number, service in enumerate(sorted(accepted), 2):
            expected = 0 if SERVICES[service][0] in may else NOT_AUTHORIZED
            assert await ask(association, service, number=number) == expected, service
        assert association.is_established


RULES: dict[str, Callable[[Identity], dict[str, Any]]] = {
    "AE title": lambda mine: {"ae_title": "CALLER"},
    "address": lambda mine: {"addresses": (LOOPBACK,)},
    "range": lambda mine: {"addresses": ("2001:db8::/32", "127.0.0.0/8")},
    "mapped range": lambda mine: {"addresses": ("::ffff:127.0.0.0/104",)},
    "fingerprint": lambda mine: {"certificate": f"sha256:{fingerprint(mine)}"},
    "subject": lambda mine: {"certificate": "CN:ct1"},
    "alternative name": lambda mine: {"certificate": "DNS:CT1.example.org"},
    "all": lambda mine: {"ae_title": "CALLER", "addresses": (LOOPBACK,), "certificate": "CN:ct1"},
}


def fingerprint(identity: Identity) -> str:
    from hashlib import sha256

    return sha256(identity.der).hexdigest()


@pytest.mark.parametrize("kind", RULES)
async def test_what_each_kind_of_rule_allows(kind: str, tmp_path: Path, authority: Authority, mine: Identity) -> None:
    rule = CallerRule(**RULES[kind](mine))
    server_tls = TlsServer(**authority.sign().options, authorities=authority.file)
    tls = TlsClient(**mine.options, authorities=authority.file)
    async with archive_in(tmp_path, callers=(rule,), tls=server_tls) as (archive, receiver):
        for may in FEW:
            await archive.access.replace([replace(rule, may=may)], archive.nodes.values())
            await check_services(archive.port, may, tls=tls)
        assert STORED.uid in receiver.received


OTHERS: dict[str, dict[str, Any]] = {
    "AE title": {"ae_title": "caller"},
    "address": {"addresses": ("127.0.0.2", "::1")},
    "range": {"addresses": ("2001:db8::/32", "10.0.0.0/8", "::/0")},
    "mapped range": {"addresses": ("::ffff:10.0.0.0/104",)},
    "fingerprint": {"certificate": "sha256:" + "0" * 64},
    "subject": {"certificate": "CN:ct1.example.org"},
    "alternative name": {"certificate": "DNS:ct2.example.org"},
    "IP in the certificate": {"certificate": f"IP:{LOOPBACK}"},
    "all but the certificate": {"ae_title": "CALLER", "addresses": (LOOPBACK,), "certificate": "CN:ct2"},
    "all but the address": {"ae_title": "CALLER", "addresses": ("10.0.0.1",), "certificate": "CN:ct1"},
    "all but the AE title": {"ae_title": "OTHER", "addresses": (LOOPBACK,), "certificate": "CN:ct1"},
}


async def test_whom_no_rule_is_about_gets_no_association(
    tmp_path: Path, authority: Authority, mine: Identity, caplog: pytest.LogCaptureFixture
) -> None:
    server_tls = TlsServer(**authority.sign().options, authorities=authority.file)
    tls = TlsClient(**mine.options, authorities=authority.file)
    async with archive_in(tmp_path, callers=(CallerRule("NOBODY"),), tls=server_tls) as (archive, _):
        for each in OTHERS.values():
            await archive.access.replace([CallerRule(**each)], [])
            with pytest.raises(AssociationRejected) as rejected:
                async with everything(archive.port, tls=tls):
                    pass
            assert codes(rejected.value) == FOR_GOOD_CALLING
    for words in (
        "'CALLER' from 127.0.0.1 is not one of the callers that are let in: add it to the callers (or --allow CALLER)",
        "'CALLER' is let in from 10.0.0.1/32, and calls from 127.0.0.1",
        "'CALLER' is let in with the certificate CN:ct2, and has shown that of 'CN=ct1,",
        f"', sha256:{fingerprint(mine)}",
    ):
        assert words in caplog.text


def codes(error: AssociationRejected) -> tuple[int | None, ...]:
    return error.result, error.source, error.reason


async def test_who_shows_no_certificate_is_not_who_has_one(
    tmp_path: Path, authority: Authority, caplog: pytest.LogCaptureFixture
) -> None:
    server_tls = TlsServer(**authority.sign().options, authorities=authority.file, verify="optional")
    rules = (CallerRule(certificate="CN:ct1", ae_title="CALLER"), CallerRule("GUEST", may=frozenset({Right.ECHO})))
    async with archive_in(tmp_path, callers=rules, tls=server_tls) as (archive, _):
        tls = TlsClient(authorities=authority.file)
        with pytest.raises(AssociationRejected):
            async with everything(archive.port, tls=tls):
                pass
        async with everything(archive.port, aet="GUEST", tls=tls) as association:
            assert offered(association) == {"C-ECHO"}
    assert "'CALLER' is let in with the certificate CN:ct1, and has shown none" in caplog.text


@pytest.mark.parametrize("may", FEW, ids=lambda may: "+".join(sorted(may)) or "nothing")
async def test_what_a_node_may(may: frozenset[Right], tmp_path: Path) -> None:
    """From its host, and where everybody may call too."""
    node = Node("CALLER", "localhost", 104, may=may | {Right.MOVE_DESTINATION})
    async with archive_in(tmp_path, nodes=(node,)) as (archive, _):
        await check_services(archive.port, may)
        await archive.access.replace([CallerRule("SOMEBODY")], archive.nodes.values(), is_open=False)
        await check_services(archive.port, may)


async def test_a_node_that_calls_from_elsewhere_is_not_let_in(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    nodes = (Node("CALLER", "192.0.2.1", 104),)
    async with archive_in(tmp_path, nodes=nodes, allowed_callers=("FRIEND",)) as (archive, _):
        with pytest.raises(AssociationRejected) as rejected:
            async with everything(archive.port):
                pass
    assert codes(rejected.value) == FOR_GOOD_CALLING
    assert "'CALLER' calls from 127.0.0.1, and is a node at 192.0.2.1 (--allow CALLER lets it in" in caplog.text


async def test_the_first_rule_that_applies_decides(tmp_path: Path) -> None:
    rules = (
        CallerRule("CALLER", ("10.0.0.0/8",), may=frozenset({Right.STORE})),
        CallerRule("CALLER", may=frozenset({Right.QUERY})),
        CallerRule(addresses=("0.0.0.0/0",), may=frozenset({Right.ECHO})),
    )
    nodes = (Node("CALLER", LOOPBACK, 104),)
    async with archive_in(tmp_path, callers=rules, allowed_callers=("OTHER",), nodes=nodes) as (archive, _):
        async with everything(archive.port) as association:
            assert offered(association) == {"C-FIND"}
        async with everything(archive.port, aet="OTHER") as association:
            assert offered(association) == {"C-ECHO"}


@pytest.mark.parametrize("may", [OF_NODES, OF_CALLERS], ids=["allowed", "refused"])
async def test_where_objects_may_be_sent(may: frozenset[Right], tmp_path: Path) -> None:
    async with archive_in(tmp_path) as (archive, receiver), everything(archive.port) as association:
        node = replace(archive.nodes["VIEWER"], may=may)
        await archive.access.replace([], [node])
        allowed = Right.MOVE_DESTINATION in may
        assert await ask(association, "C-MOVE") == (0 if allowed else NOT_AUTHORIZED)
        assert bool(receiver.received) == allowed
        assert await ask(association, "C-MOVE", destination="NOBODY") == 0xA801
        await archive.access.replace([], [])
        assert await ask(association, "C-MOVE") == 0xA801


# While an association lasts


@pytest.mark.parametrize("may", SETS, ids=lambda may: "+".join(sorted(may)) or "nothing")
async def test_requests_are_judged_by_the_rules_of_their_time(
    may: frozenset[Right], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with archive_in(tmp_path) as (archive, _), everything(archive.port, as_scp=True) as association:
        nodes = tuple(archive.nodes.values())
        await archive.access.replace([CallerRule("CALLER", may=may)], nodes, is_open=False)
        for number, service in enumerate(SERVICES, 2):
            expected = 0 if SERVICES[service][0] in may else NOT_AUTHORIZED
            assert await ask(association, service, number=number) == expected, service
            assert await ask(association, service, number=number) == expected, service
        await archive.access.replace([CallerRule("OTHER")], nodes)
        for number, service in enumerate(SERVICES, 10):
            assert await ask(association, service, number=number) == NOT_AUTHORIZED
        await archive.access.replace([CallerRule("CALLER")], nodes)
        for number, service in enumerate(SERVICES, 20):
            assert await ask(association, service, number=number) == 0
        assert association.is_established
        assert len(archive.server.associations) == 1
    refused = {service for service in SERVICES if SERVICES[service][0] not in may}
    for service in refused:
        assert f"by the rules for callers it may not {SERVICES[service][0]}" in caplog.text


async def test_rules_that_cannot_be_leave_the_old_ones_in_force(tmp_path: Path) -> None:
    async with archive_in(tmp_path, callers=(CallerRule("CALLER"),)) as (archive, _):
        nodes = dict(archive.nodes)
        for rules, new in (
            ([CallerRule("CALLER", ("10.0.0.0/40",))], []),
            ([], [Node("A", "h", 1), Node("A", "h", 2)]),
        ):
            with pytest.raises(UsageError):
                await archive.access.replace(rules, new)
        with pytest.raises(UsageError, match="needs to know who may call"):
            await archive.access.apply(Settings(tmp_path, bind="0.0.0.0"))
        assert archive.nodes == nodes
        async with everything(archive.port) as association:
            assert offered(association) == set(SERVICES)
        with pytest.raises(AssociationRejected):
            async with everything(archive.port, aet="OTHER"):
                pass


async def test_settings_are_applied_while_it_runs(tmp_path: Path) -> None:
    async with archive_in(tmp_path) as (archive, _), everything(archive.port) as association:
        settings = replace(archive.settings, aliases=("PACS",), callers=(CallerRule("CALLER"),), nodes=())
        await archive.access.apply(settings)
        assert not archive.nodes
        assert await ask(association, "C-ECHO") == 0
        async with everything(archive.port, called="PACS"):
            pass
        with pytest.raises(AssociationRejected):
            async with everything(archive.port, aet="OTHER"):
                pass
        await archive.access.apply(replace(settings, aliases=()))
        with pytest.raises(AssociationRejected) as rejected:
            async with everything(archive.port, called="PACS"):
                pass
        assert codes(rejected.value) == FOR_GOOD_CALLED


# AE titles that are called


async def test_it_answers_to_its_aliases(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with archive_in(tmp_path, aliases=("PACS", "OLD PACS")) as (archive, _):
        for called in ("TOMOWIRE", "PACS", "OLD PACS"):
            async with everything(archive.port, called=called) as association:
                assert offered(association) == set(SERVICES)
        for called in ("pacs", "OLD", "ANY-SCP"):
            with pytest.raises(AssociationRejected) as rejected:
                async with everything(archive.port, called=called):
                    pass
            assert codes(rejected.value) == FOR_GOOD_CALLED
    known = "'OLD PACS' or 'PACS' or 'TOMOWIRE'"
    assert (
        f"it called 'OLD', which is not the AE title here: it has to call {known}, or this one is made" in caplog.text
    )


# How many


async def test_a_rule_limits_associations_at_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    rules = (CallerRule("CALLER", maximum_associations=2), CallerRule("OTHER"))
    async with archive_in(tmp_path, callers=rules) as (archive, _), asyncio.timeout(20):
        async with everything(archive.port), everything(archive.port):
            with pytest.raises(AssociationRejected) as rejected:
                async with everything(archive.port):
                    pass
            assert codes(rejected.value) == FOR_NOW_LIMIT
            async with everything(archive.port, aet="OTHER"):
                pass
            await archive.access.replace(rules[1:], [])
            async with everything(archive.port, aet="OTHER"):
                pass
            await archive.access.replace(rules, [])
            with pytest.raises(AssociationRejected):
                async with everything(archive.port):
                    pass
        async with everything(archive.port), everything(archive.port):
            pass
    assert "rule for AE title 'CALLER' is reached: maximum_associations is 2" in caplog.text


async def test_of_an_open_archive_a_node_that_may_less_may_less(tmp_path: Path) -> None:
    """And who is no node may everything: that is what open means."""
    node = Node("CALLER", LOOPBACK, 104, may=frozenset({Right.ECHO}))
    async with archive_in(tmp_path, nodes=(node,)) as (archive, _):
        async with everything(archive.port) as association:
            assert offered(association) == {"C-ECHO"}
        async with everything(archive.port, aet="SOMEBODY") as association:
            assert offered(association) == set(SERVICES)


async def test_the_requestor_is_told_that_it_is_refused(tmp_path: Path) -> None:
    rule = CallerRule("CALLER", may=frozenset({Right.QUERY}))
    async with (
        archive_in(tmp_path, callers=(rule,)) as (archive, _),
        associate(f"TOMOWIRE@{LOOPBACK}:{archive.port}", [verification()], aet="CALLER") as association,
    ):
        with pytest.raises(NoAcceptedContext, match="its operator decides who may use it"):
            await CEchoScu(association).echo()


async def test_unknown_sop_classes_are_still_not_supported(tmp_path: Path) -> None:
    """What nobody may is one thing, what is not there another."""
    async with archive_in(tmp_path, callers=(CallerRule("CALLER", may=frozenset()),)) as (archive, _):
        contexts = [ProposedContext("1.2.840.10008.5.1.4.31", ("1.2.840.10008.1.2",)), verification()]
        async with associate(f"TOMOWIRE@{LOOPBACK}:{archive.port}", contexts, aet="CALLER") as association:
            results = [each.result for each in association.agreement.refused]
    assert results == [ContextResult.ABSTRACT_SYNTAX_NOT_SUPPORTED, ContextResult.USER_REJECTION]


# What cannot be


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"bind": "0.0.0.0"}, "needs to know who may call"),
        ({"bind": "::"}, "needs to know who may call"),
        ({"bind": "hospital.example"}, "needs to know who may call"),
        ({"allow_unknown_callers": True, "callers": (CallerRule("A"),)}, "leave one of them out; a last rule"),
        ({"allow_unknown_callers": True, "allowed_callers": ("A",)}, "leave one of them out"),
        ({"callers": (CallerRule(certificate="CN:ct1"),)}, "CN:ct1 needs TLS"),
        ({"callers": (CallerRule(certificate="CN:ct1"),), "tls": TlsServer("x.pem")}, "CN:ct1 needs TLS"),
        ({"callers": (CallerRule(),)}, "says whom it is about"),
        ({"callers": (CallerRule("A\\B"),)}, "is not an AE title"),
        ({"callers": (CallerRule("A", may=frozenset({Right.MOVE_DESTINATION})),)}, "a right of nodes only"),
        ({"callers": (CallerRule("A", may=frozenset({"shred"})),)}, "'shred' is not a right"),  # type: ignore[arg-type]
        ({"callers": (CallerRule("A", maximum_associations=0),)}, "maximum_associations is a whole number"),
        ({"callers": (CallerRule("A", "127.0.0.1"),)}, "given as a list"),  # type: ignore[arg-type]
        ({"aliases": ("A" * 17,)}, "is not an AE title"),
    ],
)
def test_what_is_not_safe_or_makes_no_sense_is_refused_at_the_start(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        Archive(Settings(Path("nowhere"), **settings))


# What callers say of themselves


@pytest.mark.parametrize(
    "title",
    [
        b" " * 16,
        bytes(16),
        b"caller          ",
        b"CALLER\n WARNING ",
        b"\x1b[2JCALLER      ",
        b"CALLER\\OTHER    ",
        b"C\xc3\x84LLER         ",
        b"\xff" * 16,
        b"CALLERCALLERCALL",
    ],
)
async def test_a_title_that_is_not_the_caller_s_is_rejected_and_cannot_write_the_log(
    title: bytes, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    request = encode_pdu(associate_rq(called="TOMOWIRE", calling="CALLER"))
    assert request[26:42] == b"CALLER          "  # PS3.8 9.3.2
    async with archive_in(tmp_path, callers=(CallerRule("CALLER"),)) as (archive, _):
        async with await RawPeer.connect(archive.port) as peer:
            await peer.send(request[:26] + title + request[42:])
            answer = await peer.read_pdu()
        assert isinstance(answer, AAssociateRJ | AAbort)
        async with everything(archive.port) as association:
            assert offered(association) == set(SERVICES)
    said = [record.getMessage() for record in caplog.records if "rejected" in record.getMessage()]
    if isinstance(answer, AAssociateRJ):
        assert (answer.result, answer.source, answer.reason) == FOR_GOOD_CALLING
        (line,) = said
        assert "is not one of the callers that are let in" in line
        assert line.partition("rejected")[2].isprintable()


GUIDE = Path(__file__).parents[2] / "docs" / "how-to" / "access.md"


def test_the_configurations_of_the_guide_are_ones(tmp_path: Path) -> None:
    """Rules, nodes and aliases, as they come to `Access`."""
    from tomowire.server.access import Access
    from tomowire.server.config import load_settings

    said = []
    for text in re.findall(r"```toml\n(.*?)```", GUIDE.read_text(encoding="utf-8"), re.DOTALL):
        file = tmp_path / "archive.toml"
        file.write_text(text, encoding="utf-8")
        settings = load_settings(file)
        Access.of(settings)
        said.append((len(settings.callers), sorted(node.ae_title for node in settings.nodes), settings.aliases))
    assert said == [(2, ["TELERADIOLOGY", "VIEWER"], ("PACS", "OLDPACS")), (2, [], ()), (1, [], ())]
