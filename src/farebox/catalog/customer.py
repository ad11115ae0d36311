"""Customers as values: who pays, who uses on their behalf, and what they subscribed to."""

from collections.abc import Mapping
from datetime import datetime

from msgspec import Struct


class Partner(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A reseller whose customers share a rate card."""

    key: str
    name: str = ""
    rate_card: str | None = None
    metadata: Mapping[str, str] = {}


class Customer(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Who pays. `subjects` use on their behalf; the customer's own key is always one of them.

    timezone is an IANA name; windows and periods of this customer are cut in it.
    parent: the customer that this one is part of, whose pools may serve it too.
    """

    key: str
    name: str = ""
    timezone: str = "UTC"
    email: str = ""
    address: tuple[str, ...] = ()
    country: str = ""
    partner: str | None = None
    parent: str | None = None
    rate_card: str | None = None
    subjects: tuple[str, ...] = ()
    metadata: Mapping[str, str] = {}


class Subscription(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A customer on a plan version from `start` (inclusive) to `end` (exclusive, none: open).

    plan_version: the version it is pinned to; none takes the latest published.
    anchor_day: day of month (1 to 31) on which periods begin; none takes the day of `start`.
    timezone: of the periods; none takes the customer's.
    """

    key: str
    customer: str
    plan: str
    plan_version: int | None = None
    start: datetime
    end: datetime | None = None
    anchor_day: int | None = None
    timezone: str | None = None
    metadata: Mapping[str, str] = {}
