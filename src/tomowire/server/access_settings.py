"""What settings say about who may call: rules, titles, and whether that is safe."""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING

from tomowire.errors import UsageError
from tomowire.server.caller_rules import CallerRule

if TYPE_CHECKING:
    from tomowire.server.settings import Settings


def check(settings: Settings) -> None:
    """Raises `UsageError` for what is open to the network without a person having said so, and for what contradicts itself."""
    is_named = bool(settings.callers or settings.allowed_callers or settings.nodes)
    if not (is_loopback(settings.bind) or is_named or settings.allow_unknown_callers):
        raise UsageError(
            f"listening on {settings.bind} needs to know who may call: name peers with --node or AE titles with --allow, "
            "or let in everyone with --allow-unknown-callers"
        )
    if settings.allow_unknown_callers and settings.allowed_callers:
        raise UsageError(
            "--allow names who may call, and --allow-unknown-callers lets in everyone: leave one of them out"
        )
    if settings.allow_unknown_callers and settings.callers:
        raise UsageError(
            "callers says who may call, and allow_unknown_callers lets in everyone: leave one of them out; a last rule for the "
            "addresses 0.0.0.0/0 and ::/0 lets in everyone with the rights that it names"
        )
    by_certificate = next((rule for rule in settings.callers if rule.certificate is not None), None)
    if by_certificate is not None and (settings.tls is None or settings.tls.client_auth == "none"):
        raise UsageError(
            f"the rule for callers {by_certificate} needs TLS with authorities for their certificates: otherwise none is shown"
        )


def rules_of(settings: Settings) -> list[CallerRule]:
    """Those that are written out, and those for the AE titles that are allowed."""
    return [*settings.callers, *(CallerRule(title) for title in settings.allowed_callers)]


def titles_of(settings: Settings) -> tuple[str, ...]:
    """The AE titles that may be called."""
    return settings.ae_title, *settings.aliases


def lets_in_everybody(settings: Settings) -> bool:
    """Whether who is named nowhere may call."""
    is_named = bool(settings.callers or settings.allowed_callers)
    return settings.allow_unknown_callers or (is_loopback(settings.bind) and not is_named)


def is_loopback(host: str) -> bool:
    """Whether who listens there is called from this machine only."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
