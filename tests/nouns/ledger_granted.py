"""What is done to a pool and its grants, for the oracle of the ledger."""

from datetime import datetime
from decimal import Decimal
from typing import Any

from farebox_ledger_told import FAR, TICK, Row, Told

from farebox.ledger.policy import Policy
from farebox.ledger.pool import Terms
from farebox.ledger.refusal import PRECEDENCE, RefusalCode


class Refused(Exception):
    """Of all that stands against it, what comes first."""

    def __init__(self, *codes: RefusalCode) -> None:
        self.code = min(codes, key=lambda code: PRECEDENCE[code])


class Granted(Told):
    """A pool that is told of its grants, its policy and its end."""

    def grant(self, amount: Decimal, *, pending: bool = False, **facts: Any) -> int:
        effective, expires = facts.get("effective", self.now), facts.get("expires", FAR)
        against = [RefusalCode.POOL_CLOSED] if self.closed else []
        if expires <= effective or (pending and facts.get("pay_by", FAR) <= self.now):
            against.append(RefusalCode.GRANT_TIMES_INVALID)
        if expires <= self.now:
            against.append(RefusalCode.GRANT_ALREADY_EXPIRED)
        if against:
            raise Refused(*against)
        why = "grant_pending" if pending else "grant_issued"
        waits = "payment" if pending else None
        return int(self.issue(why, amount, waits=waits, **facts)["number"])

    def pay(self, number: int) -> None:
        self.activate(self.unpaid(number), "grant_paid")

    def fail(self, number: int) -> None:
        self.cancel(self.unpaid(number), "grant_unpaid")

    def unpaid(self, number: int) -> Row:
        if self.grants[number]["waits"] != "payment":
            raise Refused(RefusalCode.GRANT_NOT_PENDING)
        return self.grants[number]

    def void(self, number: int) -> None:
        grant = self.still_open(number)
        if grant["waits"]:
            self.cancel(grant, "grant_voided")
            return
        if grant["left"]:
            self.move("grant_voided", "grant", "source", grant["left"], grant)
        grant |= {"expires": min(grant["expires"], self.now), "over": True, "voided": True}

    def expire_now(self, number: int) -> None:
        grant = self.still_open(number)
        if grant["over"]:
            raise Refused(RefusalCode.GRANT_CLOSED)
        self.expire(grant)
        grant["expires"] = self.now

    def still_open(self, number: int) -> Row:
        if not self.is_open(self.grants[number]):
            raise Refused(RefusalCode.GRANT_CLOSED)
        return self.grants[number]

    def recur(self, amount: Decimal, *, starts: datetime, ends: datetime, **facts: Any) -> int:
        against = [RefusalCode.POOL_CLOSED] if self.closed else []
        first = max(starts, self.now)
        if ends <= first:
            against.append(RefusalCode.GRANT_TIMES_INVALID)
        if against:
            raise Refused(*against)
        number = -len(self.recurrences) - 1
        one = {"amount": amount, "start": starts, "next": first, "ends": ends, "grant": None}
        self.recurrences[number] = one | facts
        self.pass_until(self.now)
        return number

    def end_recurrence(self, number: int) -> None:
        self.recurrences[number]["next"] = FAR

    def end_recurrence_at(self, number: int, ends: datetime) -> None:
        one = self.recurrences[number]
        lasting = [(one["grant"], one["next"]), *one.get("rolled", [])]
        goes_on = one["next"] < FAR
        one["ends"] = ends
        if ends <= self.now:
            one["next"] = FAR
        for of_grant, until in lasting:
            grant = self.grants.get(of_grant)
            if goes_on and grant is not None and not grant["over"]:
                grant["expires"] = min(until, max(ends, self.now))
        self.pass_until(self.now)

    def allow(self, policy: Policy) -> None:
        come = self.terms is not None and self.terms.at <= self.now
        before, spent = self.policy, self.spend()
        self.policy = self.terms.over(policy) if come and self.terms else policy
        if spent and self.policy.currency != before.currency:
            self.now += TICK
            self.begin_period(self.now)

    def set_terms(self, terms: Terms | None) -> None:
        self.terms = terms

    def close(self, closed: bool) -> None:
        self.closed = closed

    def look(self) -> None:
        """Nothing is asked: only time has passed."""
