"""Whether a peer bears objects that come on several associations at once.

Not every peer does: DCMTK's `dcmqrscp` 3.6.7 answers C000H to some of them, and others abort. So what fails while others come on
other associations is sent again when nothing else is left, on the only association. What comes of that tells whether it was the
object or the company.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tomowire.services.storage import StoreResponse


class Company:
    """What is known of one peer."""

    def __init__(self) -> None:
        self.is_harmful = False
        """Whether an object has failed only because of it. It is for good: each time it is tried may cost something."""
        self.is_avoided = False
        """Whether there should be but one association at a time, because it is harmful or may be."""
        self._cleared: set[int] = set()  # statuses that objects were given alone too

    def may_explain(self, response: StoreResponse) -> bool:
        """Whether it may be the reason of a failure."""
        return response.is_failure and response.status not in self._cleared

    def doubt(self) -> None:
        """It is avoided until it is known whether it was the reason."""
        self.is_avoided = True

    def settle(self, before: StoreResponse, alone: StoreResponse) -> None:
        """What an object was answered in company, and what alone."""
        if alone.is_failure:
            self._cleared.add(before.status)
        else:
            self.is_harmful = True
        self.is_avoided = self.is_harmful

    def begin_anew(self) -> None:
        """A doubt that was not settled when it was called off is none any more."""
        self.is_avoided = self.is_harmful
