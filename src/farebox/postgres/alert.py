"""Alerts: what fires at which pool, and what did before."""

from collections.abc import Sequence
from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from uuid import UUID

import msgspec
from msgspec import Struct
from psycopg import Connection
from psycopg.rows import class_row


class AlertState(StrEnum):
    """Whether an alert fires now."""

    FIRING = "firing"
    CLEARED = "cleared"


class ClearedBy(StrEnum):
    """Why an alert fires no longer: the value is back, a period began, the rule watches no more."""

    VALUE = "value"
    PERIOD = "period"
    RULE = "rule"


class AlertRow(Struct, frozen=True, kw_only=True):
    """An alert as it is stored; the rule as it was when it fired.

    currency: of the pool. sequence: of its ledger, when it fired. period: its own, then.
    """

    alert_id: UUID
    rule_key: str
    rule_name: str
    kind: str
    pool_id: UUID
    pool_key: str
    customer_key: str | None
    unit: str
    currency: str | None = None
    threshold: Decimal
    value: Decimal
    sequence: int
    period: int
    fired_at: datetime
    cleared_at: datetime | None = None
    cleared_value: Decimal | None = None
    cleared_by: str | None = None

    @property
    def state(self) -> AlertState:
        return AlertState.FIRING if self.cleared_at is None else AlertState.CLEARED


_COLUMNS = ", ".join(AlertRow.__struct_fields__)
_TYPES = (
    "alert_id uuid, rule_key text, rule_name text, kind text, pool_id uuid, pool_key text,"
    " customer_key text, unit text, currency text, threshold numeric, value numeric,"
    " sequence bigint, period bigint, fired_at timestamptz, cleared_at timestamptz,"
    " cleared_value numeric, cleared_by text"
)


def firing_at(
    connection: Connection, organization_id: UUID, pool_ids: Sequence[UUID]
) -> Sequence[AlertRow]:
    """Return what fires at these pools; who changes it holds the pools' watches."""
    cursor = connection.cursor(row_factory=class_row(AlertRow))
    return cursor.execute(
        f"select {_COLUMNS} from alert where organization_id = %s and pool_id = any(%s)"
        " and cleared_at is null order by pool_id, rule_key",
        (organization_id, list(pool_ids)),
    ).fetchall()


def pools_firing(connection: Connection, organization_id: UUID, rule_key: str) -> list[UUID]:
    """Return the pools at which a rule fires, at most a thousand of them."""
    rows = connection.execute(
        "select pool_id from alert where organization_id = %s and rule_key = %s"
        " and cleared_at is null limit 1000",
        (organization_id, rule_key),
    ).fetchall()
    return [row[0] for row in rows]


def write_alerts(connection: Connection, organization_id: UUID, rows: Sequence[AlertRow]) -> None:
    """Write alerts that are new, and those that cleared."""
    if not rows:
        return
    connection.execute(
        f"insert into alert as a (organization_id, {_COLUMNS})"
        f" select %s, {_COLUMNS} from json_to_recordset(%s::json) as n ({_TYPES})"
        " on conflict (organization_id, alert_id) do update set cleared_at = excluded.cleared_at,"
        "  cleared_value = excluded.cleared_value, cleared_by = excluded.cleared_by"
        " where a.cleared_at is null",
        (organization_id, msgspec.json.encode(rows).decode()),
    )


def find_alert(connection: Connection, organization_id: UUID, alert_id: UUID) -> AlertRow | None:
    cursor = connection.cursor(row_factory=class_row(AlertRow))
    return cursor.execute(
        f"select {_COLUMNS} from alert where organization_id = %s and alert_id = %s",
        (organization_id, alert_id),
    ).fetchone()


def alerts(
    connection: Connection,
    organization_id: UUID,
    *,
    state: AlertState | None = None,
    customer_key: str | None = None,
    pool_id: UUID | None = None,
    rule_key: str | None = None,
    after: tuple[datetime, UUID] | None = None,
    limit: int = 100,
) -> Sequence[AlertRow]:
    """Return alerts, the last to fire first, a page at a time."""
    time, identifier = after or (None, None)
    # Only what is asked for is in the statement, so that each has the index it needs.
    wanted = [
        condition
        for condition, given in (
            ("cleared_at is null", state is AlertState.FIRING),
            ("cleared_at is not null", state is AlertState.CLEARED),
            ("customer_key = %(customer)s", customer_key is not None),
            ("pool_id = %(pool)s", pool_id is not None),
            ("rule_key = %(rule)s", rule_key is not None),
            ("(fired_at, alert_id) < (%(time)s, %(id)s)", time is not None),
        )
        if given
    ]
    cursor = connection.cursor(row_factory=class_row(AlertRow))
    return cursor.execute(
        f"select {_COLUMNS} from alert where"
        f" {' and '.join(['organization_id = %(org)s', *wanted])}"
        " order by fired_at desc, alert_id desc limit %(limit)s",
        {
            "org": organization_id,
            "customer": customer_key,
            "pool": pool_id,
            "rule": rule_key,
            "time": time,
            "id": identifier,
            "limit": limit,
        },
    ).fetchall()
