"""Spans of time, half open: from an instant on, up to another without it."""

from collections.abc import Iterable
from datetime import datetime

Span = tuple[datetime, datetime]


def without(start: datetime, end: datetime, spans: Iterable[Span]) -> list[Span]:
    """Return what is left of `start` to `end` without these spans, in order of time."""
    left: list[Span] = []
    at = start
    for since, until in sorted(spans):
        if at < min(since, end):
            left.append((at, min(since, end)))
        at = max(at, until)
        if at >= end:
            break
    if at < end:
        left.append((at, end))
    return left
