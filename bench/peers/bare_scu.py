"""No DICOM: what Python takes to read files and send their bytes; see `bare_scp`. Arguments: port, folder."""

import os
import socket
import sys

_PIECE = 1024 * 1024


def main() -> None:
    port, folder = int(sys.argv[1]), sys.argv[2]
    buffer = memoryview(bytearray(_PIECE + 8))
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for name in sorted(os.listdir(folder)):
            file = os.open(os.path.join(folder, name), os.O_RDONLY)
            buffer[:8] = os.fstat(file).st_size.to_bytes(8, "big")
            start = 0
            while (size := os.readv(file, [buffer[8:]])) or not start:
                connection.sendall(buffer[start : 8 + size])
                start = 8
            os.close(file)
            if connection.recv(1) != b"\0":
                raise EOFError(f"no answer to {name}")


if __name__ == "__main__":
    main()
