"""The checksum that tells whether a stored data set is still, or already, the one that was received.

XXH3 with 128 bits: made for finding damage, and forty times as fast as SHA-256, which took a sixth of the time that receiving CT
images took. It is no protection from somebody who changes files on purpose: who can do that can change the index as well.
"""

from __future__ import annotations

from xxhash import xxh3_128

new_checksum = xxh3_128
"""Makes a checksum: `update` it with buffers, and its `digest` is 16 bytes. Large buffers are worked through without the GIL."""
