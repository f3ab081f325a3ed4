"""From a configuration's sections to the values that the parts of an archive take."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tomowire.server.nodes import Node
from tomowire.server.settings import AuditSettings, HttpSettings, JobSettings, LogSettings, QuotaSettings, Settings

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tomowire.aio.tls import TlsClient, TlsServer
    from tomowire.server.config import models


def settings_of(configuration: models.Configuration) -> Settings:
    """The settings that it says."""
    dicom = configuration.dicom
    tls = _port_with_tls(dicom.tls) if dicom.tls is not None else None
    nodes = tuple(nodes_of(configuration).values())
    return Settings(
        data_dir=configuration.storage.data_dir,
        ae_title=dicom.ae_title,
        bind=dicom.bind,
        port=dicom.port,
        duplicates=configuration.storage.duplicates,
        any_sop_class=dicom.any_sop_class,
        allowed_callers=tuple(each.ae_title for each in configuration.callers if each.ae_title is not None),
        allow_unknown_callers=dicom.allow_unknown_callers,
        nodes=nodes,
        maximum_associations=dicom.maximum_associations,
        memory=dicom.memory,
        shutdown_grace=dicom.shutdown_grace,
        tls=tls,
        node_tls=way_to_nodes(configuration.nodes_tls, tls) if any(node.tls for node in nodes) else None,
        index_url=configuration.index.url,
        http=HttpSettings(**_values(configuration.http, leave_out=("enabled",)))
        if configuration.http.enabled
        else None,
        quota=QuotaSettings(**_values(configuration.quota)),
        audit=AuditSettings(**_values(configuration.audit)),
        jobs=JobSettings(**_values(configuration.jobs)),
        logs=LogSettings(**_values(configuration.logs)),
    )


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
    return Node(node.ae_title or name, node.host, node.port, node.associations, is_tls, node.tls_name)


def _destination(name: str, destination: models.KnownDestination) -> Node:
    return Node(destination.aeTitle or name, destination.host, destination.port)


def _values(section: models.Section, leave_out: tuple[str, ...] = ()) -> dict[str, Any]:
    return {name: getattr(section, name) for name in type(section).model_fields if name not in leave_out}
