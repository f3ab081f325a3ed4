"""What does not fit together, though each key is right by itself."""

from __future__ import annotations

from pathlib import Path

import pytest

from support.certificates import Authority
from support.filesystems import directory_of_nobody
from tomowire.errors import ConfigurationInvalid
from tomowire.server.config import check, load, load_for_serving


@pytest.fixture
def file(tmp_path: Path) -> Path:
    authority = Authority(tmp_path)
    identity, other = authority.sign(), authority.sign()
    for name, path in (("cert", identity.certificate), ("key", identity.key), ("other", other.key)):
        (tmp_path / f"{name}.pem").write_bytes(path.read_bytes())
    (tmp_path / "ca.pem").write_bytes(authority.file.read_bytes())
    return tmp_path / "tomowire.toml"


NODE = '[nodes.V]\nhost = "h"\nport = 1\n'


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", []),
        (f'[dicom]\nbind = "0.0.0.0"\n{NODE}', []),
        (
            '[dicom]\nbind = "0.0.0.0"\n',
            ["2: dicom.bind is 0.0.0.0, open to the network, and nobody may call: name [nodes.NAME] or [[callers]]"],
        ),
        (
            '[dicom]\nbind = "::"\nallow_unknown_callers = true\n',
            ["warning 3: dicom.allow_unknown_callers lets in everyone who reaches the port"],
        ),
        (
            '[dicom]\nallow_unknown_callers = true\n[[callers]]\nae_title = "A"\n',
            [
                "2: dicom.allow_unknown_callers lets in everyone, and [[callers]] names who may call: leave one of them out"
            ],
        ),
        (
            '[index]\nurl = "postgresql://u:secret@h/d?sslmod=require"\n',
            [
                (
                    "2: index.url cannot be used: the index URL postgresql://u@h/d cannot be understood: "
                    "it has an option that libpq does not know, 'sslmod'"
                )
            ],
        ),
        ('[nodes.V]\nhost = "10.0.0.255"\nport = 1\n', []),
        (
            '[[callers]]\nae_title = "A"\nmay = ["echo"]\n[[callers]]\nae_title = "A"\naddresses = ["10.0.0.1"]\n',
            ["warning 4: callers[1] never applies: callers[0] before it is about all of these callers"],
        ),
        (
            '[[callers]]\nae_title = "A"\naddresses = ["10.0.0.1"]\n[[callers]]\nae_title = "A"\n',
            [],
        ),
        ("[[callers]]\n", ["1: callers[0] says nothing of who calls: give an ae_title, addresses or a certificate"]),
        (
            '[[callers]]\ncertificate = "CN:A"\n[dicom.tls]\ncertificate = "cert.pem"\nkey = "key.pem"\n',
            ["2: callers[0].certificate needs dicom.tls with authorities: otherwise nobody shows a certificate"],
        ),
        (
            f'{NODE}[nodes.W]\nae_title = "V"\nhost = "h2"\nport = 1\n[knownDestinations.V]\nhost = "h"\nport = 1\n',
            [
                "1: nodes.V is in knownDestinations too: leave one of them out",
                "4: nodes.W has the AE title V, as nodes.V has: a C-MOVE would not know where to",
            ],
        ),
        (
            f'{NODE}[nodes."V "]\nhost = "h2"\nport = 1\n',
            ["4: nodes.'V ' has the AE title V, as nodes.V has: a C-MOVE would not know where to"],
        ),
        (
            (
                '[nodes."Viewer of building 3"]\nhost = "h"\nport = 1\n'
                '[knownDestinations."Röntgen"]\nhost = "h"\nport = 1\n'
                '[nodes."Viewer of building 4"]\nae_title = "V"\nhost = "h"\nport = 1\n'
            ),
            [
                "1: nodes.'Viewer of building 3' is no AE title, 1 to 16 characters of ASCII without backslash: say with ae_title",
                "4: knownDestinations.'Röntgen' is no AE title, 1 to 16 characters of ASCII without backslash: say with aeTitle",
            ],
        ),
        (
            '[dicom.tls]\ncertificate = "cert.pem"\nkey = "gone.pem"\n[http]\ncertificate = "none.pem"\n',
            [
                "3: dicom.tls.key cannot be read: {folder}/gone.pem: No such file or directory",
                "5: http.certificate cannot be read: {folder}/none.pem: No such file or directory",
            ],
        ),
        (
            '[dicom.tls]\ncertificate = "cert.pem"\nkey = "other.pem"\n',
            [
                "1: dicom.tls cannot be used: the certificate {folder}/cert.pem with the key {folder}/other.pem cannot be used"
            ],
        ),
        (
            f'{NODE}tls = true\n[dicom.tls]\ncertificate = "cert.pem"\nkey = "other.pem"\n',
            [
                "5: dicom.tls cannot be used: the certificate {folder}/cert.pem with the key {folder}/other.pem cannot be used"
            ],
        ),
        (
            '[dicom.tls]\ncertificate = "cert.pem"\nkey = "key.pem"\nclient_auth = "require"\n',
            ["1: dicom.tls cannot be used: callers' certificates cannot be verified: no authorities are named"],
        ),
        ('[dicom.tls]\ncertificate = "cert.pem"\nkey = "key.pem"\nauthorities = "ca.pem"\n', []),
        ('[http]\nkey = "key.pem"\n', ["2: http.key is of no use without http.certificate"]),
        ('[http]\ncertificate = "cert.pem"\nkey = "other.pem"\n', ["2: http.certificate cannot be used: "]),
        ("[http]\nport = 11112\n", ["2: http.port is 11112, as dicom.port is"]),
        ('[http]\nport = 11112\nbind = "127.0.0.2"\n', []),
        ('[http]\nport = 11112\nbind = "127.0.0.2"\nenabled = false\n', []),
        (
            '[http]\nbind = "0.0.0.0"\n',
            [
                "warning 2: http.bind is 0.0.0.0, open to the network without TLS: passwords and tokens can be read on the way"
            ],
        ),
        (
            '[nodes_tls]\nkey = "key.pem"\n',
            [
                "2: nodes_tls.key is of no use without nodes_tls.certificate",
                "warning 1: nodes_tls is for nodes with tls = true, and there is none",
            ],
        ),
        (
            f'{NODE}tls = true\n[nodes_tls]\nauthorities = "key.pem"\n',
            ["5: nodes_tls cannot be used: the authorities in {folder}/key.pem cannot be used: "],
        ),
        ("[audit]\nsyslog_tls = true\n", ["warning 1: audit names no syslog_host: nothing is sent"]),
        (
            '[audit]\nenabled = false\nsyslog_host = "h"\nsyslog_key = "key.pem"\n',
            [
                "4: audit.syslog_key is of no use without audit.syslog_certificate",
                "warning 3: audit.syslog_host gets nothing: audit.enabled is false",
            ],
        ),
        ("[jobs]\nlongest_wait = 1\n", ["2: jobs.longest_wait is shorter than jobs.first_wait (2 s)"]),
        (
            '[audit]\nsyslog_host = "s"\nsyslog_tls = true\nsyslog_authorities = "key.pem"\n',
            ["1: audit cannot be used: the authorities in {folder}/key.pem cannot be used: "],
        ),
        ('[storage]\ndata_dir = "ca.pem/data"\n', ["2: storage.data_dir cannot be used: {folder}/ca.pem is no folder"]),
    ],
)
def test_what_is_found(text: str, expected: list[str], file: Path) -> None:
    file.write_text(text)
    found = [f"{'warning ' if each.is_warning else ''}{each}".replace(f"{file}:", "", 1) for each in check(load(file))]
    assert len(found) == len(expected), found
    for one, other in zip(found, expected, strict=True):
        assert one.startswith(other.format(folder=file.parent)), one


