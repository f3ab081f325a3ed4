"""Rules for callers, without a network: whatever callers say of themselves, and whatever their certificates say."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tomowire.aio.tls_certificate import PeerCertificate
from tomowire.errors import UsageError
from tomowire.server.access import Access, CallerRule, Right
from tomowire.server.caller_rules import Applicant, ReadRule
from tomowire.server.nodes import Node
from tomowire.server.rights import OF_CALLERS, OF_NODES, rights

FINGERPRINT = "ab" * 32


class Somebody:
    """Stands for an association."""

    has_begun = True

    def __init__(
        self,
        ae_title: str = "CT1",
        host: str = "10.0.0.1",
        certificate: PeerCertificate | None = None,
        called: str = "TOMOWIRE",
    ) -> None:
        self.calling_ae_title = ae_title
        self.called_ae_title = called
        self.peer_address = f"[{host}]:104" if ":" in host else f"{host}:104" if host else ""
        self.peer_certificate = certificate


def applicant(*args: Any, **options: Any) -> Applicant:
    return Applicant(Somebody(*args, **options))  # type: ignore[arg-type]


def applies(rule: CallerRule, *args: Any, **options: Any) -> bool:
    return ReadRule(rule).why_not(applicant(*args, **options)) is None


def certificate(**facts: Any) -> PeerCertificate:
    return PeerCertificate(b"", FINGERPRINT, **facts)


@pytest.mark.parametrize(
    ("key", "shown", "expected"),
    [
        (f"sha256:{FINGERPRINT}", {}, True),
        ("SHA256:" + ":".join(["AB"] * 32), {}, True),
        (f"sha256:{'ba' * 32}", {}, False),
        ("CN:ct1", {"common_name": "ct1"}, True),
        ("CN:ct1", {"common_name": "CT1"}, False),
        ("CN:ct1", {"common_name": ""}, False),
        ("CN:ct1", {"names": ("DNS:ct1",)}, False),
        ("CN:ct1", {"subject": "O=x,CN=ct1", "common_name": "ct1\0.evil"}, False),
        ("DNS:ct1.example.org", {"names": ("DNS:CT1.Example.org",)}, True),
        ("DNS:ct1.example.org", {"names": ("DNS:*.example.org",)}, False),
        ("DNS:ct1.example.org", {"names": ("DNS:ct1.example.org\0.evil",)}, False),
        ("DNS:ct1.example.org", {"names": ("email:ct1.example.org", "URI:ct1.example.org")}, False),
        ("DNS:ct1.example.org", {"common_name": "ct1.example.org"}, False),
        ("IP:2001:db8::1", {"names": ("IP:2001:DB8:0:0:0:0:0:1",)}, True),
        ("IP:10.0.0.1", {"names": ("DNS:10.0.0.1",)}, False),
        ("URI:urn:oid:1.2.3", {"names": ("URI:urn:oid:1.2.3",)}, True),
        ("email:ct@example.org", {"names": ("email:ct@example.org",)}, True),
    ],
)
def test_certificates(key: str, shown: dict[str, Any], expected: bool) -> None:
    rule = CallerRule(certificate=key)
    assert applies(rule, certificate=certificate(**shown)) == expected
    assert not applies(rule)


@pytest.mark.parametrize(
    "key", ["", "ct1", "CN:", "CN: ", "sha256:ab", f"sha256:{'zz' * 32}", "O:Hospital", "IP:ct1", ":x"]
)
def test_what_names_no_certificate(key: str) -> None:
    with pytest.raises(UsageError):
        ReadRule(CallerRule(certificate=key))


def test_spaces_around_a_title_do_not_count_and_case_does() -> None:
    """PS3.8 9.3.2."""
    assert applies(CallerRule(" CT1 "), "CT1")
    assert not applies(CallerRule("CT1"), "ct1")
    assert not applies(CallerRule("CT1"), "CT1 X")
    assert not applies(CallerRule("CT1"), "")


def test_who_has_no_address_is_in_no_range() -> None:
    """A Unix socket."""
    assert not applies(CallerRule(addresses=("0.0.0.0/0", "::/0")), host="")
    assert applies(CallerRule("CT1"), host="")


HOSTS = ["10.0.0.1", "10.1.0.1", "192.0.2.1", "2001:db8::1", "::ffff:10.0.0.1", ""]
RANGES = ["10.0.0.0/8", "10.0.0.0/16", "::ffff:10.0.0.0/112", "192.0.2.1", "2001:db8::/32", "0.0.0.0/0", "::/0"]
TITLES = ["CT1", "CT2", "MR1"]
NAMES = ["ct1", "ct2"]

the_rules = st.builds(
    CallerRule,
    st.sampled_from([None, *TITLES]),
    st.lists(st.sampled_from(RANGES), max_size=2).map(tuple),
    st.sampled_from([None, *(f"CN:{name}" for name in NAMES), f"sha256:{FINGERPRINT}"]),
    st.frozensets(st.sampled_from(sorted(OF_CALLERS))),
).filter(lambda rule: rule.ae_title or rule.addresses or rule.certificate)


@given(
    st.lists(the_rules, max_size=5),
    st.sampled_from(TITLES),
    st.sampled_from(HOSTS),
    st.sampled_from([None, *NAMES]),
    st.booleans(),
)
def test_the_first_rule_of_which_all_holds_decides(
    given_rules: list[CallerRule], title: str, host: str, name: str | None, is_open: bool
) -> None:
    """Against a plain reading of the rules, by other means than those of the program."""
    from ipaddress import IPv6Address, IPv6Network, ip_address, ip_network

    def as_v6(network: str) -> IPv6Network:
        read = ip_network(network)
        return IPv6Network(f"::ffff:{read.network_address}/{96 + read.prefixlen}") if read.version == 4 else read

    def is_in(address: str, network: str) -> bool:
        if not address or (network == "::/0" and (ip_address(address).version == 4 or "ffff" in address)):
            return False
        read = ip_address(address)
        return (IPv6Address(f"::ffff:{read}") if read.version == 4 else read) in as_v6(network)

    def holds(rule: CallerRule) -> bool:
        return (
            (rule.ae_title is None or rule.ae_title == title)
            and (not rule.addresses or any(is_in(host, each) for each in rule.addresses))
            and (
                rule.certificate is None
                or (name is not None and rule.certificate in (f"CN:{name}", f"sha256:{FINGERPRINT}"))
            )
        )

    fitting = [rule for rule in given_rules if holds(rule)]
    expected = fitting[0].may if fitting else OF_CALLERS if is_open else None
    access = Access(given_rules, is_open=is_open)
    shown = certificate(common_name=name) if name is not None else None
    force = access.force()
    who = applicant(title, host, shown)
    rule = force.rule_for(who)
    assert (rule.may if rule is not None else None) == expected
    if rule is None:
        assert title in force.why_not(who)


@given(
    st.sampled_from(["CT1", "AWAY"]) | st.text(max_size=40),
    st.ip_addresses().map(lambda address: f"[{address}]:104"),
    st.sampled_from(["ct1", "ct2"]) | st.text(max_size=40),
    st.just("TOMOWIRE") | st.text(max_size=40),
)
def test_whatever_somebody_says_the_answer_is_yes_or_a_line_of_words(
    title: str, address: str, name: str, called: str
) -> None:
    """One line, whatever it is about. What a peer sends has been through the decoding of its PDU; this is worse."""
    from tomowire.errors import AssociationRejected

    rules = [
        CallerRule("CT1", ("10.0.0.0/8",), "CN:ct1"),
        CallerRule("CT1", certificate="CN:ct2", addresses=("192.0.2.0/24",)),
        CallerRule(certificate="DNS:ct2"),
    ]
    somebody = Somebody(title, "", certificate(common_name=name, subject=name, names=(name, f"DNS:{name}")), called)
    somebody.peer_address = address
    access = Access(rules, titles=["TOMOWIRE"])
    try:
        caller = access.admit(somebody)  # type: ignore[arg-type]
    except AssociationRejected as rejected:
        assert str(rejected).isprintable()
        assert rejected.result == 1
    else:
        assert called == "TOMOWIRE"
        assert caller.may(Right.STORE)


def test_rights_by_name() -> None:
    assert rights(["store", "echo"]) == {Right.STORE, Right.ECHO}
    assert rights([]) == frozenset()
    assert rights(["move-destination"]) == {Right.MOVE_DESTINATION}
    for names, allowed, words in (
        (["delete"], OF_NODES, "'delete' is not a right; there are echo, store, query, retrieve, move-destination"),
        (["move-destination"], OF_CALLERS, "'move-destination' is a right of nodes only; there are echo"),
        (["STORE"], OF_NODES, "'STORE' is not a right"),
    ):
        with pytest.raises(UsageError, match=words):
            rights(names, allowed)


@pytest.mark.parametrize(
    ("text", "may"),
    [
        ("CT1@ct1", OF_NODES),
        ("CT1@ct1,may=echo", {Right.ECHO}),
        ("CT1@ct1,may=store+echo,tls", {Right.ECHO, Right.STORE}),
        ("CT1@ct1,may=move-destination", {Right.MOVE_DESTINATION}),
        ("CT1@ct1,may=", set()),
    ],
)
def test_what_a_node_may_as_it_is_written(text: str, may: frozenset[Right]) -> None:
    node = Node.parse(text)
    assert node.may == may
    assert Node.parse(str(node)) == node


@pytest.mark.parametrize(
    "text", ["CT1@ct1,may=shred", "CT1@ct1,may=echo,may=store", "CT1@ct1,may=echo+", "CT1@ct1,may"]
)
def test_what_no_node_may(text: str) -> None:
    with pytest.raises(UsageError):
        Node.parse(text)
