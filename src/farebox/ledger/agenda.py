"""What happens to a pool by itself, and in which order where it is due at one instant."""

from collections.abc import Iterable
from datetime import datetime
from typing import NamedTuple

from farebox.ledger.grant import ENDED, Grant, GrantStatus

TERMS_CHANGE, HOLD_ENDS, PAYMENT_LAPSES, PERIOD_TURNS = range(4)
GRANT_RENEWS, GRANT_EXPIRES, GRANT_STARTS = range(4, 7)


class Due(NamedTuple):
    """Something that happens by itself; of what is due at one instant, the lowest `rank` first."""

    time: datetime
    rank: int
    number: int


def grant_due(grant: Grant) -> Iterable[Due]:
    """Yield what will happen to a grant by itself."""
    if grant.status is GrantStatus.PENDING and grant.pay_by is not None:
        yield Due(grant.pay_by, PAYMENT_LAPSES, grant.number)
    if grant.status is GrantStatus.SCHEDULED:
        yield Due(grant.effective_at, GRANT_STARTS, grant.number)
    if grant.expires_at is not None and grant.status not in ENDED:
        yield Due(grant.expires_at, GRANT_EXPIRES, grant.number)
