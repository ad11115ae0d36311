"""Draws that events name: their ids are read alike in the database, and whom they pay for soon."""

import random
from collections.abc import Callable
from uuid import UUID

import psycopg
import pytest
from farebox_pools import Pools

from farebox.access.id import Prefix, decode_numbered, encode_id, encode_numbered
from farebox.postgres.session import Pool, bound, transaction


def pools_read(pool: Pool, organization_id: UUID, texts: list[str]) -> list[UUID | None]:
    with transaction(pool, organization_id) as connection:
        rows = connection.execute(
            "select draw_pool(t) from unnest(%s::text[]) with ordinality u(t, n) order by n",
            (texts,),
        ).fetchall()
    return [row[0] for row in rows]


def test_the_database_reads_the_pool_of_a_draw_as_the_server_writes_it(
    pool: Pool, new_organization: Callable[[], UUID]
) -> None:
    chance = random.Random(1)
    known = [UUID(int=0), UUID(int=(1 << 128) - 1), UUID(int=1 << 63), UUID(int=1 << 64)]
    known += [UUID(int=chance.getrandbits(128)) for _ in range(500)]
    texts = [encode_numbered(Prefix.DRAW, one, at + 1) for at, one in enumerate(known)]
    assert known == pools_read(pool, new_organization(), texts)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "drw_1",
        "not a draw",
        encode_id(Prefix.HOLD, UUID(int=5)) + "_1",
        encode_id(Prefix.DRAW, UUID(int=5)).upper() + "_1",
        encode_id(Prefix.DRAW, UUID(int=5)) + "_",
        encode_id(Prefix.DRAW, UUID(int=5)) + "_1x",
        encode_id(Prefix.DRAW, UUID(int=5)) + "_" + "9" * 19,
        encode_id(Prefix.DRAW, UUID(int=5)).replace("0", "o"),
        encode_id(Prefix.DRAW, UUID(int=5)).replace("drw_0", "drw_8") + "_1",
        encode_id(Prefix.DRAW, UUID(int=5)) + "_1\n",
    ],
)
def test_any_other_text_is_no_draw(
    pool: Pool, new_organization: Callable[[], UUID], text: str
) -> None:
    assert None is decode_numbered(Prefix.DRAW, text)
    assert [None] == pools_read(pool, new_organization(), [text])


def test_who_is_above_is_looked_up_also_after_it_was_planned_for_whole_sets(
    pools: Pools, owner_url: str
) -> None:
    """As an undo plans it; a connection keeps such a plan for what comes after."""
    family = pools.put("family")
    organization_id = pools.organization_id
    with psycopg.connect(owner_url) as owner:
        owner.execute(
            "insert into customer (organization_id, key, customer_id, name, timezone, definition,"
            " created_at, updated_at)"
            " select %s, 'c' || n, gen_random_uuid(), '', 'UTC', '{}', now(), now()"
            " from generate_series(1, 5000) n",
            (organization_id,),
        )
        owner.execute(
            "insert into customer_parent select %s, 'c' || n, 'c1', '2020-01-01', null"
            " from generate_series(2, 5000) n",
            (organization_id,),
        )
        owner.execute("update pool set customer_key = 'c1' where pool_id = %s", (family,))
        owner.execute(
            "insert into pool_children values (%s, %s, '2020-01-01', true)",
            (organization_id, family),
        )
        owner.execute("analyze customer_parent, pool_children, pool")
    with pools.pool.connection() as connection, bound(connection, organization_id):
        asked = "select pool_pays(%s, %s, 'c5000', '', '2026-10-02')", (organization_id, family)
        connection.execute("discard plans")
        connection.execute("set local enable_nestloop = off")
        assert [(True,)] * 8 == [connection.execute(*asked).fetchone() for _ in range(8)]
        connection.execute("set local enable_nestloop = on")
        before = rows_read(connection)
        assert (True,) == connection.execute(*asked).fetchone()
        assert rows_read(connection) - before < 20


def rows_read(connection: psycopg.Connection) -> int:
    """Return how many rows were read, by index or without."""
    row = connection.execute(
        "select sum(seq_tup_read + coalesce(idx_tup_fetch, 0))::bigint"
        " from pg_stat_xact_user_tables"
    ).fetchone()
    assert row is not None
    return int(row[0])
