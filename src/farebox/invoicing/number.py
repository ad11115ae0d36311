"""Invoice numbers: gapless, taken in bulk when invoices are finalized."""

from collections.abc import Iterator


def numbers(last: int, count: int, prefix: str = "INV") -> Iterator[str]:
    """Return the `count` numbers that follow `last`: INV-000001, INV-000002, ..."""
    for number in range(last + 1, last + count + 1):
        yield f"{prefix}-{number:06d}"
