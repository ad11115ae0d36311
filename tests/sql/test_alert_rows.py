"""Alerts in the database: a rule fires once, looking costs what is new, nobody sees another's."""

from collections.abc import Callable
from datetime import timedelta
from decimal import Decimal
from uuid import UUID, uuid4

import psycopg
import pytest
from farebox_ledgers import START, Ask, cost, fill_ledgers
from farebox_pools import Pools

from farebox.alerts.rule import AlertKind, AlertRule
from farebox.flows.put_alert_rule import put_alert_rule
from farebox.flows.watch_pools import watch_all
from farebox.postgres import alert, alert_rule, pool_span, pool_watch, pool_window
from farebox.postgres.alert import AlertRow, AlertState
from farebox.postgres.pool_span import Span
from farebox.postgres.pool_watch import WatchRow
from farebox.postgres.session import Pool, transaction

COUNTS = {"short": 500, "long": 40_000}
NEW = 50
"""How many entries came since the mark."""
ROWS_MORE = 80
"""So many rows more may be read of a long ledger: halvings by time, a page's edge."""

FILL = """
insert into transfer (organization_id, pool_id, sequence, operation, reason, source, target, amount,
  source_after, target_after, available_after, time, grant_number)
select %(org)s, %(pool)s, n, n, 'drawn', 'grant', 'used', 1, 1000 - n, n, abs(n %% 20 - 10),
  %(start)s + n * interval '1 second', 1
from generate_series(2, %(count)s) n;
insert into alert (organization_id, alert_id, rule_key, rule_name, kind, pool_id, pool_key, unit,
  threshold, value, sequence, period, fired_at, cleared_at, cleared_by)
select %(org)s, gen_random_uuid(), 'r' || n, '', 'balance_below', %(pool)s, 'p', 'token', 1, 1,
  1, 1, %(start)s + n * interval '1 second', %(start)s + n * interval '2 seconds', 'value'
from generate_series(1, %(count)s) n;
insert into pool_watch (organization_id, pool_id, sequence, available, bursting, looks, calm_above,
  calm_by) values (%(org)s, %(pool)s, %(count)s - 50, 0, false, 1, 0, %(org)s);
update pool set sequence = %(count)s, used = %(count)s where pool_id = %(pool)s
"""
TABLES = "transfer, pool, pool_grant, alert, pool_watch, refusal"

Question = Callable[[psycopg.Connection, UUID, WatchRow], object]


@pytest.fixture(scope="module")
def ledgers(pool: Pool, owner_url: str) -> Pools:
    """Return an organization with a short and a long ledger and as much history of alerts."""
    organization_id = UUID("01a1fde5-0000-7000-8000-000000000008")
    return fill_ledgers(pool, owner_url, organization_id, COUNTS, FILL, TABLES)


def watch_of(pool_id: UUID, count: int) -> WatchRow:
    return WatchRow(
        pool_id=pool_id,
        sequence=count - NEW,
        available=Decimal(1),
        bursting=True,
        limit_near_period=None,
        overage_period=None,
        looks=1,
        looked_at=START,
        calm_above=None,
        calm_by=None,
    )


def span(watch: WatchRow) -> Span:
    return Span(watch.pool_id, watch.sequence, watch.sequence + NEW)


TEN = Decimal(10)
QUESTIONS: dict[str, Question] = {
    "the pool as it stands": lambda c, org, w: pool_watch.pools_since(c, org, [w], 1000),
    "whether it is calm": lambda c, org, w: pool_watch.calm_pools(c, org, [w.pool_id], NEW, org),
    "a summary": lambda c, org, w: pool_span.summaries(c, org, [span(w)]),
    "crossings": lambda c, org, w: pool_span.balance_points(c, org, span(w), TEN, TEN),
    "grants": lambda c, org, w: pool_span.grant_entries(c, org, span(w)) or True,
    "bursts": lambda c, org, w: pool_span.burst_points(c, org, span(w)),
    "overage": lambda c, org, w: pool_span.first_overage(c, org, span(w), START),
    "what is left": lambda c, org, w: pool_span.available_at(c, org, span(w)),
    "what burned": lambda c, org, w: pool_window.burned(
        c,
        org,
        list(pool_watch.pools_since(c, org, [w], 1000).values()),
        [1, 5],
        START + timedelta(seconds=w.sequence + NEW),
    ),
    "what fires": lambda c, org, w: not alert.firing_at(c, org, [w.pool_id]),
    "what fires anywhere": lambda c, org, w: not alert.alerts(c, org, state=AlertState.FIRING),
    "the latest alerts": lambda c, org, w: alert.alerts(c, org, limit=20),
    "the latest alerts of a pool": lambda c, org, w: alert.alerts(
        c, org, pool_id=w.pool_id, limit=20
    ),
}


