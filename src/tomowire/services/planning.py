"""Presentation contexts planned from the files that are to be sent, and what came of a proposal, for the log."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

from tomowire.protocol.negotiation import MAXIMUM_CONTEXTS, ProposedContext
from tomowire.uids import EXPLICIT_VR_LITTLE_ENDIAN, IMPLICIT_VR_LITTLE_ENDIAN, name_of

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tomowire.aio.association import Association
    from tomowire.services.dicom_file import DicomFile

_TRANSCODED: Final = (EXPLICIT_VR_LITTLE_ENDIAN, IMPLICIT_VR_LITTLE_ENDIAN)
"""What a peer takes that does not take what is stored: the last of them every peer must (PS3.5 10.1)."""


def plan(files: Iterable[DicomFile], *, transcode: bool = False) -> list[tuple[list[ProposedContext], list[DicomFile]]]:
    """Presentation contexts for `files`, and who uses them: one context for each pair of SOP class and transfer syntax.

    More pairs than an association has room for (128, PS3.8 9.3.2.2) make further groups, each for an association of its own. With
    `transcode` each SOP class gets one context more, as far as there is room, for what the peer does not take as it is stored.
    """
    by_pair: dict[tuple[str, str], list[DicomFile]] = {}
    for file in files:
        by_pair.setdefault((file.sop_class_uid, file.transfer_syntax_uid), []).append(file)
    pairs = list(by_pair)
    groups = [pairs[start : start + MAXIMUM_CONTEXTS] for start in range(0, len(pairs), MAXIMUM_CONTEXTS)]
    return [
        (
            _contexts(group, transcode=transcode),
            [file for pair in group for file in by_pair[pair]],
        )
        for group in groups
    ]


def _contexts(pairs: list[tuple[str, str]], *, transcode: bool) -> list[ProposedContext]:
    contexts = [ProposedContext(sop_class, (transfer_syntax,)) for sop_class, transfer_syntax in pairs]
    if transcode:
        for sop_class in dict.fromkeys(sop_class for sop_class, _ in pairs):
            others = tuple(each for each in _TRANSCODED if (sop_class, each) not in pairs)
            if others:
                contexts.append(ProposedContext(sop_class, others))
    return contexts[:MAXIMUM_CONTEXTS]


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
