"""Opening the transport connection of a requestor, and what to say when that fails."""

from __future__ import annotations

import asyncio
import socket
from typing import TYPE_CHECKING

from tomowire.errors import ConnectFailed

if TYPE_CHECKING:
    from ssl import SSLContext

    from tomowire.aio.address import PeerAddress
    from tomowire.aio.association import Association


async def open_connection(
    association: Association, address: PeerAddress, timeout: float, ssl: SSLContext | None
) -> None:
    """Connect `association` to `address` within `timeout` seconds. Raises `ConnectFailed`."""
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(timeout):
            await loop.create_connection(lambda: association.connection, address.host, address.port, ssl=ssl)
    except TimeoutError:
        raise ConnectFailed(f"cannot connect to {address}: no answer within {timeout:g} s") from None
    except (socket.gaierror, UnicodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no host name"
        raise ConnectFailed(f"cannot connect to {address}: the host name cannot be resolved ({reason})") from error
    except ConnectionRefusedError as error:
        raise ConnectFailed(f"cannot connect to {address}: refused; nothing listens there") from error
    except OSError as error:
        # Several addresses, several reasons: asyncio strings them together in an error without a number.
        text = error.strerror or ("none of its addresses answers" if error.errno is None else str(error))
        raise ConnectFailed(f"cannot connect to {address}: {text}") from error
