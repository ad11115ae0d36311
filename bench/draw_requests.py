"""Requests for decisions: from one pool or from many, a part of them to be refused."""

import random
from collections.abc import Iterator

from msgspec import Struct

SUBJECTS = 50
REFUSED_EVERY = 20
TOO_MUCH = 10**15


class Draws(Struct, frozen=True):
    """From how many pools, and what the keys of pools begin with."""

    pools: int
    prefix: str


def pool_key(draws: Draws, number: int) -> str:
    return f"{draws.prefix}-{number}"


def make_draws(draws: Draws, seed: int, run: str, count: int) -> Iterator[bytes]:
    """Yield bodies for POST /v1/authorize, each with a key of its own."""
    chance = random.Random(f"{seed}/{run}")
    for number in range(count):
        pool = pool_key(draws, chance.randrange(draws.pools))
        amount = TOO_MUCH if number % REFUSED_EVERY == 0 else chance.randrange(1, 10)
        subject = f"user-{chance.randrange(SUBJECTS)}"
        yield (
            f'{{"pool":"{pool}","amount":"{amount}","subject":"{subject}","key":"{run}-{number}"}}'
        ).encode()
