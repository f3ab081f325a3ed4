"""What `Peer.get` asks for, and in which contexts: with an archive that has a catalogue, and tells more or less of it."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from pydicom import Dataset

from support.cancelling import cancelled_after_each_step, cancelled_at_each_await
from support.data_sets import EXPLICIT
from support.files import data_of, write_file
from support.network import LOOPBACK
from support.raw_peer import CT, MR
from support.services import Keeper
from tomowire import (
    ConnectFailed,
    Find,
    FindAnswers,
    FindRequest,
    Folder,
    Level,
    Model,
    NoAcceptedContext,
    NotConfirmed,
    Peer,
    PeerMisbehaved,
    Progress,
    Query,
    QueryFailed,
    Retrieved,
    RetrieveFailed,
    Status,
    Storage,
    StoreRequest,
    SubOperationFailed,
    UsageError,
    Verification,
    listen,
)
from tomowire.errors import AssociationAborted, DataSetError
from tomowire.services import news
from tomowire.services.dicom_file import DicomFile
from tomowire.services.get_scp import Get
from tomowire.services.identifiers import decode, encode
from tomowire.services.retrieve_contexts import LIKELY_SOP_CLASSES, SYNTAXES, contexts_for
from tomowire.services.retrieve_plan import MOST_TOGETHER, Part, grouped
from tomowire.services.suboperations import Retrieval, RetrieveRequest
from tomowire.uids import STORAGE_SOP_CLASSES, TRANSFER_SYNTAXES

pytestmark = pytest.mark.usefixtures("no_leaks")

WAYS = [cancelled_at_each_await, cancelled_after_each_step]
Way = Callable[[Callable[[], Coroutine[Any, Any, Any]]], AsyncIterator[int]]
PATHS = ("PatientID", "StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID")
MANY = [uid for uid in STORAGE_SOP_CLASSES if uid.startswith("1.2.840.10008.5.1.4.1.1.")][:150]


@dataclass
class Row:
    """One object in the catalogue, and its unique keys."""

    file: DicomFile
    keys: dict[str, str]


@dataclass
class Catalogue:
    """An archive that matches UIDs, and tells what its flags allow."""

    rows: list[Row]
    tells_classes_in_study: bool = True
    tells_classes: bool = True
    tells_patient_below: bool = True
    """Whether answers below the study have what in Study Root is of the study."""
    knows_lists: bool = True
    asked: list[Dataset] = field(default_factory=list)
    got: list[Dataset] = field(default_factory=list)
    associations: set[object] = field(default_factory=set)
    fails: set[str] = field(default_factory=set)
    """Study Instance UIDs of which a C-GET fails."""
    modalities: dict[str, list[str]] = field(default_factory=dict)
    """Those that it tells, by Study Instance UID."""
    aborts: set[str] = field(default_factory=set)
    """Those at which the association is aborted."""

    def matching(self, asked: Dataset) -> list[Row]:
        def matches(row: Row, keyword: str) -> bool:
            wanted = asked.get(keyword)
            return not wanted or row.keys[keyword] in ([wanted] if isinstance(wanted, str) else wanted)

        return [row for row in self.rows if all(matches(row, keyword) for keyword in PATHS)]

    async def answer(self, request: FindRequest) -> AsyncGenerator[FindAnswers, None]:
        asked = decode(request.identifier, request.transfer_syntax_uid)
        self.asked.append(asked)
        level = Level(asked.QueryRetrieveLevel)
        path = PATHS[: PATHS.index(level.unique_key) + 1]
        found: dict[tuple[str, ...], list[Row]] = {}
        for row in self.matching(asked):
            found.setdefault(tuple(row.keys[each] for each in path), []).append(row)
        for key, rows in found.items():
            made = Dataset()
            made.QueryRetrieveLevel = level.value
            if "PatientName" in asked:
                made.PatientName = "Doe^John"
            for keyword, each in zip(path, key, strict=True):
                setattr(made, keyword, each)
            if not self.tells_patient_below and path[-1] not in ("PatientID", "StudyInstanceUID"):
                del made.PatientID
            if level is Level.STUDY and made.StudyInstanceUID in self.modalities:
                made.ModalitiesInStudy = self.modalities[made.StudyInstanceUID]
            if level is Level.STUDY and self.tells_classes_in_study:
                made.SOPClassesInStudy = sorted({row.file.sop_class_uid for row in rows})
                made.NumberOfStudyRelatedInstances = len(rows)
            if level is Level.IMAGE and self.tells_classes:
                made.SOPClassUID = rows[0].file.sop_class_uid
            yield FindAnswers([encode(made, request.transfer_syntax_uid)])

    async def objects(self, request: RetrieveRequest) -> Retrieval:
        asked = decode(request.identifier, request.transfer_syntax_uid)
        self.got.append(asked)
        self.associations.add(request.association)
        if any(not isinstance(asked.get(each, ""), str) for each in PATHS) and not self.knows_lists:
            raise RetrieveFailed(0xC320, "no lists here")
        if asked.get("StudyInstanceUID") in self.fails:
            raise RetrieveFailed(0xA701, "not this one")
        if asked.get("StudyInstanceUID") in self.aborts:
            request.association.abort()
        files = [row.file for row in self.matching(asked)]

        async def batches() -> AsyncIterator[Sequence[DicomFile]]:
            await asyncio.sleep(0)
            yield files

        return Retrieval(len(files), batches())

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[Peer]:
        services = [Verification(), Find(self.answer), Get(self.objects)]
        async with (
            listen(LOOPBACK, 0, services=services, aet="ARCHIVE", shutdown_grace=2.0) as server,
            Peer(f"ARCHIVE@{LOOPBACK}:{server.port}") as peer,
        ):
            yield peer


def rows(folder: Path, *objects: tuple[int, int, str], patient: str = "P1") -> list[Row]:
    """Objects, each given by the numbers of its study and its series, and its class."""
    return [
        Row(
            write_file(folder, number, sop_class=sop_class),
            dict(zip(PATHS, (patient, f"1.2.{study}", f"1.2.{study}.{series}", f"1.2.{number}"), strict=True)),
        )
        for number, (study, series, sop_class) in enumerate(objects, 1)
    ]


@pytest.fixture
def catalogue(tmp_path: Path) -> Catalogue:
    (tmp_path / "archive").mkdir()
    return Catalogue(rows(tmp_path / "archive", (1, 1, CT), (1, 1, CT), (1, 2, MR), (2, 1, MR)))


def content_of(retrieved: Retrieved) -> bytes:
    return Path(str(retrieved.path)).read_bytes()


async def got_by(peer: Peer, query: Query, into: Path, told: list[Progress] | None = None) -> list[str]:
    """The numbers of the objects that came, all of them whole."""
    found = []
    async for each in peer.get(query, into):
        if isinstance(each, Retrieved):
            assert (each.status, each.is_failure, each.error_comment) == (0, False, None)
            number = each.sop_instance_uid.rpartition(".")[2]
            assert each.size == len(data_of(int(number)))
            assert str(each.path) == str(into / f"1.2.{number}.dcm")
            assert content_of(each).endswith(data_of(int(number)))
            found.append(number)
        elif told is not None:
            told.append(each)
    return sorted(found)


@pytest.mark.parametrize("tells", [(True, True), (False, True), (False, False)])
@pytest.mark.parametrize(
    ("query", "expected"),
    [
        (Query.patients().patient_name("Doe"), "1234"),
        (Query.studies(), "1234"),
        (Query.study("1.2.1"), "123"),
        (Query.series("1.2.1"), "123"),
        (Query.series("1.2.1").series_uid("1.2.1.2"), "3"),
        (Query.images("1.2.1", "1.2.1.1"), "12"),
        (Query.images("1.2.1", "1.2.1.1").sop_instance_uid("1.2.2"), "2"),
        (Query.study("1.2.77"), ""),
    ],
)
async def test_all_that_matches_comes(
    catalogue: Catalogue, tmp_path: Path, query: Query, expected: str, tells: tuple[bool, bool]
) -> None:
    catalogue.tells_classes_in_study, catalogue.tells_classes = tells
    told: list[Progress] = []
    async with catalogue.serving() as peer:
        assert await got_by(peer, query, tmp_path / "got", told) == list(expected)
    assert told[-1] == Progress(0, len(expected), 0, 0)
    if tells[0]:
        assert told[0] == Progress(len(expected), 0, 0, 0)
        assert all(each.remaining == len(expected) - each.completed for each in told)
    assert len(catalogue.associations) == (1 if expected else 0)


async def test_a_study_whose_classes_are_told_is_asked_for_at_once(catalogue: Catalogue, tmp_path: Path) -> None:
    async with catalogue.serving() as peer:
        await got_by(peer, Query.study("1.2.1"), tmp_path / "got")
    assert [each.QueryRetrieveLevel for each in catalogue.asked] == ["STUDY"]
    assert [each.QueryRetrieveLevel for each in catalogue.got] == ["STUDY"]


@pytest.mark.parametrize("tells_classes_in_study", [True, False])
async def test_a_study_of_150_classes_takes_several_associations(tmp_path: Path, tells_classes_in_study: bool) -> None:
    """More than an association has contexts for (PS3.8 9.3.2.2), two in each series."""
    (tmp_path / "archive").mkdir()
    objects = [(1, 1 + number // 2, sop_class) for number, sop_class in enumerate(MANY)]
    catalogue = Catalogue(rows(tmp_path / "archive", *objects), tells_classes_in_study)
    async with catalogue.serving() as peer:
        came = await got_by(peer, Query.study("1.2.1"), tmp_path / "got")
    assert len(came) == len(MANY) == 150
    assert len(catalogue.associations) == 38  # four classes each: two series
    assert {each.QueryRetrieveLevel for each in catalogue.got} == {"SERIES"}


async def test_a_series_of_many_classes_is_asked_for_by_its_instances(tmp_path: Path) -> None:
    (tmp_path / "archive").mkdir()
    catalogue = Catalogue(rows(tmp_path / "archive", *((1, 1, sop_class) for sop_class in MANY[:20])))
    async with catalogue.serving() as peer:
        assert len(await got_by(peer, Query.series("1.2.1"), tmp_path / "got")) == 20
    assert {each.QueryRetrieveLevel for each in catalogue.got} == {"IMAGE"}
    assert len(catalogue.associations) == 5


@pytest.mark.parametrize("knows_lists", [True, False])
async def test_a_peer_that_knows_no_lists_is_asked_one_by_one(
    catalogue: Catalogue, tmp_path: Path, knows_lists: bool
) -> None:
    catalogue.knows_lists = knows_lists
    told: list[Progress] = []
    async with catalogue.serving() as peer:
        came = await got_by(peer, Query.images("1.2.1", "1.2.1.1"), tmp_path / "got", told)
    assert came == ["1", "2"]
    assert len(catalogue.got) == (1 if knows_lists else 3)
    assert told[-1] == Progress(0, 2, 0, 0)


async def test_what_fails_for_each_fails_for_all(catalogue: Catalogue, tmp_path: Path) -> None:
    """A list is tried as a single instance too, but no further than the first that fails likewise."""
    catalogue.fails = {"1.2.1"}
    async with catalogue.serving() as peer:
        with pytest.raises(RetrieveFailed, match="not this one"):
            await got_by(peer, Query.images("1.2.1", "1.2.1.1"), tmp_path / "got")
    assert len(catalogue.got) == 2


async def test_one_study_that_fails_does_not_stop_the_next(catalogue: Catalogue, tmp_path: Path) -> None:
    catalogue.fails = {"1.2.1"}
    async with catalogue.serving() as peer:
        with pytest.raises(ExceptionGroup) as caught:
            await got_by(peer, Query.studies(), tmp_path / "got")
    assert [getattr(each, "status", None) for each in caught.value.exceptions] == [0xA701]
    assert (tmp_path / "got" / "1.2.4.dcm").exists()


async def test_a_lost_association_does_not_stop_the_next(tmp_path: Path) -> None:
    """What the others brought, and why something is missing, is told at the end."""
    (tmp_path / "archive").mkdir()
    objects = [(1 + number // 4, 1, sop_class) for number, sop_class in enumerate(MANY[:12])]
    catalogue = Catalogue(rows(tmp_path / "archive", *objects), fails={"1.2.1"}, aborts={"1.2.2"})
    told: list[Progress] = []
    async with catalogue.serving() as peer:
        with pytest.raises(ExceptionGroup) as caught:
            await got_by(peer, Query.studies(), tmp_path / "got", told)
    failed, aborted = caught.value.exceptions
    assert isinstance(failed, RetrieveFailed)
    assert isinstance(aborted, AssociationAborted)
    assert sorted(each.name for each in (tmp_path / "got").glob("*.dcm")) == [
        f"1.2.{number}.dcm" for number in sorted(range(9, 13), key=str)
    ]
    assert (told[-1].remaining, told[-1].completed) == (0, 4)


async def test_a_handler_tells_what_became_of_each(catalogue: Catalogue) -> None:
    async def keep(request: StoreRequest) -> Status:
        if request.sop_instance_uid == "1.2.1":
            raise ValueError("this handler has a mistake")
        return Status(0xA900 if request.sop_instance_uid == "1.2.2" else 0)

    outcomes: dict[str, tuple[int, bool, int]] = {}

    async def get(peer: Peer) -> None:
        async for each in peer.get(Query.study("1.2.1"), keep):
            if isinstance(each, Retrieved):
                outcomes[each.sop_instance_uid] = (each.status, each.is_failure, each.size)

    async with catalogue.serving() as peer:
        with pytest.raises(ExceptionGroup) as caught:
            await get(peer)
    failed = {each.sop_instance_uid for each in caught.value.exceptions if isinstance(each, SubOperationFailed)}
    assert failed == {"1.2.1", "1.2.2"}
    size = len(data_of(1))
    assert outcomes == {"1.2.1": (0x0110, True, size), "1.2.2": (0xA900, True, size), "1.2.3": (0, False, size)}


async def test_who_does_not_take_what_comes_holds_up_the_peer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Four may be unread here, and sixteen under way (the window); all come in the end. Left early, nobody waits any more."""
    monkeypatch.setattr(news, "_MOST_UNREAD", 4)
    catalogue = Catalogue(rows(tmp_path, *((1, 1, CT) for _ in range(300))))
    kept: list[str] = []

    async def keep(request: StoreRequest) -> Status:
        await request.data.pass_over()
        kept.append(request.sop_instance_uid)
        return Status(0)

    read = most_ahead = 0
    async with catalogue.serving() as peer, asyncio.timeout(30):
        async with aclosing(peer.get(Query.study("1.2.1"), keep)) as objects:
            async for each in objects:
                read += isinstance(each, Retrieved)
                if read <= 100:
                    await peer.echo()
                    most_ahead = max(most_ahead, len(kept) - read)
        assert read == len(kept) == 300
        assert 4 <= most_ahead <= 4 + 16
        async with aclosing(peer.get(Query.study("1.2.1"), keep)) as objects:
            async for each in objects:
                if isinstance(each, Retrieved):
                    break


