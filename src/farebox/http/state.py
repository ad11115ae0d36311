"""What every route of one server process works with: the database, the intake, time and chance."""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from uuid import UUID

from farebox import __version__
from farebox.events.admit import DEFAULT_TIME_POLICY, TimePolicy
from farebox.events.limits import DEFAULT_LIMITS, Limits
from farebox.http.cover_memory import CoverMemory
from farebox.intake.intake import Intake
from farebox.postgres.session import Pool


@dataclass(frozen=True, slots=True)
class Settings:
    """What the person who runs the server chose."""

    time_policy: TimePolicy = DEFAULT_TIME_POLICY
    limits: Limits = DEFAULT_LIMITS
    version: str = __version__
    webhook_private_addresses: bool = False


@dataclass(frozen=True, slots=True)
class State:
    """Made once at the start; a route asks for it as its parameter `farebox`.

    clock: the time in UTC. new_id: a fresh uuidv7. random_bytes: as many as asked, unpredictable.
    """

    pool: Pool
    intake: Intake
    clock: Callable[[], datetime]
    new_id: Callable[[], UUID]
    random_bytes: Callable[[int], bytes]
    settings: Settings = field(default_factory=Settings)
    covers: CoverMemory = field(default_factory=CoverMemory)
