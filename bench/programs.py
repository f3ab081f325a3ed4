"""The programs that are compared: how each is started, and where what it has received can be counted."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from arrivals import Arrived, in_folder, in_orthanc, in_tomowire
from processes import LOOPBACK, ProgramFailed, free_port

# Only where Debian puts them: in a virtual environment pynetdicom has a `storescu` of its own.
_SYSTEM_DIRECTORIES: Final = (Path("/usr/bin"), Path("/usr/sbin"), Path("/usr/local/bin"))
_PEERS: Final = Path(__file__).parent / "peers"
# What DCMTK can do at most. Everyone who has to be asked gets it; tomowire does not have to be asked.
MAXIMUM_PDU: Final = 131072


@dataclass(frozen=True, slots=True)
class Receiver:
    """A storage SCP. `command` takes a port and an empty folder for its data."""

    title: str
    command: Callable[[int, Path], list[str]]
    arrived: Callable[[Path], Arrived]
    ae_title: str = "RECEIVER"


@dataclass(frozen=True, slots=True)
class Sender:
    """A storage SCU. `command` takes the AE title and port of the receiver, and the folder to send."""

    title: str
    command: Callable[[str, int, Path], list[str]]


@dataclass(frozen=True, slots=True)
class Pairing:
    """A sender and a receiver. In each group one is `ours`, and the others are compared with it."""

    name: str
    group: str
    sender: Sender
    receiver: Receiver
    ours: bool = False

    @property
    def title(self) -> str:
        return f"{self.sender.title} → {self.receiver.title}"


def system_program(name: str, package: str) -> str:
    """The path of a program of a Debian package. Raises `ProgramFailed` if it is not installed."""
    for directory in _SYSTEM_DIRECTORIES:
        if (directory / name).exists():
            return str(directory / name)
    raise ProgramFailed(f"{name} is not installed: apt-get install {package}, or leave it out with --only")


def tomowire(*arguments: object) -> list[str]:
    """The console script of the environment that the benchmark runs in; where there is none, what is in it."""
    script = Path(sys.prefix, "bin", "tomowire")
    command = [str(script)] if script.exists() else [sys.executable, "-c", "from tomowire.cli.main import main; main()"]
    return [*command, *map(str, arguments)]


def _tomowire_send(ae_title: str, port: int, folder: Path) -> list[str]:
    return tomowire("send", f"{ae_title}@{LOOPBACK}:{port}", folder)


def _listen(port: int, folder: Path) -> list[str]:
    return tomowire("listen", "--port", port, "-o", folder)


def serve_command(port: int, folder: Path, *options: str) -> list[str]:
    """`tomowire serve` on a data directory."""
    return tomowire("serve", "--no-http", "--port", port, "--data-dir", folder, *options)


def _storescu(ae_title: str, port: int, folder: Path) -> list[str]:
    program = system_program("storescu", "dcmtk")
    return [program, "-aec", ae_title, "+sd", "-pdu", str(MAXIMUM_PDU), LOOPBACK, str(port), str(folder)]


def storescp(*options: str) -> Callable[[int, Path], list[str]]:
    def command(port: int, folder: Path) -> list[str]:
        program = system_program("storescp", "dcmtk")
        return [program, *options, "-pdu", str(MAXIMUM_PDU), "-od", str(folder), str(port)]

    return command


def _pynetdicom_scu(ae_title: str, port: int, folder: Path) -> list[str]:
    return [sys.executable, str(_PEERS / "pynetdicom_scu.py"), str(port), str(folder)]


def _pynetdicom_scp(port: int, folder: Path) -> list[str]:
    return [sys.executable, str(_PEERS / "pynetdicom_scp.py"), str(port), str(folder)]


def _bare_scu(ae_title: str, port: int, folder: Path) -> list[str]:
    return [sys.executable, str(_PEERS / "bare_scu.py"), str(port), str(folder)]


def _bare_scp(port: int, folder: Path) -> list[str]:
    return [sys.executable, str(_PEERS / "bare_scp.py"), str(port), str(folder)]


def orthanc_command(port: int, folder: Path, **more: object) -> list[str]:
    """Orthanc with its data in `folder`, no plugins and no login.

    What is named neither here nor in `more` has Orthanc's default, fsync among it.
    """
    for name in ("storage", "temporary"):
        (folder / name).mkdir()
    configuration = folder / "orthanc.json"
    settings = {
        "StorageDirectory": str(folder / "storage"),
        "IndexDirectory": str(folder),
        "TemporaryDirectory": str(folder / "temporary"),
        "Plugins": [],
        "DicomPort": port,
        "DicomCheckCalledAet": False,
        "MaximumPduLength": MAXIMUM_PDU,
        "HttpPort": free_port(),
        "RemoteAccessAllowed": False,
        "AuthenticationEnabled": False,
        **more,
    }
    configuration.write_text(json.dumps(settings))
    return [system_program("Orthanc", "orthanc"), str(configuration)]


_TOMOWIRE: Final = Sender("tomowire send", _tomowire_send)
_DCMTK: Final = Sender("DCMTK storescu", _storescu)
_PYNETDICOM: Final = Sender("pynetdicom", _pynetdicom_scu)
_BARE: Final = Sender("bare Python", _bare_scu)

SERVE: Final = Receiver("tomowire serve", serve_command, in_tomowire, ae_title="TOMOWIRE")
ORTHANC: Final = Receiver("Orthanc", orthanc_command, in_orthanc)

GROUPS: Final[Mapping[str, str]] = {
    "files": "Receivers that only write files",
    "archives": "Archives, index and fsync on",
}
PAIRINGS: Final = (
    Pairing("listen", "files", _TOMOWIRE, Receiver("tomowire listen", _listen, in_folder), ours=True),
    Pairing("storescp", "files", _DCMTK, Receiver("storescp", storescp(), in_folder)),
    Pairing("storescp+B", "files", _DCMTK, Receiver("storescp +B", storescp("+B"), in_folder)),
    Pairing("pynetdicom", "files", _PYNETDICOM, Receiver("pynetdicom", _pynetdicom_scp, in_folder)),
    Pairing("bare", "files", _BARE, Receiver("bare Python", _bare_scp, in_folder)),
    Pairing("serve", "archives", _TOMOWIRE, SERVE, ours=True),
    Pairing("orthanc", "archives", _DCMTK, ORTHANC),
)
