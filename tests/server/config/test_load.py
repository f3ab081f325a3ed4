"""A configuration from a file, the environment and options: what it comes to, and what is said of its mistakes."""

from __future__ import annotations

import json
from dataclasses import fields
from pathlib import Path

import pytest

from tomowire.aio.tls import TlsClient
from tomowire.errors import ConfigurationInvalid
from tomowire.server import settings
from tomowire.server.caller_rules import CallerRule
from tomowire.server.config import load, load_settings, settings_from, shown_settings
from tomowire.server.config.mapping import tree_of
from tomowire.server.config.models import Configuration
from tomowire.server.config.schema import sections
from tomowire.server.nodes import Node
from tomowire.server.rights import OF_NODES, Right
from tomowire.server.settings import AuditSettings, HttpSettings, JobSettings, LogSettings, QuotaSettings, Settings

EVERYTHING = """
[dicom]
ae_title = "ARCHIVE"
aliases = ["PACS", "OLD PACS"]
bind = "0.0.0.0"
port = 104
any_sop_class = true
allow_unknown_callers = false
maximum_associations = 50
memory = "512 MB"
shutdown_grace = "3 s"

[dicom.tls]
certificate = "archive.pem"
key = "/etc/keys/archive.key"
authorities = "ca.pem"
client_auth = "optional"
profile = "bcp195"

[storage]
data_dir = "data"
duplicates = "reject"

[index]
url = "postgresql://tomowire@db/tomowire"

[nodes.VIEWER]
host = "viewer.example.org"
port = 11113
associations = 4
tls_name = "viewer"
may = ["echo", "move-destination"]

[nodes.reading-room]
ae_title = "READ1"
host = "2001:db8::7"
port = 104

[nodes_tls]
authorities = "viewers.pem"

[[callers]]
ae_title = "CT1"
addresses = ["10.1.0.0/16", "192.0.2.7"]
certificate = "DNS:ct1.example.org"
may = ["echo", "store"]
maximum_associations = 2

[[callers]]
addresses = ["192.0.2.0/24"]

[http]
bind = "127.0.0.2"
port = 8443
certificate = "http.pem"
key = "http.key"
hosts = ["archive.example.org"]
metrics_login = false
failed_logins = 5
failed_login_window = "1 min"

[quota]
bytes = "500 GB"
age = "90 d"
every = 30
grace = "1 h"

[audit]
enabled = true
syslog_host = "syslog.example.org"
syslog_port = 6514
syslog_tls = true
syslog_authorities = "ca.pem"
syslog_certificate = "archive.pem"
syslog_key = "archive.key"

[jobs]
at_once = 8
at_once_for_node = 2
attempts = 3
first_wait = 1.5
longest_wait = "10 min"
lease = 20
keep_finished = "7 d"

[logs]
format = "json"
level = "debug"
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "tomowire.toml"


def problems(file: Path, text: str | bytes, **environment: str) -> list[str]:
    """What is said of a file with this text, without its name."""
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ConfigurationInvalid) as invalid:
        load_settings(file, environment)
    return [str(each).replace(f"{file}:", "") for each in invalid.value.problems]


def test_every_key_comes_to_its_setting(file: Path) -> None:
    from tomowire.aio.tls import TlsClient, TlsServer

    file.write_text(EVERYTHING)
    folder = file.parent
    assert load_settings(file) == Settings(
        data_dir=folder / "data",
        ae_title="ARCHIVE",
        aliases=("PACS", "OLD PACS"),
        bind="0.0.0.0",
        port=104,
        duplicates="reject",
        any_sop_class=True,
        callers=(
            CallerRule(
                "CT1",
                ("10.1.0.0/16", "192.0.2.7"),
                "DNS:ct1.example.org",
                frozenset({Right.ECHO, Right.STORE}),
                maximum_associations=2,
            ),
            CallerRule(addresses=("192.0.2.0/24",)),
        ),
        nodes=(
            Node(
                "VIEWER",
                "viewer.example.org",
                11113,
                associations=4,
                tls=True,
                tls_name="viewer",
                may=frozenset({Right.ECHO, Right.MOVE_DESTINATION}),
            ),
            Node("READ1", "2001:db8::7", 104, may=OF_NODES, name="reading-room"),
        ),
        maximum_associations=50,
        memory=512 << 20,
        shutdown_grace=3.0,
        tls=TlsServer(
            folder / "archive.pem",
            Path("/etc/keys/archive.key"),
            authorities=folder / "ca.pem",
            verify="optional",
            profile="bcp195",
        ),
        node_tls=TlsClient(
            folder / "viewers.pem", folder / "archive.pem", Path("/etc/keys/archive.key"), profile="bcp195"
        ),
        index_url="postgresql://tomowire@db/tomowire",
        http=HttpSettings(
            "127.0.0.2",
            8443,
            folder / "http.pem",
            folder / "http.key",
            ("archive.example.org",),
            metrics_login=False,
            failed_logins=5,
            failed_login_window=60.0,
        ),
        quota=QuotaSettings(500 << 30, 90 * 86400.0, 30.0, 3600.0),
        audit=AuditSettings(
            True,
            "syslog.example.org",
            6514,
            True,
            folder / "ca.pem",
            folder / "archive.pem",
            folder / "archive.key",
        ),
        jobs=JobSettings(8, 2, 3, 1.5, 600.0, 20.0, 7 * 86400.0),
        logs=LogSettings("json", "debug"),
    )


def test_no_setting_is_without_a_key() -> None:
    """What is in `server.settings` can be said in a file: who adds a setting adds its key."""
    of_sections = {
        "http": HttpSettings,
        "quota": QuotaSettings,
        "audit": AuditSettings,
        "jobs": JobSettings,
        "logs": LogSettings,
    }
    for name, values in of_sections.items():
        section = Configuration.model_fields[name].annotation
        assert section is not None
        assert {each.name for each in fields(values)} == section.model_fields.keys() - {"enabled"} | (
            {"enabled"} if name == "audit" else set()
        )
    known = {key for _, section in sections() for key in section.model_fields} | {
        str(path[0]) for path, _ in sections()
    }
    # By other names: `index.url`, `nodes_tls`, and the AE titles of `--allow`, which are callers.
    assert {each.name for each in fields(Settings)} - known == {"index_url", "node_tls", "allowed_callers"}


def test_what_is_not_said_is_as_without_a_file(file: Path) -> None:
    file.write_text("")
    assert load_settings(file) == Settings(Path("tomowire-data"), http=HttpSettings())
    assert settings.Settings is Settings


def test_json_has_the_same_keys(file: Path) -> None:
    import tomllib

    file.write_text(EVERYTHING)
    as_json = file.with_suffix(".json")
    as_json.write_text(json.dumps(tomllib.loads(EVERYTHING)))
    assert load_settings(as_json) == load_settings(file)
    unnamed = file.with_suffix("")
    unnamed.write_bytes(b"\xef\xbb\xbf" + as_json.read_bytes())  # as some editors write it
    assert load_settings(unnamed) == load_settings(file)


def test_known_destinations_are_nodes(file: Path) -> None:
    file = file.with_suffix(".json")
    destinations = {
        "viewer": {"host": "viewer.example.org", "port": 104, "aeTitle": "VIEWER"},
        "PLAIN": {"host": "192.0.2.1", "port": 11112},
    }
    file.write_text(json.dumps({"knownDestinations": destinations, "index": {"url": None}}))
    viewer = Node("VIEWER", "viewer.example.org", 104, name="viewer")
    assert load_settings(file).nodes == (viewer, Node("PLAIN", "192.0.2.1", 11112))
    destinations["PLAIN"] = {"host": "192.0.2.1", "port": 0, "aetitle": "P"}
    file.write_text(json.dumps({"knownDestinations": destinations}, indent=1))
    with pytest.raises(ConfigurationInvalid) as invalid:
        load_settings(file)
    assert [(each.key, each.origin and each.origin.line, each.nearest) for each in invalid.value.problems] == [
        ("knownDestinations.PLAIN.port", 10, None),
        ("knownDestinations.PLAIN.aetitle", 11, "aeTitle"),
    ]


def test_the_environment_goes_over_the_file_and_options_over_both(file: Path) -> None:
    file.write_text(
        '[dicom]\nport = 1\nae_title = "FILE"\nbind = "127.0.0.2"\n[nodes.Viewer]\nhost = "h"\nport = 1\n'
        '[[callers]]\nae_title = "CT1"\n'
    )
    environment = {
        "TOMOWIRE_DICOM__PORT": "2",
        "TOMOWIRE_DICOM__AE_TITLE": "0123",
        "TOMOWIRE_DICOM__ALIASES": "A, B",
        "TOMOWIRE_DICOM__ANY_SOP_CLASS": "yes",
        "TOMOWIRE_DICOM__SHUTDOWN_GRACE": "1.5",
        "TOMOWIRE_QUOTA__BYTES": "1 GB",
        "TOMOWIRE_NODES__VIEWER__PORT": "2",
        "TOMOWIRE_NODES__New__HOST": "::1",
        "TOMOWIRE_NODES__New__PORT": "3",
        "TOMOWIRE_NODES__New__MAY": '["echo"]',
        "TOMOWIRE_INDEX__URL": "postgresql://db/x",
        "TOMOWIRE_PASSCODE": "is another matter",
        "TOMOWIRE_CONFIG": "elsewhere",
        "OTHER__THING": "1",
    }
    options = {"dicom": {"port": 3}, "nodes": {"V": {"ae_title": "New", "host": "h2", "port": 4}}}
    found = load_settings(file, environment, {**options, "callers": [{"ae_title": "CT2"}]})
    assert (found.port, found.ae_title, found.bind) == (3, "0123", "127.0.0.2")
    assert (found.aliases, found.any_sop_class, found.shutdown_grace) == (("A", "B"), True, 1.5)
    assert (found.quota.bytes, found.index_url) == (1 << 30, "postgresql://db/x")
    assert found.nodes == (Node("Viewer", "h", 2), Node("New", "h2", 4, name="V"))
    assert found.callers == (CallerRule("CT1"), CallerRule("CT2"))


def test_variables_that_belong_to_nothing_are_mistakes(file: Path) -> None:
    found = problems(
        file,
        "[dicom]\nport = true\n",
        TOMOWIRE_DICOM__PROT="1",
        TOMOWIRE_DICOM__MEMORY="much",
        TOMOWIRE_DICON__PORT="1",
        TOMOWIRE_NODES__V__HOTS="h",
        TOMOWIRE_NODES="x",
        TOMOWIRE___="",
        TOMOWIRE_HTTP="{port = 1}",
        TOMOWIRE_HTTP__PORT="1",
    )
    assert found == [
        "2: dicom.port must be a whole number from 0 to 65535, and not true",
        "TOMOWIRE_DICOM__MEMORY: dicom.memory must be a size, in bytes or with a unit (kB, MB, GB, TB), and not 'much'",
        "TOMOWIRE_NODES: nodes must be a section with keys of its own, and not text",
        "TOMOWIRE_DICOM__PROT: belongs to no key; did you mean 'TOMOWIRE_DICOM__PORT'?",
        "TOMOWIRE_DICON__PORT: belongs to no key; did you mean 'TOMOWIRE_DICOM__PORT'?",
        "TOMOWIRE_HTTP__PORT: does not go together with another variable",
        "TOMOWIRE_NODES__V__HOTS: belongs to no key; did you mean 'TOMOWIRE_NODES__V__HOST'?",
        "TOMOWIRE___: belongs to no key",
    ]


def test_a_variable_may_hold_a_whole_section(file: Path) -> None:
    file.write_text('[[callers]]\nae_title = "CT1"\n[quota]\nbytes = 1\n')
    found = load_settings(
        file,
        {
            "TOMOWIRE_CALLERS": '[{ae_title = "MR1", may = ["echo"]}]',
            "TOMOWIRE_QUOTA": '{age = "2 d"}',
            "TOMOWIRE_PORT": "tcp://10.0.0.1:104",  # of a container's links
        },
    )
    assert found.callers == (CallerRule("MR1", may=frozenset({Right.ECHO})),)
    assert (found.quota.bytes, found.quota.age) == (1, 2 * 86400)
    assert problems(file, "", TOMOWIRE_CALLERS='[{ae_title = "MR1"')[0].startswith(
        "TOMOWIRE_CALLERS: callers must be a list"
    )
    hidden = '[[callers]]\nmay = ["echo"]\n'
    assert problems(file, hidden, TOMOWIRE_CALLERS='[{ae_title = "A", may = ["sing"]}]')[0].startswith(
        "TOMOWIRE_CALLERS: callers[0].may[0] must be one of"
    )


def test_all_mistakes_are_told_at_once_with_their_lines(file: Path) -> None:
    found = problems(
        file,
        """# a comment
