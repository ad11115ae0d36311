"""To find the draw of an old event costs as much however long its pool has been used since."""

from datetime import timedelta
from uuid import UUID

import pytest
from farebox_ledgers import START, cost, fill_ledgers
from psycopg import Connection

from farebox.postgres import burn_place
from farebox.postgres.burn_place import MeteredDraw, metered_draws
from farebox.postgres.session import Pool

OLD, NEW = 400, 40_000
ROWS_MORE = 40
"""So many rows more a halving by time may read."""
FILL = """
insert into transfer (organization_id, pool_id, sequence, operation, reason, source, target, amount,
  source_after, target_after, available_after, time, subject, note)
select %(org)s, %(pool)s, n + 1, n + 1, 'metered', 'grant', 'used', 1, 0, 0, 0,
  %(start)s + n * interval '1 minute', 's' || n %% 10,
  json_build_object('first_sequence', n * 10, 'last_sequence', n * 10 + 9, 'uses', '[]'::json)
from generate_series(1, %(count)s) n;
update pool set sequence = %(count)s + 1 where pool_id = %(pool)s
"""


def test_an_old_draw_is_found_in_a_long_ledger_as_in_a_short_one(
    pool: Pool, owner_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(burn_place, "ENTRIES_SEEN", 100)
    organization_id = UUID("01a1fde5-0000-7000-8000-0000000000b1")
    counts = {"short": OLD, "long": NEW}
    ledgers = fill_ledgers(pool, owner_url, organization_id, counts, FILL, "transfer, pool")
    since = START + timedelta(minutes=20)

    def ask(connection: Connection, organization: UUID, one: UUID) -> list[MeteredDraw]:
        found = metered_draws(connection, organization, one, "s3", 235, since)
        assert [24] == [draw.operation for draw in found]
        return found

    short, long = (cost(ledgers, key, ask) for key in counts)
    assert long <= short + ROWS_MORE, f"{short} rows of the short ledger, {long} of the long one"
