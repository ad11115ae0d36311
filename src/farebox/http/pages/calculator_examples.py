"""An example of every price model for the calculator: realistic numbers to begin from."""

from msgspec import Struct


class Example(Struct, frozen=True):
    """What fills the calculator's fields."""

    key: str
    label: str
    note: str
    currency: str
    price: str
    usage: str


EXAMPLES = (
    Example(
        "graduated",
        "Graduated",
        "Each unit costs what the tier it falls in says.",
        "USD",
        """model: graduated
tiers:
  - {up_to: 10000, unit: "0.005"}
  - {up_to: 100000, unit: "0.004"}
  - {up_to: 1000000, unit: "0.0025"}
  - {unit: "0.001"}
""",
        "250000",
    ),
    Example(
        "volume",
        "Volume",
        "All units cost what the tier of the total says, so a little more use can cost less.",
        "USD",
        """model: volume
tiers:
  - {up_to: 500, unit: "0.05"}
  - {up_to: 5000, unit: "0.03", flat: 5}
  - {unit: "0.02", flat: 20}
""",
        "3200",
    ),
    Example(
        "per_unit",
        "Per unit",
        "One price; `per` makes small ones readable.",
        "USD",
        """model: per_unit
unit: "2.50"
per: 1000000
""",
        "22361870",
    ),
    Example(
        "matrix",
        "Matrix",
        "A price for each model and kind of token; what has no cell is listed, not billed.",
        "USD",
        """model: matrix
dimensions: [model, kind]
per: 1000000
cells:
  - {match: {model: large, kind: input}, unit: "2.50"}
  - {match: {model: large, kind: output}, unit: "10"}
  - {match: {model: small, kind: "*"}, unit: "0.60"}
""",
        """- {quantity: 22361870, dimensions: {model: large, kind: input}}
- {quantity: 4088665, dimensions: {model: large, kind: output}}
- {quantity: 9120400, dimensions: {model: small, kind: input}}
- {quantity: 51000, dimensions: {model: unknown, kind: input}}
""",
    ),
    Example(
        "package",
        "Package",
        "Every started package costs its whole amount.",
        "EUR",
        """model: package
amount: 15
size: 1000
free: 500
""",
        "7250",
    ),
    Example(
        "stairstep",
        "Stairstep",
        "One amount by where the total falls.",
        "USD",
        """model: stairstep
tiers:
  - {up_to: 10, amount: 50}
  - {up_to: 50, amount: 200}
  - {up_to: 100, amount: 350}
  - {amount: 500}
""",
        "42",
    ),
    Example(
        "percentage",
        "Percentage",
        "A share of each payment and a fixed fee, within bounds; the first two are free.",
        "USD",
        """model: percentage
percent: "2.9"
fixed: "0.30"
maximum: 25
free_events: 2
""",
        """- {values: [12, 80, 45.50, 1200, 18.99, 260]}
""",
    ),
    Example(
        "graduated_percentage",
        "Graduated percentage",
        "The share falls as the value grows.",
        "USD",
        """model: graduated_percentage
tiers:
  - {up_to: 10000, percent: "2.5"}
  - {up_to: 50000, percent: "2"}
  - {percent: "1.2"}
""",
        "64000",
    ),
    Example(
        "capacity",
        "Capacity",
        "One amount by the first tier whose limits all hold.",
        "USD",
        """model: capacity
dimension: resource
tiers:
  - {limits: {storage: 10, seats: 5}, amount: 20}
  - {limits: {storage: 100, seats: 25}, amount: 90}
  - {amount: 400}
""",
        """- {quantity: 42, dimensions: {resource: storage}}
- {quantity: 12, dimensions: {resource: seats}}
""",
    ),
    Example(
        "flat",
        "Flat",
        "The same every period, whatever was used.",
        "USD",
        """model: flat
amount: 49
""",
        "1",
    ),
    Example(
        "dynamic",
        "Dynamic",
        "The events carry their own amounts; here with a margin of 15 percent.",
        "USD",
        """model: dynamic
multiplier: "1.15"
""",
        "- {values: [0.42, 1.80, 12.05]}\n",
    ),
)
BY_KEY = {example.key: example for example in EXAMPLES}
