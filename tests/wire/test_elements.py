"""How declarations become layouts; the values of the VRs are tested with the command sets."""

from __future__ import annotations

from dataclasses import field

import pytest

from tomowire.wire.command_set import decode_command, encode_command
from tomowire.wire.elements import MESSAGES, UI, US, Message, element
from tomowire.wire.messages import Request
from tomowire.wire.value import value


@pytest.fixture
def private_message(monkeypatch: pytest.MonkeyPatch) -> type[Message]:
    """A message that the standard does not have: the codec knows nothing about messages but their declaration."""
    monkeypatch.setitem(MESSAGES, 0x7FFF, Message)  # so that it is forgotten after the test

    @value(kw_only=True)
    class PrivateRQ(Request, command_field=0x7FFF):
        late: str = field(metadata=element(0x7001, UI))
        early: int = field(default=3, metadata=element(0x0003, US, required=True))

    return PrivateRQ


def test_a_declaration_is_all_that_a_message_needs(private_message: type[Message]) -> None:
    message = private_message(message_id=1, late="1.2")  # type: ignore[call-arg]
    data = encode_command(message)
    assert data[12:] == bytes.fromhex(
        "0000 0300 02000000 0300"  # ascending, whatever the order of declaration
        "0000 0001 02000000 ff7f"
        "0000 1001 02000000 0100"
        "0000 0008 02000000 0101"
        "0000 0170 04000000 312e3200"
    )
    assert decode_command(data) == message


def test_required_is_what_has_no_default_unless_it_is_said(private_message: type[Message]) -> None:
    assert {name: required for _, name, _, required in private_message.layout.decoders} == {
        "data_set_type": True,
        "message_id": True,
        "late": True,
        "early": True,
    }


def test_a_class_without_command_field_is_no_message() -> None:
    @value(kw_only=True)
    class Shared(Request):
        more: int | None = field(default=None, metadata=element(0x7001, US))

    assert Shared not in MESSAGES.values()
    assert not hasattr(Shared, "layout")
