"""`tomowire query` as a process: what it asks, how it prints what comes, and how it ends."""

from __future__ import annotations

import asyncio
import csv
import json
import os
import re
import signal
from collections.abc import AsyncIterator, Callable, Sequence
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from pydicom import Dataset
from pydicom.dataelem import DataElement

from support.network import LOOPBACK, free_port, listening_process
from support.objects import ROOT, Sample
from support.programs import command_line, serving, start, tomowire
from support.raw_peer import RawPeer, message_pdus, raw_acceptor
from support.subprocesses import python_environment
from tomowire import Find, FindAnswers, FindRequest, Peer, Query, QueryFailed, Server, Verification, listen
from tomowire.cli.keys import days
from tomowire.errors import UsageError
from tomowire.services.identifiers import decode, encode
from tomowire.services.models import Model
from tomowire.wire.messages import CCancelRQ, CFindRQ, CFindRSP

STUDY = f"{ROOT}.1.1"


class Finder:
    """A C-FIND SCP that gives the same answers to whatever it is asked, and keeps what it was asked."""

    def __init__(self) -> None:
        self.answers: list[Dataset | bytes] = []
        self.failure: QueryFailed | None = None
        self.endless = False
        """Whether the last answer is given again and again."""
        self.hold = asyncio.Event()
        """Not set: after the answers nothing comes until it is."""
        self.hold.set()
        self.asked: list[Dataset] = []
        self.models: list[Model] = []
        self.left_early = asyncio.Event()
        self.server: Server

    @property
    def peer(self) -> str:
        return f"ANY@{LOOPBACK}:{self.server.port}"

    async def answer(self, request: FindRequest) -> AsyncIterator[FindAnswers]:
        self.asked.append(decode(request.identifier, request.transfer_syntax_uid))
        self.models.append(request.model)
        finished = False
        try:
            for answer in self.answers:
                yield FindAnswers([self._encoded(answer, request)])
            while self.endless:
                yield FindAnswers([self._encoded(self.answers[-1], request)])
            await self.hold.wait()
            finished = True
        finally:
            if not finished:
                self.left_early.set()
        if self.failure is not None:
            raise self.failure

    @staticmethod
    def _encoded(answer: Dataset | bytes, request: FindRequest) -> bytes:
        return answer if isinstance(answer, bytes) else encode(answer, request.transfer_syntax_uid)


@pytest.fixture
async def finder() -> AsyncIterator[Finder]:
    finder = Finder()
    async with listen(LOOPBACK, 0, services=[Find(finder.answer)], shutdown_grace=0) as server:
        finder.server = server
        yield finder


def study(number: int = 1, **attributes: Any) -> Dataset:
    """An answer about a study."""
    made = Dataset()
    made.QueryRetrieveLevel = "STUDY"
    made.PatientName = "Doe^Jane"
    made.PatientID = f"P{number}"
    made.StudyDate = "20260131"
    made.StudyTime = "101500.25"
    made.StudyInstanceUID = f"{ROOT}.1.{number}"
    made.NumberOfStudyRelatedInstances = 10 * number
    for keyword, value in attributes.items():
        setattr(made, keyword, value)
    return made


async def on_a_terminal(*arguments: object, columns: int = 100) -> bytes:
    """What a command writes on a terminal that is so wide."""
    outside, inside = os.openpty()
    environment = {**python_environment(), "TERM": "xterm", "COLUMNS": str(columns)}
    process = await asyncio.create_subprocess_exec(
        *command_line(*arguments), env=environment, stdin=inside, stdout=inside, stderr=inside
    )
    os.close(inside)
    output = await asyncio.to_thread(_read_all, outside)
    await process.wait()
    return output


def _read_all(terminal: int) -> bytes:
    output = b""
    with open(terminal, "rb", buffering=0) as file:
        while True:
            try:
                piece = file.read(4096)
            except OSError:  # EIO: the other end is closed
                return output
            if not piece:
                return output
            output += piece