async def test_a_folder_of_ones_own_is_left_open(catalogue: Catalogue, tmp_path: Path) -> None:
    folder = Folder(tmp_path / "got", name=lambda request, _: f"{request.sop_class_uid}/{request.sop_instance_uid}")
    try:
        async with catalogue.serving() as peer:
            for study in ("1.2.1", "1.2.2"):
                _ = [each async for each in peer.get(Query.study(study), folder)]
    finally:
        folder.close()
    names = {str(path.relative_to(tmp_path / "got")) for path in (tmp_path / "got").rglob("*") if path.is_file()}
    assert names == {f"{CT}/1.2.1", f"{CT}/1.2.2", f"{MR}/1.2.3", f"{MR}/1.2.4"}


@pytest.mark.parametrize("left_after", range(1, 5))
async def test_left_early_nothing_is_left_behind(catalogue: Catalogue, tmp_path: Path, left_after: int) -> None:
    async with catalogue.serving() as peer:
        async with aclosing(peer.get(Query.studies(), tmp_path / "got")) as news:
            for _ in range(left_after):
                await anext(news)
        assert [name for name in os.listdir(tmp_path / "got") if not name.endswith(".dcm")] == []
        assert (await peer.echo()).is_success


@pytest.mark.parametrize("cancellation", ["complete_in_flight", "reject_in_flight"])
@pytest.mark.parametrize("way", WAYS)
async def test_cancelled_at_any_moment_nothing_is_left_behind(
    way: Way, cancellation: Any, catalogue: Catalogue, tmp_path: Path
) -> None:
    """What is open afterwards, associations and files among it, the fixture `no_leaks` would see."""
    async with catalogue.serving() as peer:

        async def get() -> None:
            async with aclosing(peer.get(Query.studies(), tmp_path / "got", cancellation=cancellation)) as news:
                async for _ in news:
                    pass

        runs = 0
        async for _ in way(get):
            runs += 1
            if (tmp_path / "got").exists():
                assert [name for name in os.listdir(tmp_path / "got") if not name.endswith(".dcm")] == []
        assert await got_by(peer, Query.studies(), tmp_path / "got") == list("1234")
    assert runs > 3


