"""The presentation contexts for what a C-GET is to bring.

It brings only what the requestor proposed contexts for, at most 128 (PS3.8 9.3.2.2), and there are more pairs of SOP class and
transfer syntax than that. Objects of other classes would be passed over, often in silence.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from tomowire.protocol.negotiation import MAXIMUM_CONTEXTS, ProposedContext
from tomowire.services.get import getting
from tomowire.uids import (
    DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN,
    EXPLICIT_VR_BIG_ENDIAN,
    EXPLICIT_VR_LITTLE_ENDIAN,
    IMPLICIT_VR_LITTLE_ENDIAN,
    STORAGE_SOP_CLASSES,
    TRANSFER_SYNTAXES,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tomowire.services.models import Model

_COMMON_SYNTAXES: Final = (
    EXPLICIT_VR_LITTLE_ENDIAN,
    IMPLICIT_VR_LITTLE_ENDIAN,
    "1.2.840.10008.1.2.4.70",  # JPEG Lossless SV1
    "1.2.840.10008.1.2.4.90",  # JPEG 2000 Lossless
    "1.2.840.10008.1.2.4.50",  # JPEG Baseline
    "1.2.840.10008.1.2.4.91",  # JPEG 2000
    "1.2.840.10008.1.2.5",  # RLE Lossless
    "1.2.840.10008.1.2.4.80",  # JPEG-LS Lossless
    EXPLICIT_VR_BIG_ENDIAN,
    DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN,
)
# Streams and encodings for mail and XML: nothing that a stored object could have.
_NO_STORAGE: Final = ("1.2.840.10008.1.2.6.", "1.2.840.10008.1.2.7.")
_RETIRED: Final = "(Retired)"
_STORED: Final = tuple(uid for uid in TRANSFER_SYNTAXES if not uid.startswith(_NO_STORAGE))
_CURRENT: Final = tuple(uid for uid in _STORED if _RETIRED not in TRANSFER_SYNTAXES[uid])
_OF_VIDEO: Final = tuple(uid for uid in _CURRENT if any(kind in TRANSFER_SYNTAXES[uid] for kind in ("MPEG", "HEVC")))
_OF_IMAGES: Final = tuple(uid for uid in _CURRENT if uid not in _OF_VIDEO)
SYNTAXES: Final = tuple(dict.fromkeys((*_COMMON_SYNTAXES, *_OF_IMAGES, *_OF_VIDEO, *_STORED)))
"""All that an object may be stored in: the common ones first, those of video after those of images, the retired ones last."""
_SYNTAXES_OF_VIDEO: Final = tuple(dict.fromkeys((*_COMMON_SYNTAXES[:2], *_OF_VIDEO, *SYNTAXES)))
# DCMTK 3.6.7 closes the connection at a context with more than 50.
_MOST_SYNTAXES_IN_A_CONTEXT: Final = 20

# Ophthalmic measurements, radiotherapy of the second generation, waveforms but ECG, presentations of volumes, surfaces, security
# scanners, eddy currents, protocols: few archives have them.
_RARE_ENDINGS: Final = """
    78. 79. 80. 81. 82. 9.4. 9.5. 9.6. 9.7. 9.8. 9.100. 11.6 11.7 11.8 11.9 11.10 11.11 66.5 66.6 66.8 68.
    88.74 88.75 88.77 104.4 104.5 501. 601. 131 200.
"""
_RARE: Final = tuple(
    f"1.2.840.10008.5.1.4.1.1.{each}"
    for each in (*_RARE_ENDINGS.split(), *(f"481.{number}" for number in range(10, 30)))
)
LIKELY_SOP_CLASSES: Final = tuple(
    sorted(
        (uid for uid, name in STORAGE_SOP_CLASSES.items() if _RETIRED not in name),
        key=lambda uid: uid.startswith(_RARE),
    )
)[: MAXIMUM_CONTEXTS - 1]
"""What is proposed where the peer does not tell the classes of its objects: as many as there is room for."""


def contexts_for(sop_classes: Iterable[str], model: Model) -> list[ProposedContext]:
    """The contexts to propose: one for each transfer syntax where there is room, so that what is stored comes as it is stored.

    Else the common ones have their own, and some others share one, in which the peer chooses (PS3.8 9.3.3.2): so it is for a peer
    that does not tell the classes, to whom `LIKELY_SOP_CLASSES` are proposed. It may have to transcode then.
    """
    uids = sorted(sop_classes) or LIKELY_SOP_CLASSES
    contexts = max((MAXIMUM_CONTEXTS - 1) // len(uids), 1)
    return [
        *getting(model=model),
        *(ProposedContext(uid, each, scu=False, scp=True) for uid in uids for each in _lists(uid, contexts)),
    ]


def _lists(sop_class: str, contexts: int) -> list[tuple[str, ...]]:
    """The transfer syntaxes of each of so many contexts."""
    syntaxes = _SYNTAXES_OF_VIDEO if "Video" in STORAGE_SOP_CLASSES.get(sop_class, "") else SYNTAXES
    lists: list[tuple[str, ...]] = [(each,) for each in syntaxes]
    if contexts >= len(lists):
        return lists
    return [*lists[: contexts - 1], syntaxes[contexts - 1 :][:_MOST_SYNTAXES_IN_A_CONTEXT]]
