"""Whatever fails in whatever order, each notice reaches who wants it, and the log says how.

The receivers, the failures and the kills are drawn; a list of what was sent is the oracle.
"""

from collections import defaultdict
from collections.abc import Callable
from datetime import datetime
from typing import Any

from farebox_world import World, new_id
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from msgspec import Struct

from farebox.access.id import Prefix, encode_id
from farebox.connectors.webhook import SECONDS
from farebox.flows.deliver_webhook import LEASE, Attempt, begin_attempt, finish_attempt
from farebox.flows.dispatch_notices import dispatch_notices
from farebox.flows.webhook_endpoint import PutEndpoint, WebhookEndpoint, put_endpoint
from farebox.notices.delivery import SCHEDULE, DeliveryStatus, Outcome, SendFailure
from farebox.notices.type import NoticeType
from farebox.postgres import notice, webhook_delivery, webhook_endpoint
from farebox.postgres.notice import Notice
from farebox.postgres.session import transaction, unbound

TYPES = (NoticeType.ALERT_FIRED, NoticeType.POOL_EXHAUSTED)
TRIES_MAX = len(SCHEDULE) + 1


class Receiver(Struct, frozen=True):
    """Who wants what: these types (none: all), of this customer (none: of any)."""

    types: tuple[str, ...]
    customer: str | None
    enabled: bool

    def wants(self, kind: str, customer: str | None) -> bool:
        return (
            self.enabled
            and (not self.types or kind in self.types)
            and self.customer in (None, customer)
        )


class Told(Struct, frozen=True):
    kind: NoticeType
    customer: str | None


# What happens to an attempt: an answer, silence, or a worker killed before or after it was sent;
# a late worker comes back when its lease has ended and another one has begun.
FATES = st.sampled_from(["ok", "500", "503", "silence", "killed", "killed after", "late"])
RECEIVERS = st.lists(
    st.builds(
        Receiver,
        st.sampled_from([(), (TYPES[0],), TYPES]),
        st.sampled_from([None, None, "acme"]),
        st.sampled_from([True, True, True, False]),
    ),
    min_size=1,
    max_size=3,
)
NOTICES = st.lists(
    st.builds(Told, st.sampled_from(TYPES), st.sampled_from([None, "acme", "globex"])),
    min_size=1,
    max_size=4,
)


class Run:
    """One organization's deliveries, moved step by step; `reached` is what receivers got."""

    def __init__(self, world: World, fates: list[str]) -> None:
        self.world = world
        self.fates = fates
        self.reached: dict[str, list[str]] = defaultdict(list)
        self.expected_log: dict[Any, dict[int, str | None]] = defaultdict(dict)
        self.late: list[tuple[int, Attempt]] = []
        self.moves = 0

    def step(self) -> bool:
        """Make every attempt that is due; False where there was none."""
        world = self.world
        while dispatch_notices(world.pool, world.organization_id, world.now, new_id):
            pass
        with unbound(world.pool) as connection:
            due = webhook_endpoint.endpoints_due(connection, world.now, 100, 10_000)
        mine = [key for organization_id, key in due if organization_id == world.organization_id]
        for key in mine:
            attempt = begin_attempt(world.pool, world.organization_id, key, world.now)
            assert attempt is not None, "what is due can be claimed"
            other = begin_attempt(world.pool, world.organization_id, key, world.now)
            assert other is None, "an endpoint has one attempt at a time"
            self.make(key, attempt)
        return bool(mine)

    def make(self, key: str, attempt: Attempt) -> None:
        fate = self.fates.pop() if self.fates else "ok"
        self.expected_log[attempt.delivery_id][attempt.number] = None
        message_id = attempt.headers["webhook-id"]
        if fate in ("ok", "killed after", "late"):
            self.reached[key].append(message_id)
        if fate.startswith("killed"):
            return
        if fate == "late":
            self.late.append((self.moves + 2, attempt))
            return
        self.finish(attempt, fate)

    def finish(self, attempt: Attempt, fate: str) -> None:
        self.expected_log[attempt.delivery_id][attempt.number] = fate
        finish_attempt(self.world.pool, attempt, OUTCOMES[fate], self.world.now, 0.5)

    def move(self) -> bool:
        """Let time pass until something is due; False where nothing is left to do.

        Who is late comes back: when its lease has just ended, or another one has begun since.
        """
        moments = waits(self.world)
        if not moments:
            return False
        self.world.now = min((one for one in moments if one > self.world.now), default=moments[0])
        self.moves += 1
        for at_move, attempt in list(self.late):
            if at_move <= self.moves:
                self.late.remove((at_move, attempt))
                self.finish(attempt, "ok")
        return True


