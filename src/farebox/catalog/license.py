"""A license as a value: what a customer holds under a key, from when to when."""

from collections.abc import Collection, Iterator, Mapping
from datetime import datetime

from msgspec import Struct

from farebox.catalog.code import CatalogCode
from farebox.catalog.plan import Entitlement
from farebox.catalog.problem import Problem
from farebox.catalog.rule import SUBJECT_LENGTH_MAX, key, reference, twice


class License(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A license from `starts_at` (inclusive; none: it stays, or begins now) to `ends_at`.

    ends_at: exclusive; none: it never ends. subject: who it is meant for, for people to read.
    features, entitlements: what it grants to whoever names it, as in a plan, without limits.
    """

    key: str
    customer: str
    name: str = ""
    subject: str | None = None
    features: tuple[str, ...] = ()
    entitlements: tuple[Entitlement, ...] = ()
    starts_at: datetime | None = None
    ends_at: datetime | None = None
    metadata: Mapping[str, str] = {}


def granted(license: License) -> list[Entitlement]:
    """Return what a license grants, feature by feature."""
    return [*(Entitlement(feature=one) for one in license.features), *license.entitlements]


def check_license(license: License, features: Collection[str], at: str = "") -> list[Problem]:
    """Return what is wrong with a license in itself; `features` are those that there are."""
    return [*key(license.key, at), *_subject(license, at), *_grants(license, features, at)]


def _subject(license: License, at: str) -> Iterator[Problem]:
    subject = license.subject
    if subject is not None and not (
        0 < len(subject) <= SUBJECT_LENGTH_MAX and subject.isprintable()
    ):
        message = f"a subject is 1 to {SUBJECT_LENGTH_MAX} printable characters"
        yield Problem(CatalogCode.SUBJECT_INVALID, f"{at}/subject", message)


def _grants(license: License, features: Collection[str], at: str) -> Iterator[Problem]:
    count = len(license.features)

    def place(index: int) -> str:
        if index < count:
            return f"{at}/features/{index}"
        return f"{at}/entitlements/{index - count}/feature"

    given = granted(license)
    for index, one in enumerate(given):
        yield from reference(one.feature, features, "feature", place(index))
        if one != Entitlement(feature=one.feature, value=one.value):
            message = "a license says yes, or a value; what is counted is a pool of the license"
            yield Problem(
                CatalogCode.ENTITLEMENT_CONTRADICTORY,
                place(index).removesuffix("/feature"),
                message,
            )
    names = [one.feature for one in given]
    yield from twice(names, CatalogCode.ENTITLEMENT_DUPLICATE, place)
