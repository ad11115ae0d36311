"""The books of pools that a process keeps in memory between decisions."""

from collections import OrderedDict
from uuid import UUID

from farebox.postgres.book import Stated

WEIGHT_REMEMBERED = 200_000
"""How many pools, open grants and holds a process keeps in memory."""


class Books:
    """The books in memory, the least recently used ones dropped when they become too many."""

    def __init__(self, weight_max: int = WEIGHT_REMEMBERED) -> None:
        self._kept: OrderedDict[UUID, tuple[Stated, int]] = OrderedDict()
        self._weight = 0
        self._weight_max = weight_max

    def get(self, pool_id: UUID) -> Stated | None:
        kept = self._kept.get(pool_id)
        if kept is None:
            return None
        self._kept.move_to_end(pool_id)
        return kept[0]

    def keep(self, stated: Stated) -> None:
        """Keep a book, or one that was kept before and may have grown since."""
        weight = 1 + len(stated.book.grants) + len(stated.book.holds)
        kept = self._kept.get(stated.pool_id)
        if kept is not None and kept[0] is stated and kept[1] == weight:
            return
        self.drop(stated.pool_id)
        self._kept[stated.pool_id] = stated, weight
        self._weight += weight
        while self._weight > self._weight_max and len(self._kept) > 1:
            self.drop(next(iter(self._kept)))

    def drop(self, pool_id: UUID) -> None:
        kept = self._kept.pop(pool_id, None)
        if kept is not None:
            self._weight -= kept[1]
