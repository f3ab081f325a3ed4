"""DIMSE-N with other people's programs: DCMTK's print SCP and print SCU, and pynetdicom in both directions and all six services."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from pydicom import Dataset, dcmread
from pydicom.sequence import Sequence

from support.network import LOOPBACK, free_port, listening_process
from tomowire.aio.association import Association
from tomowire.aio.connect import associate
from tomowire.aio.listen import listen
from tomowire.errors import OperationFailed
from tomowire.protocol.negotiation import ProposedContext
from tomowire.services.invoking import NormalizedResponse
from tomowire.services.normalized import NormalizedScu
from tomowire.services.normalized_handling import NormalizedRequest
from tomowire.services.normalized_scp import Normalized
from tomowire.services.verification import Verification
from tomowire.uids import EXPLICIT_VR_LITTLE_ENDIAN, IMPLICIT_VR_LITTLE_ENDIAN

pytestmark = pytest.mark.interop

GRAYSCALE_PRINT = "1.2.840.10008.5.1.1.9"
FILM_SESSION = "1.2.840.10008.5.1.1.1"
FILM_BOX = "1.2.840.10008.5.1.1.2"
IMAGE_BOX = "1.2.840.10008.5.1.1.4"
PRINTER, PRINTER_INSTANCE = "1.2.840.10008.5.1.1.16", "1.2.840.10008.5.1.1.17"
PRESENTATION_LUT = "1.2.840.10008.5.1.1.23"
PRINT_CLASSES = (FILM_SESSION, FILM_BOX, IMAGE_BOX, PRINTER)

MPPS = "1.2.840.10008.3.1.2.3.3"
COMMITMENT, COMMITMENT_INSTANCE = "1.2.840.10008.1.20.1", "1.2.840.10008.1.20.1.1"

SYNTAXES = (EXPLICIT_VR_LITTLE_ENDIAN, IMPLICIT_VR_LITTLE_ENDIAN)
ROWS, COLUMNS = 40, 30


def dataset(**attributes: object) -> Dataset:
    made = Dataset()
    for keyword, value in attributes.items():
        setattr(made, keyword, value)
    return made


def reference(sop_class_uid: str, sop_instance_uid: str) -> Sequence:
    return Sequence([dataset(ReferencedSOPClassUID=sop_class_uid, ReferencedSOPInstanceUID=sop_instance_uid)])


# DCMTK


def configuration(folder: Path, **printers: str) -> Path:
    """A configuration file of DCMTK's print programs, with the printers' own lines."""
    for name in ("spool", "database", "lut"):
        (folder / name).mkdir(exist_ok=True)
    common = (
        "DisplayFormat = 1,1\\2,2\nFilmSizeID = 14INX17IN\nMediumType = PAPER\nSupports12Bit = true\nMaxPDU = 32768\n"
        "SupportsPresentationLUT = true\nMaxDensity = 320\nMinDensity = 20\nFilmDestination = MAGAZINE\n"
    )
    path = folder / "print.cfg"
    path.write_text(
        f"[[GENERAL]]\n[PRINT]\nDirectory = {folder}/spool\n[DATABASE]\nDirectory = {folder}/database\n"
        f"[LUT]\nDirectory = {folder}/lut\n[[COMMUNICATION]]\n"
        + "".join(f"[{name}]\n{lines}\n{common}" for name, lines in printers.items())
    )
    return path


@contextmanager
def print_scp(program: Path, folder: Path) -> Iterator[str]:
    """DCMTK's `dcmprscp`; gives its address. It keeps what is printed in `folder`/database."""
    port = free_port()
    config = configuration(folder, PRINTSCP=f"Type = LOCALPRINTER\nAetitle = PRINTSCP\nPort = {port}\n")
    with listening_process([program, "-v", "-c", config], port, log=folder / "scp.log", cwd=folder):
        yield f"PRINTSCP@{LOOPBACK}:{port}"


