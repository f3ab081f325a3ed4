"""From a `TlsClient` or `TlsServer` to an `SSLContext`, made anew when the files have changed."""

from __future__ import annotations

import asyncio
import logging
import os
import ssl
from typing import TYPE_CHECKING, Final, NoReturn

from tomowire.aio.tls import TlsClient, TlsServer, all_files, authority_files, file_name
from tomowire.aio.tls_profiles import TlsProfile, apply_profile
from tomowire.errors import UsageError
from tomowire.wire.value import value

if TYPE_CHECKING:
    from ssl import SSLContext

logger = logging.getLogger("tomowire.tls")

_VERIFY_MODES: Final = {"none": ssl.CERT_NONE, "optional": ssl.CERT_OPTIONAL, "require": ssl.CERT_REQUIRED}
_MOST_REMEMBERED: Final = 32

# Size, time of change and inode of each file.
_Stamps = tuple[tuple[int, int, int] | None, ...]


@value()
class _Made:
    stamps: _Stamps
    context: SSLContext


_made: Final[dict[TlsClient, _Made]] = {}


async def context_of_client(tls: TlsClient) -> SSLContext:
    """The context for a new connection: the one of before, unless a file has changed since.

    Raises `UsageError` for files that cannot be used. When there was a context before, it is used on instead, and a warning logged:
    a certificate and its key are not replaced in the same moment.
    """
    if not isinstance(tls, TlsClient):
        raise UsageError(f"who calls needs a TlsClient or an SSLContext for TLS, and not a {type(tls).__name__}")
    stamps = _stamps_of(tls)
    before = _made.get(tls)
    if before is not None and before.stamps == stamps:
        return before.context
    try:
        context = await asyncio.to_thread(_make_client, tls)
    except UsageError as error:
        if before is None:
            raise
        logger.warning("TLS files have changed, but are not used: %s", error)
        context = before.context
    _made.pop(tls, None)
    _made[tls] = _Made(stamps, context)
    while len(_made) > _MOST_REMEMBERED:
        _made.pop(next(iter(_made)), None)
    return context


async def context_of_server(tls: TlsServer) -> SSLContext:
    """A context from what the files hold now. Raises `UsageError` for files or settings that cannot be used."""
    if not isinstance(tls, TlsServer):
        raise UsageError(f"who listens needs a TlsServer or an SSLContext for TLS, and not a {type(tls).__name__}")
    return await asyncio.to_thread(_make_server, tls)


def try_client(tls: TlsClient) -> None:
    """Raises `UsageError` for files or settings that cannot be used. It reads them: not for the event loop."""
    _make_client(tls)


def try_server(tls: TlsServer) -> None:
    """Raises `UsageError` for files or settings that cannot be used. It reads them: not for the event loop."""
    _make_server(tls)


def check_side(context: SSLContext, *, server_side: bool) -> None:
    """Raises `UsageError` for an `SSLContext` that is made for the other side: every handshake would fail with it."""
    if context.protocol is (ssl.PROTOCOL_TLS_CLIENT if server_side else ssl.PROTOCOL_TLS_SERVER):
        sides = ("who listens", "who calls") if server_side else ("who calls", "who listens")
        raise UsageError(f"the SSLContext is one for {sides[1]} ({context.protocol.name}), and not for {sides[0]}")


def _make_client(tls: TlsClient) -> SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    apply_profile(context, TlsProfile.named(tls.profile))
    context.check_hostname = tls.verify and tls.check_hostname
    if not tls.verify:
        context.verify_mode = ssl.CERT_NONE
    elif tls.authorities is None:
        context.load_default_certs(ssl.Purpose.SERVER_AUTH)
    else:
        _trust(context, authority_files(tls))
    if tls.certificate is not None:
        _identify(context, tls)
    elif tls.key is not None:
        raise UsageError(f"the key {tls.key} is of no use without its certificate")
    return context


def _make_server(tls: TlsServer) -> SSLContext:
    if tls.client_auth not in _VERIFY_MODES:
        raise UsageError(f"{tls.client_auth!r}: callers' certificates can be {', '.join(_VERIFY_MODES)}")
    if tls.client_auth != "none" and tls.authorities is None:
        raise UsageError("callers' certificates cannot be verified: no authorities are named that may have signed them")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    apply_profile(context, TlsProfile.named(tls.profile))
    # Associations are few and long, and a session that is resumed would not be verified anew.
    context.num_tickets = 0
    context.options |= ssl.OP_NO_TICKET
    _identify(context, tls)
    _trust(context, authority_files(tls))
    context.verify_mode = _VERIFY_MODES[tls.client_auth]
    return context


def _trust(context: SSLContext, files: tuple[str, ...]) -> None:
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN  # a peer's own certificate may be trusted, or one in between
    for file in files:
        try:
            context.load_verify_locations(file)
        except OSError as error:
            _refuse(f"the authorities in {file} cannot be used", error, "PEM with certificates", file)


def _identify(context: SSLContext, tls: TlsClient | TlsServer) -> None:
    certificate, key = file_name(tls.certificate), file_name(tls.key) if tls.key is not None else None
    files = (certificate,) if key is None else (certificate, key)
    needed = "PEM with a certificate and its private key"
    if tls.password is not None:
        needed += ", and the password that opens it,"
    try:
        context.load_cert_chain(certificate, key, tls.password if tls.password is not None else _no_password)
    except OSError as error:
        _refuse(f"the certificate {' with the key '.join(files)} cannot be used", error, needed, *files)
    except (ValueError, TypeError) as error:  # a password that is too long, or none
        raise UsageError(f"the key in {files[-1]} cannot be opened: {error}") from error


def _no_password() -> NoReturn:
    """OpenSSL would ask for it on the terminal, and wait."""
    raise UsageError("the private key is encrypted, and no password is given")


_REASONS: Final = {
    "KEY_VALUES_MISMATCH": "the key is not that of the certificate",
    "KEY_TYPE_MISMATCH": "the key is not that of the certificate",
    "EE_KEY_TOO_SMALL": "the certificate's key is too short for the TLS profile (RSA: 2048 bits, elliptic curves: 224)",
    "CA_KEY_TOO_SMALL": "the key of an authority is too short for the TLS profile (RSA: 2048 bits)",
    "CA_MD_TOO_WEAK": "a certificate is signed with a hash that the TLS profile does not allow",
    "NO_CERTIFICATE_OR_CRL_FOUND": "there is no certificate in it (PEM is needed)",
    "NO_START_LINE": "there is no certificate in it (PEM is needed)",
}


def _refuse(what: str, error: OSError, needed: str, *files: str) -> NoReturn:
    """Say why; OpenSSL does not say which file it could not open, and of PEM only that something is wrong with it."""
    for file in files:
        try:
            with open(file, "rb"):
                pass
        except OSError as why:
            raise UsageError(f"{what}: {file}: {why.strerror}") from error
    reason = error.reason if isinstance(error, ssl.SSLError) else error.strerror
    text = _REASONS.get(reason, reason.lower()) if reason else f"{needed} is needed"
    raise UsageError(f"{what}: {text}") from error


def _stamps_of(tls: TlsClient) -> _Stamps:
    return tuple(map(_stamp, all_files(tls)))


def _stamp(file: str) -> tuple[int, int, int] | None:
    try:
        found = os.stat(file)
    except OSError:
        return None
    return found.st_size, found.st_mtime_ns, found.st_ino
