"""Two ends that do and suffer anything in any order: both always come to their end, and nothing raises but `UsageError`."""

from __future__ import annotations

from collections.abc import Callable

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from support.upper_layers import (
    CT,
    CT_CONTEXT,
    ECHO_CONTEXT,
    P_DATA,
    SUPPORTED,
    VERIFICATION,
    Received,
    messages_of,
    proposal,
    split_pdus,
)
from tomowire.errors import AssociationAborted, AssociationLost, UsageError
from tomowire.protocol.acceptance import REJECT_LOCAL_LIMIT, AcceptorPolicy, answer
from tomowire.protocol.events import AssociateRequested, AssociationEnded, ProtocolEvent
from tomowire.protocol.states import State
from tomowire.protocol.upper_layer import UpperLayer
from tomowire.wire.command_set import encode_command
from tomowire.wire.messages import CEchoRQ, CStoreRQ
from tomowire.wire.pdu import AAssociateAC, AAssociateRQ

STA1 = State.STA1_IDLE
ARTIM = 30.0


class End:
    """One end with its side of the connection: what is on its way to it, and what it has been told."""

    def __init__(self, *, is_requestor: bool, maximum_length: int) -> None:
        self.upper = UpperLayer(is_requestor=is_requestor, maximum_length=maximum_length, artim_timeout=ARTIM)
        self.maximum_length = maximum_length
        self.peer: End = self
        self.incoming = bytearray()
        self.peer_has_closed = False
        self.is_connected = False
        self.was_connected = False
        self.events: list[ProtocolEvent] = []
        self.messages_sent: list[Received] = []

    def act(self, do: Callable[[UpperLayer], object]) -> bool:
        """Let the local user do something; what is not allowed must change nothing. Returns whether it was allowed."""
        upper = self.upper
        before = (upper.state, upper.deadline, upper.close_requested, upper.is_sending_data)
        try:
            do(upper)
        except UsageError:
            assert (upper.state, upper.deadline, upper.close_requested, upper.is_sending_data) == before
            assert upper.take_output() == []
            return False
        self.settle()
        return True

    def hear(self, events: list[ProtocolEvent]) -> None:
        self.events += events
        self.settle()

    def settle(self) -> None:
        """What glue does after each step: send, take events, close."""
        self.events += self.upper.take_events()
        output = b"".join(self.upper.take_output())
        if self.is_connected:
            for kind, payload in split_pdus(output):
                if kind == P_DATA and self.peer.maximum_length:
                    assert len(payload) <= self.peer.maximum_length
            if self.peer.is_connected:
                self.peer.incoming += output
            if self.upper.close_requested:
                self.disconnect()

    def disconnect(self) -> None:
        """Close our side: the peer reads what is under way, and then the end of the stream."""
        self.is_connected = False
        self.peer.peer_has_closed = True
        self.incoming.clear()
        self.events += self.upper.connection_lost(0.0)


ends = st.sampled_from(("requestor", "acceptor"))
sizes = st.sampled_from((0, 1, 2, 7, 100, 501))
maxima = st.sampled_from((0, 8, 10, 64, 16384))


def in_trouble(machine: TwoEnds) -> bool:
    """Aborts, losses and timeouts end everything: they have to wait, or nothing else would ever be seen."""
    return machine.steps_until_trouble < 0


