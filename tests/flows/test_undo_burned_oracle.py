"""After undos a pool stands where it stands in a world to which the events never came.

Two worlds live through the same weeks: usage in batches, steps of burning, a subject that becomes
a customer's afterwards, new versions of the card, grants and draws. To one of them come also the
batches that are undone.
"""

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

from farebox_burned_shop import brought
from farebox_late_shop import burn_all, meter, put
from farebox_world import World, at
from hypothesis import HealthCheck, given, note, settings
from hypothesis import strategies as st
from msgspec import Struct

from farebox.catalog.plan import Charge, Plan, Rate, RateCard
from farebox.catalog.price import Cell, Matrix, PerUnit
from farebox.flows.burn_usage import burn_usage
from farebox.flows.list_unbilled import all_unbilled
from farebox.flows.read_pool import books_now
from farebox.flows.undo_import import Undone, undo_import
from farebox.flows.verify_ledger import verify_ledger
from farebox.ledger.account import Account
from farebox.ledger.policy import Limit, LimitMode
from farebox.postgres import burn, stream
from farebox.postgres.session import transaction
from farebox.postgres.verify import Finding

SEPTEMBER, OCTOBER = at("2026-09-01"), at("2026-10-01")
OPENED = at("2026-09-03")
STEP = timedelta(hours=7)


class Used(Struct, frozen=True):
    """An event; age: how many hours before it is sent. drawn: it names a draw."""

    subject: str
    model: str
    tokens: int
    age: int
    drawn: bool


class Batch(Struct, frozen=True):
    events: tuple[Used, ...]
    undone: bool


class Burn(Struct, frozen=True):
    """Burn so many percent of the stream."""

    percent: int


class Undo(Struct, frozen=True):
    """Undo the batch that came first of those that are to be undone."""


class Fold(Struct, frozen=True):
    pass


class TakeOver(Struct, frozen=True):
    """The gateway, who was nobody's, was Acme's all along."""


class Reprice(Struct, frozen=True):
    large: int


class Grant(Struct, frozen=True):
    units: int


class Draw(Struct, frozen=True):
    units: int


Action = Batch | Burn | Undo | Fold | TakeOver | Reprice | Grant | Draw

_USED = st.builds(
    Used,
    subject=st.sampled_from(["bot", "app", "gateway"]),
    model=st.sampled_from(["large", "large", "small", "unheard-of"]),
    tokens=st.integers(1, 500),
    age=st.integers(0, 60),
    drawn=st.sampled_from([False] * 9 + [True]),
)
_BATCH = st.builds(
    Batch, events=st.lists(_USED, min_size=1, max_size=6).map(tuple), undone=st.booleans()
)
_ACTIONS: st.SearchStrategy[Action] = st.one_of(
    _BATCH,
    _BATCH,
    st.builds(Burn, st.integers(1, 100)),
    st.builds(Undo),
    st.builds(Fold),
    st.builds(TakeOver),
    st.builds(Reprice, st.integers(1, 9)),
    st.builds(Grant, st.integers(1, 20)),
    st.builds(Draw, st.integers(1, 5)),
)
_LIMITS = {
    "grants": (10**6, Limit()),
    "overdraft": (3, Limit(mode=LimitMode.OVERDRAFT, units=Decimal(10**9))),
    "overage": (3, Limit(mode=LimitMode.OVERAGE, price=Decimal("0.05"))),
}


def card(large: int) -> RateCard:
    cells = (
        Cell(match={"model": "large"}, unit=Decimal(large) / 100),
        Cell(match={"model": "small"}, unit=Decimal("0.0007")),
    )
    price = Matrix(dimensions=("model",), cells=cells)
    rates = (Rate(meter="tokens", price=price),)
    return RateCard(key="credits", currency="credit", custom_unit=True, rates=rates)


