"""Put and delete the rules that watch pools."""

from datetime import datetime
from uuid import UUID

from msgspec import Struct
from psycopg import Connection

from farebox.alerts.rule import AlertRule
from farebox.alerts.rule_check import RULES_MAX, AlertCode, check_rule
from farebox.catalog.code import CatalogCode
from farebox.catalog.problem import Problem
from farebox.flows.watch_pools import watch_pools
from farebox.postgres import alert_rule as store
from farebox.postgres.alert import pools_firing
from farebox.postgres.alert_rule import RuleRow
from farebox.postgres.customer import customers_by_key
from farebox.postgres.draft import lock_organization
from farebox.postgres.pool import find_pool
from farebox.postgres.session import Pool, transaction


class PutRule(Struct, frozen=True):
    """The rule as it stands, and whether anything changed."""

    row: RuleRow
    changed: bool
    created: bool = False


def put_alert_rule(
    pool: Pool, organization_id: UUID, rule: AlertRule, now: datetime
) -> PutRule | list[Problem]:
    """Add or change a rule; it judges from the next look on, at what it changed within a minute."""
    with transaction(pool, organization_id) as connection:
        lock_organization(connection, organization_id)
        standing = store.find_rule(connection, organization_id, rule.key)
        problems = check_rule(rule) + _outside(connection, organization_id, rule, standing)
        if problems:
            return problems
        if standing is not None and standing.rule == rule:
            return PutRule(standing, changed=False)
        store.put_rule(connection, organization_id, rule, now)
        row = store.find_rule(connection, organization_id, rule.key)
    assert row is not None
    return PutRule(row, changed=True, created=standing is None)


def delete_alert_rule(pool: Pool, organization_id: UUID, key: str, now: datetime) -> bool:
    """Delete a rule and clear what it fired; False where there is none. Its alerts stay."""
    with transaction(pool, organization_id) as connection:
        firing = pools_firing(connection, organization_id, key)
        if not store.delete_rule(connection, organization_id, key):
            return False
    # What is not reached here, because it fires since or much does, the next look at all clears.
    watch_pools(pool, organization_id, firing, now)
    return True


def _outside(
    connection: Connection, organization_id: UUID, rule: AlertRule, standing: RuleRow | None
) -> list[Problem]:
    problems = []
    if rule.pool is not None and find_pool(connection, organization_id, key=rule.pool) is None:
        message = f"there is no pool {rule.pool[:150]!r}"
        problems.append(Problem(AlertCode.UNKNOWN_POOL, "/pool", message))
    if rule.customer is not None and not customers_by_key(
        connection, organization_id, [rule.customer]
    ):
        message = f"there is no customer {rule.customer[:150]!r}"
        problems.append(Problem(CatalogCode.UNKNOWN_CUSTOMER, "/customer", message))
    if standing is None and store.count_rules(connection, organization_id) >= RULES_MAX:
        message = f"an organization has at most {RULES_MAX} alert rules"
        problems.append(Problem(AlertCode.TOO_MANY_ALERT_RULES, "", message))
    return problems
