"""What tells a request from another under its key."""

from decimal import Decimal
from itertools import pairwise

import pytest

from farebox.http.decision import AuthorizeRequest, command_of, hold_command

LONG = "10000000000000000000.00000000000000000"


def test_an_amount_counts_with_all_of_its_digits_however_it_is_written() -> None:
    digests = [
        command_of(AuthorizeRequest(pool="p", amount=Decimal(amount), key="k"), None).digest
        for amount in (f"{LONG}1", f"{LONG}2", "1", "1.00", "1E0")
    ]
    assert [False, False, True, True] == [one == other for one, other in pairwise(digests)]


@pytest.mark.parametrize("verb", ["settle", "extend"])
def test_so_does_that_of_a_hold(verb: str) -> None:
    bodies = [f'{{"amount": "{LONG}{last}", "key": "k"}}' for last in "12"]
    first, second = (hold_command(verb, 1, body.encode(), None).digest for body in bodies)
    assert first != second
