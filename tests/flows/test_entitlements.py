"""What customers may use: from plans, add-ons, purchases and overrides, counted by pools."""

from datetime import datetime, timedelta
from decimal import Decimal

import pytest
from farebox_world import World, at, new_id

from farebox.catalog.cover import CoverKind
from farebox.catalog.customer import Subscription
from farebox.catalog.entitled import Entitled, EntitledKind, OriginKind, Override
from farebox.catalog.plan import Entitlement, EntitlementLimit, Feature, Fee, Plan, TopUpOffer
from farebox.flows.buy_access import Bought, buy_access
from farebox.flows.entitle import effective, sync_entitlements
from farebox.flows.put_subscription import PutSubscription, put_subscription
from farebox.flows.read_pool import books_now
from farebox.flows.resolve_feature import Resolved, covers, offers_of, resolve_feature
from farebox.flows.reverse_draw import reverse_draw
from farebox.flows.watch_pools import watch_pools
from farebox.ledger.book import Book
from farebox.ledger.command import Answer
from farebox.ledger.refusal import Refusal, RefusalCode
from farebox.postgres import entitlement
from farebox.postgres.draft import lock_organization
from farebox.postgres.session import transaction
from farebox.worker.sync import sync_due

CALLS = Feature(
    key="calls",
    unit="call",
    top_ups=(TopUpOffer(units=Decimal(500), price=Decimal(5), currency="USD"),),
)


def plan(key: str, fee: int, **entitlement: object) -> Plan:
    return Plan(
        key=key,
        currency="USD",
        fees=(Fee(key="fee", amount=Decimal(fee)),),
        entitlements=(Entitlement(feature="calls", **entitlement),),  # type: ignore[arg-type]
    )


@pytest.fixture
def sold(world: World) -> World:
    world.now = at("2026-09-01 00:00")
    world.publish(
        CALLS,
        Feature(key="sso"),
        Feature(key="region"),
        plan("free", 0, limit=Decimal(1000)),
        plan("pro", 49, limit=Decimal(50_000)),
        plan("enterprise", 900, unlimited=True),
        Plan(
            key="extras",
            currency="USD",
            add_on=True,
            features=("sso",),
            entitlements=(
                Entitlement(feature="calls", limit=Decimal(200)),
                Entitlement(feature="region", value="eu"),
            ),
        ),
    )
    world.customer("acme")
    return world


def put(world: World, plan: str, start: datetime, end: datetime | None = None) -> None:
    subscription = Subscription(
        key=f"acme-{plan}", customer="acme", plan=plan, start=start, end=end
    )
    done = put_subscription(world.pool, world.organization_id, subscription, world.now, new_id)
    assert isinstance(done, PutSubscription), done


def entitled(world: World, feature: str, subject: str | None = None) -> Entitled | None:
    with transaction(world.pool, world.organization_id) as connection:
        found = effective(connection, world.organization_id, "acme", world.now, subject)
    return found.get(feature)


def resolved(
    world: World, feature: str = "calls", subject: str | None = None
) -> Resolved | Refusal:
    return resolve_feature(
        world.pool, world.organization_id, feature, "acme", subject, world.now, new_id
    ).outcome


def book(world: World) -> Book:
    found = resolved(world)
    assert isinstance(found, Resolved)
    assert found.pool_id is not None
    with transaction(world.pool, world.organization_id, snapshot=True) as connection:
        return books_now(connection, world.organization_id, [found.pool_id], world.now)[
            found.pool_id
        ]


def use(world: World, amount: int) -> Answer | Refusal:
    found = resolved(world)
    assert isinstance(found, Resolved)
    assert found.pool_id is not None
    return world.draw(found.pool_id, amount)


def test_free_has_its_thousand_calls_each_period_and_then_no_more(sold: World) -> None:
    put(sold, "free", sold.now)
    assert isinstance(use(sold, 999), Answer)
    refused = use(sold, 2)
    assert isinstance(refused, Refusal)
    assert (RefusalCode.INSUFFICIENT_BALANCE, Decimal(1), at("2026-10-01 00:00")) == (
        refused.code,
        refused.left,
        refused.refills_at,
    )
    sold.now = at("2026-10-01 00:00")
    assert Decimal(1000) == book(sold).pool.available
    assert Decimal(0) == book(sold).pool.counters.used


def test_an_upgrade_within_the_period_brings_the_new_limit_at_once(sold: World) -> None:
    put(sold, "free", sold.now)
    use(sold, 1000)
    sold.now = at("2026-09-10 00:00")
    put(sold, "pro", sold.now)
    assert isinstance(use(sold, 40_000), Answer)
    one = entitled(sold, "calls")
    assert one is not None
    assert [("free", Decimal(1000)), ("pro", Decimal(50_000))] == [
        (origin.name, origin.limit) for origin in one.origins
    ]


