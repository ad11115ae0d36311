"""What the benchmark meters and sells: two meters, two dimensions, one filter, one plan."""

from decimal import Decimal

from farebox.catalog.meter import Aggregation, Meter
from farebox.catalog.plan import Charge, Plan
from farebox.catalog.price import Graduated, PerUnit, Tier

CUSTOMERS = 1_000
MODELS = ("large", "medium", "small", "tiny", "vision")
REGIONS = ("ap", "eu", "us")
MODELS_A_CUSTOMER = 2
EVENT_TYPE = "llm.request"

_DIMENSIONS = {"model": "$.model", "region": "$.region"}

METERS = (
    Meter(
        key="tokens",
        event_type=EVENT_TYPE,
        aggregation=Aggregation.SUM,
        value="$.tokens",
        dimensions=_DIMENSIONS,
        filter='data.status == "ok"',
    ),
    Meter(
        key="requests",
        event_type=EVENT_TYPE,
        aggregation=Aggregation.COUNT,
        dimensions=_DIMENSIONS,
    ),
)

PLAN = Plan(
    key="metered",
    currency="USD",
    charges=(
        Charge(
            key="tokens",
            meter="tokens",
            price=Graduated(
                tiers=(
                    Tier(up_to=Decimal(10_000), unit=Decimal("0.00010")),
                    Tier(up_to=Decimal(100_000), unit=Decimal("0.00008")),
                    Tier(unit=Decimal("0.00005")),
                )
            ),
        ),
        Charge(key="requests", meter="requests", price=PerUnit(unit=Decimal("0.001"))),
    ),
    # Above what the usage comes to, so that every invoice has its third line.
    minimum=Decimal(1_000),
)


def customer_key(number: int) -> str:
    return f"customer-{number:05d}"


def dimensions_of(number: int) -> list[tuple[str, str]]:
    """Return the (model, region) pairs a customer uses: one region, `MODELS_A_CUSTOMER` models."""
    region = REGIONS[number % len(REGIONS)]
    return [(MODELS[(number + at) % len(MODELS)], region) for at in range(MODELS_A_CUSTOMER)]
