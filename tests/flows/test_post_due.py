"""What is due is posted by whoever reads, once, however many read at the same time."""

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from decimal import Decimal
from uuid import UUID

from farebox_world import World, at

from farebox.flows.decide_pools import Asked, decide_locked
from farebox.flows.post_due import post_due
from farebox.flows.read_pool import grants_now
from farebox.ledger.command import Answer, Draw, Reserve
from farebox.ledger.grant import GrantStatus
from farebox.postgres.session import transaction


def version(world: World, pool_id: UUID) -> int:
    with transaction(world.pool, world.organization_id) as connection:
        row = connection.execute("select version from pool where pool_id = %s", (pool_id,))
        return int(row.fetchall()[0][0])


def test_many_who_read_at_once_see_the_same_and_one_of_them_posts(world: World) -> None:
    world.now = at("2026-09-01 00:00")
    pool_id = world.pool_of("tokens")
    world.grant(pool_id, 100, expires_at=at("2026-09-01 01:00"))
    world.ask(pool_id, Reserve(amount=Decimal(60), seconds=30))
    world.now = at("2026-09-01 02:00")
    before = version(world, pool_id)
    with ThreadPoolExecutor(8) as threads:
        pages = list(
            threads.map(
                lambda _: grants_now(world.pool, world.organization_id, pool_id, world.now),
                range(24),
            )
        )
    assert before + 1 == version(world, pool_id)
    for page in pages:
        assert [(GrantStatus.CLOSED, Decimal(0), Decimal(0))] == [
            (one.status, one.available, one.held) for one in page
        ]


def test_who_reads_waits_for_who_decides_at_this_moment(world: World) -> None:
    """The decision has posted what was due, so the reader finds nothing left to post."""
    world.now = at("2026-09-01 00:00")
    pool_id = world.pool_of("tokens")
    world.grant(pool_id, 100, expires_at=at("2026-09-01 01:00"))
    world.grant(pool_id, 50)
    world.now = at("2026-09-01 02:00")
    before = version(world, pool_id)
    with ThreadPoolExecutor(1) as threads:
        with transaction(world.pool, world.organization_id) as connection:
            asked = [Asked(pool_id, Draw(amount=Decimal(7)))]
            (answer,), _ = decide_locked(connection, world.organization_id, asked, world.now)
            assert isinstance(answer, Answer)
            reading = threads.submit(
                grants_now, world.pool, world.organization_id, pool_id, world.now
            )
            assert not reading.done()
        page = reading.result(timeout=30)
    assert before + 1 == version(world, pool_id)
    assert [Decimal(43), Decimal(0)] == [one.available for one in page]


def test_a_clock_that_goes_behind_the_pool_posts_nothing(world: World) -> None:
    world.now = at("2026-09-01 00:00")
    pool_id = world.pool_of("tokens")
    world.grant(pool_id, 100, expires_at=at("2026-09-01 01:00"))
    world.draw(pool_id, 1)
    before = version(world, pool_id)
    post_due(world.pool, world.organization_id, [pool_id], world.now - timedelta(hours=1))
    assert before == version(world, pool_id)
