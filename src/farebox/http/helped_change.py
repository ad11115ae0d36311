"""Changes that take units of a pool: a refusal is stored, and says what would help."""

from collections.abc import Callable, Sequence

from litestar import Response
from psycopg import Connection

from farebox.catalog.cover import Cover
from farebox.flows.answer_once import Reply
from farebox.flows.read_pool import books_now
from farebox.http.authenticate import Principal
from farebox.http.cover_memory import Use, covers_of, is_helped
from farebox.http.decision import refused_by
from farebox.http.idempotency import change_once
from farebox.http.state import State
from farebox.ledger.refusal import Refusal
from farebox.postgres.pool import PoolKey
from farebox.postgres.session import transaction


class _NotGiven(Exception):
    """What the pool refused, on its way out of the transaction that stores it."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.code)
        self.refusal = refusal


def take_once(
    farebox: State,
    principal: Principal,
    key: str | None,
    method_and_path: str,
    body: bytes,
    act: Callable[[Connection], Reply | Refusal],
    pool: PoolKey,
    use: Use,
) -> Response[bytes]:
    """As `change_once`, for what takes the units of `use` from a pool; raises Refused."""

    def given(connection: Connection) -> Reply | _NotGiven:
        done = act(connection)
        return _NotGiven(done) if isinstance(done, Refusal) else done

    try:
        return change_once(farebox, principal, key, method_and_path, body, given)
    except _NotGiven as error:
        found = covers_now(farebox, principal, pool, error.refusal, use)
        raise refused_by(pool.key, error.refusal, found) from None


def covers_now(
    farebox: State, principal: Principal, pool: PoolKey, refusal: Refusal, use: Use
) -> Sequence[Cover]:
    """Return what would cover what a pool refused, as it stands now.

    It reads in transactions of its own, so none is to be open: each takes another connection.
    """
    if not is_helped(refusal, use):
        return ()
    now, organization_id = farebox.clock(), principal.organization_id
    with transaction(farebox.pool, organization_id, snapshot=True) as connection:
        book = books_now(connection, organization_id, [pool.pool_id], now)[pool.pool_id]
    sold = farebox.covers.read(farebox.pool, organization_id, use, now)
    return covers_of(sold, refusal, use, book)