@pytest.mark.parametrize(
    ("arguments", "level", "model", "keys"),
    [
        ([], "STUDY", Model.STUDY_ROOT, {}),
        (["-L", "patient"], "PATIENT", Model.PATIENT_ROOT, {}),
        (["--model", "patient", "--patient-id", "P1"], "STUDY", Model.PATIENT_ROOT, {"PatientID": "P1"}),
        (["--patient", "Smith*"], "STUDY", Model.STUDY_ROOT, {"PatientName": "Smith*"}),
        (["--accession", "A?1"], "STUDY", Model.STUDY_ROOT, {"AccessionNumber": "A?1"}),
        (
            ["-L", "SERIES", "--study-uid", STUDY, "--modality", "CT"],
            "SERIES",
            Model.STUDY_ROOT,
            {"StudyInstanceUID": STUDY, "Modality": "CT"},
        ),
        (
            ["-L", "image", "--study-uid", STUDY, "--series-uid", "1.2", "--series-uid", "1.3"],
            "IMAGE",
            Model.STUDY_ROOT,
            {"StudyInstanceUID": STUDY, "SeriesInstanceUID": ["1.2", "1.3"]},
        ),
        (["--date", "2026-01-31"], "STUDY", Model.STUDY_ROOT, {"StudyDate": "20260131"}),
        (["--date", "20260101-20260201"], "STUDY", Model.STUDY_ROOT, {"StudyDate": "20260101-20260201"}),
        (["--date", "-2026-02-01"], "STUDY", Model.STUDY_ROOT, {"StudyDate": "-20260201"}),
        (["--modality", "CT"], "STUDY", Model.STUDY_ROOT, {"ModalitiesInStudy": "CT"}),
        (["--modality", "mr,ct"], "STUDY", Model.STUDY_ROOT, {"ModalitiesInStudy": ["MR", "CT"]}),
        (
            ["--modality", "ct", "--modality", "CT, Mr", "-k", "Modality"],
            "STUDY",
            Model.STUDY_ROOT,
            {"ModalitiesInStudy": ["CT", "MR"]},
        ),
        (["--patient", "Dog*", "-k", "PatientName"], "STUDY", Model.STUDY_ROOT, {"PatientName": "Dog*"}),
        (
            ["-k", "PatientSex", "-k", "PatientSex=F", "-k", "PatientSex"],
            "STUDY",
            Model.STUDY_ROOT,
            {"PatientSex": "F"},
        ),
        (["-k", "PatientSex=F"], "STUDY", Model.STUDY_ROOT, {"PatientSex": "F"}),
        (["-k", "0010,0040=F"], "STUDY", Model.STUDY_ROOT, {"PatientSex": "F"}),
        (["-k", "Rows=512"], "STUDY", Model.STUDY_ROOT, {"Rows": 512}),
        (["-k", "StudyInstanceUID=1.2\\1.3"], "STUDY", Model.STUDY_ROOT, {"StudyInstanceUID": ["1.2", "1.3"]}),
        (["-k", "00080080=A=B"], "STUDY", Model.STUDY_ROOT, {"InstitutionName": "A=B"}),
        (["-k", "InstitutionName", "-k", "PatientAge="], "STUDY", Model.STUDY_ROOT, {}),
    ],
)
async def test_what_is_asked(
    arguments: list[str], level: str, model: Model, keys: dict[str, object], finder: Finder
) -> None:
    done = await tomowire("query", finder.peer, *arguments)
    assert done.code == 0, done.stderr
    (asked,) = finder.asked
    assert finder.models == [model]
    assert asked.QueryRetrieveLevel == level
    matching = {element.keyword: element.value for element in asked if not element.is_empty}
    matching.pop("SpecificCharacterSet", None)
    assert matching == {"QueryRetrieveLevel": level, **keys}
    for keyword in (key for key in arguments if key in {"InstitutionName", "PatientAge="}):
        assert keyword.rstrip("=") in asked, "asked for without a value"


async def test_keys_of_a_sequence_are_asked_of_one_item(finder: Finder) -> None:
    """PS3.4 C.2.2.2.6."""
    keys = ["-k", "ProcedureCodeSequence.CodeValue=X", "-k", "0008,1032.CodingSchemeDesignator"]
    done = await tomowire("query", finder.peer, *keys)
    assert done.code == 0, done.stderr
    (item,) = finder.asked[0].ProcedureCodeSequence
    assert {element.keyword: element.value for element in item} == {"CodeValue": "X", "CodingSchemeDesignator": ""}


