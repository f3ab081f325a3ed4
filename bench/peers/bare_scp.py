"""No DICOM: what Python takes to receive bytes and write them to files, each with eight bytes before it that say how many.

Arguments: port, folder. Whoever speaks a protocol besides, or does anything else, takes longer.
"""

import os
import socket
import sys

_BLOCK = 256 * 1024


def receive(connection: socket.socket, folder: str) -> None:
    block = memoryview(bytearray(_BLOCK))
    number = 0
    while head := connection.recv(8, socket.MSG_WAITALL):
        left = int.from_bytes(head, "big")
        file = os.open(os.path.join(folder, f"{number}.dcm"), os.O_CREAT | os.O_EXCL | os.O_WRONLY)
        while left:
            size = connection.recv_into(block, min(left, _BLOCK))
            if not size:
                raise EOFError(f"{left} bytes of file {number} are missing")
            os.write(file, block[:size])
            left -= size
        os.close(file)
        connection.send(b"\0")
        number += 1


def main() -> None:
    with socket.create_server(("127.0.0.1", int(sys.argv[1]))) as server:
        while True:
            connection, _ = server.accept()
            with connection:
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                receive(connection, sys.argv[2])


if __name__ == "__main__":
    main()
