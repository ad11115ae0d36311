"""Let rules fire and clear at a pool that is looked at: each crossing becomes one alert."""

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from hashlib import blake2b
from uuid import UUID

import msgspec

from farebox.access.id import Prefix, encode_id
from farebox.alerts.judge import Crossing, Firing, Verdict, is_of_old_period, judge, walk
from farebox.alerts.measure import measure, shown
from farebox.alerts.rule import OF_BALANCE, AlertKind, concerns
from farebox.flows.tell_pools import Look, Told
from farebox.notices.type import NoticeType
from farebox.postgres import pool_span
from farebox.postgres.alert import AlertRow, ClearedBy
from farebox.postgres.alert_rule import RuleRow
from farebox.postgres.pool_watch import PoolRow

_JSON = msgspec.json.Encoder()


class Rules:
    """All rules of an organization that watch, and which of them watch a pool."""

    def __init__(self, rows: Sequence[RuleRow]) -> None:
        self.rows = rows
        self._by_scope: dict[tuple[str | None, str | None], list[RuleRow]] = {}
        for one in rows:
            self._by_scope.setdefault((one.rule.pool, one.rule.customer), []).append(one)

    def of(self, row: PoolRow) -> list[RuleRow]:
        scopes = {(None, None), (row.key, None), (None, row.customer)}
        found = [one for scope in scopes for one in self._by_scope.get(scope, ())]
        watching = [one for one in found if concerns(one.rule, row.key, row.customer, row.currency)]
        return sorted(watching, key=lambda one: one.rule.key)

    def windows(self, kinds: frozenset[AlertKind]) -> list[int]:
        """Return the windows, in minutes, over which rules of these kinds look back."""
        return sorted({one.rule.window_minutes or 0 for one in self.rows if one.rule.kind in kinds})

    @property
    def changed_at(self) -> datetime | None:
        """When the last of them was changed."""
        return max((one.updated_at for one in self.rows), default=None)

    def digest(self, salt: bytes) -> UUID:
        """Return what tells these rules, as they stand, from all others."""
        return UUID(bytes=blake2b(salt + _JSON.encode(self.rows), digest_size=16).digest())

    def expire_until(self, now: datetime) -> datetime | None:
        """Return the last expiry that any rule wants to know of."""
        kind = AlertKind.GRANT_EXPIRES_WITHIN
        hours = [one.rule.clears_at for one in self.rows if one.rule.kind is kind]
        return now + timedelta(hours=int(max(hours)) + 1) if hours else None


