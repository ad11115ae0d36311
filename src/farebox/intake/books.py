"""The books of pools that a process keeps in memory between decisions."""

from collections import OrderedDict
from uuid import UUID

from farebox.postgres.book import Stated

WEIGHT_REMEMBERED = 200_000
"""How many pools, open grants and holds a process keeps in memory."""


class Books:
    """The books in memory, the least recently used ones dropped when they become too many."""

    def __init__(self, weight_max: int = WEIGHT_REMEMBERED) -> None:
        self._stated: OrderedDict[UUID, Stated] = OrderedDict()
        self._weights: dict[UUID, int] = {}
        self._weight = 0
        self._weight_max = weight_max

    def get(self, pool_id: UUID) -> Stated | None:
        stated = self._stated.get(pool_id)
        if stated is not None:
            self._stated.move_to_end(pool_id)
        return stated

    def keep(self, stated: Stated) -> None:
        """Keep a book, or one that was kept before and may have grown since."""
        self.drop(stated.pool_id)
        self._stated[stated.pool_id] = stated
        weight = 1 + len(stated.book.grants) + len(stated.book.holds)
        self._weights[stated.pool_id] = weight
        self._weight += weight
        while self._weight > self._weight_max and len(self._stated) > 1:
            self.drop(next(iter(self._stated)))

    def drop(self, pool_id: UUID) -> None:
        if self._stated.pop(pool_id, None) is not None:
            self._weight -= self._weights.pop(pool_id)