async def test_cancelled_it_ends(catalogue: Catalogue) -> None:
    begun = asyncio.Event()

    async def keep(request: StoreRequest) -> Status:
        begun.set()
        await asyncio.get_running_loop().create_future()
        return Status(0)

    async def get(peer: Peer) -> None:
        _ = [each async for each in peer.get(Query.studies(), keep, cancellation="reject_in_flight")]

    async with catalogue.serving() as peer:
        work = asyncio.ensure_future(get(peer))
        async with asyncio.timeout(10):
            await begun.wait()
            work.cancel()
            await asyncio.wait([work])
        assert work.cancelled()


async def test_what_goes_wrong_before_anything_is_asked_for(catalogue: Catalogue, tmp_path: Path) -> None:
    async with catalogue.serving() as peer:
        port = peer.address.port
        raw = Dataset()
        raw.QueryRetrieveLevel = "STUDY"
        raw.StudyInstanceUID = "1.2.2"
        assert [each.sop_instance_uid async for each in peer.get(raw, tmp_path) if isinstance(each, Retrieved)] == [
            "1.2.4"
        ]
        catalogue.rows[3].keys["StudyInstanceUID"] = ""
        with pytest.raises(ExceptionGroup) as caught:
            assert await got_by(peer, Query.studies(), tmp_path) == ["1", "2", "3"]
        (unnamed,) = caught.value.exceptions
        assert isinstance(unnamed, PeerMisbehaved)
        assert "1 of the answers at STUDY level has no StudyInstanceUID" in str(unnamed)
    with pytest.raises(ConnectFailed):
        _ = [each async for each in Peer(f"ARCHIVE@{LOOPBACK}:{port}").get(Query.studies(), tmp_path)]