def test_a_subscription_that_ends_takes_what_is_left_with_it(sold: World) -> None:
    put(sold, "free", sold.now)
    put(sold, "pro", sold.now)
    put(sold, "pro", sold.now, end=at("2026-09-15 12:00"))
    assert Decimal(51_000) == book(sold).pool.available
    sold.now = at("2026-09-15 12:00")
    assert Decimal(1000) == book(sold).pool.available
    sold.now = at("2026-10-01 00:00")
    assert Decimal(1000) == book(sold).pool.available


def test_enterprise_is_counted_and_never_stopped(sold: World) -> None:
    put(sold, "enterprise", sold.now)
    answer = use(sold, 10_000_000)
    assert isinstance(answer, Answer)
    assert not answer.over_limit
    one = entitled(sold, "calls")
    assert one is not None
    assert (EntitledKind.METERED, True) == (one.kind, one.unlimited)
    assert Decimal(10_000_000) == book(sold).pool.counters.used


def test_add_ons_add_to_limits_and_bring_features_and_values(sold: World) -> None:
    put(sold, "free", sold.now)
    put(sold, "extras", sold.now)
    assert Decimal(1200) == book(sold).pool.available
    sso, region = entitled(sold, "sso"), entitled(sold, "region")
    assert sso is not None
    assert region is not None
    assert (EntitledKind.BOOLEAN, True) == (sso.kind, sso.enabled)
    assert (EntitledKind.STATIC, "eu") == (region.kind, region.value)
    assert OriginKind.ADD_ON is region.origins[0].kind
    found = resolved(sold, "sso")
    assert isinstance(found, Resolved)
    assert found.pool_id is None


def override(world: World, given: Override | None) -> None:
    with transaction(world.pool, world.organization_id) as connection:
        organization_id = world.organization_id
        lock_organization(connection, organization_id)
        if given is None:
            entitlement.drop_override(connection, organization_id, "acme", "calls")
        else:
            entitlement.put_override(connection, organization_id, "acme", "calls", given, world.now)
        sync_entitlements(connection, organization_id, "acme", world.now, new_id)


def test_an_override_goes_before_all_plans_until_it_is_taken_away(sold: World) -> None:
    put(sold, "free", sold.now)
    override(sold, Override(limit=Decimal(7), reason="pilot"))
    assert Decimal(7) == book(sold).pool.available
    override(sold, Override(enabled=False))
    refused = resolved(sold)
    assert isinstance(refused, Refusal)
    assert RefusalCode.FEATURE_NOT_ENTITLED is refused.code
    override(sold, None)
    assert Decimal(1000) == book(sold).pool.available


def test_an_override_ends_by_itself(sold: World) -> None:
    put(sold, "free", sold.now)
    override(sold, Override(unlimited=True, ends_at=at("2026-09-02 00:00")))
    assert isinstance(use(sold, 5000), Answer)
    sold.now = at("2026-09-02 00:00")
    with transaction(sold.pool, sold.organization_id) as connection:
        lock_organization(connection, sold.organization_id)
        sync_entitlements(connection, sold.organization_id, "acme", sold.now, new_id)
    assert isinstance(use(sold, 2000), Refusal)


def test_nothing_entitles_to_what_was_not_sold(sold: World) -> None:
    refused = resolved(sold)
    assert isinstance(refused, Refusal)
    assert RefusalCode.FEATURE_NOT_ENTITLED is refused.code
    unknown = resolve_feature(
        sold.pool, sold.organization_id, "calls", "nobody", None, sold.now, new_id
    ).outcome
    assert isinstance(unknown, Refusal)
    assert RefusalCode.CUSTOMER_UNKNOWN is unknown.code


def test_syncing_again_changes_nothing(sold: World) -> None:
    put(sold, "free", sold.now)
    use(sold, 10)
    before = book(sold).pool.sequence
    with transaction(sold.pool, sold.organization_id) as connection:
        lock_organization(connection, sold.organization_id)
        for _ in range(3):
            sync_entitlements(connection, sold.organization_id, "acme", sold.now, new_id)
    assert before == book(sold).pool.sequence


def test_what_would_cover_is_the_cheapest_plan_or_top_up(sold: World) -> None:
    put(sold, "free", sold.now)
    use(sold, 1000)
    with transaction(sold.pool, sold.organization_id) as connection:
        offers = offers_of(connection, sold.organization_id, "calls")
    assert offers is not None
    few = covers(offers, Decimal(100), Decimal(0), Decimal(1000), "USD")
    assert [
        (CoverKind.TOP_UP, "calls", Decimal(5), Decimal(500)),
        (CoverKind.PLAN, "pro", Decimal(49), Decimal(50_000)),
    ] == [(one.kind, one.key, one.price, one.units) for one in few]
    many = covers(offers, Decimal(60_000), Decimal(0), Decimal(1000), "USD")
    assert [
        (CoverKind.PLAN, "enterprise", Decimal(900)),
        (CoverKind.TOP_UP, "calls", Decimal(600)),
    ][::-1] == [(one.kind, one.key, one.price) for one in many]
    assert [] == covers(offers, Decimal(1), Decimal(0), Decimal(0), "EUR")


