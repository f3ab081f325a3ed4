"""pynetdicom as a user writes it: send a folder with C-STORE. Arguments: port, folder. Exit code 1 unless each object is taken."""

from __future__ import annotations

import socket
import sys
from pathlib import Path

from pydicom.filereader import read_file_meta_info
from pynetdicom import AE, evt
from pynetdicom.events import Event

MAXIMUM_PDU = 131072


def no_delay(event: Event) -> None:
    """pynetdicom has no setting for it."""
    connection: socket.socket = event.assoc.dul.socket.socket  # type: ignore[union-attr, assignment]
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def main() -> None:
    port, folder = int(sys.argv[1]), Path(sys.argv[2])
    paths = sorted(folder.iterdir())
    ae = AE("SENDER")
    # The largest object takes pynetdicom longer than its 30 s.
    ae.dimse_timeout = ae.network_timeout = None
    # All files of a benchmark's folder are of the same kind: the first one tells.
    meta = read_file_meta_info(paths[0])
    ae.add_requested_context(meta.MediaStorageSOPClassUID, meta.TransferSyntaxUID)
    association = ae.associate("127.0.0.1", port, max_pdu=MAXIMUM_PDU, evt_handlers=[(evt.EVT_CONN_OPEN, no_delay)])
    if not association.is_established:
        sys.exit("no association")
    failed = 0
    for path in paths:
        response = association.send_c_store(path)
        failed += response.get("Status") != 0x0000
    association.release()
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
