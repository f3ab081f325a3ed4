"""What is said of a failed handshake where no real peer can easily be made to cause it."""

from __future__ import annotations

import ssl

import pytest

from tomowire.aio.tls_reasons import alert_of, why_acceptor, why_refused, why_requestor

RECORD = b"\x16\x03\x03\x00\x40\x02\x00\x00"


def ssl_error(reason: str) -> ssl.SSLError:
    error = ssl.SSLError(1, f"[SSL: {reason}] as OpenSSL says it")
    error.reason = reason
    return error


def of_certificate(code: int, message: str = "as OpenSSL says it") -> ssl.SSLCertVerificationError:
    error = ssl.SSLCertVerificationError(1, "certificate verify failed")
    error.verify_code, error.verify_message = code, message
    return error


@pytest.mark.parametrize(
    ("code", "said"),
    [
        (23, "the peer's certificate has been revoked"),
        (26, "the peer's certificate is not made for this purpose (its extended key usage)"),
        (68, "the peer's certificate is signed with a hash that the TLS profile does not allow"),
        (99, "the peer's certificate was not accepted: as OpenSSL says it"),
    ],
)
def test_a_certificate_that_the_requestor_does_not_take(code: int, said: str) -> None:
    assert why_requestor(of_certificate(code), RECORD, has_certificate=False) == said
    assert why_acceptor(of_certificate(code), RECORD) == said.replace("peer's", "caller's")


@pytest.mark.parametrize(
    ("first", "said"),
    [
        (b"\x01\x00\x00\x00", "the other side speaks DICOM without TLS on this connection"),
        (b"GET / HT", "the other side does not speak TLS, but HTTP"),
        (b"SSH-2.0-", "the other side does not speak TLS, but something else"),
        (b"\x16\x99", "the other side does not speak TLS, but something else"),
    ],
)
def test_what_is_no_tls(first: bytes, said: str) -> None:
    error = ssl_error("WRONG_VERSION_NUMBER")
    assert why_requestor(error, first, has_certificate=None) == why_acceptor(error, first) == said


@pytest.mark.parametrize(
    ("alert", "has_certificate", "said"),
    [
        (
            "HANDSHAKE_FAILURE",
            True,
            "the two sides have no cipher suite or key exchange in common: see the TLS profiles of both",
        ),
        (
            "BAD_CERTIFICATE",
            False,
            "the peer wants another certificate of this side (certificate=): bad certificate",
        ),
        ("BAD_CERTIFICATE", None, "the peer refuses this side's certificate: it cannot use it"),
        ("INSUFFICIENT_SECURITY", True, "the other side wants stronger ciphers or keys: see the TLS profiles of both"),
        ("INTERNAL_ERROR", True, "the peer broke the TLS handshake off: internal error"),
    ],
)
def test_what_an_acceptors_alert_means(alert: str, has_certificate: bool | None, said: str) -> None:
    assert why_refused(alert, has_certificate) == said
    assert why_requestor(ssl_error(f"TLSV1_ALERT_{alert}"), RECORD, has_certificate) == said


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (ssl_error("TLSV1_ALERT_INTERNAL_ERROR"), "the caller broke the TLS handshake off: internal error"),
        (ssl_error("BAD_EXTENSION"), "the TLS handshake failed: bad extension"),
        (
            ssl_error("TLSV1_ALERT_PROTOCOL_VERSION"),
            "the two sides have no TLS version in common: see the TLS profiles of both",
        ),
        (
            ConnectionResetError(),
            "the caller closed the connection in the middle of the TLS handshake; it may not trust this side's certificate",
        ),
    ],
)
def test_what_a_caller_did(error: OSError, said: str) -> None:
    assert why_acceptor(error, RECORD) == said


def test_what_an_acceptor_did() -> None:
    assert why_requestor(ssl_error("BAD_EXTENSION"), RECORD, None) == "the TLS handshake failed: bad extension"
    assert why_requestor(ssl_error("DH_KEY_TOO_SMALL"), RECORD, None).startswith(
        "the other side's Diffie-Hellman key is too short for the TLS profile (2048 bits)"
    )
    assert why_requestor(ConnectionResetError(), RECORD, None) == (
        "the peer closed the connection in the middle of the TLS handshake"
    )


def test_what_is_no_alert() -> None:
    assert alert_of(None) is None
    assert alert_of(ConnectionResetError()) is None
    assert alert_of(ssl_error("WRONG_VERSION_NUMBER")) is None
    assert alert_of(ssl_error("TLSV1_ALERT_UNKNOWN_CA")) == "UNKNOWN_CA"
