"""What one process takes in on its event loop: events, and requests that want a decision."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import datetime
from uuid import UUID

from farebox.intake.authorize import Decider
from farebox.intake.ingest import Committer
from farebox.postgres.session import AppendPool, Pool, append_pool


class Intake:
    """The committers and deciders of this process, one an organization, made when first needed."""

    def __init__(self, pool: Pool, url: str, clock: Callable[[], datetime]) -> None:
        self._pool = pool
        self._url = url
        self._clock = clock
        self._connections: AppendPool | None = None
        self._committers: dict[UUID, Committer] = {}
        self._deciders: dict[UUID, Decider] = {}

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[None]:
        """Take events in on this event loop while the block runs."""
        async with append_pool(self._url) as connections:
            self._connections = connections
            try:
                yield
            finally:
                self._connections = None

    def committer(self, organization_id: UUID) -> Committer:
        committer = self._committers.get(organization_id)
        if committer is None:
            committer = self._committers[organization_id] = Committer(
                self._pool, self._opened_connections, organization_id, self._clock
            )
        return committer

    def decider(self, organization_id: UUID) -> Decider:
        decider = self._deciders.get(organization_id)
        if decider is None:
            decider = self._deciders[organization_id] = Decider(
                self._pool, self._opened_connections, organization_id, self._clock
            )
        return decider

    def _opened_connections(self) -> AppendPool:
        assert self._connections is not None, "the intake is not opened"
        return self._connections
