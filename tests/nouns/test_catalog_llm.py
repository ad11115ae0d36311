"""The preset for language models, at prices that their providers published."""

from datetime import UTC, datetime
from decimal import Decimal

from farebox.catalog.check import check_document
from farebox.catalog.document import Document
from farebox.catalog.llm import (
    LeftOut,
    LeftOutReason,
    LlmPrices,
    llm_meters,
    llm_rate_card,
    llm_rate_cards,
)
from farebox.catalog.meter import Alias
from farebox.catalog.price import Matrix

AT = datetime(2026, 10, 1, tzinfo=UTC)


def units(prices: LlmPrices) -> dict[tuple[str, ...], Decimal]:
    price = prices.card.rates[0].price
    assert isinstance(price, Matrix)
    assert Decimal(1_000_000) == price.per
    return {
        tuple(cell.match[name] for name in price.dimensions if name in cell.match): cell.unit
        for cell in price.cells
    }


def test_tokens_have_the_list_price_of_their_kind() -> None:
    expected = {
        ("gpt-4o", "input"): Decimal("2.5"),
        ("gpt-4o", "cache_read"): Decimal("1.25"),
        ("gpt-4o", "cache_write"): Decimal("2.5"),
        ("gpt-4o", "output"): Decimal(10),
    }
    assert expected == units(llm_rate_card(["gpt-4o"], AT))


def test_a_longer_prompt_has_a_cell_of_its_own() -> None:
    found = units(llm_rate_card(["claude-sonnet-4-5"], AT))
    assert Decimal(3) == found["claude-sonnet-4-5", "input"]
    assert Decimal(6) == found["claude-sonnet-4-5", "input", "over_200000"]
    assert Decimal("0.3") == found["claude-sonnet-4-5", "cache_read"]


def test_other_names_of_a_model_are_aliases() -> None:
    prices = llm_rate_card(["gpt-4o-2024-08-06", "claude-sonnet-4-5-20250929"], AT)
    assert {"gpt-4o", "claude-sonnet-4-5"} == {key[0] for key in units(prices)}
    for alias, canonical in (
        ("gpt-4o-2024-08-06", "gpt-4o"),
        ("gpt-4o-2024-11-20", "gpt-4o"),
        ("claude-sonnet-4-5-20250929", "claude-sonnet-4-5"),
    ):
        expected = Alias(dimension="model", alias=alias, canonical=canonical)
        assert expected in prices.aliases


def test_the_same_model_elsewhere_is_another_one() -> None:
    prices = llm_rate_card(["azure/gpt-4o", "gpt-4o"], AT)
    assert {"azure/gpt-4o", "gpt-4o"} == {key[0] for key in units(prices)}
    assert {"gpt-4o"} == {alias.canonical for alias in prices.aliases}
    assert () == llm_rate_card(["azure/gpt-4o"], AT).aliases


def test_what_has_no_price_is_named_and_not_guessed() -> None:
    prices = llm_rate_card(["gpt-4o", "gpt-99-ultra", "no-one/made-this", "deepseek-chat"], AT)
    expected = (
        LeftOut("gpt-99-ultra", LeftOutReason.MODEL_UNKNOWN),
        LeftOut("no-one/made-this", LeftOutReason.MODEL_UNKNOWN),
        LeftOut("deepseek-chat", LeftOutReason.PRICE_BY_TIME_OF_DAY),
    )
    assert expected == prices.left_out
    assert {"gpt-4o"} == {key[0] for key in units(prices)}


def test_prices_are_those_of_their_time_and_may_be_backdated() -> None:
    before, after = datetime(2025, 6, 9, tzinfo=UTC), datetime(2025, 6, 10, tzinfo=UTC)
    assert Decimal(10) == units(llm_rate_card(["o3"], before))["o3", "input"]
    assert Decimal(2) == units(llm_rate_card(["o3"], after))["o3", "input"]
    card = llm_rate_card(["o3"], AT, effective_from=before).card
    assert before == card.effective_from


def test_each_change_of_a_price_is_a_version() -> None:
    since, until = datetime(2025, 1, 1, tzinfo=UTC), datetime(2026, 1, 1, tzinfo=UTC)
    versions = llm_rate_cards(["o3", "gpt-4o"], since, until)
    expected = [since, datetime(2025, 6, 10, tzinfo=UTC)]
    assert expected == [version.card.effective_from for version in versions]


def test_a_change_of_what_is_not_priced_here_is_no_version() -> None:
    # On 5 January 2026 the price of its web searches changed, and no other.
    since, until = datetime(2025, 12, 1, tzinfo=UTC), datetime(2026, 2, 1, tzinfo=UTC)
    assert 1 == len(llm_rate_cards(["gemini-3-flash-preview"], since, until))


def test_the_preset_is_a_catalog_without_fault() -> None:
    models = ["gpt-4o", "claude-sonnet-4-5", "gemini-2.5-pro", "azure/gpt-4o"]
    prices = llm_rate_card(models, AT)
    document = Document(meters=llm_meters(), rate_cards=(prices.card,), aliases=prices.aliases)
    assert [] == check_document(document, Document())
