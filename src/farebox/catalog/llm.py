"""The preset for language models: three meters, and rate cards at the providers' list prices.

It reads events of type `llm.request` whose data hold `model`, `operation` and the tokens of one
request, none of them counted in two fields:

- `input_tokens`: prompt tokens that were neither read from nor written to a cache,
- `cached_input_tokens`: prompt tokens read from the provider's cache,
- `cache_write_input_tokens`: prompt tokens written to it,
- `output_tokens`: generated tokens, reasoning included,
- `latency_ms`: how long the request took, optional,
- `context`: `over_200000` where the whole prompt is longer than the model's price tier of that
  size, otherwise absent.

Prices come from the snapshot inside the package genai-prices, in USD, with no network. It prices
text tokens at the standard rate: no batch or priority service, no audio, no web searches.
"""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, time
from decimal import Decimal
from enum import StrEnum
from typing import TYPE_CHECKING

from msgspec import Struct

from farebox.catalog.meter import Aggregation, Alias, Meter, Spread
from farebox.catalog.plan import Rate, RateCard
from farebox.catalog.price import Cell, Matrix

if TYPE_CHECKING:
    from genai_prices.types import ModelInfo, ModelPrice, Provider, TieredPrices

EVENT_TYPE = "llm.request"
TOKENS_METER = "llm_tokens"
REQUESTS_METER = "llm_requests"
LATENCY_METER = "llm_latency"
RATE_CARD = "llm"
PER = Decimal(1_000_000)


class TokenKind(StrEnum):
    """What a token was to the provider; each has a price of its own."""

    INPUT = "input"
    CACHE_READ = "cache_read"
    CACHE_WRITE = "cache_write"
    OUTPUT = "output"


class LeftOutReason(StrEnum):
    """Why a model that was asked for has no price on the card, in order of precedence."""

    MODEL_UNKNOWN = "model_unknown"
    PRICE_BY_TIME_OF_DAY = "price_by_time_of_day"
    NO_TOKEN_PRICE = "no_token_price"  # noqa: S105  a token of text


class LeftOut(Struct, frozen=True):
    """A model without a price: its usage stays unpriced and is listed."""

    model: str
    reason: LeftOutReason


class LlmPrices(Struct, frozen=True, kw_only=True):
    """A rate card version, the other names of its models, and what was asked for in vain."""

    card: RateCard
    aliases: tuple[Alias, ...]
    left_out: tuple[LeftOut, ...]


def llm_meters() -> tuple[Meter, ...]:
    """Return the meters of tokens by kind, of requests, and of the 95th percentile of latency."""
    dimensions = {"model": "$.model", "operation": "$.operation"}
    return (
        Meter(
            key=TOKENS_METER,
            name="Tokens",
            event_type=EVENT_TYPE,
            aggregation=Aggregation.SUM,
            spread=Spread(
                dimension="token_kind",
                values={
                    TokenKind.INPUT.value: "$.input_tokens",
                    TokenKind.CACHE_READ.value: "$.cached_input_tokens",
                    TokenKind.CACHE_WRITE.value: "$.cache_write_input_tokens",
                    TokenKind.OUTPUT.value: "$.output_tokens",
                },
            ),
            dimensions={**dimensions, "context": "$.context"},
            unit="token",
        ),
        Meter(
            key=REQUESTS_METER,
            name="Requests",
            event_type=EVENT_TYPE,
            aggregation=Aggregation.COUNT,
            dimensions=dimensions,
            unit="request",
        ),
        Meter(
            key=LATENCY_METER,
            name="Latency, 95th percentile",
            event_type=EVENT_TYPE,
            aggregation=Aggregation.PERCENTILE,
            percentile=Decimal(95),
            value="$.latency_ms",
            filter="has(data.latency_ms)",
            dimensions={"model": "$.model"},
            unit="ms",
        ),
    )


def llm_rate_card(
    models: Sequence[str],
    at: datetime,
    *,
    effective_from: datetime | None = None,
    key: str = RATE_CARD,
) -> LlmPrices:
    """Return the prices of `models` as they stand at `at`, per million tokens.

    A model may be named as its provider or a gateway names it (`gpt-4o-2024-08-06`), or with the
    provider in front (`azure/gpt-4o`), which keeps it apart from the same model elsewhere.
    effective_from: none takes `at`; an earlier one prices usage that is older than the import.
    """
    found, left_out = _find(models)
    cells: list[Cell] = []
    aliases: dict[str, str] = {}
    for canonical, (info, names) in found.items():
        priced = tuple(_cells(canonical, info.get_prices(at)))
        if _by_time_of_day(info):
            left_out += [LeftOut(name, LeftOutReason.PRICE_BY_TIME_OF_DAY) for name in names]
        elif not priced:
            left_out += [LeftOut(name, LeftOutReason.NO_TOKEN_PRICE) for name in names]
        else:
            cells += priced
            # Of a model with its provider in front, the bare names mean someone else's.
            others = _names(info) if canonical == info.id else ()
            aliases |= {name: canonical for name in (*names, *others) if name != canonical}
    price = Matrix(dimensions=("model", "token_kind", "context"), cells=tuple(cells), per=PER)
    return LlmPrices(
        card=RateCard(
            key=key,
            name="Language models",
            currency="USD",
            rates=(Rate(meter=TOKENS_METER, price=price),),
            effective_from=at if effective_from is None else effective_from,
        ),
        # A name that is a model of its own on this card is no alias of another one.
        aliases=tuple(
            Alias(dimension="model", alias=alias, canonical=canonical)
            for alias, canonical in sorted(aliases.items())
            if alias not in found
        ),
        left_out=tuple(left_out),
    )


