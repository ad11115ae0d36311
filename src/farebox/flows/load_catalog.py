"""Read the catalog as it stands, as the checks want to see it."""

from collections.abc import Sequence
from uuid import UUID

import msgspec
from psycopg import Connection

from farebox.catalog.customer import Customer, Partner, Subscription
from farebox.catalog.document import Document
from farebox.catalog.meter import Alias, Meter
from farebox.catalog.plan import Feature, Plan, RateCard
from farebox.postgres import catalog, customer, draft
from farebox.postgres.catalog import Kind
from farebox.postgres.customer_list import with_subjects

Definition = Meter | Feature | Alias | RateCard | Plan | Partner

TYPES: dict[Kind, type[Definition]] = {
    Kind.METER: Meter,
    Kind.FEATURE: Feature,
    Kind.ALIAS: Alias,
    Kind.RATE_CARD: RateCard,
    Kind.PLAN: Plan,
    Kind.PARTNER: Partner,
}
SECTIONS: dict[Kind, str] = {
    Kind.METER: "meters",
    Kind.FEATURE: "features",
    Kind.ALIAS: "aliases",
    Kind.RATE_CARD: "rate_cards",
    Kind.PLAN: "plans",
    Kind.PARTNER: "partners",
}
"""The section of a catalog document that holds a kind; its URL has the same name."""


def decode_definition(kind: Kind, text: str) -> Definition:
    """Read a definition as it was stored."""
    return msgspec.json.decode(text, type=TYPES[kind])


def standing_catalog(
    connection: Connection, organization_id: UUID, *, with_drafts: bool = False
) -> Document:
    """Return the newest version of every definition, or its draft where those count too."""
    standing: dict[tuple[Kind, str], Definition] = {
        (version.kind, version.key): decode_definition(version.kind, version.definition)
        for version in catalog.latest_versions(connection, organization_id)
    }
    if with_drafts:
        for one in draft.drafts(connection, organization_id):
            standing[one.kind, one.key] = decode_definition(one.kind, one.definition)
    sections: dict[str, list[Definition]] = {name: [] for name in SECTIONS.values()}
    for (kind, _), definition in standing.items():
        sections[SECTIONS[kind]].append(definition)
    return Document(**{name: tuple(found) for name, found in sections.items()})  # type: ignore[arg-type]


def standing_customers(
    connection: Connection, organization_id: UUID, keys: Sequence[str]
) -> list[Customer]:
    """Return those of these customers that are there, with their subjects."""
    found = customer.customers_by_key(connection, organization_id, keys)
    return with_subjects(connection, organization_id, list(found.values()))


def standing_subscriptions(
    connection: Connection, organization_id: UUID, customer_keys: Sequence[str]
) -> list[Subscription]:
    """Return every subscription of these customers, as it was put."""
    return [
        msgspec.json.decode(row.definition, type=Subscription)
        for key in customer_keys
        for row in customer.subscriptions(
            connection, organization_id, customer_key=key, limit=_EVERY
        )
    ]


_EVERY = 100_000
