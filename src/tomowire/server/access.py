"""Who may do what with an archive over DICOM: decided when somebody asks for an association, and again for each request."""

from __future__ import annotations

import asyncio
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, Self
from weakref import WeakSet

from tomowire.aio.address import check_ae_title
from tomowire.errors import AssociationRejected
from tomowire.protocol.acceptance import REJECT_CALLED_AE_TITLE, REJECT_CALLING_AE_TITLE, REJECT_LOCAL_LIMIT
from tomowire.server.access_settings import check, lets_in_everybody, rules_of, titles_of
from tomowire.server.caller_rules import Applicant, CallerRule, Everybody, NodeRule, ReadRule
from tomowire.server.guarded import Guarded
from tomowire.server.node_hosts import NodeHosts
from tomowire.server.nodes import nodes_by_title
from tomowire.server.rights import OF_CALLERS, Right
from tomowire.wire.value import value

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from tomowire.aio.association import Association
    from tomowire.aio.association_request import AssociationRequest
    from tomowire.aio.serving import ServiceProvider
    from tomowire.server.caller_rules import Rule
    from tomowire.server.nodes import Node
    from tomowire.server.settings import Settings
    from tomowire.wire.pdu import AAssociateRJ

__all__ = ["Access", "Caller", "CallerRule", "Guarded", "Right"]


class Access:
    """`async with Access.of(settings) as access`: the hosts of nodes are looked up, and looked after until the end.

    The first of `rules` that applies to a caller says what it may do; then comes the node of its AE title, if it calls from its own
    host; who fits none is not let in, unless the archive `is_open`. `titles` are the AE titles that may be called; none are any.

    Raises `UsageError` for rules and nodes that cannot be.
    """

    def __init__(
        self,
        rules: Iterable[CallerRule] = (),
        nodes: Iterable[Node] = (),
        *,
        titles: Iterable[str] = (),
        is_open: bool = False,
    ) -> None:
        self._hosts = NodeHosts()
        self._force = _Force.read(rules, nodes, titles, is_open, self._hosts)
        self._callers: WeakSet[Caller] = WeakSet()
        self._nodes = dict(self._force.nodes)
        self.nodes: Final[Mapping[str, Node]] = MappingProxyType(self._nodes)
        """The nodes by their AE titles, always those that are in force."""
        self._replacing = asyncio.Lock()

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """What an archive with these settings lets in. Raises `UsageError`."""
        check(settings)
        return cls(rules_of(settings), settings.nodes, titles=titles_of(settings), is_open=lets_in_everybody(settings))

    @property
    def is_open(self) -> bool:
        """Whether who fits no rule is let in."""
        return self._force.is_open

    async def replace(
        self,
        rules: Iterable[CallerRule],
        nodes: Iterable[Node],
        *,
        titles: Iterable[str] | None = None,
        is_open: bool | None = None,
    ) -> None:
        """Have other rules and nodes in force, as soon as the hosts of new nodes have been looked up.

        Associations in progress go on; what they ask for from then on is judged by these. None leaves `titles` and `is_open` as
        they are. Raises `UsageError`, and leaves all as it was.
        """
        async with self._replacing:
            before = self._force
            force = _Force.read(
                rules,
                nodes,
                before.titles if titles is None else titles,
                before.is_open if is_open is None else is_open,
                self._hosts,
            )
            await self._hosts.find(force.hosts)
            self._force = force
            self._nodes.clear()
            self._nodes.update(force.nodes)
            self._hosts.keep(force.hosts)

    async def apply(self, settings: Settings) -> None:
        """`replace` all that `of` takes from the settings. Raises `UsageError`, and leaves all as it was."""
        check(settings)
        await self.replace(
            rules_of(settings), settings.nodes, titles=titles_of(settings), is_open=lets_in_everybody(settings)
        )

    def offers(self, request: AssociationRequest, services: Sequence[ServiceProvider]) -> Sequence[ServiceProvider]:
        """What `listen` asks. `services` are `Guarded`; raises `AssociationRejected` with what would have to be changed."""
        caller = self.admit(request.association)
        return [each.to(caller) for each in services if isinstance(each, Guarded)]

    def admit(self, association: Association) -> Caller:
        """Who calls, if it is let in. Raises `AssociationRejected`."""
        titles, called = self._force.titles, association.called_ae_title
        if titles and called not in titles:
            known = " or ".join(map(repr, sorted(titles)))
            raise _refusal(
                REJECT_CALLED_AE_TITLE,
                f"it called {called!r}, which is not the AE title here: it has to call {known}, or this one is made an alias",
            )
        caller = Caller(self, association)
        rule = caller.rule
        if rule is None:
            raise _refusal(REJECT_CALLING_AE_TITLE, self._force.why_not(caller.applicant))
        most = rule.maximum_associations
        if most is not None:
            there = sum(each.rule is rule for each in self._callers if each.is_there)
            if there >= most:
                raise _refusal(
                    REJECT_LOCAL_LIMIT,
                    f"the limit of associations of the rule for {rule} is reached: maximum_associations is {most}",
                )
        self._callers.add(caller)
        return caller

    def force(self) -> _Force:
        """What is in force now; another object after each `replace`."""
        return self._force

    async def __aenter__(self) -> Self:
        await self._hosts.find(self._force.hosts)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._hosts.close()


