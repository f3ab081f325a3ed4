"""Where an SCP holds the data sets that it has to have whole."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

from tomowire.aio.budget import DEFAULT_MEMORY
from tomowire.aio.held import HeldMemory

if TYPE_CHECKING:
    from tomowire.aio.association import Association


class DataSetMemory:
    """The memory of the server that an association belongs to; for those that have none, memory that all of them share."""

    def of(self, association: Association) -> HeldMemory:
        """That in which the data sets are held that come on `association`."""
        return association.budget.data if association.budget is not None else self.own

    @cached_property
    def own(self) -> HeldMemory:
        """For associations without a server."""
        return HeldMemory(DEFAULT_MEMORY // 2)