async def test_a_name_that_is_not_ascii_arrives(finder: Finder) -> None:
    done = await tomowire("query", finder.peer, "--patient", "Müller^Zoë*")
    assert done.code == 0, done.stderr
    assert finder.asked[0].PatientName == "Müller^Zoë*"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2026-01-31", "20260131"),
        ("20260131", "20260131"),
        ("20260101-20260201", "20260101-20260201"),
        ("2026-01-01-2026-02-01", "20260101-20260201"),
        ("2026-01-01..20260201", "20260101-20260201"),
        ("2026-01-01..", "20260101-"),
        ("20260101-", "20260101-"),
        ("-20260201", "-20260201"),
        ("..2026-02-01", "-20260201"),
        ("today", f"{date.today():%Y%m%d}"),  # noqa: DTZ011 - where the test runs
        ("2000-01-01..today", f"20000101-{date.today():%Y%m%d}"),  # noqa: DTZ011 - where the test runs
    ],
)
def test_how_dates_are_written(text: str, expected: str) -> None:
    """PS3.4 C.2.2.2.5: `<date1> - <date2>`, `- <date1>`, `<date1> -`."""
    assert days(text) == expected


@pytest.mark.parametrize("text", ["", "-", "..", "2026", "2026-02-30", "31.01.2026", "20260201-20260101", "tomorrow"])
def test_what_is_no_date(text: str) -> None:
    with pytest.raises(UsageError):
        days(text)


async def test_a_table_for_a_program_has_a_line_for_each_answer_and_is_not_cut(finder: Finder) -> None:
    finder.answers = [study(1), study(2, PatientName="Müller^Zoë", StudyTime="", StudyDescription="word " * 12)]
    done = await tomowire("query", finder.peer, COLUMNS="40")
    assert (done.code, done.stderr) == (0, "")
    header, first, second = done.stdout.splitlines()
    assert re.split(" {2,}", header) == ["Patient", "ID", "Date", "Time", "Study", "Objects", "Study UID"]
    assert re.split(" {2,}", first) == ["Doe^Jane", "P1", "2026-01-31", "10:15:00", "10", STUDY]
    assert re.split(" {2,}", second) == ["Müller^Zoë", "P2", "2026-01-31", ("word " * 12).strip(), "20", f"{ROOT}.1.2"]
    assert first.index(STUDY) == second.index(f"{ROOT}.1.2") == header.index("Study UID")


@pytest.mark.parametrize("columns", [60, 100, 200])
async def test_a_table_fits_the_terminal(columns: int, finder: Finder) -> None:
    uid = f"{ROOT}.{'1234567890' * 3}"
    finder.answers = [
        study(
            1,
            StudyInstanceUID=uid,
            PatientName="Müller-山田^[b]Bold[/b]",
            StudyDescription="word " * 12,
            PatientBirthDate="19700131",
            ReferringPhysicianName="House^Gregory",
        )
    ]
    output = await on_a_terminal("query", finder.peer, columns=columns)
    text = re.sub(r"\x1b\[[0-9;]*m", "", output.decode()).replace("\r", "")
    table, _, note = text.partition("tomowire: ")
    lines = table.splitlines()
    assert max(map(len, lines)) <= columns
    folded = [match[0] for line in lines[2:] if (match := re.search(r"[0-9.]+$", line.rstrip()))]
    assert "".join(folded) == uid
    assert table.count("word") == 12, "what is too long for a line goes on in the next"
    assert "[b]" in table, "what an answer says is no markup"
    if columns == 200:
        assert note == ""
        assert "Born" in lines[0]
        assert "1970-01-31" in lines[2]
    else:
        assert note.startswith("no room for ReferringPhysicianName")
        assert "House" not in table


CONTROLS = [*range(0x20), *range(0x7F, 0xA0)]


