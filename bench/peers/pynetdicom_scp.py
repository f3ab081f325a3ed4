"""pynetdicom as a user writes it: a storage SCP that puts each object in a file. Arguments: port, folder."""

from __future__ import annotations

import signal
import socket
import sys
from pathlib import Path

from pynetdicom import AE, AllStoragePresentationContexts, evt
from pynetdicom.events import Event

MAXIMUM_PDU = 131072


def no_delay(event: Event) -> None:
    """pynetdicom has no setting for it."""
    connection: socket.socket = event.assoc.dul.socket.socket  # type: ignore[union-attr, assignment]
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def store(event: Event, folder: Path) -> int:
    """Write the data set as it came, which pynetdicom's documentation gives as the fastest way."""
    (folder / f"{event.file_meta.MediaStorageSOPInstanceUID}.dcm").write_bytes(event.encoded_dataset())
    return 0x0000


def main() -> None:
    port, folder = int(sys.argv[1]), Path(sys.argv[2])
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    ae = AE("RECEIVER")
    ae.maximum_pdu_size = MAXIMUM_PDU
    ae.network_timeout = None
    ae.supported_contexts = AllStoragePresentationContexts
    ae.start_server(
        ("127.0.0.1", port), evt_handlers=[(evt.EVT_CONN_OPEN, no_delay), (evt.EVT_C_STORE, store, [folder])]
    )


if __name__ == "__main__":
    main()