def test_overage_of_an_entitlement_stands_on_the_subscriptions_invoice(sold: World) -> None:
    sold.publish(
        plan(
            "flex",
            10,
            limit=Decimal(100),
            beyond=EntitlementLimit.OVERAGE,
            price=Decimal("0.02"),
        )
    )
    put(sold, "flex", sold.now)
    use(sold, 150)
    sold.now = at("2026-10-02 00:00")
    sold.bill(sold.now)
    (row,) = [one for one in sold.invoices() if one.kind == "period"]
    assert [("overage", Decimal(50), Decimal("1.00"))] == [
        (line.kind, line.quantity, line.amount)
        for line in sold.lines(row)
        if line.kind == "overage"
    ]


def test_units_buy_a_feature_for_a_term_and_taking_them_back_takes_it_back(sold: World) -> None:
    pool = sold.pool_of("coins", customer="acme")
    sold.grant(pool, 50)
    bought = []
    for _ in range(2):
        with transaction(sold.pool, sold.organization_id) as connection:
            done = buy_access(
                connection,
                sold.organization_id,
                pool,
                "acme",
                "sso",
                Decimal(20),
                3600,
                sold.now,
                new_id(),
                subject="ada",
            )
        assert isinstance(done, Bought)
        bought.append(done)
    one = entitled(sold, "sso", "ada")
    assert one is not None
    assert one.enabled
    assert entitled(sold, "sso") is None
    for done in bought:
        with transaction(sold.pool, sold.organization_id) as connection:
            back = reverse_draw(
                connection,
                sold.organization_id,
                pool,
                done.answer.operation,
                None,
                sold.now + timedelta(minutes=1),
            )
        assert isinstance(back, Answer)
    assert entitled(sold, "sso", "ada") is None


def test_access_is_over_when_its_term_is(sold: World) -> None:
    pool = sold.pool_of("coins", customer="acme")
    sold.grant(pool, 50)
    with transaction(sold.pool, sold.organization_id) as connection:
        buy_access(
            connection,
            sold.organization_id,
            pool,
            "acme",
            "sso",
            Decimal(20),
            3600,
            sold.now,
            new_id(),
        )
    sold.now += timedelta(seconds=3599)
    assert entitled(sold, "sso") is not None
    sold.now += timedelta(seconds=1)
    assert entitled(sold, "sso") is None


def test_too_few_units_buy_nothing(sold: World) -> None:
    pool = sold.pool_of("coins", customer="acme")
    with transaction(sold.pool, sold.organization_id) as connection:
        refused = buy_access(
            connection,
            sold.organization_id,
            pool,
            "acme",
            "sso",
            Decimal(20),
            3600,
            sold.now,
            new_id(),
        )
    assert isinstance(refused, Refusal)
    assert entitled(sold, "sso") is None


def test_what_begins_and_ends_by_itself_is_synced(sold: World) -> None:
    put(sold, "free", sold.now)
    put(sold, "pro", at("2026-09-20 00:00"), end=at("2026-09-25 00:00"))
    assert Decimal(1000) == book(sold).pool.available
    sold.now = at("2026-09-20 00:30")
    sync_due(sold.pool, sold.now, timedelta(hours=1), new_id)
    sync_due(sold.pool, sold.now, timedelta(hours=1), new_id)
    assert Decimal(51_000) == book(sold).pool.available
    sold.now = at("2026-09-25 00:30")
    assert Decimal(1000) == book(sold).pool.available
    sync_due(sold.pool, sold.now, timedelta(hours=1), new_id)
    assert Decimal(1000) == book(sold).pool.available


def test_who_nears_a_limit_is_told_what_would_cover_more(sold: World) -> None:
    put(sold, "free", sold.now)
    use(sold, 799)
    pool_id = resolved(sold)
    assert isinstance(pool_id, Resolved)
    assert pool_id.pool_id is not None
    watch_pools(sold.pool, sold.organization_id, [pool_id.pool_id], sold.now)
    use(sold, 1)
    for _ in range(2):
        watch_pools(sold.pool, sold.organization_id, [pool_id.pool_id], sold.now)
    with transaction(sold.pool, sold.organization_id) as connection:
        rows = connection.execute(
            "select type, data from notice where type like '%limit_near'"
        ).fetchall()
    ((kind, data),) = rows
    assert ("entitlement.limit_near", "calls", "acme") == (kind, data["feature"], data["customer"])
    assert [("top_up", "5"), ("plan", "49")] == [
        (one["kind"], one["price"]) for one in data["help"]
    ]


def test_who_has_an_override_is_told_of_no_plan_that_it_goes_before(sold: World) -> None:
    put(sold, "free", sold.now)
    override(sold, Override(limit=Decimal(10)))
    use(sold, 8)
    found = resolved(sold)
    assert isinstance(found, Resolved)
    assert found.pool_id is not None
    watch_pools(sold.pool, sold.organization_id, [found.pool_id], sold.now)
    with transaction(sold.pool, sold.organization_id) as connection:
        rows = connection.execute(
            "select data from notice where type = 'entitlement.limit_near'"
        ).fetchall()
    ((data,),) = rows
    assert ["top_up"] == [one["kind"] for one in data["help"]]