[dicom]
prot = 104  # it was meant well
port = "104"
aliases = "PACS"
any_sop_class = "no"
ae_title = "A title that is too long"
memory = "1 kB"
shutdown_grace = nan

[storage]
duplicates = "keeep"
data_dir = ""

[[callers]]
ae_title = "CT1"

[[callers]]
addresses = ["10.0.0.0/8",
             "10.0.0.1/8"]
may = ["echo", "move-destination"]

[nodes.VIEWER]
host = "viewer:104"
[nodes.x]
host = "x"
port = 0
tls = { authorities = "x" }

[loggs]
level = "info"
[quota]
age = "soon"
""",
    )
    assert found == [
        "3: dicom.prot is no key that is known; did you mean 'port'?",
        "4: dicom.port must be a whole number from 0 to 65535 (without quotes), and not '104'",
        '5: dicom.aliases must be a list, written ["...", "..."], and not text',
        "6: dicom.any_sop_class must be true or false (without quotes), and not 'no'",
        "7: dicom.ae_title must be an AE title, 1 to 16 characters of ASCII without backslash, and not 'A title that is too long'",
        "8: dicom.memory is too little: 4194304 bytes are the least",
        "9: dicom.shutdown_grace must be a time, in seconds or with a unit (s, min, h, d), more than 0, and not nan",
        "12: storage.duplicates must be one of keep, replace, reject, and not 'keeep'",
        "13: storage.data_dir must be the path of a folder, and not ''",
        (
            "20: callers[1].addresses[1] must be an address or a range of addresses: "
            "'10.0.0.1/8' is an address within a range: write 10.0.0.0/8 for the range"
        ),
        "21: callers[1].may[1] must be one of echo, store, query, retrieve, and not 'move-destination'",
        "23: nodes.VIEWER.port is missing",
        "24: nodes.VIEWER.host must be a host name or an address without a port, and not 'viewer:104'",
        "27: nodes.x.port must be a whole number from 1 to 65535, and not 0",
        "28: nodes.x.tls must be true or false (without quotes), and not a section",
        "30: loggs is no section that is known; did you mean 'logs'?",
        "33: quota.age must be a time, in seconds or with a unit (s, min, h, d), more than 0, and not 'soon'",
    ]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (b"[dicom\nport = 1", "1:7: this is no TOML: expected ']' at the end of a table declaration"),
        (b"[dicom]\nport = \n", "2:8: this is no TOML: invalid value"),
        (b"[dicom]\nport = 1\nport = 2\n", "3:9: this is no TOML: cannot overwrite a value"),
        (b'[dicom]\nae_title = "A', "2:14: this is no TOML: unterminated string, and the file ends"),
        (b"a = 1\n\xff\xfe = 2", "2:1: this is no UTF-8 text: the byte ffH cannot stand here"),
        (b"a = 1\nb = \x00", "2:5: this is no TOML: invalid value"),
        (b"a = " + b"9" * 5000, "1: this is no TOML: it holds a number with thousands of digits"),
        (b"a = " + b"[" * 5000, " sections are nested more than 12 deep"),
        (b"a = " + b"[" * 20 + b"]" * 20, " sections are nested more than 12 deep"),
        (b"a." * 20 + b"a = 1", " sections are nested more than 12 deep"),
        (b"a." * 5000 + b"a = 1", "1: a line has more than 1000 dots"),
        (b"#" * ((1 << 20) + 1), " the file is larger than 1 MB: no configuration of an archive"),
        (b'{"dicom": {"port": 1,}}', "1:22: this is no JSON: "),
        (b'{"dicom": {"port": 1, "port": 2}}', "1: dicom.port stands here a second time"),
        (b'{"dicom": {"port": NaN}}', "1: this is no JSON: there is no number NaN"),
        (b"{}\n{}", "2:1: this is no JSON: extra data"),
        (b'{"a": ' + b"[" * 100_000, " sections are nested more than 12 deep"),
    ],
    ids=range(17),
)
def test_what_cannot_be_read_is_told_with_its_place(file: Path, text: bytes, said: str) -> None:
    (found,) = problems(file, text)
    assert found.removeprefix(str(file)).startswith(said), found


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda file: None, "No such file"),
        (lambda file: file.mkdir(), "Is a directory"),
        (lambda file: file.symlink_to(file), "symbolic link"),
    ],
    ids=["missing", "folder", "loop"],
)
def test_a_file_that_is_none(file: Path, make: object, said: str) -> None:
    make(file)  # type: ignore[operator]
    with pytest.raises(ConfigurationInvalid, match=f"{file}: the file cannot be read: .*{said}"):
        load_settings(file)


def test_a_name_with_nul_in_it() -> None:
    with pytest.raises(ConfigurationInvalid, match="cannot be read"):
        load_settings(Path("a\0b"))


def test_json_of_another_shape(file: Path) -> None:
    file = file.with_suffix(".json")
    assert problems(file, "[]") == ["1: the file holds no sections: JSON begins with { and ends with }"]
    assert problems(file, '{"dicom": 5, "callers": {}, "nodes": []}') == [
        "1: dicom must be a section with keys of its own, and not a number",
        "1: nodes must be a section with keys of its own, and not a list",
        "1: callers must be a list, written [[callers]], and not a section",
    ]


@pytest.mark.parametrize("section", ["nodes", "knownDestinations"])
def test_half_a_character_is_in_no_name(section: str, file: Path) -> None:
    """JSON can write it."""
    nodes = '{"\\ud800": {"host": "a", "port": 1}, "A": {"host": "a"}}'
    text = f'{{"{section}": {nodes}}}'
    file = file.with_suffix(".json")
    said = f"1: {section}.'\ufffd\ufffd\ufffd' must be a name, and holds a character that cannot be printed: '\\ud800'"
    assert problems(file, text) == [said, f"1: {section}.A.port is missing"]
    with pytest.raises(ConfigurationInvalid, match="must be a name"):
        settings_from(json.loads(text), "the request")


def test_nodes_that_come_later_are_called_as_it_is_said(file: Path) -> None:
    """Over HTTP a node with TLS can be added where there was none."""
    file.write_text('[nodes_tls]\nauthorities = "ca.pem"\n')
    assert load_settings(file).node_tls == TlsClient(file.parent / "ca.pem")
    file.write_text('[dicom.tls]\ncertificate = "cert.pem"\nauthorities = "ca.pem"\n')
    assert load_settings(file).node_tls == TlsClient(file.parent / "ca.pem", file.parent / "cert.pem")


def test_a_secret_is_not_quoted(file: Path) -> None:
    found = problems(file, '[index]\nurl = "mysql://me:SECRET@db/x"\n')
    assert found == ["2: index.url must be the URL of a PostgreSQL database, postgresql://user@host/database"]
    found = problems(file, '[index]\nurl = "postgresql://me:SECRET\\u0000@db/x"\n')
    assert "SECRET" not in found[0]


SECRETS = [
    "postgresql://me:S3CRET@db/x",
    "postgresql://me:S3/CRET@db/x",
    "postgresql://db/x?user=me&password=S3CRET",
    "host=db user=me password=S3CRET",
    "me:S3CRET@db/x",
]


@pytest.mark.parametrize("secret", SECRETS)
@pytest.mark.parametrize(
    "tree",
    [
        {"index": "@@"},
        {"index": ["@@"]},
        {"index": {"ulr": "@@"}},
        {"index": {"url": ["@@"]}},
        {"index": {"url": {"@@": 1}}},
        {"index": {"@@": 1}},
        {"@@": {"url": 1}},
        {"nodes": "@@"},
        {"nodes": {"A": "@@"}},
        {"nodes": {"A": {"host": "@@", "port": "@@", "tls": "@@", "may": ["@@"], "ae_title": "@@"}}},
        {"nodes": {"@@": {}}},
        {"callers": "@@"},
        {"callers": ["@@"]},
        {"callers": [{"addresses": ["@@"], "certificate": "@@", "may": "@@"}]},
        {"dicom": {"ae_title": "@@", "bind": "@@", "memory": "@@", "shutdown_grace": "@@", "tls": "@@"}},
        {"storage": {"duplicates": "@@"}},
    ],
    ids=str,
)
def test_the_password_of_the_index_is_not_quoted_wherever_it_was_written(tree: object, secret: str, file: Path) -> None:
    text = json.dumps(tree).replace("@@", secret)
    file = file.with_suffix(".json")
    file.write_text(text)
    for read in (lambda: load_settings(file), lambda: settings_from(json.loads(text), "the request")):
        with pytest.raises(ConfigurationInvalid) as refused:
            read()
        told = [*map(str, refused.value.problems), *(json.dumps(each.as_json()) for each in refused.value.problems)]
        assert "CRET" not in "".join(told), told


@pytest.mark.parametrize("secret", SECRETS)
def test_nor_where_a_variable_has_it(secret: str, file: Path) -> None:
    for variable in (
        "TOMOWIRE_INDEX",
        "TOMOWIRE_CALLERS",
        "TOMOWIRE_NODES",
        "TOMOWIRE_INDEX__ULR",
        "TOMOWIRE_DICOM__BIND",
    ):
        for form in ("%s", '"%s"', "{url = '%s'", "{ulr = '%s'}", "[%s]", "['%s']"):
            told = problems(file, "", **{variable: form % secret})
            assert told, "it is a mistake"
            assert "CRET" not in "".join(told), told


def test_a_url_is_no_path(file: Path) -> None:
    """What files cannot be read is told with their names."""
    (found,) = problems(file, '[http]\ncertificate = "https://ca.example/archive.pem"\n')
    assert (
        found == "2: http.certificate must be the path of a file and no URL, and not 'https://ca.example/archive.pem'"
    )
    assert "S3CRET" not in problems(file, '[storage]\ndata_dir = "postgresql://me:S3CRET@db/x"\n')[0]


def test_what_is_shown_says_the_same_again(file: Path) -> None:
    """All but the names of nodes, and what is not said of how they are called."""
    file.write_text(EVERYTHING)
    found = load_settings(file)
    tree = tree_of(found)
    file.with_name("shown.json").write_text(json.dumps(tree))
    assert load(file.with_name("shown.json"), {}).settings == found
    assert shown_settings(found) == tree
    assert json.loads(json.dumps(tree)) == tree


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("postgresql://me:S3C@db/x", "postgresql://me:***@db/x"),
        ("postgresql://me:S3@C@db/x", "postgresql://me:***@db/x"),
        ("postgresql://me:S3/C@db/x?sslmode=require", "postgresql://me:***@db/x?sslmode=require"),
        ("postgresql://db/x?user=me&password=S3C&a=b", "postgresql://db/x?user=me&password=***&a=b"),
        ("postgresql://me@db/x", "postgresql://me@db/x"),
    ],
)
def test_passwords_are_not_shown(url: str, expected: str, file: Path) -> None:
    found = load_settings(None, {"TOMOWIRE_INDEX__URL": url})
    assert shown_settings(found)["index"]["url"] == expected
    assert "S3" not in repr(shown_settings(found))


def test_nodes_of_any_ae_title_can_be_shown() -> None:
    """Of a program's own: PS3.5 6.2 allows almost all of ASCII."""
    odd = Node("A/B @:,[x]", "h", 1)
    assert shown_settings(Settings(Path("data"), nodes=(odd,)))["nodes"]["A/B @:,[x]"]["host"] == "h"


def test_where_each_key_was_said(file: Path) -> None:
    file.write_text('[dicom]\nport = 1\n[nodes."a.b"]\nhost = "h"\nport = 2\n')
    found = load(file, {"TOMOWIRE_HTTP__PORT": "3"})
    assert str(found.origins["dicom", "port"]) == f"{file}:2"
    assert str(found.origins["nodes", "a.b", "port"]) == f"{file}:5"
    assert str(found.origins["http", "port"]) == "TOMOWIRE_HTTP__PORT"
    assert (found.is_said("http"), found.is_said("dicom", "port"), found.is_said("audit")) == (True, True, False)