class TwoEnds(RuleBasedStateMachine):
    """A connection may break or be silent at any moment; the users of both ends may ask for anything at any moment."""

    @initialize(
        requestor_maximum=maxima,
        acceptor_maximum=maxima,
        established=st.booleans(),
        releasing=st.sampled_from(((), (), ("requestor",), ("acceptor",), ("requestor", "acceptor"))),
        patience=st.sampled_from((0, 5, 15, 30)),
    )
    def begin(
        self,
        requestor_maximum: int,
        acceptor_maximum: int,
        established: bool,
        releasing: tuple[str, ...],
        patience: int,
    ) -> None:
        self.now = 0.0
        self.requestor = End(is_requestor=True, maximum_length=requestor_maximum)
        self.acceptor = End(is_requestor=False, maximum_length=acceptor_maximum)
        self.requestor.peer, self.acceptor.peer = self.acceptor, self.requestor
        self.message_id = 0
        self.steps_until_trouble = patience
        if established or releasing:  # chance would seldom find the way
            self.associate()
            self.connect()
            self.deliver_all()
            self.respond_to_associate(accepts=True)
            self.deliver_all()
        for name in releasing:
            self.release(name)

    def end(self, name: str) -> End:
        return self.requestor if name == "requestor" else self.acceptor

    @invariant()
    def count_steps(self) -> None:
        self.steps_until_trouble -= 1

    def next_id(self) -> int:
        self.message_id += 1
        return self.message_id

    # The connection

    @precondition(lambda self: not self.requestor.was_connected)
    @rule()
    def associate(self) -> None:
        request = proposal(maximum_length=self.requestor.maximum_length)
        self.requestor.act(lambda upper: upper.associate(request, self.now))

    @precondition(lambda self: not self.requestor.was_connected)
    @rule()
    def connect(self) -> None:
        if self.requestor.upper.state is not State.STA4_AWAITING_TRANSPORT_OPEN:
            return
        for end in (self.requestor, self.acceptor):
            end.is_connected = end.was_connected = True
        for end in (self.acceptor, self.requestor):
            end.upper.connection_made(self.now)
            end.settle()

    @rule(name=ends, size=st.sampled_from((1, 5, 6, 12, 100, 1 << 20)))
    def deliver(self, name: str, size: int) -> None:
        end = self.end(name)
        if not end.is_connected:
            return
        if end.incoming:
            segment = bytes(end.incoming[:size])
            del end.incoming[:size]
            end.hear(end.upper.receive(memoryview(segment), self.now))
        elif end.peer_has_closed:
            end.disconnect()

    @rule()
    def deliver_all(self) -> None:
        for name in ("requestor", "acceptor"):
            self.deliver(name, 1 << 30)

    @precondition(in_trouble)
    @rule(name=ends)
    def lose_connection(self, name: str) -> None:
        """The network goes away: what was under way is lost."""
        end = self.end(name)
        if end.is_connected:
            end.peer.incoming.clear()
            end.disconnect()

    @precondition(in_trouble)
    @rule(seconds=st.sampled_from((0.1, 1.0, 10.0, ARTIM)))
    def wait(self, seconds: float) -> None:
        self.now += seconds
        for end in (self.requestor, self.acceptor):
            end.upper.handle_timeout(self.now)
            end.settle()

    # The users

    @precondition(lambda self: self.requestor.upper.state is not State.STA6_DATA_TRANSFER)
    @rule(accepts=st.sampled_from((True, True, True, False)))
    def respond_to_associate(self, accepts: bool) -> None:
        asked = [event.request for event in self.acceptor.events if isinstance(event, AssociateRequested)]
        request = asked[0] if asked else proposal()
        if accepts:
            self.acceptor.act(lambda upper: upper.accept(request, self.acceptance(request), self.now))
        else:
            self.acceptor.act(lambda upper: upper.reject(REJECT_LOCAL_LIMIT, self.now))

    def acceptance(self, request: AAssociateRQ) -> AAssociateAC:
        response = answer(request, AcceptorPolicy(SUPPORTED, maximum_length=self.acceptor.maximum_length))
        assert isinstance(response, AAssociateAC)
        return response

    @rule(name=ends)
    def send_echo(self, name: str) -> None:
        end, message = self.end(name), CEchoRQ(message_id=self.next_id(), affected_sop_class_uid=VERIFICATION)
        if end.act(lambda upper: upper.send_message(ECHO_CONTEXT, message)):
            end.messages_sent.append(Received(ECHO_CONTEXT, message))

    @rule(name=ends, size=sizes)
    def send_store(self, name: str, size: int) -> None:
        end, message, data = self.end(name), self.store(), bytes(size)
        if end.act(lambda upper: upper.send_message(CT_CONTEXT, message, memoryview(data))):
            end.messages_sent.append(Received(CT_CONTEXT, message, data))

    @rule(name=ends)
    def begin_store(self, name: str) -> None:
        end, message = self.end(name), self.store()
        if end.act(lambda upper: upper.send_message(CT_CONTEXT, message)):
            end.messages_sent.append(Received(CT_CONTEXT, message, b"", whole=False))

    @rule(name=ends, size=sizes, last=st.booleans())
    def send_piece(self, name: str, size: int, last: bool) -> None:
        end, data = self.end(name), b"x" * size
        if end.act(lambda upper: upper.send_data(memoryview(data), last=last)):
            message = next(each for each in end.messages_sent if not each.whole)
            assert message.data is not None
            message.data += data
            message.whole = last

    @rule(name=ends)
    def send_encoded(self, name: str) -> None:
        """A response that is ready at any time, even amid the data set of another message."""
        end, message = self.end(name), CEchoRQ(message_id=self.next_id(), affected_sop_class_uid=VERIFICATION)
        if end.act(lambda upper: upper.send_command_set(ECHO_CONTEXT, encode_command(message))):
            end.messages_sent.append(Received(ECHO_CONTEXT, message))

    def store(self) -> CStoreRQ:
        return CStoreRQ(message_id=self.next_id(), affected_sop_class_uid=CT, affected_sop_instance_uid="1.2.3")

    @rule(name=ends)
    def release(self, name: str) -> None:
        self.end(name).act(lambda upper: upper.release(self.now))

    @rule(name=ends)
    def respond_to_release(self, name: str) -> None:
        self.end(name).act(lambda upper: upper.respond_to_release(self.now))

    @precondition(in_trouble)
    @rule(name=ends)
    def abort(self, name: str) -> None:
        assert self.end(name).act(lambda upper: upper.abort(self.now))

    # What holds always

    @invariant()
    def the_timer_runs_where_the_standard_has_it_run(self) -> None:
        for end in (self.requestor, self.acceptor):
            runs = end.upper.state in (State.STA2_AWAITING_ASSOCIATE_RQ, State.STA13_AWAITING_TRANSPORT_CLOSE)
            assert (end.upper.deadline is not None) is runs

    @invariant()
    def messages_arrive_as_they_were_sent(self) -> None:
        """Whole, in order, and nothing else: what is missing is the rest, because it is under way or the association has ended."""
        for end in (self.requestor, self.acceptor):
            received = messages_of(end.events)
            for got, sent in zip(received, end.peer.messages_sent, strict=False):
                assert (got.context_id, got.message) == (sent.context_id, sent.message)
                if got.whole:
                    assert (got.data, got.whole) == (sent.data, sent.whole)
                else:
                    assert got is received[-1]
                    assert got.data is not None
                    assert sent.data is not None
                    assert sent.data.startswith(got.data)
            assert len(received) <= len(end.peer.messages_sent)

    @invariant()
    def neither_finds_fault_with_the_other(self) -> None:
        """Two ends that keep to the protocol never see a breach of it, however their actions cross."""
        for end in (self.requestor, self.acceptor):
            for event in end.events:
                if isinstance(event, AssociationEnded):
                    error = event.error
                    assert isinstance(error, AssociationAborted | AssociationLost)
                    assert isinstance(error, AssociationLost) or (error.source, error.reason) == (0, 0)

    @invariant()
    def an_association_ends_once(self) -> None:
        for end in (self.requestor, self.acceptor):
            endings = [event for event in end.events if isinstance(event, AssociationEnded)]
            assert len(endings) <= 1
            assert not endings or end.events[-1] is endings[0]

    def teardown(self) -> None:
        """Nobody does anything any more but what aborts, the network and the timers bring about."""
        if not hasattr(self, "now"):
            return
        for name in ("requestor", "acceptor"):
            self.abort(name)
        for _ in range(3):
            for name in ("requestor", "acceptor"):
                self.deliver(name, 1 << 30)
                self.deliver(name, 1 << 30)
        self.wait(ARTIM)
        for name in ("requestor", "acceptor"):
            self.deliver(name, 1 << 30)
        for end in (self.requestor, self.acceptor):
            assert end.upper.state is STA1
            assert not end.is_connected


TwoEnds.TestCase.settings = settings(max_examples=400, stateful_step_count=40)
test_two_ends_in_any_order = TwoEnds.TestCase