def test_mistakes_elsewhere_do_not_hide_those_of_nodes(file: Path) -> None:
    """Nor do those in a node itself."""
    file.write_text(
        '[nodes.THISISAVERYLONGNAMEOFANODE]\nhost = "h"\nport = 0\n[nodes.A]\nhost = "h"\nport = 1\nae_title = "X"\n'
        '[nodes.B]\nhost = "h"\nport = 1\nae_title = "X"\n[nodes.C]\nae_title = ""\n[http]\nprt = 1\n'
    )
    with pytest.raises(ConfigurationInvalid) as invalid:
        load(file)
    assert [str(each).removeprefix(f"{file}:") for each in invalid.value.problems] == [
        (
            "1: nodes.THISISAVERYLONGNAMEOFANODE is no AE title, 1 to 16 characters of ASCII without backslash: say with "
            "ae_title which it has"
        ),
        "3: nodes.THISISAVERYLONGNAMEOFANODE.port must be a whole number from 1 to 65535, and not 0",
        "8: nodes.B has the AE title X, as nodes.A has: a C-MOVE would not know where to",
        "12: nodes.C.host is missing",
        "12: nodes.C.port is missing",
        "13: nodes.C.ae_title must be an AE title, 1 to 16 characters of ASCII without backslash, and not ''",
        "15: http.prt is no key that is known; did you mean 'port'?",
    ]


def test_an_archive_is_not_begun_with_mistakes_and_hears_of_warnings(file: Path) -> None:
    file.write_text('[dicom]\nbind = "::"\nallow_unknown_callers = true\n')
    _, warnings = load_for_serving(file, {}, {})
    assert len(warnings) == 1
    with pytest.raises(ConfigurationInvalid) as invalid:
        load_for_serving(file, {"TOMOWIRE_HTTP__PORT": "11112", "TOMOWIRE_HTTP__BIND": "::"}, {})
    assert [str(each) for each in invalid.value.problems] == [
        "TOMOWIRE_HTTP__PORT: http.port is 11112, as dicom.port is"
    ]


def test_a_folder_that_this_user_cannot_write_to_is_a_warning() -> None:
    """The archive may run as another one."""
    with directory_of_nobody() as root:
        (root / "mine").mkdir(mode=0o500)
        (found,) = check(load(None, {"TOMOWIRE_STORAGE__DATA_DIR": str(root / "mine" / "data")}))
    assert found.is_warning
    assert "cannot be written to by the user who checks this" in found.text
