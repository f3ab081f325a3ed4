"""What does not fit together in a configuration whose keys are all right by themselves. It may read files; it calls nobody."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path as FilePath
from typing import TYPE_CHECKING

from tomowire.aio.address import check_ae_title
from tomowire.errors import TomowireError, UsageError
from tomowire.server.access_settings import is_loopback
from tomowire.server.config.explain import in_order, origin_of
from tomowire.server.config.mapping import nodes_of, settings_of
from tomowire.server.config.problems import Origin, Path, Problem, dotted
from tomowire.server.index.index_url import parameters_of
from tomowire.wire.value import value

if TYPE_CHECKING:
    from tomowire.server.config.load import Loaded
    from tomowire.server.config.models import Caller, Configuration


@value()
class Found:
    """Something that does not fit, at `path`; `text` goes on from the name of the key."""

    path: Path
    text: str
    is_warning: bool = False


def check(loaded: Loaded) -> list[Problem]:
    """All that does not fit together, mistakes first. Files are read: not for the event loop."""
    found = [_problem(each, loaded.origins) for look in _CHECKS for each in look(loaded.configuration)]
    return sorted(found, key=lambda each: (each.is_warning, in_order(each)))


def check_nodes(configuration: Configuration, origins: Mapping[Path, Origin]) -> list[Problem]:
    """What is wrong with the nodes alone: it can be told beside mistakes anywhere else."""
    return [_problem(each, origins) for each in _nodes(configuration)]


def _problem(found: Found, origins: Mapping[Path, Origin]) -> Problem:
    return Problem(origin_of(found.path, origins), dotted(found.path), found.text, is_warning=found.is_warning)


def _who_may_call(configuration: Configuration) -> Iterator[Found]:
    dicom, callers = configuration.dicom, configuration.callers
    is_named = bool(callers or configuration.nodes or configuration.knownDestinations)
    if dicom.allow_unknown_callers:
        if callers:
            text = "lets in everyone, and [[callers]] names who may call: leave one of them out"
            yield Found(("dicom", "allow_unknown_callers"), text)
        elif not is_loopback(dicom.bind):
            yield Found(("dicom", "allow_unknown_callers"), "lets in everyone who reaches the port", is_warning=True)
    elif not is_loopback(dicom.bind) and not is_named:
        text = f"is {dicom.bind}, open to the network, and nobody may call: name [nodes.NAME] or [[callers]]"
        yield Found(("dicom", "bind"), text)


def _callers(configuration: Configuration) -> Iterator[Found]:
    for number, caller in enumerate(configuration.callers):
        if caller.ae_title is None and not caller.addresses and caller.certificate is None:
            text = "says nothing of who calls: give an ae_title, addresses or a certificate"
            yield Found(("callers", number), text)
        tls = configuration.dicom.tls
        if caller.certificate is not None and (tls is None or tls.authorities is None or tls.client_auth == "none"):
            text = "needs dicom.tls with authorities: otherwise nobody shows a certificate"
            yield Found(("callers", number, "certificate"), text)
        earlier = enumerate(configuration.callers[:number])
        if (before := next((place for place, each in earlier if _covers(each, caller)), None)) is not None:
            text = f"never applies: callers[{before}] before it is about all of these callers"
            yield Found(("callers", number), text, is_warning=True)


def _covers(one: Caller, other: Caller) -> bool:
    """Whether `one`, which is asked first, is about everybody whom `other` is about."""
    said = [(getattr(one, name), getattr(other, name)) for name in ("ae_title", "addresses", "certificate")]
    return any(mine for mine, _ in said) and all(mine == theirs for mine, theirs in said if mine)


def _nodes(configuration: Configuration) -> Iterator[Found]:
    paths: dict[str, Path] = {}
    for section, key in (("knownDestinations", "aeTitle"), ("nodes", "ae_title")):
        for name, said in getattr(configuration, section).items():
            if getattr(said, key) is None and not _is_ae_title(name):
                text = f"is no AE title, 1 to 16 characters of ASCII without backslash: say with {key} which it has"
                yield Found((section, name), text)
            if section == "nodes" and name in configuration.knownDestinations:
                yield Found(("nodes", name), "is in knownDestinations too: leave one of them out")
            paths[name] = (section, name)
    titles: dict[str, str] = {}
    for name, node in nodes_of(configuration).items():
        other = titles.setdefault(node.ae_title, name)
        if other != name:
            text = f"has the AE title {node.ae_title}, as {dotted(paths[other])} has: a C-MOVE would not know where to"
            yield Found(paths[name], text)


def _is_ae_title(name: str) -> bool:
    try:
        check_ae_title(name)
    except UsageError:
        return False
    return True


def _data_dir(configuration: Configuration) -> Iterator[Found]:
    path: Path = ("storage", "data_dir")
    folder = configuration.storage.data_dir
    there = next((each for each in (folder, *folder.absolute().parents) if os.path.lexists(each)), FilePath("/"))
    if not there.is_dir():
        yield Found(path, f"cannot be used: {there} is no folder")
    elif not os.access(there, os.W_OK | os.X_OK, effective_ids=os.access in os.supports_effective_ids):
        yield Found(path, f"cannot be written to by the user who checks this: {there}", is_warning=True)


def _index(configuration: Configuration) -> Iterator[Found]:
    if configuration.index.url is not None:
        try:
            parameters_of(configuration.index.url)
        except TomowireError as error:
            yield Found(("index", "url"), f"cannot be used: {error}")  # which has no password


def _ports(configuration: Configuration) -> Iterator[Found]:
    dicom, http = configuration.dicom, configuration.http
    if http.enabled and http.port == dicom.port != 0 and _overlap(dicom.bind, http.bind):
        yield Found(("http", "port"), f"is {http.port}, as dicom.port is")


def _http(configuration: Configuration) -> Iterator[Found]:
    http = configuration.http
    if http.key is not None and http.certificate is None:
        yield Found(("http", "key"), "is of no use without http.certificate")
    if http.enabled and http.certificate is None and not is_loopback(http.bind):
        text = f"is {http.bind}, open to the network without TLS: passwords and tokens can be read on the way"
        yield Found(("http", "bind"), text, is_warning=True)


def _certificates(configuration: Configuration) -> Iterator[Found]:
    """Each file that is named, and then what is made of them."""
    readable = True
    for path, file in _files(configuration):
        try:
            with file.open("rb"):
                pass
        except OSError as error:
            readable = False
            yield Found(path, f"cannot be read: {file}: {error.strerror}")
    if not readable:
        return
    told: set[str] = set()  # what `nodes_tls` does not say is as in `dicom.tls`, and so is what is wrong with that
    for path, attempt, tls in _ways(configuration):
        text = _failure(attempt, tls)
        if text is not None and text not in told:
            told.add(text)
            yield Found(path, f"cannot be used: {text}")


def _ways(configuration: Configuration) -> Iterator[tuple[Path, Callable[..., None], object]]:
    """All that TLS is used for, each with what finds out whether it can be."""
    from tomowire.aio.tls_context import try_client, try_server

    settings = settings_of(configuration)
    if settings.tls is not None:
        yield ("dicom", "tls"), try_server, settings.tls
    if settings.node_tls is not None and any(node.tls for node in settings.nodes):
        yield ("nodes_tls",), try_client, settings.node_tls
    audit, http = settings.audit, configuration.http
    if audit.syslog_host is not None and audit.syslog_tls:
        from tomowire.server.audit.syslog_ways import tls_of

        yield ("audit",), try_client, tls_of(audit)
    if http.certificate is not None:
        from tomowire.aio.tls import TlsServer

        yield ("http", "certificate"), try_server, TlsServer(http.certificate, http.key)


def _files(configuration: Configuration) -> Iterator[tuple[Path, FilePath]]:
    """The PEM files, by their keys."""
    sections: tuple[tuple[Path, object], ...] = (
        (("dicom", "tls"), configuration.dicom.tls),
        (("nodes_tls",), configuration.nodes_tls),
        (("http",), configuration.http),
        (("audit",), configuration.audit),
    )
    for path, section in sections:
        for name in ("certificate", "key", "authorities"):
            for key in (name, f"syslog_{name}"):
                if (file := getattr(section, key, None)) is not None:
                    yield (*path, key), file


def _failure(attempt: Callable[..., None], tls: object) -> str | None:
    try:
        attempt(tls)
    except TomowireError as error:
        return str(error)
    return None


def _nodes_tls(configuration: Configuration) -> Iterator[Found]:
    tls = configuration.nodes_tls
    if tls is None:
        return
    if tls.key is not None and tls.certificate is None:
        yield Found(("nodes_tls", "key"), "is of no use without nodes_tls.certificate")
    if not any(node.tls for node in nodes_of(configuration).values()):
        yield Found(("nodes_tls",), "is for nodes with tls = true, and there is none", is_warning=True)


def _audit(configuration: Configuration) -> Iterator[Found]:
    audit = configuration.audit
    if audit.syslog_host is None and (audit.syslog_tls or audit.syslog_authorities or audit.syslog_certificate):
        yield Found(("audit",), "names no syslog_host: nothing is sent", is_warning=True)
    if audit.syslog_key is not None and audit.syslog_certificate is None:
        yield Found(("audit", "syslog_key"), "is of no use without audit.syslog_certificate")
    if audit.syslog_host is not None and not audit.enabled:
        yield Found(("audit", "syslog_host"), "gets nothing: audit.enabled is false", is_warning=True)


def _jobs(configuration: Configuration) -> Iterator[Found]:
    jobs = configuration.jobs
    if jobs.longest_wait < jobs.first_wait:
        yield Found(("jobs", "longest_wait"), f"is shorter than jobs.first_wait ({jobs.first_wait:g} s)")


_CHECKS = (_who_may_call, _callers, _nodes, _data_dir, _index, _ports, _http, _certificates, _nodes_tls, _audit, _jobs)


def _overlap(one: str, other: str) -> bool:
    everywhere = {"0.0.0.0", "::"}
    counted = Counter("127.0.0.1" if each == "localhost" else each for each in (one, other))
    return len(counted) == 1 or bool(counted.keys() & everywhere)
