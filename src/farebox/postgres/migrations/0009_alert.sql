-- Rules that watch pools, the alerts that they raised, and up to where each pool was looked at.

create table alert_rule (
    organization_id uuid not null references organization,
    key text collate "C" not null,
    name text not null,
    kind text collate "C" not null,
    threshold numeric not null check (threshold > 0),
    clear_at numeric,
    pool_key text collate "C",
    customer_key text collate "C",
    window_minutes integer,
    units numeric,
    currency text collate "C",
    enabled boolean not null,
    metadata json not null,
    created_at timestamptz not null,
    updated_at timestamptz not null,
    primary key (organization_id, key),
    check (pool_key is null or customer_key is null)
);
select protect('alert_rule', 'select, insert, update, delete');

-- One crossing: it fires while cleared_at is null, and stays as history. What the rule was then is
-- kept with it, because a rule may change or go. sequence: of the pool's ledger when it fired.
-- period: the pool's. cleared_by: value (it is back), period (a new one began), rule (it no longer
-- watches this pool).
create table alert (
    organization_id uuid not null references organization,
    alert_id uuid not null,
    rule_key text collate "C" not null,
    rule_name text not null,
    kind text collate "C" not null,
    pool_id uuid not null,
    pool_key text collate "C" not null,
    customer_key text collate "C",
    unit text collate "C" not null,
    currency text collate "C",
    threshold numeric not null,
    value numeric not null,
    sequence bigint not null,
    period bigint not null,
    fired_at timestamptz not null,
    cleared_at timestamptz,
    cleared_value numeric,
    cleared_by text collate "C" check (cleared_by in ('value', 'period', 'rule')),
    primary key (organization_id, alert_id),
    check ((cleared_at is null) = (cleared_by is null))
) with (fillfactor = 80);
-- A rule fires once at a pool, however many look.
create unique index alert_firing on alert (pool_id, rule_key) where cleared_at is null;
create index alert_firing_time on alert (organization_id, fired_at, alert_id)
    where cleared_at is null;
create index on alert (organization_id, fired_at, alert_id);
create index on alert (organization_id, customer_key, fired_at, alert_id)
    where customer_key is not null;
create index on alert (pool_id, fired_at, alert_id);
select protect('alert', 'select, insert, update');

-- Up to which entry a pool was looked at; whoever looks holds this row, so that nobody else does.
-- pool_id is not declared to reference the pool, whose lock is wanted by every decision. available:
-- what it had left at that entry. bursting: whether the last draw took burst. limit_near_period,
-- overage_period: for which period that was told last. looks: how often it was looked at.
create table pool_watch (
    organization_id uuid not null references organization,
    pool_id uuid primary key,
    sequence bigint not null,
    available numeric not null,
    bursting boolean not null,
    limit_near_period bigint,
    overage_period bigint,
    looks bigint not null,
    looked_at timestamptz
) with (fillfactor = 50);
select protect('pool_watch', 'select, insert, update');
