"""`tomowire echo --explain`: what was proposed to a peer, what it said, what it supports, and what is wrong if anything is."""

from __future__ import annotations

import json
import time
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Final

import click

from tomowire.aio.connect import associate
from tomowire.cli.running import ExitCode, complain, exit_code_of, explain, printable, with_options
from tomowire.errors import AssociationError, NoAcceptedContext, TomowireError, UsageError
from tomowire.protocol.explain import describe_agreement, describe_proposal
from tomowire.services.diagnosis import diagnose
from tomowire.services.probing import Probe
from tomowire.services.verification import CEchoScu, verification

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tomowire.aio.address import PeerAddress
    from tomowire.protocol.negotiation import Agreement
    from tomowire.protocol.status import Status
    from tomowire.services.diagnosis import Diagnosis
    from tomowire.services.probing import Support

_LABEL: Final = 18


async def explain_peer(
    address: PeerAddress, timeout: float, as_json: bool, verbose: int, options: dict[str, Any]
) -> int:
    """Ask for an association and an echo, then for everything else; print what came of it. Gives the exit code."""
    report = _Report(address, options["aet"])
    try:
        await _echo(report, timeout, options)
    except NoAcceptedContext as error:  # the association was accepted: other things may be supported
        report.fail(error)
    except TomowireError as error:
        report.fail(error)
        _print(report, as_json, verbose)
        return report.code
    probe = Probe(address, **options)
    try:
        await probe.run()
    except TomowireError as error:
        report.fail(error)
    report.classes, report.associations = probe.classes, probe.associations
    _print(report, as_json, verbose)
    return report.code


async def _echo(report: _Report, timeout: float, options: dict[str, Any]) -> None:
    async with associate(report.address, [verification()], **options) as association:
        report.agreement = association.agreement
        began = time.perf_counter()
        report.status = await CEchoScu(association).echo(timeout=timeout)
        report.milliseconds = (time.perf_counter() - began) * 1000


class _Report:
    """What has been found out."""

    def __init__(self, address: PeerAddress, aet: str) -> None:
        self.address = address
        self.aet = aet
        self.agreement: Agreement | None = None
        self.status: Status | None = None
        self.milliseconds = 0.0
        self.error: TomowireError | None = None
        self.classes: list[Support] = []
        self.associations = 0

    def fail(self, error: TomowireError) -> None:
        """The first counts. A mistake in the arguments is not the peer's to explain."""
        if isinstance(error, UsageError):
            raise error
        self.error = self.error or error

    @property
    def code(self) -> int:
        if self.error is not None:
            return exit_code_of(self.error)
        return ExitCode.OK if self.status is not None and self.status.is_success else ExitCode.FAILED

    @property
    def diagnosis(self) -> Diagnosis | None:
        return diagnose(self.error, self.address, self.aet) if self.error is not None else None


def _print(report: _Report, as_json: bool, verbose: int) -> None:
    if report.error is not None:
        complain(explain(report.error))
    if as_json:
        click.echo(json.dumps(_as_json(report)))
        return
    _print_association(report)
    if report.diagnosis is not None:
        _print_diagnosis(report.diagnosis)
    if report.classes:
        from tomowire.cli.support_table import print_options, print_support

        click.echo(f"\nWhat it supports, as asked on {report.associations} associations:\n")
        print_support(report.classes, every_class=bool(verbose))
        click.echo("\nExtended negotiation, where all that the standard has was asked for:\n")
        print_options(report.classes)


def _print_association(report: _Report) -> None:
    click.echo(f"{report.address}")
    agreement = report.agreement
    if agreement is not None:
        _print_pairs(describe_proposal(agreement.request))
        _print_pairs(describe_agreement(agreement))
    elif isinstance(report.error, AssociationError) and report.error.proposed is not None:
        _print_pairs(describe_proposal(report.error.proposed))
    if report.status is not None:
        _print_pairs([("echo", f"{report.status} in {report.milliseconds:.1f} ms")])


def _print_diagnosis(diagnosis: Diagnosis) -> None:
    click.echo()
    _print_pairs([("what happened", with_options(diagnosis.happened)), ("whose fault", diagnosis.whose)])
    for number, each in enumerate(diagnosis.change):
        _print_pairs([("what to change" if not number else "", each)])


def _print_pairs(pairs: Iterable[tuple[str, str]]) -> None:
    """One line each; what a peer says must not steer the terminal of who reads it."""
    for name, said in pairs:
        click.echo(f"  {name:<{_LABEL}}{printable(said)}")


def _as_json(report: _Report) -> dict[str, Any]:
    diagnosis = report.diagnosis
    return {
        "peer": str(report.address),
        "ok": report.code == ExitCode.OK,
        "error": explain(report.error) if report.error is not None else None,
        "diagnosis": {
            "kind": diagnosis.kind,
            "happened": with_options(diagnosis.happened),
            "whose": diagnosis.whose,
            "change": diagnosis.change,
        }
        if diagnosis is not None
        else None,
        "association": _agreement_as_json(report.agreement) if report.agreement is not None else None,
        "echo": {"status": int(report.status), "milliseconds": round(report.milliseconds, 3)}
        if report.status is not None
        else None,
        "associations": report.associations,
        "sop_classes": [
            {
                "uid": each.sop_class_uid,
                "name": each.name,
                "storage": each.is_storage,
                "supported": each.is_supported,
                "result": int(each.result),
                "transfer_syntaxes": each.transfer_syntaxes,
                "sent_by_get": each.is_sent,
                "extended": asdict(each.options) if each.options is not None else None,
            }
            for each in report.classes
        ],
    }


def _agreement_as_json(agreement: Agreement) -> dict[str, Any]:
    asked, given = agreement.request, agreement.response.user_information
    return {
        "called_ae_title": asked.called_ae_title,
        "calling_ae_title": asked.calling_ae_title,
        "maximum_length_of_peer": given.maximum_length,
        "maximum_length_here": asked.user_information.maximum_length,
        "maximum_invoked": agreement.maximum_invoked,
        "maximum_performed": agreement.maximum_performed,
        "implementation_class_uid": given.implementation_class_uid,
        "implementation_version_name": given.implementation_version_name,
        "accepted": [
            {
                "context_id": each.context_id,
                "abstract_syntax": each.abstract_syntax,
                "transfer_syntax": each.transfer_syntax,
                "scu": each.requestor_is_scu,
                "scp": each.requestor_is_scp,
            }
            for each in agreement.contexts.values()
        ],
        "refused": [
            {"context_id": each.context_id, "abstract_syntax": each.abstract_syntax, "result": int(each.result)}
            for each in agreement.refused
        ],
    }