@pytest.mark.parametrize("form", ["table", "json", "jsonl", "csv"])
@pytest.mark.parametrize("is_terminal", [True, False], ids=["terminal", "pipe"])
async def test_what_an_answer_says_does_not_steer_the_terminal(form: str, is_terminal: bool, finder: Finder) -> None:
    """ECMA-48: C0, DEL and C1, of which ESC and CSI begin control sequences (pydicom takes most ESC away itself).

    What is in a pipe may be shown by `less -R`, or with `cat` later.
    """
    hostile = "".join(chr(code) for code in CONTROLS if chr(code) not in "\\\n\r\x1b")
    finder.answers = [
        study(1, StudyDescription="\x1b]0;owned\x07", PatientID="\x9b31m", AccessionNumber="a\r\nb\rc", StudyID=hostile)
    ]
    arguments = ["query", finder.peer, "--format", form]
    if is_terminal:
        output = (await on_a_terminal(*arguments, columns=400)).decode().replace("\r\n", "\n")
        output = re.sub("\x1b\\[[0-9;]*m", "", output)  # rich's own, for the header
    else:
        output = (await tomowire(*arguments)).stdout
    breaks = {"\n", "\r"} if form == "csv" and not is_terminal else {"\n"}
    assert {character for character in output if ord(character) in CONTROLS} <= breaks
    assert "31m" in output
    if form in ("table", "csv"):
        assert "\\x9b31m" in output
        assert "\\x00\\x01" in output
    if form == "csv" and not is_terminal:
        assert '"a\r\nb\rc"' in output, "RFC 4180, 2.6"
    elif form in ("table", "csv"):
        assert "a\\x0d\\x0ab\\x0dc" in output


async def test_json_is_one_array_in_the_dicom_json_model(finder: Finder) -> None:
    """PS3.18 F.2: names in groups, numbers as numbers, empty attributes without Value, an empty value among others as null."""
    answer = study(1, PatientName="Yamada^Tarou=山田^太郎=やまだ^たろう", AccessionNumber="")
    answer.ModalitiesInStudy = ["CT", "MR"]
    answer.OtherPatientIDs = ["A", "", "B"]
    procedure = Dataset()
    procedure.CodeValue = "X"
    answer.ProcedureCodeSequence = [procedure]
    answer.PatientSize = "1.75"
    finder.answers = [answer, study(2)]
    done = await tomowire("query", finder.peer, "--format", "json")
    assert (done.code, done.stderr) == (0, "")
    assert done.stdout.isascii()
    first, second = done.json
    assert list(first) == sorted(first)
    assert first["00100010"] == {
        "vr": "PN",
        "Value": [{"Alphabetic": "Yamada^Tarou", "Ideographic": "山田^太郎", "Phonetic": "やまだ^たろう"}],
    }
    assert first["00080050"] == {"vr": "SH"}
    assert first["00080061"] == {"vr": "CS", "Value": ["CT", "MR"]}
    assert first["00101000"] == {"vr": "LO", "Value": ["A", None, "B"]}
    assert first["00081032"] == {"vr": "SQ", "Value": [{"00080100": {"vr": "SH", "Value": ["X"]}}]}
    assert first["00101020"] == {"vr": "DS", "Value": [1.75]}
    assert first["00201208"] == {"vr": "IS", "Value": [10]}
    assert second["0020000D"] == {"vr": "UI", "Value": [f"{ROOT}.1.2"]}


async def test_a_value_that_is_none_costs_nothing_else(finder: Finder) -> None:
    """What the peer says is shown as it stands, and no library warns of it with the value in the warning."""
    answer = study(1)
    broken = encode(answer, "1.2.840.10008.1.2.1").replace(b"IS\x02\x0010", b"IS\x02\x00ab")
    assert b"IS\x02\x00ab" in broken
    finder.answers = [broken]
    as_json = await tomowire("query", finder.peer, "--format", "json")
    as_csv = await tomowire("query", finder.peer, "--format", "csv")
    as_table = await tomowire("query", finder.peer)
    for done in (as_json, as_csv, as_table):
        assert (done.code, done.stderr) == (0, "")
        assert "P1" in done.stdout
    assert as_json.json[0]["00201208"] == {"vr": "IS", "Value": ["ab"]}
    assert ",ab" in as_csv.stdout
    assert " ab " in as_table.stdout