@pytest.mark.parametrize("query", [Query.studies().modality("MR"), Query.studies().where("StudyDescription", "x*")])
async def test_a_peer_that_ignores_a_key_does_not_give_away_everything(
    catalogue: Catalogue, tmp_path: Path, query: Query
) -> None:
    """PS3.4 C.2.2.1.3: it may; it leaves the attribute out of its answers then."""
    (keyword,) = {"ModalitiesInStudy", "StudyDescription"} & {each.keyword for each in query.dataset() if each.value}
    async with catalogue.serving() as peer:
        for everything in (peer.get(query, tmp_path), peer.move(query, "NOBODY")):
            with pytest.raises(
                NotConfirmed, match=f"2 of the answers at STUDY level do not confirm {keyword}"
            ) as caught:
                assert [each async for each in everything if not isinstance(each, Progress)] == []
            assert (caught.value.keywords, caught.value.count) == ((keyword,), 2)
        assert catalogue.got == []
        news = [each async for each in peer.get(query, tmp_path, confirm=False)]
    assert len([each for each in news if isinstance(each, Retrieved)]) == len(catalogue.rows)


async def test_a_study_of_the_patient_study_only_model_is_taken_apart_in_study_root(
    catalogue: Catalogue, tmp_path: Path
) -> None:
    """Where the patient's attributes are those of the study (PS3.4 C.6.2.1.2), and no keys below it."""
    catalogue.tells_classes_in_study = catalogue.tells_patient_below = False
    query = Query.study("1.2.1").patient_id("P1")
    async with catalogue.serving() as peer:
        news = [each async for each in peer.get(query, tmp_path / "got", model=Model.PATIENT_STUDY_ONLY)]
    assert sorted(each.sop_instance_uid for each in news if isinstance(each, Retrieved)) == ["1.2.1", "1.2.2", "1.2.3"]
    below = [each for each in catalogue.asked if each.QueryRetrieveLevel != "STUDY"]
    assert below
    assert not any("PatientID" in each for each in below)


