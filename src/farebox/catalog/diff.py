"""What applying a catalog would change: object by object, field by field, in plain text."""

from collections.abc import Iterator, Mapping
from datetime import datetime
from decimal import Decimal
from enum import StrEnum

import msgspec
from msgspec import Struct

from farebox.catalog.customer import Customer, Partner, Subscription
from farebox.catalog.document import Document
from farebox.catalog.meter import Alias, Meter
from farebox.catalog.number import plain_text
from farebox.catalog.plan import Charge, Feature, Fee, Plan, Rate, RateCard
from farebox.catalog.price import Cell

CatalogObject = Meter | Feature | Alias | RateCard | Plan | Partner | Customer | Subscription

_LENGTH_SHOWN = 60


class ObjectKind(StrEnum):
    """The objects of a catalog, in the order in which they are stored."""

    METER = "meter"
    FEATURE = "feature"
    ALIAS = "alias"
    RATE_CARD = "rate_card"
    PLAN = "plan"
    PARTNER = "partner"
    CUSTOMER = "customer"
    SUBSCRIPTION = "subscription"


class Action(StrEnum):
    """What applying does with an object; nothing is ever deleted by leaving it out."""

    CREATE = "create"
    CHANGE = "change"
    UNCHANGED = "unchanged"


class FieldChange(Struct, frozen=True):
    """One field as text; none on a side where it does not exist.

    path: as a person would say it, list items by their key: `rates[llm_tokens].price.per`.
    """

    path: str
    before: str | None
    after: str | None


class Change(Struct, frozen=True):
    """What happens to one object; `fields` are told for a change only."""

    kind: ObjectKind
    key: str
    action: Action
    fields: tuple[FieldChange, ...] = ()


def diff(before: Document, after: Document) -> list[Change]:
    """Return one change for every object of `after`, against what `before` holds.

    Equal numbers with other digits (1.5, 1.50) and equal instants at other offsets are no change.
    """
    changes: list[Change] = []
    for kind, section in zip(ObjectKind, Document.__struct_fields__, strict=True):
        standing = {_key_of(item): item for item in getattr(before, section)}
        for item in getattr(after, section):
            key = _key_of(item)
            if key not in standing:
                changes.append(Change(kind, key, Action.CREATE))
                continue
            fields = tuple(_fields(standing[key], item, ""))
            action = Action.CHANGE if fields else Action.UNCHANGED
            changes.append(Change(kind, key, action, fields))
    return changes


def render(changes: list[Change]) -> str:
    """Return the changes as `farebox apply --dry-run` prints them, one line for each field."""
    lines: list[str] = []
    for change in changes:
        if change.action is Action.UNCHANGED:
            continue
        sign = "+" if change.action is Action.CREATE else "~"
        lines.append(f"{sign} {change.kind} {change.key}")
        for item in change.fields:
            lines.append(f"    {item.path}: {_shown(item.before)} -> {_shown(item.after)}")
    counts = {action: sum(change.action is action for change in changes) for action in Action}
    lines.append(
        f"{counts[Action.CREATE]} to create, {counts[Action.CHANGE]} to change, "
        f"{counts[Action.UNCHANGED]} unchanged"
    )
    return "\n".join(lines) + "\n"


def _shown(text: str | None) -> str:
    if text is None:
        return "(none)"
    if text == "":
        return '""'
    return text if len(text) <= _LENGTH_SHOWN else f"{text[: _LENGTH_SHOWN - 1]}…"


def _key_of(item: CatalogObject) -> str:
    return f"{item.dimension}/{item.alias}" if isinstance(item, Alias) else item.key


def _fields(before: object, after: object, path: str) -> Iterator[FieldChange]:
    if before == after:
        return
    if isinstance(before, Struct) and type(before) is type(after):
        for name in before.__struct_fields__:
            step = f"{path}.{name}" if path else name
            yield from _fields(getattr(before, name), getattr(after, name), step)
    elif isinstance(before, Mapping) and isinstance(after, Mapping):
        yield from _items(before, after, path)
    elif isinstance(before, tuple) and isinstance(after, tuple):
        yield from _items(_by_name(before), _by_name(after), path)
        yield from _moves(before, after, path)
    else:
        yield FieldChange(path, _text(before), _text(after))


def _items(
    before: Mapping[str, object], after: Mapping[str, object], path: str
) -> Iterator[FieldChange]:
    for name in {**before, **after}:
        yield from _fields(before.get(name), after.get(name), f"{path}[{name}]")


def _moves(
    before: tuple[object, ...], after: tuple[object, ...], path: str
) -> Iterator[FieldChange]:
    """Yield the order of a list whose items have names, where the order is all that changed."""
    old, new = list(_by_name(before)), list(_by_name(after))
    if old != new and set(old) == set(new):
        yield FieldChange(path, ", ".join(old), ", ".join(new))


def _by_name(items: tuple[object, ...]) -> dict[str, object]:
    """Name list items by what tells them apart; by position where nothing does, or not surely."""
    names = [_name(item, index) for index, item in enumerate(items)]
    if len(set(names)) < len(names):
        names = [str(index) for index in range(len(items))]
    return dict(zip(names, items, strict=True))


def _name(item: object, index: int) -> str:
    match item:
        case Fee(key=key) | Charge(key=key):
            return key
        case Rate(meter=meter):
            return meter
        case Cell(match=match):
            return ", ".join(f"{name}={value}" for name, value in sorted(match.items()))
        case str():
            return item
        case _:
            return str(index)


def _text(value: object) -> str | None:
    match value:
        case None:
            return None
        case bool():
            return "true" if value else "false"
        case Decimal():
            return plain_text(value)
        case datetime():
            return value.isoformat()
        case Struct():
            return msgspec.json.encode(value).decode()
        case _:
            return str(value)
