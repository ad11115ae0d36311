"""What a fate means to the person who looks at an event, and what would help."""

from collections.abc import Mapping

from msgspec import Struct

from farebox.flows.place_reading import Fate


class FateText(Struct, frozen=True):
    """`tone` colours it: good, warn or bad."""

    tone: str
    says: str
    helps: str = ""


FATE_TEXTS: Mapping[Fate, FateText] = {
    Fate.VOIDED: FateText("bad", "It was taken back and counts nowhere."),
    Fate.NO_METER: FateText(
        "warn", "No meter reads events of this type.", "Add a meter for it, then backfill."
    ),
    Fate.FILTERED_OUT: FateText(
        "warn", "The meter's filter left it out, or there was nothing to read."
    ),
    Fate.NO_CUSTOMER: FateText(
        "warn",
        "Its subject belonged to no customer at that time.",
        "Add the subject to a customer, or move it there from an earlier instant.",
    ),
    Fate.NO_SUBSCRIPTION: FateText(
        "warn",
        "The customer had no subscription at that time.",
        "Subscribe the customer to a plan.",
    ),
    Fate.NO_CHARGE: FateText(
        "warn", "The plan does not charge for this meter.", "Add a charge in a new plan version."
    ),
    Fate.NO_RATE: FateText(
        "warn", "No rate card had a price for this meter then.", "Add a rate, or an earlier start."
    ),
    Fate.NO_CELL: FateText(
        "warn",
        "The price has no cell for these dimension values, and no default.",
        "Add a cell, a default, or an alias to a name that has one.",
    ),
    Fate.NO_VALUES: FateText(
        "warn",
        "The price needs the value of every event and the meter does not keep them.",
        "Set per_event on the meter.",
    ),
    Fate.UNBURNED: FateText(
        "warn",
        "It should have burned a prepaid pool, and took nothing from it.",
        "Add a rate or a cell to the pool's rate card; what was used until then takes nothing.",
    ),
    Fate.BURNS_POOL: FateText("good", "It is paid from a prepaid pool within a second."),
    Fate.BURNED_POOL: FateText("good", "It was paid from a prepaid pool."),
    Fate.LATE: FateText(
        "bad", "It arrived after the invoice of its period was final, so it is not on it."
    ),
    Fate.NOT_YET_BILLED: FateText("good", "It counts, and is billed when its period ends."),
    Fate.BILLED: FateText("good", "It is on an invoice."),
}
