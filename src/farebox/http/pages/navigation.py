"""The pages of the console in the order of its navigation."""

from msgspec import Struct


class Place(Struct, frozen=True):
    """A page: `key` is the letter that goes there after "g", `icon` the path of a 16 px drawing."""

    label: str
    path: str
    key: str
    icon: str


class Section(Struct, frozen=True):
    label: str
    places: tuple[Place, ...]


NAVIGATION = (
    Section(
        "",
        (
            Place("Overview", "/console", "o", "M2 9h4v5H2zM6 2h4v12H6zM10 6h4v8h-4z"),
            Place(
                "Customers",
                "/console/customers",
                "c",
                "M8 8a3 3 0 1 0 0-6 3 3 0 0 0 0 6M2.5 14a5.5 4.5 0 0 1 11 0",
            ),
            Place(
                "Pools",
                "/console/pools",
                "u",
                "M2.5 6.5h11v5a2 2 0 0 1-2 2h-7a2 2 0 0 1-2-2zM4.5 10h7M8 2v2.5",
            ),
            Place(
                "Alerts",
                "/console/alerts",
                "a",
                "M8 2a4 4 0 0 0-4 4c0 4-1.5 5-1.5 5h11S12 10 12 6a4 4 0 0 0-4-4M7 13.7h2",
            ),
            Place(
                "Invoices",
                "/console/invoices",
                "i",
                "M3.5 2h9v12l-2.2-1.4L8 14l-2.3-1.4L3.5 14zM6 5.5h4M6 8.5h4",
            ),
            Place("Events", "/console/events", "e", "M2 4h12M2 8h12M2 12h7"),
        ),
    ),
    Section(
        "Catalog",
        (
            Place("Meters", "/console/meters", "m", "M2.5 12a6 6 0 1 1 11 0M8 9.5l2.5-3.5"),
            Place(
                "Rate cards", "/console/rate-cards", "r", "M2.5 3h11v10h-11zM2.5 6.5h11M6.5 6.5V13"
            ),
            Place("Plans", "/console/plans", "p", "M8 2l6 3-6 3-6-3zM2 8.2l6 3 6-3M2 11.2l6 3 6-3"),
        ),
    ),
    Section(
        "Tools",
        (
            Place(
                "Calculator",
                "/console/calculator",
                "l",
                "M3.5 2h9v12h-9zM6 5h4M6 8.2h.01M10 8.2h.01M6 11h.01M10 11h.01",
            ),
            Place(
                "Event tester",
                "/console/event-tester",
                "t",
                "M6 2h4M7 2v4l-4 7.5h10L9 6V2M5 10.5h6",
            ),
            Place("Webhooks", "/console/webhooks", "w", "M2.5 8h8M7.5 4.5 11 8l-3.5 3.5M13.5 3v10"),
        ),
    ),
)
