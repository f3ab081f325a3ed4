"""From a configuration's sections to the values that the parts of an archive take."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from tomowire.server.caller_rules import CallerRule
from tomowire.server.nodes import Node
from tomowire.server.rights import Right
from tomowire.server.settings import AuditSettings, HttpSettings, JobSettings, LogSettings, QuotaSettings, Settings

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from tomowire.aio.tls import TlsClient, TlsServer
    from tomowire.server.config import models


def settings_of(configuration: models.Configuration) -> Settings:
    """The settings that it says."""
    dicom = configuration.dicom
    tls = _port_with_tls(dicom.tls) if dicom.tls is not None else None
    nodes = tuple(nodes_of(configuration).values())
    # Without a node that needs it too: there may be one later, over HTTP.
    wants_tls = configuration.nodes_tls is not None or tls is not None or any(node.tls for node in nodes)
    return Settings(
        data_dir=configuration.storage.data_dir,
        ae_title=dicom.ae_title,
        aliases=dicom.aliases,
        bind=dicom.bind,
        port=dicom.port,
        duplicates=configuration.storage.duplicates,
        any_sop_class=dicom.any_sop_class,
        callers=tuple(map(_caller, configuration.callers)),
        allow_unknown_callers=dicom.allow_unknown_callers,
        nodes=nodes,
        maximum_associations=dicom.maximum_associations,
        memory=dicom.memory,
        shutdown_grace=dicom.shutdown_grace,
        tls=tls,
        node_tls=way_to_nodes(configuration.nodes_tls, tls) if wants_tls else None,
        index_url=configuration.index.url,
        http=HttpSettings(**_values(configuration.http, leave_out=("enabled",)))
        if configuration.http.enabled
        else None,
        quota=QuotaSettings(**_values(configuration.quota)),
        audit=AuditSettings(**_values(configuration.audit)),
        jobs=JobSettings(**_values(configuration.jobs)),
        logs=LogSettings(**_values(configuration.logs)),
    )


def tree_of(settings: Settings) -> dict[str, Any]:
    """The tree of sections that says `settings`, as a file would have it."""
    from tomowire.server.config import models

    tls, nodes_tls = settings.tls, settings.node_tls
    tree: dict[str, Any] = {
        "dicom": {
            **_shared(models.Dicom, settings),
            "tls": tls and {**_shared(models.DicomTls, tls), "client_auth": tls.verify, "profile": str(tls.profile)},
        },
        "storage": _shared(models.Storage, settings),
        "index": {"url": settings.index_url},
        "nodes": {
            _section_of(node, settings.nodes): {**_shared(models.Node, node), "tls": node.tls}
            for node in settings.nodes
        },
        "nodes_tls": nodes_tls and _shared(models.NodesTls, nodes_tls),
        "callers": [
            *(_shared(models.Caller, rule) for rule in settings.callers),
            *({"ae_title": title} for title in settings.allowed_callers),
        ],
        "http": {"enabled": settings.http is not None, **_shared(models.Http, settings.http)},
        "quota": _shared(models.Quota, settings.quota),
        "audit": _shared(models.Audit, settings.audit),
        "jobs": _shared(models.Jobs, settings.jobs),
        "logs": _shared(models.Logs, settings.logs),
    }
    said: dict[str, Any] = _said(tree)
    return said


def _section_of(node: Node, nodes: Iterable[Node]) -> str:
    """Its name, unless that is another's AE title: of two that have the same one was an option, or came over HTTP."""
    is_taken = not node.name or any(node.name == other.ae_title for other in nodes)
    return node.ae_title if is_taken else node.name


def _shared(section: type[models.Section], values: object) -> dict[str, Any]:
    """Of a value what the section has by the same names, as a file would have it."""
    found = {name: getattr(values, name) for name in section.model_fields if name != "tls" and hasattr(values, name)}
    if isinstance(rights := found.get("may"), frozenset):
        found["may"] = tuple(each.value for each in Right if each in rights)
    if isinstance(files := found.get("authorities"), tuple):
        found["authorities"] = os.pathsep.join(map(os.fspath, files))
    return found


def _said(tree: Any) -> Any:
    if isinstance(tree, dict):
        return {name: _said(each) for name, each in tree.items() if each is not None and each != {}}
    if isinstance(tree, list | tuple):
        return [_said(each) for each in tree]
    if not isinstance(tree, os.PathLike):
        return tree
    # A file system takes bytes that are no text (of an option), and what is shown is text.
    return os.fsencode(tree).decode("utf-8", "replace")


def nodes_of(configuration: models.Configuration) -> Mapping[str, Node]:
    """The nodes by what a person calls them; a name of `nodes` goes before one of `knownDestinations`."""
    found = {name: _destination(name, each) for name, each in configuration.knownDestinations.items()}
    return found | {name: _node(name, each) for name, each in configuration.nodes.items()}


def way_to_nodes(said: models.NodesTls | None, own: TlsServer | None) -> TlsClient:
    """How nodes with TLS are called: what is not said is as for those who call here."""
    from tomowire.aio.tls import TlsClient

    ca, cert, key = (said.authorities, said.certificate, said.key) if said is not None else (None, None, None)
    if own is None:
        return TlsClient(ca, cert, key)
    mine = (cert, key) if cert is not None else (own.certificate, own.key)
    return TlsClient(ca or own.authorities, *mine, profile=own.profile)


def _port_with_tls(tls: models.DicomTls) -> TlsServer:
    from tomowire.aio.tls import TlsServer

    verify: Any = tls.client_auth
    return TlsServer(tls.certificate, tls.key, authorities=tls.authorities, verify=verify, profile=tls.profile)


def _node(name: str, node: models.Node) -> Node:
    is_tls = node.tls or node.tls_name is not None
    title = node.ae_title or name.strip(" ")
    return Node(
        title,
        node.host,
        node.port,
        node.associations,
        is_tls,
        node.tls_name,
        frozenset(map(Right, node.may)),
        _other(name, title),
    )


def _caller(caller: models.Caller) -> CallerRule:
    return CallerRule(
        caller.ae_title,
        caller.addresses,
        caller.certificate,
        frozenset(map(Right, caller.may)),
        caller.maximum_associations,
    )


def _destination(name: str, destination: models.KnownDestination) -> Node:
    title = destination.aeTitle or name.strip(" ")
    return Node(title, destination.host, destination.port, name=_other(name, title))


def _other(name: str, title: str) -> str:
    """The name, where it is not the AE title."""
    return name if name.strip(" ") != title else ""


def _values(section: models.Section, leave_out: tuple[str, ...] = ()) -> dict[str, Any]:
    return {name: getattr(section, name) for name in type(section).model_fields if name not in leave_out}
