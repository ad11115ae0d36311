"""What may be asked of a pool, for the tests that ask it at random."""

from datetime import timedelta
from decimal import Decimal

from farebox_ledger_desk import START
from hypothesis import strategies as st

from farebox.ledger.allotment import Allotment
from farebox.ledger.grant import Rollover
from farebox.ledger.policy import BurnBy, Burst, Limit, LimitMode, Payment, Policy, Renewal, TopUp
from farebox.ledger.pool import Terms
from farebox.period.cycle import Unit

D = Decimal
DUST = D("0.000000000000000001")
few = st.integers(1, 40).map(D)
units = few | st.sampled_from([DUST, D("0.1"), D("33.333333333333333333"), D(100)])
maybe = st.none() | few
prices = st.sampled_from([D("0.3"), D("1.25")])
names = st.sampled_from([None, "ann", "bob", "carl", "dora"])
places = st.integers(0, 200)
lengths = st.sampled_from([None, None, 1, 600, 3600, 86_000, 86_400, 86_401])
steps = st.sampled_from(
    [timedelta(microseconds=1), timedelta(seconds=1), timedelta(seconds=7), timedelta(minutes=5)]
    + [timedelta(minutes=10) - timedelta(microseconds=1), timedelta(minutes=10), timedelta(hours=1)]
    + [timedelta(days=days, microseconds=days) for days in (1, 3, 8, 32)]
)
renewals = st.builds(
    Renewal,
    unit=st.sampled_from([Unit.DAY, Unit.WEEK, Unit.MONTH, Unit.QUARTER]),
    count=st.integers(1, 2),
    anchor_day=st.sampled_from([None, 1, 31]),
)
zones = st.sampled_from(["UTC", "America/New_York", "Asia/Kathmandu", "Africa/Cairo"])
rollovers = st.builds(
    Rollover,
    percent=st.sampled_from([D(100), D(50), D("33.3")]),
    units=maybe,
    seconds=st.sampled_from([None, 3600, 86_400 * 40]),
)
limits = st.one_of(
    st.just(Limit()),
    st.just(Limit(mode=LimitMode.UNLIMITED)),
    st.builds(Limit, mode=st.just(LimitMode.SOFT), customer_units=maybe),
    st.builds(Limit, mode=st.just(LimitMode.OVERDRAFT), units=few, customer_units=maybe),
    st.builds(Limit, mode=st.just(LimitMode.OVERDRAFT), units=maybe, percent=few),
    st.builds(
        Limit,
        mode=st.just(LimitMode.OVERAGE),
        units=maybe,
        price=st.none() | prices,
        spend_cap=maybe,
        customer_units=maybe,
    ),
)
top_ups = st.builds(
    TopUp,
    below=few,
    amount=few,
    cost=few,
    payment=st.sampled_from(Payment),
    times=st.integers(1, 2),
    cool_off_seconds=st.sampled_from([0, 1200]),
    expires_after_seconds=st.sampled_from([None, 86_400]),
)
orders = st.permutations(tuple(BurnBy)).flatmap(
    lambda order: st.integers(0, 3).map(lambda count: tuple(order[:count]))
)
policies = st.builds(
    Policy,
    limit=limits,
    currency=st.just("USD"),
    burst=st.none() | st.builds(Burst, units=few, price=prices),
    top_up=st.none() | top_ups,
    renewal=renewals,
    burn_order=orders,
    unallotted=st.booleans(),
    undo_seconds=st.just(86_400 * 2),
)


terms = st.builds(
    Terms,
    at=st.sampled_from([1, 3, 30]).map(lambda days: START + timedelta(days=days)),
    limit=limits,
    currency=st.sampled_from(["USD", "EUR"]),
    renewal=renewals,
    anew=st.booleans(),
)


@st.composite
def trees(draw: st.DrawFn) -> list[Allotment]:
    """Return shares of three levels, or none; what is guaranteed inside fits."""
    if draw(st.booleans()):
        return []
    guaranteed: dict[str | None, Decimal] = {}
    shares = []
    for key, parent, subject in [
        ("ann", "left", None),
        ("pair", "left", "bob"),
        ("left", "top", None),
        ("right", "top", "carl"),
        ("top", None, None),
    ]:
        guarantee = guaranteed.get(key, D(0)) + draw(st.integers(0, 8))
        guaranteed[parent] = guaranteed.get(parent, D(0)) + guarantee
        cap = draw(st.none() | st.integers(0, 60))
        share = Allotment(
            key=key,
            parent=parent,
            guarantee=guarantee,
            cap=None if cap is None else guarantee + cap,
            weight=draw(st.integers(0, 3)),
            subjects=() if subject is None else (subject,),
            starts_at=draw(st.sampled_from([None, None, START + timedelta(hours=1)])),
            ends_at=draw(st.sampled_from([None, None, START + timedelta(days=8)])),
            lend_after_seconds=draw(st.sampled_from([None, 600, 86_400])),
            overdraft=draw(st.none() | st.integers(0, 9).map(D)),
        )
        shares.append(share)
    return shares
