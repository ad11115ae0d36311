"""What `farebox apply --dry-run` tells."""

from farebox.catalog.diff import Action, Change, FieldChange, ObjectKind, diff, render
from farebox.catalog.document import Document, read_document

BEFORE = """
meters:
- {key: tokens, event_type: llm.request, aggregation: sum, value: $.tokens}
aliases:
- {dimension: model, alias: gpt-4o-latest, canonical: gpt-4o}
rate_cards:
- key: llm
  currency: USD
  effective_from: 2026-01-01T00:00:00Z
  rates:
  - meter: tokens
    price:
      model: matrix
      dimensions: [model, token_kind]
      per: 1000000
      cells:
      - {match: {model: gpt-4o, token_kind: input}, unit: 2.50}
      - {match: {model: gpt-4o, token_kind: output}, unit: 10}
plans:
- key: team
  currency: USD
  fees: [{key: base, amount: 49}, {key: support, amount: 10}]
"""
AFTER = """
meters:
- {key: tokens, event_type: llm.request, aggregation: sum, value: $.tokens}
- {key: requests, event_type: llm.request, aggregation: count}
aliases:
- {dimension: model, alias: gpt-4o-latest, canonical: gpt-5}
rate_cards:
- key: llm
  currency: USD
  effective_from: 2026-01-01T01:00:00+01:00
  rates:
  - meter: tokens
    price:
      model: matrix
      dimensions: [model, token_kind]
      per: 1000000.0
      cells:
      - {match: {model: gpt-4o-mini, token_kind: input}, unit: 0.15}
      - {match: {token_kind: input, model: gpt-4o}, unit: 2.0}
      - {match: {model: gpt-4o, token_kind: output}, unit: 10.00}
plans:
- key: team
  name: Team
  currency: USD
  fees: [{key: base, amount: 59}]
"""


def read(text: str) -> Document:
    document = read_document(text.encode())
    assert isinstance(document, Document), document
    return document


def test_nothing_changes_against_itself() -> None:
    changes = diff(read(AFTER), read(AFTER))
    assert {Action.UNCHANGED} == {change.action for change in changes}
    assert "0 to create, 0 to change, 5 unchanged\n" == render(changes)


def test_a_field_is_told_by_the_names_of_what_holds_it() -> None:
    changes = {(change.kind, change.key): change for change in diff(read(BEFORE), read(AFTER))}
    assert Change(ObjectKind.METER, "requests", Action.CREATE) == changes["meter", "requests"]
    assert Change(ObjectKind.METER, "tokens", Action.UNCHANGED) == changes["meter", "tokens"]
    cells = "rates[tokens].price.cells"
    expected = (
        FieldChange(f"{cells}[model=gpt-4o, token_kind=input].unit", "2.5", "2"),
        FieldChange(
            f"{cells}[model=gpt-4o-mini, token_kind=input]",
            None,
            '{"match":{"model":"gpt-4o-mini","token_kind":"input"},"unit":"0.15","per":null}',
        ),
    )
    assert expected == changes["rate_card", "llm"].fields


def test_the_dry_run_reads_as_a_list() -> None:
    assert """\
+ meter requests
~ alias model/gpt-4o-latest
    canonical: gpt-4o -> gpt-5
~ rate_card llm
    rates[tokens].price.cells[model=gpt-4o, token_kind=input].unit: 2.5 -> 2
    rates[tokens].price.cells[model=gpt-4o-mini, token_kind=input]: (none) -> \
{"match":{"model":"gpt-4o-mini","token_kind":"input"},"unit…
~ plan team
    name: "" -> Team
    fees[base].amount: 49 -> 59
    fees[support]: {"key":"support","name":"","amount":"10","timing":"advance"} -> (none)
1 to create, 3 to change, 1 unchanged
""" == render(diff(read(BEFORE), read(AFTER)))


def test_a_price_of_another_model_and_a_new_order_are_told() -> None:
    plan = """
plans:
- key: team
  currency: USD
  charges:
  - {key: a, meter: m, price: {model: per_unit, unit: 1}}
  - {key: b, meter: m}
"""
    other = """
plans:
- key: team
  currency: USD
  charges:
  - {key: b, meter: m}
  - {key: a, meter: m, price: {model: flat, amount: 1}}
"""
    (change,) = diff(read(plan), read(other))
    expected = (
        FieldChange(
            "charges[a].price",
            '{"model":"per_unit","unit":"1","per":"1"}',
            '{"model":"flat","amount":"1"}',
        ),
        FieldChange("charges", "a, b", "b, a"),
    )
    assert expected == change.fields
    assert Action.CHANGE == diff(read(other), read(plan))[0].action
