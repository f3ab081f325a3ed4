"""TLS with other people's programs: DCMTK and pynetdicom, in both directions, each side with a certificate of its own."""

from __future__ import annotations

import ssl
import subprocess
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from pydicom.data import get_testdata_file

from support.certificates import Authority, Identity
from support.dcmtk import as_sent, objects_below, storescp
from support.network import LOOPBACK
from support.programs import run_tomowire, serving
from support.requirements import system_program
from tomowire.services.dicom_file import inspect

pytestmark = pytest.mark.interop

# The profiles of DCMTK 3.6.7, by its options; it knows those that are retired by now.
OF_DCMTK = {"+py": "bcp195-nd", "+px": "bcp195", "+pz": "bcp195-ex"}


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def stranger(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("stranger"), "stranger")


@pytest.fixture(scope="module")
def ct() -> Path:
    found = get_testdata_file("CT_small.dcm", download=False)
    assert isinstance(found, str)
    return Path(found)


def of_dcmtk(identity: Identity, trusted: Authority, *options: str) -> list[str]:
    return ["+tls", str(identity.key), str(identity.certificate), "+cf", str(trusted.file), *options]


def of_tomowire(identity: Identity | None, trusted: Authority | None, *options: str) -> list[object]:
    mine = ["--tls-cert", identity.certificate, "--tls-key", identity.key] if identity is not None else []
    return [*mine, *(["--tls-ca", trusted.file] if trusted is not None else []), *options]


def run(*command: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([str(each) for each in command], capture_output=True, text=True, check=False, timeout=60)


@pytest.mark.parametrize(("option", "profile"), OF_DCMTK.items())
def test_storescp_receives_over_tls(
    dcmtk: Callable[[str], Path], tmp_path: Path, authority: Authority, ct: Path, option: str, profile: str
) -> None:
    theirs = of_dcmtk(authority.sign(rsa=True), authority, option)
    mine = of_tomowire(authority.sign("tomowire", rsa=True), authority, "--tls-profile", profile)
    with storescp(dcmtk("storescp"), tmp_path / "received", *theirs) as port:
        done = run_tomowire("send", f"STORESCP@{LOOPBACK}:{port}", ct, *mine)
        assert run_tomowire("echo", f"STORESCP@{LOOPBACK}:{port}", *mine).returncode == 0
    assert done.returncode == 0, done.stderr
    assert objects_below(tmp_path / "received") == [as_sent(inspect(ct))]


@pytest.mark.parametrize(("option", "profile"), OF_DCMTK.items())
def test_storescu_and_echoscu_send_over_tls(
    dcmtk: Callable[[str], Path], tmp_path: Path, authority: Authority, ct: Path, option: str, profile: str
) -> None:
    mine = of_tomowire(authority.sign(rsa=True), authority, "--tls-profile", profile)
    theirs = of_dcmtk(authority.sign("dcmtk", rsa=True), authority, option)
    with serving("serve", "--data-dir", tmp_path / "data", *mine) as archive:
        address = ["-aec", "TOMOWIRE", *theirs, LOOPBACK, archive.port]
        assert run(dcmtk("echoscu"), *address).returncode == 0
        done = run(dcmtk("storescu"), "-v", *address, ct)
    assert done.returncode == 0, done.stderr
    (stored,) = (tmp_path / "data" / "objects").rglob("*.dcm")
    assert inspect(stored).sop_instance_uid == inspect(ct).sop_instance_uid


def test_storescp_wants_a_certificate_and_gets_none(
    dcmtk: Callable[[str], Path], tmp_path: Path, authority: Authority
) -> None:
    with storescp(dcmtk("storescp"), tmp_path / "received", *of_dcmtk(authority.sign(rsa=True), authority)) as port:
        done = run_tomowire("echo", f"STORESCP@{LOOPBACK}:{port}", *of_tomowire(None, authority))
    assert done.returncode == 3
    assert "the peer wants a certificate of this side, and was shown none" in done.stderr


def test_storescp_does_not_trust_the_certificate(
    dcmtk: Callable[[str], Path], tmp_path: Path, authority: Authority, stranger: Authority
) -> None:
    mine = of_tomowire(stranger.sign("tomowire", rsa=True), authority)
    with storescp(dcmtk("storescp"), tmp_path / "received", *of_dcmtk(authority.sign(rsa=True), authority)) as port:
        done = run_tomowire("echo", f"STORESCP@{LOOPBACK}:{port}", *mine)
    assert done.returncode == 3
    assert "the peer refuses this side's certificate: it does not trust the authority that signed it" in done.stderr


def test_storescp_is_not_trusted(
    dcmtk: Callable[[str], Path], tmp_path: Path, authority: Authority, stranger: Authority
) -> None:
    theirs = of_dcmtk(authority.sign(rsa=True), authority)
    with storescp(dcmtk("storescp"), tmp_path / "received", *theirs) as port:
        mine = of_tomowire(authority.sign("tomowire", rsa=True), stranger)
        done = run_tomowire("echo", f"STORESCP@{LOOPBACK}:{port}", *mine)
    assert done.returncode == 3
    assert "is signed by an authority that is not trusted here" in done.stderr


def test_storescp_speaks_no_tls(dcmtk: Callable[[str], Path], tmp_path: Path, authority: Authority) -> None:
    with storescp(dcmtk("storescp"), tmp_path / "received") as port:
        done = run_tomowire("echo", f"STORESCP@{LOOPBACK}:{port}", "--tls", "--connect-timeout", "5")
    assert done.returncode == 3
    assert "TLS" in done.stderr


def test_echoscu_is_refused_and_the_log_says_why(
    dcmtk: Callable[[str], Path], tmp_path: Path, authority: Authority, stranger: Authority
) -> None:
    mine = of_tomowire(authority.sign(rsa=True), authority)
    with serving("listen", "-o", tmp_path / "received", *mine) as listener:
        theirs = of_dcmtk(stranger.sign("dcmtk", rsa=True), authority)
        assert run(dcmtk("echoscu"), *theirs, LOOPBACK, listener.port).returncode != 0
        listener.stderr.wait_for("the caller's certificate is signed by an authority that is not trusted here")
        assert run(dcmtk("echoscu"), LOOPBACK, listener.port).returncode != 0
        listener.stderr.wait_for("speaks DICOM without TLS")


@pytest.mark.parametrize("version", ["-tls1_2", "-tls1_3"])
def test_the_alert_that_says_why_reaches_openssl(
    tmp_path: Path, authority: Authority, stranger: Authority, version: str
) -> None:
    """asyncio would close the connection without it."""
    theirs = stranger.sign("openssl")
    with serving("listen", "-o", tmp_path / "received", *of_tomowire(authority.sign(), authority)) as listener:
        command = ["s_client", "-connect", f"{LOOPBACK}:{listener.port}", version, "-ign_eof"]
        unknown = ["-cert", theirs.certificate, "-key", theirs.key]
        assert "alert unknown ca" in run(system_program("openssl", "openssl"), *command, *unknown).stderr
        required = {"-tls1_2": "alert handshake failure", "-tls1_3": "alert certificate required"}[version]
        assert required in run(system_program("openssl", "openssl"), *command).stderr


def context_of(identity: Identity, trusted: Authority, *, server: bool) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER if server else ssl.PROTOCOL_TLS_CLIENT)
    context.load_cert_chain(identity.certificate, identity.key)
    context.load_verify_locations(trusted.file)
    context.verify_mode = ssl.CERT_REQUIRED
    return context