OUTCOMES = {
    "ok": Outcome(status=200, duration_ms=1),
    "500": Outcome(status=500, duration_ms=1),
    "503": Outcome(status=503, duration_ms=1),
    "silence": Outcome(failure=SendFailure.TIMED_OUT, duration_ms=1),
}


@settings(
    max_examples=40,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(receivers=RECEIVERS, told=NOTICES, fates=st.lists(FATES, max_size=30))
@example(receivers=[Receiver((), None, True)], told=[Told(TYPES[0], None)] * 2, fates=["500"] * 30)
@example(receivers=[Receiver((), None, True)], told=[Told(TYPES[0], None)], fates=["late"] * 5)
def test_each_notice_reaches_who_wants_it_whatever_fails(
    new_world: Callable[[], World],
    receivers: list[Receiver],
    told: list[Told],
    fates: list[str],
) -> None:
    world = new_world()
    world.customer("acme")
    for number, receiver in enumerate(receivers):
        put(world, f"e{number}", receiver)
    tell(world, told)
    run = Run(world, fates)
    while run.step() or run.move():
        pass
    check(run, receivers, told)


def put(world: World, key: str, receiver: Receiver) -> None:
    endpoint = WebhookEndpoint(
        key=key,
        url="https://hooks.example.com/",
        types=receiver.types,
        customer=receiver.customer,
        enabled=receiver.enabled,
    )
    done = put_endpoint(
        world.pool, world.organization_id, endpoint, world.now, bytes(32), private_addresses=False
    )
    assert isinstance(done, PutEndpoint)


def tell(world: World, told: list[Told]) -> None:
    rows = [
        Notice(notice_id=new_id(), type=one.kind, time=world.now, customer=one.customer, data={})
        for one in told
    ]
    with transaction(world.pool, world.organization_id) as connection:
        notice.add_notices(connection, world.organization_id, rows)


def waits(world: World) -> list[datetime]:
    """Return when what is not done yet is due, its leases end and its endpoints have rested."""
    open_ = [row for row in deliveries(world) if row.next_attempt_at is not None]
    with transaction(world.pool, world.organization_id) as connection:
        endpoints = webhook_endpoint.endpoints(connection, world.organization_id)
    rests = [row.rests_until for row in endpoints if open_]
    moments = [moment for row in open_ for moment in (row.next_attempt_at, row.leased_until)]
    return sorted(moment for moment in [*moments, *rests] if moment is not None)


def deliveries(world: World) -> Any:
    with transaction(world.pool, world.organization_id) as connection:
        return webhook_delivery.deliveries(connection, world.organization_id, limit=1000)


def check(run: Run, receivers: list[Receiver], told: list[Told]) -> None:
    world = run.world
    found = deliveries(world)
    wanted = sum(one.wants(each.kind, each.customer) for one in receivers for each in told)
    assert wanted == len(found) == len({(row.endpoint_key, row.notice_id) for row in found})
    for row in found:
        with transaction(world.pool, world.organization_id) as connection:
            attempts = webhook_delivery.attempts_of(
                connection, world.organization_id, [row.delivery_id]
            )
        told_log = {one.number: said(one) for one in attempts}
        assert run.expected_log[row.delivery_id] == told_log
        assert list(range(1, row.attempts + 1)) == sorted(told_log)
        if row.status == DeliveryStatus.DELIVERED:
            assert "ok" in told_log.values()
        else:
            # More of them where the worker of the last one was killed.
            assert DeliveryStatus.GIVEN_UP == row.status
            assert row.attempts >= TRIES_MAX
        if row.status == DeliveryStatus.DELIVERED:
            assert encode_id(Prefix.NOTICE, row.notice_id) in run.reached[row.endpoint_key]


def said(attempt: Any) -> str | None:
    if attempt.duration_ms is None:
        return None
    return {200: "ok", 500: "500", 503: "503", None: "silence"}[attempt.status]


def test_a_lease_is_longer_than_any_attempt() -> None:
    assert LEASE.total_seconds() >= 2 * SECONDS
