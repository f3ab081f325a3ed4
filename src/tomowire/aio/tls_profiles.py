"""The secure transport connection profiles of PS3.15 Annex B, each as what OpenSSL is told."""

from __future__ import annotations

import ssl
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Final

from tomowire.errors import UsageError
from tomowire.wire.value import value

if TYPE_CHECKING:
    from ssl import SSLContext


class TlsProfile(StrEnum):
    """A profile by name. Annex B of today has B.12 and B.13; the others are retired, and are here for peers that have no more."""

    BCP195 = "bcp195"
    BCP195_NON_DOWNGRADING = "bcp195-nd"
    BCP195_EXTENDED = "bcp195-ex"
    BCP195_RFC8996 = "bcp195-rfc8996"
    BCP195_RFC8996_MODIFIED = "bcp195-rfc8996-modified"

    @classmethod
    def named(cls, name: str) -> TlsProfile:
        """The profile of that name. Raises `UsageError` that lists the names."""
        try:
            return cls(name)
        except ValueError:
            from difflib import get_close_matches  # needed seldom

            near = get_close_matches(str(name), list(cls), 1)
            hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(cls)}"
            raise UsageError(f"{name!r} is not a TLS profile: {hint}") from None

    @property
    def rules(self) -> ProfileRules:
        """What it says."""
        return _RULES[self]


@value()
class ProfileRules:
    """`section` and `title` in PS3.15, whether it is `retired` there, and the cipher suites of TLS 1.2 by OpenSSL's names.

    TLS 1.3 is allowed by all of them, and its suites are OpenSSL's: AES-256-GCM, ChaCha20-Poly1305, AES-128-GCM.
    """

    section: str
    title: str
    retired: bool
    suites: tuple[str, ...]


DEFAULT_PROFILE: Final = TlsProfile.BCP195_RFC8996

_ECDHE_RSA_GCM: Final = ("ECDHE-RSA-AES256-GCM-SHA384", "ECDHE-RSA-AES128-GCM-SHA256")
_ECDHE_ECDSA_GCM: Final = ("ECDHE-ECDSA-AES256-GCM-SHA384", "ECDHE-ECDSA-AES128-GCM-SHA256")
_ECDHE_GCM: Final = (*_ECDHE_ECDSA_GCM, *_ECDHE_RSA_GCM)
_DHE_GCM: Final = ("DHE-RSA-AES256-GCM-SHA384", "DHE-RSA-AES128-GCM-SHA256")
_CHACHA20: Final = ("ECDHE-ECDSA-CHACHA20-POLY1305", "ECDHE-RSA-CHACHA20-POLY1305")
# B.13 has the same with Camellia-GCM, which OpenSSL never had, and may be left out since CP-2311. (An OpenSSL that holds CCM_8,
# with its short tags, for too weak at `_SECURITY_LEVEL` passes over it without a word.)
_CCM: Final = ("ECDHE-ECDSA-AES256-CCM", "ECDHE-ECDSA-AES128-CCM", "ECDHE-ECDSA-AES256-CCM8", "ECDHE-ECDSA-AES128-CCM8")

_RULES: Final = {
    # The last suite is that of the AES profile (B.3), for peers that were made before BCP 195.
    TlsProfile.BCP195: ProfileRules("B.9", "BCP 195 TLS", True, (*_ECDHE_GCM, *_DHE_GCM, "AES128-SHA")),
    TlsProfile.BCP195_NON_DOWNGRADING: ProfileRules(
        "B.10", "Non-Downgrading BCP 195 TLS", True, (*_ECDHE_GCM, *_DHE_GCM, *_CHACHA20)
    ),
    TlsProfile.BCP195_EXTENDED: ProfileRules("B.11", "Extended BCP 195 TLS", True, (*_ECDHE_GCM, *_DHE_GCM)),
    # RFC 9325 4.1: DHE should not be used, nor what has no forward secrecy.
    TlsProfile.BCP195_RFC8996: ProfileRules("B.12", "BCP 195 RFC 8996, 9325 TLS", False, (*_ECDHE_GCM, *_CHACHA20)),
    TlsProfile.BCP195_RFC8996_MODIFIED: ProfileRules(
        "B.13", "Modified BCP 195 RFC 8996, 9325 TLS", False, (*_ECDHE_GCM, *_CHACHA20, *_CCM)
    ),
}

# RSA and DH from 2048 bits and ECC from 224 bits on, in certificates, in their chains and in the key exchange; no SHA-1 in
# signatures. Of the elliptic curves OpenSSL offers none below 256 bits.
_SECURITY_LEVEL: Final = 2

# The group ffdhe2048 of RFC 7919 A.1. Without parameters an acceptor would choose none of the suites with DHE.
_DH_PARAMETERS: Final = Path(__file__).with_name("ffdhe2048.pem")


def apply_profile(context: SSLContext, profile: TlsProfile) -> None:
    """Hold `context` to a profile. RFC 8996 has ruled out what is older than TLS 1.2 since, for the retired ones too."""
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(f"@SECLEVEL={_SECURITY_LEVEL}:" + ":".join(profile.rules.suites))
    if context.protocol is ssl.PROTOCOL_TLS_SERVER and any(each.startswith("DHE-") for each in profile.rules.suites):
        context.load_dh_params(str(_DH_PARAMETERS))
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION | ssl.OP_CIPHER_SERVER_PREFERENCE