def test_pynetdicom_stores_over_tls(tmp_path: Path, authority: Authority, ct: Path, pynetdicom: ModuleType) -> None:
    mine = of_tomowire(authority.sign(), authority)
    file = inspect(ct)
    with serving("serve", "--data-dir", tmp_path / "data", *mine) as archive:
        entity = pynetdicom.AE("PYNETDICOM")
        entity.add_requested_context(file.sop_class_uid, file.transfer_syntax_uid)
        context = context_of(authority.sign("pynetdicom"), authority, server=False)
        association = entity.associate(LOOPBACK, archive.port, ae_title="TOMOWIRE", tls_args=(context, LOOPBACK))
        assert association.is_established
        assert association.send_c_store(str(ct)).Status == 0x0000
        association.release()
    (stored,) = (tmp_path / "data" / "objects").rglob("*.dcm")
    assert inspect(stored).sop_instance_uid == file.sop_instance_uid


def test_pynetdicom_receives_over_tls(authority: Authority, ct: Path, pynetdicom: ModuleType) -> None:
    received: list[bytes] = []

    def keep(event: Any) -> int:
        received.append(event.request.DataSet.getvalue())
        return 0x0000

    file = inspect(ct)
    entity = pynetdicom.AE("PYNETDICOM")
    entity.add_supported_context(file.sop_class_uid, file.transfer_syntax_uid)
    context = context_of(authority.sign(), authority, server=True)
    handlers = [(pynetdicom.evt.EVT_C_STORE, keep)]
    server = entity.start_server((LOOPBACK, 0), block=False, evt_handlers=handlers, ssl_context=context)
    try:
        peer = f"PYNETDICOM@{LOOPBACK}:{server.socket.getsockname()[1]}"
        done = run_tomowire("send", peer, ct, *of_tomowire(authority.sign("tomowire"), authority))
    finally:
        server.shutdown()
    assert done.returncode == 0, done.stderr
    assert received == [as_sent(file).data_set]
