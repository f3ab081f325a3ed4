"""Nodes: the peers that the archive knows by name."""

from __future__ import annotations

import asyncio
import logging
import time
from dataclasses import replace
from typing import Annotated, Final

from fastapi import Path
from pydantic import Field, StringConstraints

from tomowire.aio.connect import associate
from tomowire.aio.tls import TlsClient
from tomowire.errors import TomowireError, UsageError
from tomowire.protocol.status import Status
from tomowire.server.nodes import MOST_ASSOCIATIONS, Node, find_node, with_keys
from tomowire.server.rights import Right
from tomowire.server.settings import Settings
from tomowire.server.users import Role
from tomowire.services.verification import CEchoScu, verification
from tomowire.web.api.models import Flag, Model, Whole
from tomowire.web.api.operation import Asked, Here, operation, topic
from tomowire.web.forms import AE_TITLE, HOST, AeTitle, NodeName
from tomowire.web.problems import Problem

logger: Final = logging.getLogger("tomowire.http")

router = topic("nodes")

_ECHO_TIMEOUT: Final = 10.0
"""Seconds, for all of it."""

AeTitlePath = Annotated[
    str,
    Path(
        max_length=16,
        pattern=AE_TITLE,
        description="The AE title of a node; a slash in it is written `%2F`.",
        examples=["WORKSTATION"],
    ),
]
NodePath = Annotated[
    NodeName,
    Path(description="The AE title of a node, or its name in the configuration; a slash in it is written `%2F`."),
]
Host = Annotated[str, StringConstraints(min_length=1, max_length=253, pattern=HOST)]


class _Named(Model):
    ae_title: AeTitle


class NodeSettings(Model):
    """How a node is called, and what it may do."""

    host: Host = Field(examples=["192.0.2.7"])
    port: Whole = Field(ge=1, le=65535, examples=[104])
    associations: Whole = Field(1, ge=1, le=MOST_ASSOCIATIONS, description="How many of ours it takes at once.")
    tls: Flag = False
    tls_name: Host | None = Field(None, description="For whom its certificate is, if that is not its host.")
    may: list[Right] = Field(
        list(Right),
        description="What it may do when it calls, and whether a C-MOVE may send to it (`move-destination`). Left out: all of "
        "it. Otherwise only what is named; an empty list is nothing.",
    )


class KnownNode(NodeSettings, _Named):
    """A node."""


class Nodes(Model):
    """All nodes, by their AE titles."""

    nodes: list[KnownNode]


class Echo(Model):
    """What came of a C-ECHO."""

    ae_title: str
    succeeded: bool
    status: str | None = Field(description="Of the response, in hexadecimal digits.", examples=["0000"])
    seconds: float = Field(description="From connecting to the response, or to giving up.")
    error: str = Field(description="Why it did not succeed, whose fault it is and what to do; empty if it did.")


@router.get("/nodes", **operation("listNodes", Role.READER))
async def list_nodes(here: Here) -> Nodes:
    """All nodes, by their AE titles."""
    nodes = here.archive.nodes
    return Nodes(nodes=[_shown(nodes[title]) for title in sorted(nodes)])


@router.get("/nodes/{ae_title}", **operation("getNode", Role.READER, 404))
async def get_node(here: Here, ae_title: NodePath) -> KnownNode:
    """One node."""
    return _shown(_find(here, ae_title))


@router.put("/nodes/{ae_title}", **operation("putNode", Role.ADMINISTRATOR, 409, body=True))
async def put_node(here: Here, ae_title: AeTitlePath, settings: NodeSettings) -> KnownNode:
    """Add a node, or change it. Associations go on; it holds until the archive ends or its configuration is read again."""
    nodes = here.archive.nodes
    known = nodes.get(ae_title) or find_node(nodes.values(), ae_title)
    ae_title = known.ae_title if known is not None else ae_title
    node = Node(
        ae_title,
        settings.host,
        settings.port,
        settings.associations,
        settings.tls or settings.tls_name is not None,
        settings.tls_name,
        frozenset(settings.may),
        known.name if known is not None else "",
    )
    await _change(here, ae_title, node)
    return _shown(node)


@router.delete("/nodes/{ae_title}", status_code=204, **operation("removeNode", Role.ADMINISTRATOR, 404, 409))
async def remove_node(here: Here, ae_title: NodePath) -> None:
    """Remove a node: it may not call any more, nor be sent to."""
    await _change(here, _find(here, ae_title).ae_title, None)


@router.post("/nodes/{ae_title}/echo", **operation("echoNode", Role.OPERATOR, 404))
async def echo_node(here: Here, ae_title: NodePath) -> Echo:
    """Ask a node whether it is there (C-ECHO), from the archive and as the archive. That it is not is an answer too."""
    node = _find(here, ae_title)
    began, status, error = time.perf_counter(), None, ""
    try:
        async with asyncio.timeout(_ECHO_TIMEOUT):
            status = await _echo(node, here.archive.settings)
    except TimeoutError as late:
        error = str(late) or f"{node.address} did not answer within {_ECHO_TIMEOUT:g} s"
    except (TomowireError, OSError) as failure:
        error = with_keys(str(failure))
    return Echo(
        ae_title=node.ae_title,
        succeeded=status is not None and status.is_success,
        status=f"{int(status):04X}" if status is not None else None,
        seconds=time.perf_counter() - began,
        error=error,
    )


async def _echo(node: Node, settings: Settings) -> Status:
    tls = node.way(settings.node_tls or TlsClient())
    async with associate(node.address, contexts=[verification()], aet=settings.ae_title, ssl=tls) as association:
        return await CEchoScu(association).echo()


async def _change(here: Asked, ae_title: str, node: Node | None) -> None:
    archive = here.archive

    def changed(settings: Settings) -> Settings:
        others = tuple(each for title, each in archive.nodes.items() if title != ae_title)
        return replace(settings, nodes=others if node is None else (*others, node))

    try:
        await archive.reconfigure(changed, by=here.party)
    except UsageError as error:
        raise Problem(409, str(error)) from None
    logger.warning("node %s was %s by %s", ae_title, "removed" if node is None else "set", here.principal.name)


def _find(here: Asked, ae_title: str) -> Node:
    """By its AE title, which is its address here, or else by its name."""
    nodes = here.archive.nodes
    node = nodes.get(ae_title) or find_node(nodes.values(), ae_title)
    if node is None:
        raise Problem(404, f"there is no node {ae_title}")
    return node


def _shown(node: Node) -> KnownNode:
    return KnownNode(
        ae_title=node.ae_title,
        host=node.host,
        port=node.port,
        associations=node.associations,
        tls=node.tls,
        tls_name=node.tls_name,
        may=[right for right in Right if right in node.may],
    )