async def print_a_film(association: Association) -> list[NormalizedResponse]:
    """A film with one image, as PS3.4 H.1 has it: each response, in the order of the requests."""
    scu = NormalizedScu(association, GRAYSCALE_PRINT)
    responses = [await scu.get(PRINTER, PRINTER_INSTANCE)]
    responses.append(await scu.create(FILM_SESSION, dataset(NumberOfCopies=1, MediumType="PAPER")))
    session = str(responses[-1].sop_instance_uid)
    film = dataset(
        ImageDisplayFormat="STANDARD\\1,1",
        FilmOrientation="PORTRAIT",
        FilmSizeID="14INX17IN",
        ReferencedFilmSessionSequence=reference(FILM_SESSION, session),
    )
    responses.append(await scu.create(FILM_BOX, film, sop_instance_uid="1.2.826.0.1.3680043.2.1143.77"))
    box = responses[-1]
    (image_box,) = box.dataset().ReferencedImageBoxSequence
    image = dataset(
        SamplesPerPixel=1,
        PhotometricInterpretation="MONOCHROME2",
        Rows=ROWS,
        Columns=COLUMNS,
        PixelAspectRatio=[1, 1],
        BitsAllocated=8,
        BitsStored=8,
        HighBit=7,
        PixelRepresentation=0,
        PixelData=bytes(range(100)) * (ROWS * COLUMNS // 100),
    )
    image["PixelData"].VR = "OW"
    placed = dataset(ImageBoxPosition=1, BasicGrayscaleImageSequence=Sequence([image]))
    responses.append(await scu.set(IMAGE_BOX, image_box.ReferencedSOPInstanceUID, placed))
    responses.append(await scu.action(FILM_BOX, str(box.sop_instance_uid), 1))
    responses.append(await scu.delete(FILM_BOX, str(box.sop_instance_uid)))
    responses.append(await scu.delete(FILM_SESSION, session))
    responses.append(await scu.delete(FILM_SESSION, "1.2.3"))
    return responses


@pytest.mark.parametrize("syntax", SYNTAXES)
async def test_dcmtk_prints_a_film(tmp_path: Path, dcmtk: Callable[[str], Path], syntax: str) -> None:
    with print_scp(dcmtk("dcmprscp"), tmp_path) as address:
        async with associate(address, [ProposedContext(GRAYSCALE_PRINT, (syntax,))]) as association:
            printer, session, box, *others, unknown = await print_a_film(association)
    assert printer.dataset().PrinterStatus == "NORMAL"
    assert session.is_success
    assert session.sop_instance_uid, "made there"
    assert box.sop_instance_uid == "1.2.826.0.1.3680043.2.1143.77"
    assert [each.status for each in others] == [0, 0, 0, 0]
    assert unknown.status == 0x0112
    # It keeps a Stored Print object, and the image as it came.
    kept = [dcmread(path) for path in (tmp_path / "database").glob("*.dcm")]
    (image,) = (each for each in kept if "PixelData" in each)
    assert (image.Rows, image.Columns) == (ROWS, COLUMNS)
    assert image.PixelData == bytes(range(100)) * (ROWS * COLUMNS // 100)


class PrintServer(Normalized):
    """Basic Grayscale Print Management as far as a test needs it."""

    def __init__(self) -> None:
        super().__init__(
            [GRAYSCALE_PRINT, PRESENTATION_LUT],
            create=self.make,
            set=self.place,
            get=self.tell,
            action=self.print,
            delete=self.forget,
            members={GRAYSCALE_PRINT: PRINT_CLASSES},
        )
        self.instances: dict[str, str] = {}
        self.images: list[Dataset] = []
        self.printed: list[str] = []

    async def make(self, request: NormalizedRequest) -> Dataset:
        attributes = request.dataset()
        self.instances[request.sop_instance_uid] = request.sop_class_uid
        if request.sop_class_uid == FILM_BOX:
            box = f"{request.sop_instance_uid}.1"
            self.instances[box] = IMAGE_BOX
            attributes.ReferencedImageBoxSequence = reference(IMAGE_BOX, box)
        return attributes

    async def place(self, request: NormalizedRequest) -> None:
        if self.instances.get(request.sop_instance_uid) != IMAGE_BOX:
            raise OperationFailed(0x0112)
        (image,) = request.dataset().BasicGrayscaleImageSequence
        self.images.append(image)

    async def tell(self, request: NormalizedRequest) -> Dataset:
        assert request.sop_instance_uid == PRINTER_INSTANCE
        return dataset(PrinterStatus="NORMAL", PrinterStatusInfo="NORMAL")

    async def print(self, request: NormalizedRequest) -> None:
        assert request.type_id == 1
        self.printed.append(request.sop_class_uid)

    async def forget(self, request: NormalizedRequest) -> None:
        if self.instances.pop(request.sop_instance_uid, None) != request.sop_class_uid:
            raise OperationFailed(0x0112, "there is no such instance")


async def test_our_scp_prints_a_film_for_our_scu() -> None:
    server = PrintServer()
    async with (
        listen(LOOPBACK, 0, services=[server]) as listening,
        associate(f"ANY@{LOOPBACK}:{listening.port}", [ProposedContext(GRAYSCALE_PRINT, SYNTAXES)]) as association,
    ):
        responses = await print_a_film(association)
    assert [each.status for each in responses] == [0, 0, 0, 0, 0, 0, 0, 0x0112]
    assert server.printed == [FILM_BOX]


async def test_dcmtk_has_a_film_printed(tmp_path: Path, dcmtk: Callable[[str], Path]) -> None:
    """What `dcmprscp` has kept of a film, `dcmprscu` prints on our SCP."""
    with print_scp(dcmtk("dcmprscp"), tmp_path) as address:
        async with associate(address, [ProposedContext(GRAYSCALE_PRINT, SYNTAXES)]) as association:
            await print_a_film(association)
    (stored,) = (path for path in (tmp_path / "database").glob("*.dcm") if "PixelData" not in dcmread(path))
    server = PrintServer()
    async with listen(LOOPBACK, 0, services=[Verification(), server]) as listening:
        ours = f"Type = PRINTER\nHostname = {LOOPBACK}\nPort = {listening.port}\nAetitle = OURS\n"
        config = configuration(tmp_path, OURS=ours)
        process = await asyncio.create_subprocess_exec(
            *map(str, (dcmtk("dcmprscu"), "-v", "-c", config, "-p", "OURS", stored)),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            cwd=tmp_path,
        )
        async with asyncio.timeout(60):
            output, _ = await process.communicate()
    assert process.returncode == 0, output.decode()
    assert server.printed, output.decode()
    (image,) = server.images
    assert (image.Rows, image.Columns) == (ROWS, COLUMNS)
    assert FILM_SESSION not in server.instances.values(), "it was deleted"