@pytest.mark.parametrize(
    ("spoil", "text"),
    [
        (lambda answer: answer.replace(b"UI", b"UX"), "StudyInstanceUID in an answer of the peer cannot be read"),
        (lambda answer: answer[:-1], "the identifier"),
    ],
    ids=["a VR that PS3.5 6.2 does not have", "cut short"],
)
async def test_an_answer_that_cannot_be_read_is_the_peers_fault_and_does_not_keep_the_others_back(
    catalogue: Catalogue, tmp_path: Path, spoil: Callable[[bytes], bytes], text: str
) -> None:
    spoilt = spoil(EXPLICIT.element(0x00080052, "CS", b"STUDY ") + EXPLICIT.element(0x0020000D, "UI", b"1.2.3\0"))
    answers = catalogue.answer

    async def answer(request: FindRequest) -> AsyncGenerator[FindAnswers, None]:
        if b"STUDY" in request.identifier:
            yield FindAnswers([spoilt])
        async for each in answers(request):
            yield each

    catalogue.answer = answer  # type: ignore[method-assign]
    async with catalogue.serving() as peer:
        with pytest.raises(ExceptionGroup) as caught:
            _ = [each async for each in peer.get(Query.studies(), tmp_path / "got")]
    assert len(list((tmp_path / "got").rglob("*.dcm"))) == len(catalogue.rows)
    (error,) = caught.value.exceptions
    assert isinstance(error, DataSetError)
    assert text in str(error)