async def test_json_lines_come_as_the_answers_do(finder: Finder) -> None:
    finder.answers = [study(1), study(2)]
    finder.hold.clear()
    program = await asyncio.to_thread(start, ["query", finder.peer, "--format", "jsonl", "--timeout", "60"])
    await asyncio.to_thread(program.stdout.wait_for, r"(?m)\A(\{.*\}\n){2}\Z")
    assert program.process.poll() is None, "the peer has not finished"
    finder.hold.set()
    assert await asyncio.to_thread(program.process.wait, 20) == 0
    await asyncio.to_thread(program.stdout.join)
    rows = [json.loads(line) for line in program.stdout.text.splitlines()]
    assert [row["00100020"]["Value"] for row in rows] == [["P1"], ["P2"]]


async def test_csv_has_keywords_as_header_and_dicom_values(finder: Finder) -> None:
    answer = study(1, PatientName='Doe, "J"^Jane', ModalitiesInStudy=["CT", "MR"])
    answer.add(DataElement(0x00091001, "LO", "private"))
    finder.answers = [answer]
    done = await tomowire("query", finder.peer, "--format", "csv", "-k", "PatientWeight", "-k", "InstitutionName")
    assert (done.code, done.stderr) == (0, "")
    assert done.stdout.endswith("\r\n"), "RFC 4180, 2.1"
    header, row = csv.reader(done.stdout.splitlines())
    values = dict(zip(header, row, strict=True))
    expected = {
        "PatientName": 'Doe, "J"^Jane',
        "StudyDate": "20260131",
        "StudyTime": "101500.25",
        "ModalitiesInStudy": "CT\\MR",
        "StudyInstanceUID": STUDY,
        "PatientWeight": "",
        "InstitutionName": "",
    }
    assert values == values | expected
    assert "QueryRetrieveLevel" not in values
    assert "private" not in row, "nobody asked for it"


async def test_answers_that_do_not_confirm_a_key_are_told(finder: Finder) -> None:
    """PS3.4 C.2.2.1.3: who does not know the key answers with everything."""
    finder.answers = [study(1), study(2)]
    done = await tomowire("query", finder.peer, "-k", "BodyPartExamined=HEAD", "--format", "jsonl")
    assert (done.code, len(done.stdout.splitlines())) == (0, 2)
    assert (
        done.stderr
        == "tomowire: 2 of 2 answers do not confirm BodyPartExamined: ANY may not match by it at STUDY level\n"
    )


@pytest.mark.parametrize(("form", "printed"), [("table", ""), ("json", "[]\n"), ("jsonl", ""), ("csv", "PatientName")])
async def test_nothing_found_is_no_failure(form: str, printed: str, finder: Finder) -> None:
    done = await tomowire("query", finder.peer, "--format", form)
    assert done.code == 0
    assert done.stderr == f"tomowire: {finder.peer} has nothing that matches\n"
    assert printed in done.stdout
    assert done.stdout.count("\n") == bool(printed)


async def test_a_limit_cancels_the_query(finder: Finder) -> None:
    """PS3.7 9.3.2.3: C-CANCEL; the peer stops, and the association ends in order."""
    finder.answers = [study(1)]
    finder.endless = True
    done = await tomowire("query", finder.peer, "--limit", "3", "--format", "jsonl")
    assert done.code == 0
    assert done.stdout.count("\n") == 3
    assert done.stderr == "tomowire: stopped after 3 answers (--limit); there may be more\n"
    assert finder.left_early.is_set()


async def test_ctrl_c_cancels_the_query_and_prints_what_has_come(finder: Finder) -> None:
    finder.answers = [study(1)]
    finder.hold.clear()
    program = await asyncio.to_thread(start, ["query", finder.peer, "--format", "json", "--timeout", "60"])
    await asyncio.to_thread(program.stdout.wait_for, r"\[\n")
    code = await asyncio.to_thread(program.end, signal.SIGINT)
    assert code == 130
    assert program.stderr.text == "tomowire: interrupted\n"
    assert len(json.loads(program.stdout.text)) == 1
    assert finder.left_early.is_set()


