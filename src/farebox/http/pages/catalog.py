"""Meters, rate cards and plans: what is published, in which versions, and since when."""

from collections.abc import Callable
from datetime import datetime
from typing import Any, TypeVar

import msgspec
import yaml
from litestar import get
from msgspec import Struct

from farebox.catalog.meter import Meter
from farebox.catalog.plan import Plan, RateCard
from farebox.catalog.price import Price
from farebox.http.pages.page import Page, PageRequest, Viewer, missing, render
from farebox.http.pages.price_view import PriceTable, price_table
from farebox.http.state import State
from farebox.postgres import catalog
from farebox.postgres.catalog import Kind, Version
from farebox.postgres.session import transaction

ROWS_MAX = 40
Definition = TypeVar("Definition", Meter, RateCard, Plan)


class Defined(Struct, frozen=True):
    """A published version with what it says."""

    version: Version
    definition: Meter | RateCard | Plan


class PriceView(Struct, frozen=True):
    """A price on a page: `rows` is a part of its table where it has too many; `yaml` is all."""

    meter: str
    name: str
    table: PriceTable
    rows: tuple[tuple[str, ...], ...]
    hidden: int
    yaml: str


@get("/meters", sync_to_thread=True)
def meter_list(request: PageRequest, farebox: State, viewer: Viewer) -> Page:
    return _list(request, farebox, viewer, Kind.METER, "meters.html")


@get("/rate-cards", sync_to_thread=True)
def rate_card_list(request: PageRequest, farebox: State, viewer: Viewer) -> Page:
    return _list(request, farebox, viewer, Kind.RATE_CARD, "rate_cards.html")


@get("/plans", sync_to_thread=True)
def plan_list(request: PageRequest, farebox: State, viewer: Viewer) -> Page:
    return _list(request, farebox, viewer, Kind.PLAN, "plans.html")


@get("/meters/{key:str}", sync_to_thread=True)
def meter_page(
    request: PageRequest, farebox: State, viewer: Viewer, key: str, version: int = 0
) -> Page:
    return _page(request, farebox, viewer, (Kind.METER, key, version), "meter.html", _no_prices)


@get("/rate-cards/{key:str}", sync_to_thread=True)
def rate_card_page(
    request: PageRequest, farebox: State, viewer: Viewer, key: str, version: int = 0, q: str = ""
) -> Page:
    def prices(definition: Meter | RateCard | Plan) -> list[PriceView]:
        assert isinstance(definition, RateCard)
        return [
            price_view(rate.meter, rate.meter, rate.price, definition.currency, q.strip())
            for rate in definition.rates
        ]

    wanted = (Kind.RATE_CARD, key, version)
    return _page(request, farebox, viewer, wanted, "rate_card.html", prices, search=q.strip())


@get("/plans/{key:str}", sync_to_thread=True)
def plan_page(
    request: PageRequest, farebox: State, viewer: Viewer, key: str, version: int = 0
) -> Page:
    def prices(definition: Meter | RateCard | Plan) -> list[PriceView]:
        assert isinstance(definition, Plan)
        return [
            price_view(charge.meter, charge.name or charge.key, charge.price, definition.currency)
            for charge in definition.charges
            if charge.price is not None
        ]

    return _page(request, farebox, viewer, (Kind.PLAN, key, version), "plan.html", prices)


def price_view(meter: str, name: str, price: Price, currency: str, search: str = "") -> PriceView:
    """Return a price with the rows that hold `search`, at most `ROWS_MAX` of them."""
    table = price_table(price, currency)
    wanted = search.casefold()
    rows = [row for row in table.rows if wanted in " ".join(row).casefold()]
    short = len(table.rows) <= ROWS_MAX
    text = yaml.safe_dump(_said(msgspec.to_builtins(price)), sort_keys=False) if short else ""
    return PriceView(meter, name, table, tuple(rows[:ROWS_MAX]), max(0, len(rows) - ROWS_MAX), text)


def _said(value: Any) -> Any:
    """Leave out what a price does not say."""
    if isinstance(value, dict):
        return {key: _said(item) for key, item in value.items() if item is not None}
    return [_said(item) for item in value] if isinstance(value, list | tuple) else value


def _no_prices(_: Meter | RateCard | Plan) -> list[PriceView]:
    return []


_TYPES: dict[Kind, type[Meter] | type[RateCard] | type[Plan]] = {
    Kind.METER: Meter,
    Kind.RATE_CARD: RateCard,
    Kind.PLAN: Plan,
}


def _list(request: PageRequest, farebox: State, viewer: Viewer, kind: Kind, template: str) -> Page:
    with transaction(farebox.pool, viewer.organization_id, snapshot=True) as connection:
        versions = catalog.versions(connection, viewer.organization_id, kind)
    latest = {version.key: _defined(version) for version in versions}
    return render(
        request, template, viewer=viewer, items=list(latest.values()), now=farebox.clock()
    )


def _page(
    request: PageRequest,
    farebox: State,
    viewer: Viewer,
    wanted: tuple[Kind, str, int],
    template: str,
    prices: Callable[[Meter | RateCard | Plan], list[PriceView]],
    search: str = "",
) -> Page:
    """Render one version, the latest unless another is asked for, beside the list of all."""
    kind, key, number = wanted
    with transaction(farebox.pool, viewer.organization_id, snapshot=True) as connection:
        versions = catalog.versions(connection, viewer.organization_id, kind, key.replace("\0", ""))
    if not versions or not 0 <= number <= len(versions):
        raise missing(f"{kind.value.replace('_', ' ')} with this key and version")
    shown = _defined(versions[number - 1] if number else versions[-1])
    now = farebox.clock()
    return render(
        request,
        template,
        viewer=viewer,
        shown=shown,
        versions=versions[::-1],
        in_force=_in_force(versions, now),
        prices=prices(shown.definition),
        now=now,
        search=search,
    )


def _in_force(versions: list[Version], now: datetime) -> int:
    """Return the number of the version whose time it is; 0 before all of them."""
    begun = [version for version in versions if version.effective_from <= now]
    return max(begun, key=lambda one: (one.effective_from, one.version)).version if begun else 0


def _defined(version: Version) -> Defined:
    definition = msgspec.json.decode(version.definition, type=_TYPES[version.kind])
    return Defined(version, definition)
