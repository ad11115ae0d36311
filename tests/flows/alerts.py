"""Rules and looks for tests of alerts, over the pools of `pools.py`."""

import json
from collections.abc import Sequence
from decimal import Decimal
from typing import Any

from farebox_pools import Pools

from farebox.alerts.rule import AlertKind, AlertRule
from farebox.flows.put_alert_rule import PutRule, delete_alert_rule, put_alert_rule
from farebox.flows.watch_pools import watch_all, watch_pools
from farebox.postgres.alert import AlertRow, alerts
from farebox.postgres.notice import notices
from farebox.postgres.session import transaction


class Watched:
    """The pools of one organization, the rules that watch them and what is told."""

    def __init__(self, pools: Pools) -> None:
        self.pools = pools
        self._told = 0

    def rule(self, key: str, kind: AlertKind, threshold: object, **fields: Any) -> AlertRule:
        """Put a rule a moment after all that happened, and let a moment pass."""
        pools = self.pools
        pools.later(seconds=1)
        rule = AlertRule(key=key, kind=kind, threshold=Decimal(str(threshold)), **fields)
        done = put_alert_rule(pools.pool, pools.organization_id, rule, pools.now)
        assert isinstance(done, PutRule), done
        pools.later(seconds=1)
        return rule

    def delete(self, key: str) -> bool:
        return delete_alert_rule(self.pools.pool, self.pools.organization_id, key, self.pools.now)

    def look(self, *keys: str) -> list[str]:
        """Look at pools, by default at all, and return what was told by it."""
        pools = self.pools
        ids = [pools.ids[key] for key in keys or pools.ids]
        watch_pools(pools.pool, pools.organization_id, ids, pools.now)
        return self.told()

    def look_at_all(self) -> list[str]:
        watch_all(self.pools.pool, self.pools.organization_id, self.pools.now)
        return self.told()

    def told(self) -> list[str]:
        """Return the types of the notices since the last call, in the order they are sent in."""
        found = self.notices()
        new, self._told = found[self._told :], len(found)
        return [kind for kind, _ in new]

    def notices(self) -> Sequence[tuple[str, dict[str, Any]]]:
        """Return type and data of every notice, in the order they are sent in."""
        with transaction(self.pools.pool, self.pools.organization_id) as connection:
            rows = notices(connection, self.pools.organization_id, limit=100_000)
        return [
            (row.type, json.loads(row.data)) for row in sorted(rows, key=lambda one: one.notice_id)
        ]

    def alerts(self, **wanted: Any) -> Sequence[AlertRow]:
        """Return alerts, the first to fire first."""
        with transaction(self.pools.pool, self.pools.organization_id) as connection:
            found = alerts(connection, self.pools.organization_id, **wanted, limit=100_000)
        return sorted(found, key=lambda one: (one.fired_at, one.sequence))