@pytest.mark.parametrize("question", QUESTIONS)
def test_a_look_costs_what_is_new_however_long_the_ledger(ledgers: Pools, question: str) -> None:
    def ask(key: str) -> Ask:
        """Ask as of the mark of this ledger; what is empty is no answer either."""
        watch = watch_of(ledgers.ids[key], COUNTS[key])
        return lambda connection, org, _: QUESTIONS[question](connection, org, watch) or None

    short, long = (cost(ledgers, key, ask(key)) for key in ("short", "long"))
    assert long <= short + ROWS_MORE, f"{short} rows of the short ledger, {long} of the long one"
    assert long < COUNTS["short"]


def alert_row(pools: Pools, **fields: object) -> AlertRow:
    values = {
        "alert_id": uuid4(),
        "rule_key": "low",
        "rule_name": "Low",
        "kind": "balance_below",
        "pool_id": pools.ids["tokens"],
        "pool_key": "tokens",
        "customer_key": None,
        "unit": "token",
        "threshold": Decimal("10.000000000000000001"),
        "value": Decimal(9),
        "sequence": 3,
        "period": 0,
        "fired_at": START,
        **fields,
    }
    return AlertRow(**values)  # type: ignore[arg-type]


def write(pools: Pools, *rows: AlertRow) -> None:
    with transaction(pools.pool, pools.organization_id) as connection:
        alert.write_alerts(connection, pools.organization_id, rows)


def test_an_alert_is_kept_as_it_is_and_clears_once(pools: Pools) -> None:
    pools.put("tokens")
    fired = alert_row(pools)
    write(pools, fired)
    cleared = alert_row(
        pools,
        alert_id=fired.alert_id,
        cleared_at=START,
        cleared_value=Decimal(11),
        cleared_by="value",
    )
    write(pools, cleared)
    write(pools, alert_row(pools, alert_id=fired.alert_id, cleared_at=START, cleared_by="rule"))
    with transaction(pools.pool, pools.organization_id) as connection:
        found = alert.find_alert(connection, pools.organization_id, fired.alert_id)
    assert cleared == found


def test_a_rule_cannot_fire_twice_at_a_pool(pools: Pools) -> None:
    pools.put("tokens")
    write(pools, alert_row(pools))
    with pytest.raises(psycopg.errors.UniqueViolation):
        write(pools, alert_row(pools))
    write(pools, alert_row(pools, rule_key="other"))


def test_another_organization_sees_neither_rules_nor_alerts_nor_marks(
    pools: Pools, pool: Pool, new_organization: Callable[[], UUID]
) -> None:
    pools.put("tokens")
    pools.grant("tokens", 5)
    rule = AlertRule(key="low", kind=AlertKind.BALANCE_BELOW, threshold=TEN)
    put_alert_rule(pools.pool, pools.organization_id, rule, pools.now)
    watch_all(pools.pool, pools.organization_id, pools.now)
    tables = ("alert", "alert_rule", "pool_watch")
    assert [1, 1, 1] == [pools.rows(f"select count(*) from {name}")[0][0] for name in tables]
    other = Pools(pool, new_organization(), pools.now)
    assert [0, 0, 0] == [other.rows(f"select count(*) from {name}")[0][0] for name in tables]
    with transaction(pool, other.organization_id) as connection:
        assert [] == alert_rule.enabled_rules(connection, pools.organization_id)
        assert [] == alert.alerts(connection, pools.organization_id)
        assert [] == pool_watch.lock_watches(
            connection, pools.organization_id, [pools.ids["tokens"]]
        )


def test_a_rule_comes_back_as_it_was_put(pools: Pools) -> None:
    pools.put("tokens")
    rule = AlertRule(
        key="wasted",
        name="Going to waste",
        kind=AlertKind.GRANT_EXPIRES_WITHIN,
        threshold=Decimal("12.5"),
        clear_at=Decimal(13),
        pool="tokens",
        units=Decimal("0.000000000000000001"),
        enabled=False,
        metadata={"team": "growth"},
    )
    with transaction(pools.pool, pools.organization_id) as connection:
        alert_rule.put_rule(connection, pools.organization_id, rule, START)
        row = alert_rule.find_rule(connection, pools.organization_id, "wasted")
    assert row is not None
    assert rule == row.rule
