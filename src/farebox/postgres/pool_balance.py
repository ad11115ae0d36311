"""What a pool stands at, from its row alone: cheap to ask for several times a second."""

from collections.abc import Sequence
from datetime import datetime
from decimal import Decimal
from uuid import UUID

import msgspec
from msgspec import Struct
from psycopg import Connection

from farebox.ledger.policy import Refill
from farebox.ledger.pool import Counters

_COLUMNS = (
    "p.pool_id, p.key, p.unit, p.timezone, p.opened_at, p.version, p.granted, p.held, p.used,"
    " p.overdraft, p.overage, p.burst, p.counters::text, p.as_of, p.next_due,"
    " p.definition -> 'policy' ->> 'refill'"
)


class BalanceRow(Struct, frozen=True, kw_only=True):
    """A pool's row; what fell due since `as_of` is not in it yet where `next_due` is past.

    overdraft, overage, burst: what is owed, as positive numbers. refill: how units flow in, if so.
    """

    pool_id: UUID
    key: str
    unit: str
    timezone: str
    opened_at: datetime
    version: int
    available: Decimal
    held: Decimal
    used: Decimal
    overdraft: Decimal
    overage: Decimal
    burst: Decimal
    counters: Counters
    as_of: datetime
    next_due: datetime | None
    refill: Refill | None

    def is_behind(self, now: datetime) -> bool:
        """Whether something happened by itself that the row does not tell yet."""
        return self.refill is not None or (self.next_due is not None and self.next_due <= now)


def find_balance(connection: Connection, organization_id: UUID, pool_id: UUID) -> BalanceRow | None:
    """Return what a pool stands at."""
    row = connection.execute(
        f"select {_COLUMNS} from pool p where p.organization_id = %s and p.pool_id = %s",
        (organization_id, pool_id),
    ).fetchone()
    return None if row is None else _row(row)


def moved_balances(
    connection: Connection,
    organization_id: UUID,
    known: Sequence[tuple[UUID, int]],
    now: datetime,
) -> list[BalanceRow]:
    """Return pools that do not stand at the version that is known of them, or are behind."""
    rows = connection.execute(
        f"select {_COLUMNS} from unnest(%s::uuid[], %s::bigint[]) k(pool_id, version)"
        " join pool p on p.pool_id = k.pool_id"
        " where p.organization_id = %s and (p.version <> k.version or p.next_due <= %s"
        "  or (p.definition -> 'policy' ->> 'refill') is not null)",
        ([one for one, _ in known], [version for _, version in known], organization_id, now),
    ).fetchall()
    return [_row(row) for row in rows]


def _row(row: Sequence[object]) -> BalanceRow:
    values = dict(zip(BalanceRow.__struct_fields__, row, strict=True))
    for name in ("overdraft", "overage", "burst"):
        values[name] = abs(values[name])  # type: ignore[arg-type]
    if values["refill"] is not None:
        values["refill"] = msgspec.json.decode(str(values["refill"]), type=Refill)
    values["counters"] = msgspec.json.decode(str(values["counters"]), type=Counters)
    return BalanceRow(**values)  # type: ignore[arg-type]
