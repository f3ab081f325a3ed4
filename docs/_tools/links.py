"""A public name that stands as code in a page leads to its entry in the reference.

The pages are plain Markdown, to be read in the repository too: `Peer.send` is written as code and nothing else.
"""

from __future__ import annotations

import re
from typing import Final

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.nodes import make_refnode

_NAME: Final = re.compile(r"([A-Z_a-z][\w.]*)(?:\(.*\))?")
# In a heading a link would hide the heading's own; in a reference there is one already.
_HAS_LINKS: Final = (nodes.reference, nodes.title)


def _link_names(app: Sphinx, tree: nodes.document, page: str) -> None:
    entries = app.env.domains.python_domain.objects
    for code in list(tree.findall(nodes.literal)):
        match = _NAME.fullmatch(code.astext())
        entry = entries.get(f"tomowire.{match[1]}") if match else None
        if entry is None or _is_linked(code):
            continue
        link = make_refnode(app.builder, page, entry.docname, entry.node_id, code.deepcopy())
        code.replace_self(link)


def _is_linked(node: nodes.Node) -> bool:
    while node.parent is not None:
        node = node.parent
        if isinstance(node, _HAS_LINKS):
            return True
    return False


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("doctree-resolved", _link_names)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