async def test_ctrl_c_again_does_not_wait_for_a_peer_that_goes_on() -> None:
    asked, cancelled = asyncio.Event(), asyncio.Event()

    async def script(peer: RawPeer) -> None:
        await peer.accept()
        request = await peer.read_message()
        asked.set()
        message = await peer.read_message()
        assert isinstance(request.command, CFindRQ)
        assert message.command == CCancelRQ(message_id_being_responded_to=request.command.message_id)
        cancelled.set()
        await peer.read_until_closed()

    async with raw_acceptor(script) as port:
        program = await asyncio.to_thread(start, ["query", f"ANY@{LOOPBACK}:{port}", "--timeout", "60"])
        async with asyncio.timeout(30):
            await asked.wait()
            program.process.send_signal(signal.SIGINT)
            await cancelled.wait()
        code = await asyncio.to_thread(program.end, signal.SIGINT, 4.0)
    assert (code, program.stdout.text, program.stderr.text) == (130, "", "tomowire: interrupted\n")


async def test_a_reader_that_has_enough_ends_it_without_a_word(finder: Finder) -> None:
    finder.answers = [study(1)]
    finder.endless = True
    reading, writing = os.pipe()
    program = await asyncio.to_thread(start, ["query", finder.peer, "--format", "jsonl"], stdout=writing)
    os.close(writing)
    assert await asyncio.to_thread(os.read, reading, 1) == b"{"
    os.close(reading)
    await asyncio.to_thread(program.process.wait, 20)
    program.stderr.join()
    assert program.stderr.text == ""
    assert finder.left_early.is_set(), "the peer was told with C-CANCEL"


@pytest.mark.parametrize("form", ["table", "json", "jsonl", "csv"])
async def test_a_full_disk_behind_stdout_is_told(form: str, finder: Finder) -> None:
    finder.answers = [study(1)]
    with open("/dev/full", "w") as full:  # noqa: ASYNC230 - a device that is there
        program = await asyncio.to_thread(start, ["query", finder.peer, "--format", form], stdout=full)
        assert await asyncio.to_thread(program.process.wait, 20) == 1
    program.stderr.join()
    assert program.stderr.text == "tomowire: standard output: No space left on device\n"


async def test_a_locale_that_lacks_a_character_costs_no_answer(finder: Finder) -> None:
    finder.answers = [study(1, PatientName="Yamada=山田")]
    environment = {"PYTHONIOENCODING": "latin-1", "PYTHONUTF8": "0"}
    table = await tomowire("query", finder.peer, **environment)
    assert table.code == 0, table.stderr
    assert "Yamada=??  P1" in table.stdout
    as_csv = await tomowire("query", finder.peer, "--format", "csv", **environment)
    assert "Yamada=山田" in as_csv.stdout


async def test_what_the_archive_has(tmp_path: Path) -> None:
    """The way of an object in, and of what is known about it out: other tests ask the archive more."""
    samples = [Sample(1), Sample(2), Sample(3, study=2, patient_id="P2")]
    for sample in samples:
        (tmp_path / f"{sample.number}.dcm").write_bytes(sample.header + sample.data_set)
    with serving("serve", "--data-dir", tmp_path / "data", "--aet", "ARCHIVE") as archive:
        peer = f"ARCHIVE@{LOOPBACK}:{archive.port}"
        sent = await tomowire("send", peer, *(tmp_path / f"{sample.number}.dcm" for sample in samples))
        assert sent.code == 0, sent.stderr
        await ask_for_the_samples(peer, samples)


@pytest.mark.interop
async def test_what_dcmtk_has(dcmtk: Callable[[str], Path], tmp_path: Path) -> None:
    samples = [Sample(1), Sample(2), Sample(3, study=2, patient_id="P2")]
    for sample in samples:
        (tmp_path / f"{sample.number}.dcm").write_bytes(sample.header + sample.data_set)
    (tmp_path / "objects").mkdir()
    port = free_port()
    configuration = tmp_path / "dcmqrscp.cfg"
    configuration.write_text(
        f"NetworkTCPPort = {port}\nMaxPDUSize = 16384\nMaxAssociations = 16\n"
        "HostTable BEGIN\nHostTable END\nVendorTable BEGIN\nVendorTable END\n"
        f'AETable BEGIN\nARCHIVE "{tmp_path / "objects"}" RW (200, 1024mb) ANY\nAETable END\n'
    )
    with listening_process([dcmtk("dcmqrscp"), "-c", configuration], port, log=tmp_path / "log"):
        peer = f"ARCHIVE@{LOOPBACK}:{port}"
        sent = await tomowire("send", peer, *(tmp_path / f"{sample.number}.dcm" for sample in samples))
        assert sent.code == 0, sent.stderr
        await ask_for_the_samples(peer, samples)


