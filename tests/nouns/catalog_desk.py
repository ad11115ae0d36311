"""A catalog that is stored, and what a text against it is told."""

from farebox.catalog.check import check_document
from farebox.catalog.document import Document, read_document

STORED = """
meters:
- {key: tokens, event_type: llm.request, aggregation: sum, value: $.tokens,
   dimensions: {model: $.model}}
- {key: payments, event_type: payment, aggregation: sum, value: $.amount, per_event: true}
features:
- {key: chat, meter: tokens}
rate_cards:
- {key: list, currency: USD, default: true}
- {key: list-eur, currency: EUR}
plans:
- {key: team, currency: USD, rate_card: list}
- {key: team-eur, currency: EUR, rate_card: list-eur}
partners:
- {key: harbor, rate_card: list}
- {key: hafen, rate_card: list-eur}
customers:
- {key: northwind, subjects: [ada, grace]}
- {key: euro, rate_card: list-eur}
subscriptions:
- {key: northwind-team, customer: northwind, plan: team, start: 2026-01-01T00:00:00Z}
"""


def read(text: str) -> Document:
    document = read_document(text.encode())
    assert isinstance(document, Document), document
    return document


def problems_of(text: str, known: str = STORED) -> list[tuple[str, str]]:
    document = read_document(text.encode())
    if isinstance(document, Document):
        assert [] == check_document(read(known), Document())
        document = check_document(document, read(known))
    assert all(problem.message for problem in document)
    return [(str(problem.code), problem.pointer) for problem in document]
