"""Any sequence of stores, restarts and kills, against a model of a few lines."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from support.crashes import Batch, CrashServer
from support.filesystems import quick_directory
from support.objects import Sample
from support.stored import contents, files_below, findings
from tomowire.server.incoming import DuplicatePolicy

samples = st.builds(
    Sample,
    number=st.integers(1, 4),
    series=st.integers(1, 2),
    study=st.integers(1, 2),
    content=st.sampled_from(["a", "b"]),
)
batches = st.lists(st.lists(st.tuples(samples, st.booleans()), min_size=1, max_size=5), min_size=1, max_size=3)


def expected(held: dict[str, bytes], batch: Batch, policy: DuplicatePolicy) -> tuple[dict[str, bytes], list[str]]:
    """What an archive that holds `held` holds after `batch`, and what it answers."""
    held, answers = dict(held), []
    for sample, _ in batch:
        before = held.setdefault(sample.uid, sample.data_set)
        if before is sample.data_set or before == sample.data_set:
            answers.append("same")
        elif policy is DuplicatePolicy.REPLACE:
            held[sample.uid] = sample.data_set
            answers.append("replaced")
        else:
            answers.append("kept first" if policy is DuplicatePolicy.KEEP else "0111")
    return held, answers


class Archive(RuleBasedStateMachine):
    """The model is a dictionary; the archive is a directory that processes come to, of which some are killed."""

    server: CrashServer
    events: tuple[str, ...] = ("kill", "power cut")

    def __init__(self) -> None:
        super().__init__()
        self._cleanup = ExitStack()
        self.root = self._cleanup.enter_context(quick_directory())
        self.held: dict[str, bytes] = {}
        self.policy = DuplicatePolicy.KEEP

    def teardown(self) -> None:
        self._cleanup.close()

    @initialize(policy=st.sampled_from(DuplicatePolicy))
    def begin(self, policy: DuplicatePolicy) -> None:
        self.policy = policy
        self.server.store(self.root, [])

    @rule(batches=batches)
    def store(self, batches: list[Batch]) -> None:
        answers: list[str] = []
        for batch in batches:
            self.held, answered = expected(self.held, batch, self.policy)
            answers += answered
        told = self.server.store(self.root, batches, policy=self.policy).outcomes
        assert [{"stored": "same", "identical": "same"}.get(answer, answer) for answer in told] == answers

    @rule(batches=batches, step=st.integers(1, 120), choice=st.integers(0, 1))
    def store_and_be_killed(self, batches: list[Batch], step: int, choice: int) -> None:
        event = self.events[choice % len(self.events)]
        run = self.server.store(self.root, batches, policy=self.policy, step=step, event=event)
        self.server.store(self.root, [])
        possible = [self.held]
        answered = 0
        for batch in batches:
            steps = list(self._steps_of(possible[-1], batch))
            answered += len(batch)
            # What was answered is there: then no state before it is possible any more.
            possible = [steps[-1]] if answered <= len(run.outcomes) else [*possible, *steps]
        held = contents(self.root)
        assert held in possible
        assert run.killed or held == possible[-1]
        self.held = held

    def _steps_of(self, held: dict[str, bytes], batch: Batch) -> Iterator[dict[str, bytes]]:
        """A batch is committed in turns: the second object with a UID that occurs twice waits for the first to be stored."""
        waiting = list(batch)
        while waiting:
            turn = {sample.uid: (sample, large) for sample, large in reversed(waiting)}
            held, _ = expected(held, list(turn.values()), self.policy)
            yield held
            waiting = [entry for entry in waiting if entry not in turn.values()]

    @rule()
    def rebuild(self) -> None:
        self.server.reindex(self.root)

    @invariant()
    def it_holds_what_the_model_holds_and_nothing_else(self) -> None:
        assert contents(self.root) == self.held
        assert len(files_below(self.root)) == len(self.held)
        assert files_below(self.root, "incoming") <= {"incoming/journal"}
        assert findings(self.root) == []


class ArchiveWithPostgres(Archive):
    """After a power cut it keeps what it is not sure about: see `test_failover`."""

    events = ("kill",)


def test_an_archive_and_its_model_agree(each_index: str) -> None:
    machine, examples, steps = (Archive, 25, 8) if each_index == "sqlite" else (ArchiveWithPostgres, 4, 6)
    with CrashServer() as server:
        machine.server = server
        run_state_machine_as_test(
            machine,
            settings=settings(
                max_examples=examples,
                stateful_step_count=steps,
                deadline=None,
                suppress_health_check=list(HealthCheck),
            ),
        )