class Shop:
    """Acme with its pool, in a world with or without what is undone."""

    def __init__(self, world: World, kind: str, *, whole: bool) -> None:
        self.world, self.whole = world, whole
        self.waiting: list[tuple[UUID, int]] = []
        world.now = SEPTEMBER
        charge = Charge(key="tokens", meter="tokens", price=PerUnit(unit=Decimal("0.01")))
        base = Plan(key="base", currency="USD", charges=(charge,))
        world.publish(meter("tokens", "llm"), base, card(2))
        put(world, "acme", "bot", "app")
        world.subscribe("acme", "base", SEPTEMBER)
        world.now = OPENED
        granted, limit = _LIMITS[kind]
        given: dict[str, Any] = {"customer": "acme", "rate_card": "credits", "limit": limit}
        self.pool = world.pool_of("credits", unit="credit", currency="USD", **given)
        world.grant(self.pool, granted)
        self.draw = world.draw_id(self.pool)

    def live(self, actions: Sequence[Action]) -> None:
        for action in actions:
            self.world.now += STEP
            self._do(action)
        while self.waiting:
            self._do(Undo())
        burn_all(self.world)

    def _do(self, action: Action) -> None:
        world = self.world
        match action:
            case Batch(events, undone):
                if self.whole or not undone:
                    self._send(events, undone=undone)
            case Burn(percent):
                to = self._head() * percent // 100
                burn_usage(world.pool, world.organization_id, world.now, up_to=to)
            case Undo():
                if self.waiting:
                    import_id, count = self.waiting.pop(0)
                    done = undo_import(world.pool, world.organization_id, import_id, world.now)
                    assert isinstance(done, Undone), done
                    assert count == done.events
            case Fold():
                world.fold()
            case TakeOver():
                put(world, "acme", "bot", "app", "gateway")
            case Reprice(large):
                world.publish(card(large))
            case Grant(units):
                world.grant(self.pool, units)
            case Draw(units):
                world.draw(self.pool, units, subject="bot")

    def _send(self, events: Sequence[Used], *, undone: bool) -> None:
        sent = [self._event(one) for one in events]
        if undone:
            self.waiting.append((brought(self.world, *sent), len(events)))
        else:
            self.world.send(*sent)

    def _event(self, one: Used) -> dict[str, Any]:
        time: datetime = self.world.now - timedelta(hours=one.age)
        event = self.world.event("llm", time, one.subject, n=one.tokens, model=one.model)
        return {**event, "fareboxdraw": self.draw} if one.drawn else event

    def _head(self) -> int:
        with transaction(self.world.pool, self.world.organization_id) as connection:
            return stream.read_head(connection, self.world.organization_id).last_sequence

    def stands(self, kind: str) -> dict[str, object]:
        """Return what the pool, the lists and the invoice say."""
        world = self.world
        ids = world.pool, world.organization_id
        with transaction(*ids, snapshot=True) as connection:
            books = books_now(connection, world.organization_id, [self.pool], world.now)
            rows = burn.unburned(connection, world.organization_id)
        faults: list[Finding] = []
        verify_ledger(*ids, faults.append)
        kept = books[self.pool].pool.balances
        grant, owed = kept[Account.GRANT], kept[Account.OVERDRAFT] + kept[Account.OVERAGE]
        found: dict[str, object] = {
            "used": kept[Account.USED],
            # Overage that other usage took meanwhile stays overage.
            "grants": (grant, owed) if kind != "overage" else grant + owed,
            "unburned": sorted((row.dimensions, row.events, row.quantity) for row in rows),
            "faults": faults,
        }
        listed = all_unbilled(*ids, SEPTEMBER, OCTOBER)
        found["unbilled"] = sorted(
            (one.reason, one.events, one.quantity) for one in listed if one.pool is None
        )
        world.now = OCTOBER + timedelta(days=1)
        world.bill(world.now)
        found["billed"] = [
            [(line.kind, line.quantity, line.amount) for line in world.lines(row)]
            for row in world.invoices()
            if row.kind == "period"
        ]
        return found


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.lists(_ACTIONS, min_size=3, max_size=14), st.sampled_from(sorted(_LIMITS)))
def test_a_pool_stands_where_it_would_had_the_events_never_come(
    new_world: Callable[[], World], actions: list[Action], kind: str
) -> None:
    stood = []
    for whole in (True, False):
        shop = Shop(new_world(), kind, whole=whole)
        shop.live(actions)
        stood.append(shop.stands(kind))
    note(repr(actions))
    assert [] == stood[0]["faults"]
    assert stood[1] == stood[0]
