"""A worker of its own, for a test to kill: delivers from the database it is given until then."""

import asyncio
import sys
from random import Random

from farebox.cli.runtime import clock, new_id
from farebox.postgres.session import open_pool
from farebox.worker.deliver import keep_delivering

if __name__ == "__main__":
    pool = open_pool(sys.argv[1], size=3)
    asyncio.run(keep_delivering(pool, clock, new_id, Random(1).random, private_addresses=True))
