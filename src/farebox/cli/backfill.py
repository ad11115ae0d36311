"""`farebox backfill METER`: let a meter read the events that came before it was published."""

import sys

from farebox.catalog.number import plain_text
from farebox.cli.runtime import clock, open_runtime, organization_of
from farebox.cli.settings import Settings
from farebox.flows.backfill_meter import BackfillRefusal, backfill_meter, preview_backfill
from farebox.flows.read_usage import read_meters
from farebox.postgres.session import transaction


def backfill(
    settings: Settings, organization: str, meter: str, version: int | None, preview: bool
) -> int:
    """Backfill, or show what that comes to; returns 2 where it is refused."""
    with open_runtime(settings) as runtime:
        organization_id = organization_of(runtime, organization)
        if version is None:
            with transaction(runtime.pool, organization_id) as connection:
                known = read_meters(connection, organization_id).get(meter)
            version = max(known.versions) if known else 1
        run = preview_backfill if preview else backfill_meter
        found = run(runtime.pool, organization_id, meter, version, clock())
    if isinstance(found, BackfillRefusal):
        print(f"farebox backfill: {found.code}: {found.message}", file=sys.stderr)
        return 2
    print(f"{found.events:,} events looked at, {found.readings:,} readings")
    for code, count in sorted(found.refused.items()):
        print(f"  {count:,} refused: {code}")
    for one in found.customers:
        name = one.customer_key or "(no customer)"
        print(f"  {name}: {one.readings:,} readings, total {one.total}")
    for burn in found.pools:
        print(f"  pool {burn.pool}: {plain_text(burn.units)} units burn")
    if preview:
        print("A preview: usage is as it was.")
    return 0
