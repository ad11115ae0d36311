"""The events the benchmark sends: made from a seed, each id once in a run."""

import random
from datetime import UTC, datetime, timedelta

from bench.catalog import CUSTOMERS, EVENT_TYPE, MODELS_A_CUSTOMER, customer_key, dimensions_of

BATCH = 1_000
SPREAD_SECONDS = 600
"""Events carry times of the last ten minutes, as senders that buffer a little would give."""

_USERS = [
    f'"subject":"{customer_key(number)}","data":{{"model":"{model}","region":"{region}"'
    for number in range(CUSTOMERS)
    for model, region in dimensions_of(number)
]
assert len(_USERS) == CUSTOMERS * MODELS_A_CUSTOMER


def make_events(seed: int, run: str, count: int) -> list[str]:
    """Return CloudEvents as JSON texts; `run` keeps their ids apart from those of other calls."""
    rng = random.Random(f"{seed}/{run}")
    now = datetime.now(UTC)
    times = [
        (now - timedelta(seconds=rng.random() * SPREAD_SECONDS)).isoformat() for _ in range(4096)
    ]
    return [
        f'{{"specversion":"1.0","id":"{run}-{number:024d}","source":"bench/gateway-1",'
        f'"type":"{EVENT_TYPE}","time":"{times[rng.getrandbits(12)]}",'
        f'{_USERS[rng.randrange(len(_USERS))]},"tokens":{rng.randrange(1, 4000)},'
        f'"status":"{"ok" if rng.random() < 0.95 else "error"}"}}}}'
        for number in range(count)
    ]


def make_batches(seed: int, run: str, batches: int) -> list[bytes]:
    """Return bodies of `BATCH` events in the JSON batch format."""
    events = make_events(seed, run, batches * BATCH)
    return [
        f"[{','.join(events[at : at + BATCH])}]".encode() for at in range(0, len(events), BATCH)
    ]
