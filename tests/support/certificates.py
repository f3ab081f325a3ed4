"""Certificates for tests, as PEM files: an authority signs what a test wants of it."""

from __future__ import annotations

import os
import ssl
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import trustme

from support.network import LOOPBACK


@dataclass(frozen=True)
class Identity:
    """A certificate with its chain, and its private key."""

    certificate: Path
    key: Path

    @property
    def options(self) -> dict[str, Path]:
        """For `TlsClient` and `TlsServer`."""
        return {"certificate": self.certificate, "key": self.key}

    @property
    def der(self) -> bytes:
        return ssl.PEM_cert_to_DER_cert(self.certificate.read_text().partition("-----END CERTIFICATE-----")[0] + END)

    def replace_by(self, other: Identity) -> None:
        """As a tool for certificates does it: the new files take the place of the old ones."""
        for mine, its in ((self.certificate, other.certificate), (self.key, other.key)):
            new = mine.with_suffix(".new")
            new.write_bytes(its.read_bytes())
            os.replace(new, mine)


END = "-----END CERTIFICATE-----\n"


class Authority:
    """Signs certificates; `file` is what those need who trust it."""

    def __init__(self, folder: Path, name: str = "authority", *, ca: trustme.CA | None = None) -> None:
        self._folder = folder
        self._ca = ca or trustme.CA(organization_name=name)
        self._count = 0
        self._name = name
        self.file = folder / f"{name}.pem"
        self._ca.cert_pem.write_to_path(self.file)

    def sign(
        self,
        *names: str,
        common_name: str | None = None,
        not_before: datetime | None = None,
        not_after: datetime | None = None,
        rsa: bool = False,
    ) -> Identity:
        """A certificate for these names; for 127.0.0.1 if none are given."""
        signed = self._ca.issue_cert(
            *(names or (LOOPBACK,)),
            common_name=common_name,
            not_before=not_before,
            not_after=not_after,
            key_type=trustme.KeyType.RSA if rsa else trustme.KeyType.ECDSA,
        )
        self._count += 1
        stem = f"{self._name}-{self._count}"
        identity = Identity(self._folder / f"{stem}-chain.pem", self._folder / f"{stem}-key.pem")
        identity.certificate.write_bytes(b"".join(blob.bytes() for blob in signed.cert_chain_pems))
        signed.private_key_pem.write_to_path(identity.key)
        return identity

    def child(self, name: str) -> Authority:
        """An authority below this one. Its certificates bring the one in between along."""
        return Authority(self._folder, name, ca=self._ca.create_child_ca())