async def ask_for_the_samples(peer: str, samples: Sequence[Sample]) -> None:
    """Each level once: three objects, of which the first two are in one series."""
    first, second, third = samples

    async def answers(*arguments: str) -> list[dict[str, str]]:
        done = await tomowire("query", peer, "--format", "csv", *arguments)
        assert done.code == 0, done.stderr
        return list(csv.DictReader(done.stdout.splitlines()))

    patients = await answers("-L", "patient", "--patient", "Doe*")
    assert sorted(row["PatientID"] for row in patients) == ["P1", "P2"]
    studies = await answers("--date", "2024-02-01..2024-03-01", "--patient-id", "P2")
    assert [row["StudyInstanceUID"] for row in studies] == [third.study_uid]
    series = await answers("-L", "series", "--study-uid", first.study_uid)
    assert [row["SeriesInstanceUID"] for row in series] == [first.series_uid]
    above = ["--study-uid", first.study_uid, "--series-uid", first.series_uid]
    images = await answers("-L", "image", *above)
    assert sorted(row["SOPInstanceUID"] for row in images) == [first.uid, second.uid]
    assert await answers("-L", "image", *above, "-k", "InstanceNumber=2", "-k", "SOPClassUID") == [
        row for row in images if row["SOPInstanceUID"] == second.uid
    ]
    assert await answers("--patient-id", "nobody") == []


async def test_a_failure_leaves_what_has_come_and_gives_1(finder: Finder) -> None:
    finder.answers = [study(1)]
    finder.failure = QueryFailed(0xA700, "the disk is full", ())
    for form in ("table", "json"):
        done = await tomowire("query", finder.peer, "--format", form)
        assert done.code == 1
        assert "P1" in done.stdout
        assert "A700" in done.stderr
        assert "the disk is full" in done.stderr
        assert "Traceback" not in done.stderr
    assert len(done.json) == 1


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        (["-L", "series"], "give StudyInstanceUID one value (--study-uid)"),
        (
            ["-L", "image", "--study-uid", "1.2", "--study-uid", "1.3"],
            "give StudyInstanceUID exactly one value and SeriesInstanceUID one value (--study-uid, --series-uid)",
        ),
        (["--model", "patient", "--patient-id", "P*"], "give PatientID exactly one value (--patient-id)"),
        ([], "look at its level and its keys"),
    ],
)
async def test_a_query_that_does_not_fit_the_model(arguments: list[str], hint: str, finder: Finder) -> None:
    """A900H; PS3.4 C.4.1.2.1: each unique key above the level has a single value."""
    finder.failure = QueryFailed(0xA900, "no", ())
    done = await tomowire("query", finder.peer, *arguments)
    assert done.code == 1
    assert done.stderr.endswith(f"it says 'no'; the query does not fit the model: {hint}\n")


@pytest.mark.parametrize("agrees", [True, False])
async def test_relational_queries_are_asked_for_and_it_is_said_when_the_peer_does_not_agree(agrees: bool) -> None:
    """PS3.4 C.5.1.1; what is asked is asked all the same: a peer may take it."""
    asked: list[bool] = []

    async def answer(request: FindRequest) -> AsyncIterator[FindAnswers]:
        asked.append(request.relational)
        yield FindAnswers([])

    async with listen(LOOPBACK, 0, services=[Find(answer, relational=agrees)]) as server:
        plain = await tomowire("query", f"ANY@{LOOPBACK}:{server.port}", "-L", "series")
        done = await tomowire("query", f"ANY@{LOOPBACK}:{server.port}", "-L", "series", "--relational")
    assert (plain.code, done.code) == (0, 0)
    assert asked == [False, agrees]
    assert "relational" not in plain.stderr
    assert ("ANY does not agree to relational queries" in done.stderr) is not agrees


