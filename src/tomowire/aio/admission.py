"""Who gets an association: limits and AE titles first, then the handlers of the application, which may take their time."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any, Final

from tomowire.aio.arguments import awaited, function, not_awaited, whole
from tomowire.aio.association_request import AssociationRequest, Identified
from tomowire.aio.failing import log_failure
from tomowire.aio.providers import Providers, checked
from tomowire.errors import AssociationRejected, UsageError
from tomowire.protocol.acceptance import (
    REJECT_CALLING_AE_TITLE,
    REJECT_CONGESTION,
    REJECT_LOCAL_LIMIT,
    REJECT_USER_IDENTITY,
    AcceptorPolicy,
    acceptance,
    confirm_identity,
    rejection,
)
from tomowire.protocol.reasons import why_rejected
from tomowire.wire.pdu import AAssociateRJ
from tomowire.wire.value import value

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Sequence

    from tomowire.aio.association import Association
    from tomowire.aio.background import Background
    from tomowire.aio.serving import ServiceProvider
    from tomowire.aio.tls_titles import TitlesOf
    from tomowire.wire.pdu import AAssociateRQ

    Offers = Callable[[AssociationRequest, Sequence[ServiceProvider]], Sequence[ServiceProvider]]

logger = logging.getLogger("tomowire.listen")

_REJECT_FOR_NOW: Final = AAssociateRJ(result=2, source=1, reason=1)


@value(kw_only=True)
class Rules:
    """What decides, by the names of `listen`. Limits of None are none; `artim_timeout` is for the handlers."""

    ae_titles: frozenset[str] | None
    calling_ae_titles: frozenset[str] | None
    maximum_length: int
    window: int
    maximum_associations: int
    maximum_per_title: int | None
    maximum_per_address: int | None
    certificate_titles: TitlesOf | None
    admits: Callable[[str, str], bool] | None
    on_request: Callable[[AssociationRequest], Awaitable[bool | None]] | None
    identify: Callable[[AssociationRequest], Awaitable[Any]] | None
    anonymous: bool
    offers: Offers | None
    artim_timeout: float


ALLOWED: Final = {
    "maximum_length": whole(0, 0xFFFFFFFF),
    "window": whole(0, 0xFFFF),
    "maximum_per_title": whole(1, or_none=True),
    "maximum_per_address": whole(1, or_none=True),
    "certificate_titles": function("the certificate of a caller", may_be_async=False),
    "admits": function("the calling AE title and the address of a caller", may_be_async=False),
    "on_request": function("the AssociationRequest"),
    "identify": function("the AssociationRequest"),
    "offers": function("the AssociationRequest and the services", may_be_async=False),
}
"""What may be said of `Rules`."""


class Admission:
    """Answers requests for associations, at once where no handler is to be asked.

    `connections` are all that the server has, `background` is where the handlers run.
    """

    def __init__(
        self,
        services: Sequence[ServiceProvider],
        rules: Rules,
        connections: Iterable[Association],
        background: Background,
    ) -> None:
        self._services = services
        self._rules = rules
        self._connections = connections
        self._background = background
        self._pending: dict[Association, _Pending] = {}
        self._is_closed = False

    def begin(self, association: Association, request: AAssociateRQ) -> None:
        """Answer, or have the handlers asked first."""
        try:
            self._check_at_once(association, request)
        except AssociationRejected as refusal:
            reject(association, refusal)
            return
        except Exception as error:  # of `admits` or `certificate_titles`
            _fail(association, error)
            return
        asked = AssociationRequest(association, request)
        if self._rules.on_request is None and (self._rules.identify is None or asked.identity is None):
            self.accept(asked, None)
            return
        task = self._background.start(self._ask(asked), f"{association.title}: the handler of its request")
        self._pending[association] = _Pending(self, asked, task, self._rules.artim_timeout)

    def give_up(self, association: Association) -> None:
        """The association is over: if it was not answered yet, nobody waits for the answer any more."""
        pending = self._pending.get(association)
        if pending is not None:
            pending.stop()

    def close(self) -> None:
        """Let nobody in any more, who is waiting for an answer included."""
        self._is_closed = True
        for association, pending in list(self._pending.items()):
            pending.stop()
            if association.awaits_answer:
                reject(association, _refusal(REJECT_CONGESTION, "the server is shutting down"))

    def forget(self, association: Association) -> None:
        self._pending.pop(association, None)

    def accept(self, asked: AssociationRequest, identified: Identified | None) -> None:
        """Answer A-ASSOCIATE-AC, unless `offers` objects; it confirms the user only if it was `identified`."""
        association, request = asked.association, asked.pdu
        if identified is not None:
            association.user = identified.user
        try:
            providers = Providers(self._offered(asked), request.user_information.common_extended_negotiations)
            response = acceptance(request, self._policy(providers))
            if identified is not None:
                response = confirm_identity(request, response, identified.response)
            association.accept(request, response, providers)
        except AssociationRejected as refusal:  # of `offers`
            reject(association, refusal)
        except Exception as error:  # of `offers` or a provider; or the response of `identify` does not fit
            if not association.awaits_answer:
                raise
            _fail(association, error)

    def _offered(self, asked: AssociationRequest) -> Sequence[ServiceProvider]:
        offers = self._rules.offers
        if offers is None:
            return self._services
        return checked(not_awaited("offers", offers, offers(asked, self._services)))

    def _policy(self, providers: Providers) -> AcceptorPolicy:
        rules = self._rules
        return AcceptorPolicy(
            providers, rules.ae_titles, rules.calling_ae_titles, rules.maximum_length, rules.window, rules.window
        )

    def _check_at_once(self, association: Association, request: AAssociateRQ) -> None:
        """Raises `AssociationRejected`: by the limits first, then by what is asked for."""
        rules = self._rules
        if self._is_closed:
            raise _refusal(REJECT_CONGESTION, "the server is shutting down")
        self._check_limits(association, request)
        rejected = rejection(request, self._policy(Providers(())))
        if rejected is not None:
            raise _refusal(rejected, why_rejected(request, rejected))
        title, address = request.calling_ae_title, association.peer_address
        if rules.certificate_titles is not None:
            from tomowire.aio.tls_titles import why_not_let_in  # a program without TLS does not need it

            why = why_not_let_in(rules.certificate_titles, association.peer_certificate, title)
            if why is not None:
                raise _refusal(REJECT_CALLING_AE_TITLE, why)
        if rules.admits is not None and not not_awaited("admits", rules.admits, rules.admits(title, address)):
            raise _refusal(REJECT_CALLING_AE_TITLE, why_rejected(request, REJECT_CALLING_AE_TITLE))
        if rules.identify is not None and not rules.anonymous and request.user_information.user_identity is None:
            raise _refusal(REJECT_USER_IDENTITY, "it did not say who its user is")

    def _check_limits(self, association: Association, request: AAssociateRQ) -> None:
        """Who is being asked about has a place already: others must not get it meanwhile."""
        rules = self._rules
        there = [
            each for each in self._connections if each.has_begun or (each.awaits_answer and each is not association)
        ]
        if len(there) >= rules.maximum_associations:
            raise _refusal(REJECT_LOCAL_LIMIT, "the limit of associations is reached")
        title, host = request.calling_ae_title, association.peer_host
        if _is_reached(rules.maximum_per_title, (each.calling_ae_title == title for each in there)):
            raise _refusal(REJECT_LOCAL_LIMIT, f"the limit of associations of {title} is reached")
        if _is_reached(rules.maximum_per_address, (each.peer_host == host for each in there)):
            raise _refusal(REJECT_LOCAL_LIMIT, f"the limit of associations from {host} is reached")

    async def _ask(self, asked: AssociationRequest) -> Identified | None:
        """Ask the handlers; None when nobody looks at identities. Raises `AssociationRejected` when one of them refuses."""
        rules = self._rules
        if rules.on_request is not None:
            answer = await awaited("on_request", rules.on_request, rules.on_request(asked))
            if answer is not None and not answer:
                raise AssociationRejected("the handler of association requests refused it")
        if rules.identify is None or asked.identity is None:
            return None
        found = await awaited("identify", rules.identify, rules.identify(asked))
        identified = found if isinstance(found, Identified) else Identified(found)
        if not identified.user:  # a forgotten `return`, a check that says no, a search that finds nobody
            raise _refusal(REJECT_USER_IDENTITY, f"{asked.identity} is not known")
        if not isinstance(identified.response, bytes):  # encoding it would fail, and the requestor would get no answer
            raise UsageError(f"the response of `identify` is bytes, and not {type(identified.response).__name__}")
        return identified


class _Pending:
    """One request that the handlers are asked about: it is answered when they are done or the time is up, whatever they do then."""

    def __init__(
        self,
        admission: Admission,
        asked: AssociationRequest,
        task: asyncio.Task[Identified | None],
        timeout: float,
    ) -> None:
        self._admission = admission
        self._asked = asked
        self._association = asked.association
        self._task = task
        self._timer = asyncio.get_running_loop().call_later(timeout, self._late, timeout)
        task.add_done_callback(self._done)

    def stop(self) -> None:
        """Cancel the handlers; what they still say is of no interest."""
        self._timer.cancel()
        self._task.cancel()

    def _late(self, timeout: float) -> None:
        self.stop()
        reject(self._association, _refusal(_REJECT_FOR_NOW, f"the handlers did not decide within {timeout:g} s"))

    def _done(self, task: asyncio.Task[Identified | None]) -> None:
        self._timer.cancel()
        self._admission.forget(self._association)
        error = None if task.cancelled() else task.exception()
        if not self._association.awaits_answer:
            return
        if task.cancelled():
            reject(self._association, _refusal(_REJECT_FOR_NOW, "the handler was cancelled"))
        elif isinstance(error, AssociationRejected):
            reject(self._association, error)
        elif error is not None:
            _fail(self._association, error)
        else:
            self._admission.accept(self._asked, task.result())


def _fail(association: Association, error: BaseException) -> None:
    log_failure(logger, f"{association.title}: the handler of its request", error)
    reject(association, _refusal(_REJECT_FOR_NOW, "the handler of its request failed"))


def reject(association: Association, refusal: AssociationRejected) -> None:
    """Answer A-ASSOCIATE-RJ, and say why in the log: the peer is told no more than three numbers."""
    codes = refusal.result, refusal.source, refusal.reason
    association.rejection = refusal
    try:
        association.reject(AAssociateRJ(*codes))
    except UsageError:
        logger.error("%s: %s cannot be sent as result, source and reason", association.title, codes)
        codes = _REJECT_FOR_NOW.result, _REJECT_FOR_NOW.source, _REJECT_FOR_NOW.reason
        association.reject(_REJECT_FOR_NOW)
    text = f"{refusal} (result {codes[0]}, source {codes[1]}, reason {codes[2]})"
    logger.warning("%s: rejected: %s", association.title, text)


def _is_reached(limit: int | None, counted: Iterable[bool]) -> bool:
    return limit is not None and sum(counted) >= limit


def _refusal(response: AAssociateRJ, why: str) -> AssociationRejected:
    return AssociationRejected(why, result=response.result, source=response.source, reason=response.reason)