async def test_what_is_confirmed_comes_and_what_is_not_is_told(catalogue: Catalogue, tmp_path: Path) -> None:
    catalogue.modalities = {"1.2.1": ["CT", "SR"]}
    async with catalogue.serving() as peer:
        with pytest.raises(ExceptionGroup) as caught:
            assert await got_by(peer, Query.studies().modality("CT"), tmp_path / "got") == list("123")
    (left_out,) = caught.value.exceptions
    assert isinstance(left_out, NotConfirmed)
    assert left_out.count == 1


async def test_a_key_of_a_level_below_is_refused_before_anybody_is_asked(catalogue: Catalogue, tmp_path: Path) -> None:
    query = Query.studies().series_uid("1.2.1.1")
    async with catalogue.serving() as peer:
        for everything in (peer.get(query, tmp_path), peer.move(query, "NOBODY")):
            with pytest.raises(UsageError, match="SeriesInstanceUID is no key of the STUDY level"):
                _ = [each async for each in everything]
    assert (catalogue.asked, catalogue.got) == ([], [])


async def test_a_query_that_fails(tmp_path: Path) -> None:
    async def refuse(request: FindRequest) -> AsyncGenerator[FindAnswers, None]:
        raise QueryFailed(0xA900, "not like this")
        yield

    async with (
        listen(LOOPBACK, 0, services=[Find(refuse)], aet="ARCHIVE") as server,
        Peer(f"ARCHIVE@{LOOPBACK}:{server.port}") as peer,
    ):
        with pytest.raises(QueryFailed, match="not like this"):
            _ = [each async for each in peer.get(Query.studies(), tmp_path)]


