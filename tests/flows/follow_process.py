"""A follower of its own, for a test to kill: follows one organization until then."""

import sys
from datetime import UTC, datetime
from uuid import UUID

from farebox.flows.follow_pools import follow_pools
from farebox.postgres.session import open_pool

if __name__ == "__main__":
    pool = open_pool(sys.argv[1], size=2)
    while True:
        follow_pools(pool, UUID(sys.argv[2]), datetime.now(UTC))
