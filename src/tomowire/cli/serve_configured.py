"""The options of `serve` as a tree of sections, as a configuration file would have it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from tomowire.server.nodes import Node

_KEYS: Final[Mapping[str, tuple[str, ...]]] = {
    "data_dir": ("storage", "data_dir"),
    "duplicates": ("storage", "duplicates"),
    "index_url": ("index", "url"),
    "aet": ("dicom", "ae_title"),
    "bind": ("dicom", "bind"),
    "port": ("dicom", "port"),
    "any_sop_class": ("dicom", "any_sop_class"),
    "allow_unknown_callers": ("dicom", "allow_unknown_callers"),
    "max_associations": ("dicom", "maximum_associations"),
    "memory": ("dicom", "memory"),
    "tls_cert": ("dicom", "tls", "certificate"),
    "tls_key": ("dicom", "tls", "key"),
    "tls_ca": ("dicom", "tls", "authorities"),
    "tls_client_auth": ("dicom", "tls", "client_auth"),
    "tls_profile": ("dicom", "tls", "profile"),
    "node_tls_ca": ("nodes_tls", "authorities"),
    "node_tls_cert": ("nodes_tls", "certificate"),
    "node_tls_key": ("nodes_tls", "key"),
    "http_bind": ("http", "bind"),
    "http_port": ("http", "port"),
}


def as_tree(options: Mapping[str, Any], is_given: Callable[[str], bool]) -> dict[str, Any]:
    """What of the options a person has given. A certificate that is given alone brings its key with it."""
    tree: dict[str, Any] = {}
    for name, path in _KEYS.items():
        if is_given(name):
            _put(tree, path, options[name])
    for section, cert, key in (("tls", "tls_cert", "tls_key"), ("nodes_tls", "node_tls_cert", "node_tls_key")):
        if is_given(cert) and not is_given(key):
            _put(tree, ("dicom", "tls", "key") if section == "tls" else ("nodes_tls", "key"), options[cert])
    if is_given("no_http"):
        _put(tree, ("http", "enabled"), not options["no_http"])
    elif is_given("http_port") or is_given("http_bind"):
        _put(tree, ("http", "enabled"), True)
    if options["nodes"]:
        tree["nodes"] = {node.ae_title: _node(node) for node in options["nodes"]}
    if options["allow"]:
        tree["callers"] = [{"ae_title": title} for title in options["allow"]]
    if options["verbose"]:
        _put(tree, ("logs", "level"), "info" if options["verbose"] == 1 else "debug")
    return tree


def _put(tree: dict[str, Any], path: tuple[str, ...], given: Any) -> None:
    for part in path[:-1]:
        tree = tree.setdefault(part, {})
    tree[path[-1]] = given


def _node(node: Node) -> dict[str, Any]:
    """`host` and all others, so that nothing is left of one of the same name in the file."""
    name = {} if node.tls_name is None else {"tls_name": node.tls_name}
    return {
        "ae_title": node.ae_title,
        "host": node.host,
        "port": node.port,
        "associations": node.associations,
        "tls": node.tls,
        "may": sorted(node.may),
        **name,
    }
