"""JSON as a person reads it; every number keeps the digits it was sent with."""

import msgspec

SHOWN_MAX = 20_000


def indented(text: str) -> str:
    """Return the text with a member a line, cut where it is too long for a page."""
    shown = msgspec.json.format(text, indent=2)
    return shown if len(shown) <= SHOWN_MAX else f"{shown[:SHOWN_MAX]}\n…"
