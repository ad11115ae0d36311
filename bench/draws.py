"""Live draws over HTTP against what PostgreSQL does by itself with a transaction a request."""

import re
import statistics
import subprocess
import time
from datetime import datetime
from decimal import Decimal
from typing import Any

from bench.draw_requests import REFUSED_EVERY, Draws, pool_key
from bench.installation import Installation, Organization
from bench.senders import Order, Senders, Sent, percentile, single_senders
from farebox.cli.runtime import clock, new_id
from farebox.flows.grant_units import grant_units
from farebox.flows.put_pool import put_pool
from farebox.ledger.administer import NewGrant
from farebox.ledger.pool import PoolDefinition
from farebox.ledger.refusal import Refusal
from farebox.postgres.session import transaction

ROUNDS = 5
PACED_ROUNDS = 3
CONNECTIONS = 64
CLIENTS = 8
SECONDS = 5
MANY_POOLS = 10_000
WARM_UP_A_POOL = 5
FOLLOWED_SECONDS = 300
AUTHORIZE = "/v1/authorize"
_UNITS = Decimal(10) ** 12

_TABLES = """
drop table if exists bench_balance, bench_draw;
create table bench_balance (pool_id integer primary key, balance numeric not null);
create table bench_draw (draw_id bigint generated always as identity primary key,
  pool_id integer not null, amount numeric not null, key text not null unique,
  time timestamptz not null default now());
insert into bench_balance values (1, 1e15);
"""
_SCRIPT = """\\set amount random(1, 9)
begin;
update bench_balance set balance = balance - :amount where pool_id = 1 and balance >= :amount;
insert into bench_draw (pool_id, amount, key) values (1, :amount, gen_random_uuid()::text);
end;
"""


def measure_draws(
    one: Installation, organization: Organization, seed: int, count: int
) -> dict[str, Any]:
    """Return draws a second on one pool, against pgbench and over 10,000 pools, in turn."""
    hot, spread = Draws(1, f"hot{seed}"), Draws(MANY_POOLS, f"spread{seed}")
    for draws in (hot, spread):
        _open_pools(one, organization, draws)
    with one.owner() as owner:
        owner.execute(_TABLES.encode())
    _wait_for_followers(one)
    plain: list[float] = []
    rates: dict[str, list[float]] = {"hot": [], "spread": []}
    with single_senders() as senders:
        for number in range(ROUNDS + 1):
            plain.append(_pgbench(one))
            for name, draws in (("hot", hot), ("spread", spread)):
                # The first round, which is not counted, is so long that every pool is drawn from.
                asked = count if number else max(count, WARM_UP_A_POOL * draws.pools)
                order = _order(one, organization, draws, seed, f"{name}{number}", asked)
                rates[name].append(asked / _send(senders, order).seconds)
        rate = statistics.median(rates["hot"][1:])
        paced = [
            _order(one, organization, hot, seed, f"paced{number}", count, rate / 2)
            for number in range(PACED_ROUNDS)
        ]
        _wait_for_followers(one)
        latencies = [_send(senders, order).latencies for order in paced]
    late = [1000 * percentile(each, 99) for each in latencies]
    baseline = statistics.median(plain[1:])
    return {
        "hot_vs_pgbench": rate / baseline,
        "spread_vs_hot": statistics.median(rates["spread"][1:]) / rate,
        "p99_ms": statistics.median(late),
        "p50_ms": statistics.median([1000 * percentile(each, 50) for each in latencies]),
        "hot_per_second": rate,
        "spread_per_second": statistics.median(rates["spread"][1:]),
        "spread_vs_pgbench": statistics.median(rates["spread"][1:]) / baseline,
        "first_round_spread": rates["spread"][0],
        "pgbench_per_second": baseline,
        "rounds_hot": rates["hot"][1:],
        "rounds_spread": rates["spread"][1:],
        "rounds_pgbench": plain[1:],
        "rounds_p99_ms": late,
        "connections": CONNECTIONS,
        "pgbench_clients": CLIENTS,
        "refused_share": 1 / REFUSED_EVERY,
        "requests_a_round": count,
    }


def _order(
    one: Installation,
    organization: Organization,
    draws: Draws,
    seed: int,
    run: str,
    count: int,
    rate: float | None = None,
) -> Order:
    target = one.target(organization)
    return Order(target, AUTHORIZE, CONNECTIONS, count, seed, run, rate, draws)


def _send(senders: Senders, order: Order) -> Sent:
    senders.prepare(order)
    sent = senders.send()
    refused = -(-order.count // REFUSED_EVERY)
    assert sent.statuses == {200: order.count - refused, 402: refused}, sent.statuses
    return sent


def _open_pools(one: Installation, organization: Organization, draws: Draws) -> None:
    pool, organization_id, now = one.runtime.pool, organization.organization_id, clock()
    for number in range(draws.pools):
        definition = PoolDefinition(key=pool_key(draws, number), unit="token")
        opened = put_pool(pool, organization_id, definition, now, new_id())
        assert not isinstance(opened, (list, Refusal))
        _grant(one, organization, opened.pool_id, now)


def _wait_for_followers(one: Installation) -> None:
    """Wait until all that was asked before is told and added up, too."""
    ends = time.monotonic() + FOLLOWED_SECONDS
    with one.owner() as owner:
        while owner.execute("select 1 from pool_touched limit 1").fetchone() is not None:
            assert time.monotonic() < ends, "the new pools were not followed"
            time.sleep(0.5)


def _grant(one: Installation, organization: Organization, pool_id: Any, now: datetime) -> None:
    with transaction(one.runtime.pool, organization.organization_id) as connection:
        asked = NewGrant(amount=_UNITS)
        done = grant_units(connection, organization.organization_id, pool_id, asked, now)
        assert not isinstance(done, Refusal)


def _pgbench(one: Installation) -> float:
    """Return transactions a second: an update that checks the balance, and an insert."""
    script = one.data / "draw.sql"
    script.write_text(_SCRIPT)
    options = ("-n", "-M", "prepared", "-c", str(CLIENTS), "-j", "1")
    found = subprocess.run(
        one.pgbench(*options, "-T", str(SECONDS), "-f", str(script)),
        check=True,
        capture_output=True,
        text=True,
    )
    tps = re.search(r"tps = ([\d.]+)", found.stdout)
    assert tps is not None, found.stdout
    return float(tps[1])
