"""Presentation contexts planned from the files that are to be sent, and what came of a proposal, for the log."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final, TypeAlias

from tomowire.protocol.negotiation import MAXIMUM_CONTEXTS, ProposedContext
from tomowire.services.given import is_open
from tomowire.uids import EXPLICIT_VR_LITTLE_ENDIAN, IMPLICIT_VR_LITTLE_ENDIAN, name_of

if TYPE_CHECKING:
    from collections.abc import Container, Iterable, Sequence

    from tomowire.aio.association import Association
    from tomowire.services.sent import Sendable

Kind: TypeAlias = tuple[str, str]
"""A SOP class and a transfer syntax: what a presentation context is for."""

_TRANSCODED: Final = (EXPLICIT_VR_LITTLE_ENDIAN, IMPLICIT_VR_LITTLE_ENDIAN)
"""What a peer takes that does not take what is stored: the last of them every peer must (PS3.5 10.1)."""


def plan(files: Iterable[Sendable], *, transcode: bool = False) -> list[tuple[list[ProposedContext], list[Sendable]]]:
    """Presentation contexts for `files`, and who uses them: one context for each pair of SOP class and transfer syntax.

    With `transcode` each SOP class gets one context more, for what the peer does not take as it is stored; and so does one of which
    there is something that can be written in either uncompressed transfer syntax. What an association has
    no room for (128, PS3.8 9.3.2.2) makes further groups, each for an association of its own.
    """
    by_kind: dict[Kind, list[Sendable]] = {}
    open_classes: set[str] = set()
    for file in files:
        by_kind.setdefault((file.sop_class_uid, file.transfer_syntax_uid), []).append(file)
        if is_open(file):
            open_classes.add(file.sop_class_uid)
    left = list(by_kind)
    groups = []
    while left:
        contexts, kinds = first_group(left, transcode=transcode, open_classes=open_classes)
        groups.append((contexts, [file for kind in kinds for file in by_kind[kind]]))
        del left[: len(kinds)]
    return groups


def first_group(
    kinds: Sequence[Kind], *, transcode: bool = False, open_classes: Container[str] = ()
) -> tuple[list[ProposedContext], list[Kind]]:
    """Contexts for the first of `kinds`, as many as one association has room for; and which those are."""
    syntaxes: dict[str, set[str]] = {}  # of each SOP class
    size = 0
    count = 0
    for sop_class, transfer_syntax in kinds:
        of_class = syntaxes.get(sop_class, set())
        with_it = of_class | {transfer_syntax}
        size += 1
        if transcode or sop_class in open_classes:
            size += bool(_others(with_it)) - bool(of_class and _others(of_class))
        if size > MAXIMUM_CONTEXTS:
            break
        syntaxes[sop_class] = with_it
        count += 1
    contexts = [ProposedContext(sop_class, (transfer_syntax,)) for sop_class, transfer_syntax in kinds[:count]]
    contexts += [
        ProposedContext(each, others)
        for each, own in syntaxes.items()
        if (transcode or each in open_classes) and (others := _others(own))
    ]
    return contexts, list(kinds[:count])


def _others(syntaxes: set[str]) -> tuple[str, ...]:
    """What a SOP class is proposed in besides."""
    return tuple(each for each in _TRANSCODED if each not in syntaxes)


def log_agreement(log: logging.Logger, association: Association) -> None:
    """Log what was agreed on an association of ours: at INFO the whole and what was refused, at DEBUG each context."""
    if not log.isEnabledFor(logging.INFO):
        return
    agreement = association.agreement
    proposed = agreement.request.presentation_contexts
    log.info(
        "%s: established, %d of %d presentation contexts accepted; data sent in pieces of up to %d bytes, %s requests at once",
        association.title,
        len(agreement.contexts),
        len(proposed),
        association.payload_maximum,
        association.window or "any number of",
    )
    for context in proposed:
        what = f"context {context.context_id}: {name_of(context.abstract_syntax)}"
        accepted = agreement.contexts.get(context.context_id)
        if accepted is None:
            log.info("%s in %s: refused", what, ", ".join(map(name_of, context.transfer_syntaxes)))
        else:
            log.debug("%s in %s: accepted", what, name_of(accepted.transfer_syntax))