def llm_rate_cards(
    models: Sequence[str], since: datetime, until: datetime, *, key: str = RATE_CARD
) -> tuple[LlmPrices, ...]:
    """Return one version for each stretch of unchanged prices between `since` and `until`.

    The first is effective from `since`, each further one from the day, in UTC, on which a provider
    changed a price; to be published in this order when usage is older than the first import.
    """
    starts = {since}
    for info, _ in _find(models)[0].values():
        starts |= {start for start in _price_changes(info) if since < start < until}
    versions: list[LlmPrices] = []
    for start in sorted(starts):
        prices = llm_rate_card(models, start, key=key)
        if not versions or versions[-1].card.rates != prices.card.rates:
            versions.append(prices)
    return tuple(versions)


_Found = dict[str, tuple["ModelInfo", list[str]]]


def _find(models: Sequence[str]) -> tuple[_Found, list[LeftOut]]:
    """Return the models by canonical name, with the names that were asked for, and the unknown."""
    found: _Found = {}
    unknown: list[LeftOut] = []
    for name in dict.fromkeys(models):
        match = _lookup(name)
        if match is None:
            unknown.append(LeftOut(name, LeftOutReason.MODEL_UNKNOWN))
        else:
            canonical, info = match
            found.setdefault(canonical, (info, []))[1].append(name)
    return found, unknown


def _lookup(name: str) -> "tuple[str, ModelInfo] | None":
    # Imported here: the price data are 30,000 lines that only this preset needs.
    from genai_prices.data import providers

    first, slash, rest = name.lower().partition("/")
    named = next((provider for provider in providers if provider.id == first), None)
    if slash and named is not None:
        info = _model_of(named, rest)
        return None if info is None else (f"{named.id}/{info.id}", info)
    for provider in providers:
        if provider.model_match is not None and provider.model_match.is_match(name.lower()):
            info = _model_of(provider, name)
            return None if info is None else (info.id, info)
    return None


def _model_of(provider: "Provider", name: str) -> "ModelInfo | None":
    from genai_prices.data import providers

    return provider.find_model(name, all_providers=providers)


def _names(info: "ModelInfo") -> Iterator[str]:
    """Yield the names that the price data give word for word; patterns name no one."""
    from genai_prices.types import ClauseEquals, ClauseOr

    clauses = info.match.or_ if isinstance(info.match, ClauseOr) else [info.match]
    for clause in clauses:
        if isinstance(clause, ClauseEquals):
            yield clause.equals


def _by_time_of_day(info: "ModelInfo") -> bool:
    from genai_prices.types import ModelPrice, TimeOfDateConstraint

    if isinstance(info.prices, ModelPrice):
        return False
    return any(isinstance(price.constraint, TimeOfDateConstraint) for price in info.prices)


def _price_changes(info: "ModelInfo") -> Iterator[datetime]:
    from genai_prices.types import ModelPrice, StartDateConstraint

    if isinstance(info.prices, ModelPrice):
        return
    for price in info.prices:
        if isinstance(price.constraint, StartDateConstraint):
            yield datetime.combine(price.constraint.start_date, time(), UTC)


def _cells(model: str, price: "ModelPrice") -> Iterator[Cell]:
    """Yield the cells of one model, those of longer prompts with their `context`.

    A cache without a price of its own is charged as input, as the source of the prices has it.
    """
    for kind, own in (
        (TokenKind.INPUT, price.input_mtok),
        (TokenKind.CACHE_READ, price.cache_read_mtok),
        (TokenKind.CACHE_WRITE, price.cache_write_mtok),
        (TokenKind.OUTPUT, price.output_mtok),
    ):
        chosen = price.input_mtok if own is None and kind is not TokenKind.OUTPUT else own
        if chosen is not None:
            for context, unit in _contexts(chosen):
                yield Cell(match={"model": model, "token_kind": kind.value, **context}, unit=unit)


def _contexts(price: "Decimal | TieredPrices") -> Iterator[tuple[dict[str, str], Decimal]]:
    if isinstance(price, Decimal):
        yield {}, price
        return
    yield {}, price.base
    for tier in price.tiers:
        yield {"context": f"over_{tier.start}"}, tier.price