class Raising:
    """What rules make of one pool; `rows` are the alerts that are new or cleared."""

    def __init__(self, look: Look, firing: Sequence[AlertRow], new_id: Callable[[], UUID]) -> None:
        self.look = look
        self.told: list[Told] = []
        self._firing = {one.rule_key: one for one in firing}
        self._rows: dict[UUID, AlertRow] = {}
        self._new_id = new_id

    @property
    def rows(self) -> list[AlertRow]:
        return list(self._rows.values())

    @property
    def firing(self) -> bool:
        """Whether any rule fires at the pool by now."""
        return bool(self._firing)

    def consider(self, rules: Rules, *, timed: bool) -> None:
        """Judge the rules that watch this pool; `timed`: also those that time alone may change."""
        concerned = rules.of(self.look.row)
        kinds = {one.rule.key: one.rule.kind for one in concerned}
        for alert in list(self._firing.values()):
            if kinds.get(alert.rule_key) != alert.kind:
                self._clear(alert, self.look.seen.now, None, ClearedBy.RULE)
        for one in concerned:
            if timed or one.rule.kind in OF_BALANCE:
                self._judge(one)

    def _judge(self, one: RuleRow) -> None:
        look, rule = self.look, one.rule
        if look.row.sequence == 0 and rule.kind is not AlertKind.REFUSALS_ABOVE:
            return  # nothing has moved yet, so that nothing is missing
        alert = self._firing.get(rule.key)
        counters = look.row.counters
        if alert is not None and is_of_old_period(rule, Firing(alert.period), counters.period):
            self._clear(alert, counters.period_start or look.seen.now, None, ClearedBy.PERIOD)
        if rule.kind is AlertKind.BALANCE_BELOW and not look.row.unlimited:
            for crossing in self._crossings(one):
                point = crossing.point
                self._turn(one, crossing.verdict, point.available, point.time, point.sequence)
            if not look.current:
                return
        value = measure(rule, look.seen)
        verdict = judge(rule, value, firing=rule.key in self._firing)
        self._turn(one, verdict, _told(value), look.seen.now, look.row.sequence)

    def _crossings(self, one: RuleRow) -> Sequence[Crossing]:
        """Return where the ledger crossed the rule since the last look.

        What happened before the rule stood as it does is not judged by it.
        """
        look, rule = self.look, one.rule
        firing = rule.key in self._firing
        summary = look.summary
        if summary is None:
            return []
        if summary.most < rule.clears_at if firing else summary.least >= rule.threshold:
            return []
        points = pool_span.balance_points(
            look.connection, look.organization_id, look.span, rule.threshold, rule.clears_at
        )
        since = [point for point in points if point.time >= one.updated_at]
        return walk(since, rule.threshold, rule.clears_at, firing=firing)

    def _turn(
        self, one: RuleRow, verdict: Verdict, value: Decimal | None, time: datetime, sequence: int
    ) -> None:
        match verdict:
            case Verdict.FIRE:
                assert value is not None, "nothing fires without a number"
                self._fire(one, value, time, sequence)
            case Verdict.CLEAR:
                self._clear(self._firing[one.rule.key], time, value, ClearedBy.VALUE)
            case Verdict.NOTHING:
                pass

    def _fire(self, one: RuleRow, value: Decimal, time: datetime, sequence: int) -> None:
        rule, row = one.rule, self.look.row
        alert = AlertRow(
            alert_id=self._new_id(),
            rule_key=rule.key,
            rule_name=rule.name,
            kind=rule.kind,
            pool_id=row.pool_id,
            pool_key=row.key,
            customer_key=row.customer,
            unit=row.unit,
            currency=row.currency,
            threshold=rule.threshold,
            value=value,
            sequence=sequence,
            period=row.counters.period,
            fired_at=time,
        )
        self._firing[rule.key] = self._rows[alert.alert_id] = alert
        self.told.append(Told(NoticeType.ALERT_FIRED, time, alert_data(alert)))

    def _clear(self, alert: AlertRow, time: datetime, value: Decimal | None, by: ClearedBy) -> None:
        cleared = msgspec.structs.replace(
            alert,
            cleared_at=max(time, alert.fired_at),
            cleared_value=value,
            cleared_by=by,
        )
        del self._firing[alert.rule_key]
        self._rows[alert.alert_id] = cleared
        self.told.append(
            Told(NoticeType.ALERT_CLEARED, max(time, alert.fired_at), alert_data(cleared))
        )


def _told(value: Fraction | None) -> Decimal | None:
    return None if value is None else shown(value)


def alert_data(row: AlertRow) -> dict[str, object]:
    """Return an alert as `GET /v1/alerts` names its parts."""
    return {
        "id": encode_id(Prefix.ALERT, row.alert_id),
        "state": row.state,
        "rule": row.rule_key,
        "name": row.rule_name,
        "kind": row.kind,
        "pool": row.pool_key,
        "customer": row.customer_key,
        "unit": row.unit,
        "currency": row.currency,
        "threshold": row.threshold,
        "value": row.value,
        "sequence": row.sequence,
        "fired_at": row.fired_at,
        "cleared_at": row.cleared_at,
        "cleared_value": row.cleared_value,
        "cleared_by": row.cleared_by,
    }