async def test_a_failed_query_is_no_reason_for_an_abort() -> None:
    released = asyncio.Event()

    async def script(peer: RawPeer) -> None:
        await peer.accept()
        request = await peer.read_message()
        assert isinstance(request.command, CFindRQ)
        answer = CFindRSP(message_id_being_responded_to=request.command.message_id, status=0xA900)
        await peer.send(message_pdus(request.context_id, answer))
        await peer.answer_release()
        released.set()

    async with raw_acceptor(script) as port:
        done = await tomowire("query", f"ANY@{LOOPBACK}:{port}")
        assert (done.code, released.is_set()) == (1, True)
        released.clear()
        async with Peer(f"ANY@{LOOPBACK}:{port}") as peer:
            with pytest.raises(QueryFailed):
                [each async for each in peer.find(Query.studies())]
        async with asyncio.timeout(10):
            await released.wait()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["-L", "patient", "--model", "study"], "the Study Root model has no PATIENT level"),
        (["-L", "instance"], "'instance' is not one of"),
        (["-k", "PatientNam=Smith"], "near it are PatientName"),
        (["-k", "=Smith"], "-k =Smith: which attribute?"),
        (["-k", "QueryRetrieveLevel=IMAGE"], "QueryRetrieveLevel is not for matching"),
        (["--patient", "A", "-k", "0010,0010=B"], "-k 0010,0010 asks once more for the same attribute"),
        (["--modality", "CT", "-k", "ModalitiesInStudy=MR"], "and --modality ask for the same"),
        (["--date", "2026-13-01"], "there is no day '2026-13-01'"),
        (["--date", "soon"], "'soon' is no date"),
        (["--study-uid", "1.2.x"], "'1.2.x' is not a UID"),
        (["-k", "StudyTime=25"], "'25' is not a time"),
        (["-k", "Rows=1.5"], "Rows: '1.5' is not a whole number"),
        (["-k", "ProcedureCodeSequence=X"], "write -k ProcedureCodeSequence.Keyword=X"),
        (["-k", "ProcedureCodeSequence", "-k", "ProcedureCodeSequence.CodeValue=X"], "asked for as a whole"),
        (["-k", "PatientID.CodeValue=X"], "PatientID is no sequence"),
        (["--modality", "CT,"], "'CT,' is no list of modalities"),
        (["-k", "NumberOfStudyRelatedSeries=foo"], "NumberOfStudyRelatedSeries: 'foo' is not a whole number\n"),
        (["-k", "NumberOfStudyRelatedSeries=1.2.3"], "NumberOfStudyRelatedSeries: '1.2.3' is not a whole number\n"),
        (["-k", "PatientSize=tall"], "PatientSize: 'tall' is not a number\n"),
        (["--limit", "0"], "0"),
    ],
)
async def test_2_usage(arguments: list[str], said: str) -> None:
    done = await tomowire("query", f"ANY@{LOOPBACK}:{free_port()}", *arguments)
    assert (done.code, done.stdout) == (2, "")
    assert said in done.stderr
    assert "Traceback" not in done.stderr


async def test_the_other_exit_codes(finder: Finder) -> None:
    nobody = await tomowire("query", f"ANY@{LOOPBACK}:{free_port()}")
    assert nobody.code == 3
    async with listen(LOOPBACK, 0, services=[Verification()], aet="RIGHT") as server:
        rejected = await tomowire("query", f"WRONG@{LOOPBACK}:{server.port}")
        no_context = await tomowire("query", f"RIGHT@{LOOPBACK}:{server.port}")
    assert rejected.code == 4
    assert "(called 'WRONG')" in rejected.stderr
    assert no_context.code == 5
    assert "no presentation context for Study Root Query/Retrieve Information Model - FIND" in no_context.stderr
    assert no_context.stderr.endswith("; it may know another: --model patient\n")
    finder.hold.clear()
    late = await tomowire("query", finder.peer, "--timeout", "0.1")
    assert late.code == 6
    assert all(done.stdout == "" for done in (nobody, rejected, no_context, late))


async def test_an_answer_that_cannot_be_read_does_not_keep_the_others_back(finder: Finder) -> None:
    finder.answers = [study(1), b"nonsense, this is", study(2)]
    result = await tomowire("query", finder.peer, "--format", "jsonl")
    assert result.code == 1
    assert [json.loads(line)["00100020"]["Value"] for line in result.stdout.splitlines()] == [["P1"], ["P2"]]
    assert "1 of the peer's answers cannot be read, the first because the identifier" in result.stderr
