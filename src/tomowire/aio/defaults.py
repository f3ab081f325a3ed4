"""What both sides of an association take for granted when nobody says otherwise."""

from __future__ import annotations

from typing import Final

DEFAULT_MAXIMUM_LENGTH: Final = 256 * 1024
"""The P-DATA-TF length that is announced: header costs vanish, and a peer that buffers whole PDUs is not asked for much."""
DEFAULT_WINDOW: Final = 16
"""Requests outstanding at once, if the peer agrees (PS3.7 D.3.3.3)."""