class Caller:
    """Who has an association, and what it may do by the rules that are in force."""

    __slots__ = ("__weakref__", "_access", "_association", "_judged_by", "_rule", "applicant")

    def __init__(self, access: Access, association: Association) -> None:
        self._access = access
        self._association = association
        self.applicant: Final = Applicant(association)
        self._judge(access.force())

    @property
    def rule(self) -> Rule | None:
        """The rule that applies to it; None if none does (any more)."""
        force = self._access.force()
        if force is not self._judged_by:
            self._judge(force)
        return self._rule

    @property
    def is_there(self) -> bool:
        """Whether its association has begun and is not over."""
        return self._association.has_begun

    def may(self, right: Right) -> bool:
        rule = self.rule
        return rule is not None and right in rule.may

    def _judge(self, force: _Force) -> None:
        self._judged_by = force
        self._rule = force.rule_for(self.applicant)


@value()
class _Force:
    """What is in force, from one `replace` to the next."""

    rules: tuple[Rule, ...]
    nodes: Mapping[str, Node]
    titles: frozenset[str]
    is_open: bool
    hosts: Mapping[str, str]
    """The hosts of the nodes that are rules, with their AE titles."""

    @classmethod
    def read(
        cls,
        rules: Iterable[CallerRule],
        nodes: Iterable[Node],
        titles: Iterable[str],
        is_open: bool,
        hosts: NodeHosts,
    ) -> Self:
        """Raises `UsageError`."""
        known = nodes_by_title(nodes)
        # Where everybody is let in, a node that may do everything needs no rule, and its host need not be found.
        callers = [node for node in known.values() if not (is_open and node.may >= OF_CALLERS)]
        judging: list[Rule] = list(map(ReadRule, rules))
        judging += [NodeRule(node, hosts) for node in callers]
        if is_open:
            judging.append(Everybody())
        return cls(
            tuple(judging),
            known,
            frozenset(map(check_ae_title, titles)),
            is_open,
            {node.host: node.ae_title for node in callers},
        )

    def rule_for(self, applicant: Applicant) -> Rule | None:
        return next((rule for rule in self.rules if rule.why_not(applicant) is None), None)

    def why_not(self, applicant: Applicant) -> str:
        """Why nobody lets an applicant in, and what would."""
        near = [rule.why_not(applicant) for rule in self.rules if rule.is_about(applicant.ae_title)]
        if near:
            return f"{applicant.ae_title!r} {'; it '.join(why for why in near if why is not None)}"
        return (
            f"{applicant} is not one of the callers that are let in: add it to the callers (or {applicant.allowing}), or make it a "
            "node"
        )


def _refusal(response: AAssociateRJ, why: str) -> AssociationRejected:
    return AssociationRejected(why, result=response.result, source=response.source, reason=response.reason)
