"""Alert rules as they are stored."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

import msgspec
from msgspec import Struct
from psycopg import Connection

from farebox.alerts.rule import AlertKind, AlertRule


class RuleRow(Struct, frozen=True):
    """A rule and when it was put first and last."""

    rule: AlertRule
    created_at: datetime
    updated_at: datetime


_COLUMNS = (
    "key, name, kind, threshold, clear_at, pool_key, customer_key, window_minutes, units, currency,"
    " enabled, metadata::text, created_at, updated_at"
)


def put_rule(connection: Connection, organization_id: UUID, rule: AlertRule, now: datetime) -> None:
    """Add a rule or change it."""
    connection.execute(
        "insert into alert_rule (organization_id, key, name, kind, threshold, clear_at, pool_key,"
        "  customer_key, window_minutes, units, currency, enabled, metadata, created_at,"
        "  updated_at)"
        " values (%(org)s, %(key)s, %(name)s, %(kind)s, %(threshold)s, %(clear_at)s, %(pool)s,"
        "  %(customer)s, %(window)s, %(units)s, %(currency)s, %(enabled)s, %(metadata)s, %(now)s,"
        "  %(now)s)"
        " on conflict (organization_id, key) do update set name = excluded.name,"
        "  kind = excluded.kind, threshold = excluded.threshold, clear_at = excluded.clear_at,"
        "  pool_key = excluded.pool_key, customer_key = excluded.customer_key,"
        "  window_minutes = excluded.window_minutes, units = excluded.units,"
        "  currency = excluded.currency, enabled = excluded.enabled,"
        "  metadata = excluded.metadata, updated_at = excluded.updated_at",
        {
            "org": organization_id,
            "key": rule.key,
            "name": rule.name,
            "kind": rule.kind,
            "threshold": rule.threshold,
            "clear_at": rule.clear_at,
            "pool": rule.pool,
            "customer": rule.customer,
            "window": rule.window_minutes,
            "units": rule.units,
            "currency": rule.currency,
            "enabled": rule.enabled,
            "metadata": msgspec.json.encode(rule.metadata).decode(),
            "now": now,
        },
    )


def find_rule(connection: Connection, organization_id: UUID, key: str) -> RuleRow | None:
    row = connection.execute(
        f"select {_COLUMNS} from alert_rule where organization_id = %s and key = %s",
        (organization_id, key),
    ).fetchone()
    return None if row is None else _rule_of(row)


def delete_rule(connection: Connection, organization_id: UUID, key: str) -> bool:
    """Delete a rule; False where there is none. What it raised stays."""
    done = connection.execute(
        "delete from alert_rule where organization_id = %s and key = %s", (organization_id, key)
    )
    return done.rowcount > 0


def rules(
    connection: Connection, organization_id: UUID, *, after: str = "", limit: int = 100
) -> Sequence[RuleRow]:
    """Return rules by key, a page at a time."""
    rows = connection.execute(
        f"select {_COLUMNS} from alert_rule where organization_id = %s and key > %s"
        " order by key limit %s",
        (organization_id, after, limit),
    ).fetchall()
    return [_rule_of(row) for row in rows]


def enabled_rules(connection: Connection, organization_id: UUID) -> Sequence[RuleRow]:
    """Return every rule that watches; there are at most a thousand."""
    rows = connection.execute(
        f"select {_COLUMNS} from alert_rule where organization_id = %s and enabled order by key",
        (organization_id,),
    ).fetchall()
    return [_rule_of(row) for row in rows]


def count_rules(connection: Connection, organization_id: UUID) -> int:
    row = connection.execute(
        "select count(*) from alert_rule where organization_id = %s", (organization_id,)
    ).fetchone()
    assert row is not None
    return int(row[0])


def _rule_of(row: tuple[Any, ...]) -> RuleRow:
    rule = AlertRule(
        key=row[0],
        name=row[1],
        kind=AlertKind(row[2]),
        threshold=row[3],
        clear_at=row[4],
        pool=row[5],
        customer=row[6],
        window_minutes=row[7],
        units=row[8],
        currency=row[9],
        enabled=row[10],
        metadata=msgspec.json.decode(row[11], type=dict[str, str]),
    )
    return RuleRow(rule, row[12], row[13])
