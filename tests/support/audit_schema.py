"""The schema of audit messages, typed from PS3.15 A.5.1.1 (which has it in RELAX NG), and what A.5.3 asks of each message."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from xml.etree.ElementTree import Element

_DATE_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)")  # A.5.2.5: with the time zone


def token(text: str) -> bool:
    return text == " ".join(text.split())


def anything(text: str) -> bool:
    return True


def boolean(text: str) -> bool:
    return text in {"true", "false", "1", "0"}


def integer(text: str) -> bool:
    return re.fullmatch(r"[+-]?\d+", text) is not None


def date_time(text: str) -> bool:
    return _DATE_TIME.fullmatch(text) is not None


def base64_binary(text: str) -> bool:
    try:
        base64.b64decode(text, validate=True)
    except binascii.Error:
        return False
    return True


def one_of(*values: str) -> Callable[[str], bool]:
    return lambda text: text in values


def numbers(first: int, last: int) -> Callable[[str], bool]:
    return one_of(*map(str, range(first, last + 1)))


Check = Callable[[str], bool]


@dataclass(frozen=True)
class Rule:
    """An element: its attributes (those whose name ends in "?" are optional), and what is in it, in this order."""

    attributes: dict[str, Check] = field(default_factory=dict)
    children: tuple[str, ...] = ()
    """Names with "?", "*" or "+" behind them; "a|b" is one of two."""
    text: Check | None = None


_CODED = Rule({"csd-code": token, "codeSystemName": token, "displayName?": token, "originalText": token})

RULES = {
    "AuditMessage": Rule(
        children=(
            "EventIdentification",
            "ActiveParticipant+",
            "AuditSourceIdentification",
            "ParticipantObjectIdentification*",
        )
    ),
    "EventIdentification": Rule(
        {
            "EventActionCode?": one_of("C", "R", "U", "D", "E"),
            "EventDateTime": date_time,
            "EventOutcomeIndicator": one_of("0", "4", "8", "12"),
        },
        ("EventID", "EventTypeCode*", "EventOutcomeDescription?"),
    ),
    "EventID": _CODED,
    "EventTypeCode": _CODED,
    "EventOutcomeDescription": Rule(text=anything),
    "ActiveParticipant": Rule(
        {
            "UserID": anything,
            "AlternativeUserID?": anything,
            "UserName?": anything,
            "UserIsRequestor": boolean,
            "NetworkAccessPointID?": token,
            "NetworkAccessPointTypeCode?": numbers(1, 5),
        },
        ("RoleIDCode*", "MediaIdentifier?"),
    ),
    "RoleIDCode": _CODED,
    "MediaIdentifier": Rule(children=("MediaType",)),
    "MediaType": _CODED,
    "AuditSourceIdentification": Rule(
        {"AuditEnterpriseSiteID?": token, "AuditSourceID": token}, ("AuditSourceTypeCode*",)
    ),
    "AuditSourceTypeCode": Rule(
        {"csd-code": numbers(1, 9), "codeSystemName?": token, "displayName?": token, "originalText?": token}
    ),
    "ParticipantObjectIdentification": Rule(
        {
            "ParticipantObjectID": token,
            "ParticipantObjectTypeCode?": numbers(1, 4),
            "ParticipantObjectTypeCodeRole?": numbers(1, 26),
            "ParticipantObjectDataLifeCycle?": numbers(1, 15),
            "ParticipantObjectSensitivity?": token,
        },
        (
            "ParticipantObjectIDTypeCode",
            "ParticipantObjectName|ParticipantObjectQuery",
            "ParticipantObjectDetail*",
            "ParticipantObjectDescription*",
        ),
    ),
    "ParticipantObjectIDTypeCode": _CODED,
    "ParticipantObjectName": Rule(text=token),
    "ParticipantObjectQuery": Rule(text=base64_binary),
    "ParticipantObjectDetail": Rule({"type": token, "value": base64_binary}),
    "ParticipantObjectDescription": Rule(
        children=(
            "MPPS*",
            "Accession*",
            "SOPClass*",
            "ParticipantObjectContainsStudy?",
            "Encrypted?",
            "Anonymized?",
        )
    ),
    "MPPS": Rule({"UID": token}),
    "Accession": Rule({"Number": token}),
    "SOPClass": Rule({"UID?": token, "NumberOfInstances": integer}, ("Instance*",)),
    "Instance": Rule({"UID": token}),
    "ParticipantObjectContainsStudy": Rule(children=("StudyIDs*",)),
    "StudyIDs": Rule({"UID": token}),
    "Encrypted": Rule(text=boolean),
    "Anonymized": Rule(text=boolean),
}


def violations(element: Element) -> Iterator[str]:
    """What of the schema a message does not keep."""
    name = element.tag
    rule = RULES.get(name)
    if rule is None:
        yield f"{name} is no element of the schema"
        return
    yield from _of_attributes(element, rule)
    text = element.text or ""
    if rule.text is None and text.strip():
        yield f"{name} has text"
    if rule.text is not None and not rule.text(text):
        yield f"{name} has {text!r}"
    names = "".join(f"<{child.tag}>" for child in element)
    if not re.fullmatch("".join(map(_pattern, rule.children)), names):
        yield f"{name} has {names or 'nothing'}, and not {' '.join(rule.children)}"
    for child in element:
        yield from violations(child)


def _of_attributes(element: Element, rule: Rule) -> Iterator[str]:
    known = {name.rstrip("?"): (check, not name.endswith("?")) for name, check in rule.attributes.items()}
    for name, text in element.attrib.items():
        if name not in known:
            yield f"{element.tag} has an attribute {name}"
        elif not known[name][0](text):
            yield f"{element.tag} {name} is {text!r}"
    yield from (
        f"{element.tag} has no {name}" for name, (_, needed) in known.items() if needed and name not in element.attrib
    )


def _pattern(part: str) -> str:
    many = part[-1] if part[-1] in "?*+" else ""
    names = part.rstrip("?*+").split("|")
    return f"(?:{'|'.join(f'<{name}>' for name in names)}){many}"
