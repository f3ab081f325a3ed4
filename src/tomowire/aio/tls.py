"""How one side speaks TLS: the values that go to `associate(..., ssl=)` and `listen(..., ssl=)`."""

from __future__ import annotations

from os import PathLike, fspath
from typing import TYPE_CHECKING, Final, Literal

from tomowire.aio.tls_profiles import DEFAULT_PROFILE, TlsProfile
from tomowire.errors import UsageError
from tomowire.wire.value import value

if TYPE_CHECKING:
    from collections.abc import Callable

StrPath = str | PathLike[str]
Password = str | bytes
ClientAuth = Literal["none", "optional", "require"]

_ASKED: Final = {"require": "required", "optional": "optional", "none": "not asked for"}
_HIDDEN: Final = "'...'"


@value()
class TlsClient:
    """A requestor's side of TLS; the files are PEM.

    `authorities` are those that may have signed the peer's certificate: a file, or several; None for the system's. A certificate in
    it that is no authority's own is trusted itself. `certificate` is one's own, followed by the certificates between it and its
    authority, for a peer that asks for one; `key` its private key (None: in the same file), `password` opens that.

    The peer's certificate must be for `server_hostname`; where that is None, for the host that is called. `check_hostname` false
    takes it for any host, `verify` false takes any certificate at all: then nobody knows who the peer is.

    `profile` is one of PS3.15 Annex B. Each new connection uses what the files hold then.
    """

    authorities: StrPath | tuple[StrPath, ...] | None = None
    certificate: StrPath | None = None
    key: StrPath | None = None
    password: Password | Callable[[], Password] | None = None
    server_hostname: str | None = None
    check_hostname: bool = True
    verify: bool = True
    profile: TlsProfile | str = DEFAULT_PROFILE

    def __repr__(self) -> str:
        return _shown(self)


@value()
class TlsServer:
    """An acceptor's side of TLS; the files are PEM.

    `certificate` is one's own, followed by the certificates between it and its authority; `key` its private key (None: in the same
    file), `password` opens that. `authorities` are those that may have signed callers' certificates: a file, or several.

    `verify` says whether callers must show a certificate ("require"), may ("optional"), or are not asked ("none"). None, the
    default, requires one if there are `authorities`, and asks for none otherwise.

    `profile` is one of PS3.15 Annex B. `Server.reload_tls` reads the files again.
    """

    certificate: StrPath
    key: StrPath | None = None
    password: Password | Callable[[], Password] | None = None
    authorities: StrPath | tuple[StrPath, ...] | None = None
    verify: ClientAuth | None = None
    profile: TlsProfile | str = DEFAULT_PROFILE

    @property
    def client_auth(self) -> ClientAuth:
        """What `verify` comes to."""
        return self.verify or ("none" if self.authorities is None else "require")

    def __repr__(self) -> str:
        return _shown(self)


def authority_files(tls: TlsClient | TlsServer) -> tuple[str, ...]:
    """The files with the authorities."""
    if tls.authorities is None:
        return ()
    several = tls.authorities if isinstance(tls.authorities, tuple) else (tls.authorities,)
    return tuple(map(file_name, several))


def all_files(tls: TlsClient | TlsServer) -> tuple[str, ...]:
    """All files that are read."""
    own = (file_name(each) for each in (tls.certificate, tls.key) if each is not None)
    return (*own, *authority_files(tls))


def file_name(path: object) -> str:
    """Raises `UsageError` for what is no path."""
    if isinstance(path, str | PathLike) and isinstance(name := fspath(path), str) and name:
        return name
    raise UsageError(f"TLS takes the paths of PEM files (of several authorities a tuple), and not {path!r}")


def differences(before: TlsServer, after: TlsServer) -> str:
    """What other settings change, in words, for a log; where a key is, and what opens it, is nothing for one. Empty for nothing."""
    changes = []
    if before.certificate != after.certificate:
        changes.append(f"certificate is {file_name(after.certificate)} now")
    if before.key != after.key:
        changes.append("key is in another file")
    if before.password != after.password:
        changes.append("the key's password is another one")
    if before.authorities != after.authorities:
        changes.append(f"authorities is {', '.join(authority_files(after)) or 'none'} now")
    if before.client_auth != after.client_auth:
        changes.append(f"callers' certificates are {_ASKED[after.client_auth]} now")
    if before.profile != after.profile:
        changes.append(f"profile is {after.profile} now")
    return "; ".join(changes)


def _shown(tls: TlsClient | TlsServer) -> str:
    """A password has no place in a log."""
    names = tls._value_names  # type: ignore[union-attr]
    shown = (f"{name}={_HIDDEN if name == 'password' else repr(getattr(tls, name))}" for name in names)
    return f"{type(tls).__name__}({', '.join(shown)})"