async def test_a_peer_that_grants_no_role(catalogue: Catalogue, tmp_path: Path) -> None:
    """PS3.7 D.3.3.4: without it nothing could come."""

    class Stubborn(Get):
        def may_be_scp(self, abstract_syntax: str) -> bool:
            return False

    services = [Find(catalogue.answer), Storage(Keeper().keep), Stubborn(catalogue.objects)]
    async with (
        listen(LOOPBACK, 0, services=services, aet="ARCHIVE") as server,
        Peer(f"ARCHIVE@{LOOPBACK}:{server.port}") as peer,
    ):
        with pytest.raises(NoAcceptedContext, match="C-MOVE may work"):
            _ = [each async for each in peer.get(Query.studies(), tmp_path)]
    assert catalogue.got == []


# Contexts


def part(*sop_classes: str) -> Part:
    return Part(Level.STUDY, (("StudyInstanceUID", "1.2"),), (), frozenset(sop_classes))


def test_parts_share_associations_as_long_as_there_is_room() -> None:
    a, b, c, d, unknown = part("a"), part("a", "b"), part("c", "d", "e"), part("d"), part()
    assert grouped([a, unknown, b, c, d, unknown], most=3) == [
        (frozenset("abd"), [a, b, d]),
        (frozenset(), [unknown, unknown]),
        (frozenset("cde"), [c]),
    ]
    assert grouped([c, d], most=2) == [(frozenset("cde"), [c, d])]  # no better can be done


@pytest.mark.parametrize("count", [0, 1, 2, 3, 16, 127])
def test_contexts(count: int) -> None:
    """No more than 128, each class with this side as SCP, and the uncompressed syntaxes offered for each (PS3.5 10.1)."""
    classes = MANY[:count]
    contexts = contexts_for(classes, Model.STUDY_ROOT)
    assert len(contexts) <= 128
    assert contexts[0].abstract_syntax == Model.STUDY_ROOT.get
    assert {each.abstract_syntax for each in contexts[1:]} == set(classes or LIKELY_SOP_CLASSES)
    assert all((each.scu, each.scp) == (False, True) for each in contexts[1:])
    assert all(len(each.transfer_syntaxes) <= 20 for each in contexts)
    for sop_class in classes:
        offered = [each.transfer_syntaxes for each in contexts if each.abstract_syntax == sop_class]
        together = [uid for syntaxes in offered for uid in syntaxes]
        assert len(set(together)) == len(together)
        assert {"1.2.840.10008.1.2", "1.2.840.10008.1.2.1"} <= set(together)
        if count <= 2:
            assert all(len(syntaxes) == 1 for syntaxes in offered)
            assert set(together) == set(SYNTAXES)


def test_as_many_classes_as_share_an_association_lose_no_image() -> None:
    """Each transfer syntax of images that is not retired has a context by itself, for each class; of a video, those of videos."""
    video = "1.2.840.10008.5.1.4.1.1.77.1.1.1"
    classes = [*MANY[: MOST_TOGETHER - 1], video]
    contexts = contexts_for(classes, Model.STUDY_ROOT)
    names = {uid: name for uid, name in TRANSFER_SYNTAXES.items() if uid in SYNTAXES and "(Retired)" not in name}
    videos = {uid for uid, name in names.items() if "MPEG" in name or "HEVC" in name}
    for sop_class in classes:
        alone = {
            each.transfer_syntaxes[0]
            for each in contexts
            if each.abstract_syntax == sop_class and len(each.transfer_syntaxes) == 1
        }
        assert (videos if sop_class == video else names.keys() - videos) <= alone
    assert grouped([Part(Level.STUDY, (), (), frozenset(classes))])[0][0] == set(classes)


def test_the_transfer_syntaxes() -> None:
    """All of PS3.6 Table A-1 but those of streams and of what is no data set."""
    left_out = {uid for uid in TRANSFER_SYNTAXES if uid not in SYNTAXES}
    assert left_out == {
        "1.2.840.10008.1.2.6.1",
        "1.2.840.10008.1.2.6.2",
        "1.2.840.10008.1.2.7.1",
        "1.2.840.10008.1.2.7.2",
        "1.2.840.10008.1.2.7.3",
    }
    assert len(SYNTAXES) == len(set(SYNTAXES))
