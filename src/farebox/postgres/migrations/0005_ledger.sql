-- Pools of units on one double-entry ledger: what was granted, who took what, where all of it went.

-- A customer may be part of another; its pools may then serve it.
alter table customer add column parent_key text collate "C";
alter table customer add foreign key (organization_id, parent_key) references customer;
create index on customer (organization_id, parent_key) where parent_key is not null;

-- Of whom a customer was part, and when: what burned then was decided by it.
create table customer_parent (
    organization_id uuid not null,
    customer_key text collate "C" not null,
    parent_key text collate "C" not null,
    since timestamptz not null,
    until timestamptz,
    primary key (organization_id, customer_key, since),
    foreign key (organization_id, customer_key) references customer
);
select protect('customer_parent', 'select, insert, update');

-- A pool, with the balances of its accounts. `version` rises with every commit that changes the
-- pool or anything of it; whoever decides on what it read names the version it read.
create table pool (
    organization_id uuid not null references organization,
    pool_id uuid primary key,
    key text collate "C" not null,
    customer_key text collate "C",
    subscription_key text collate "C",
    subject text collate "C",
    unit text collate "C" not null,
    status text collate "C" not null,
    definition json not null,
    opened_at timestamptz not null,
    timezone text not null,
    version bigint not null,
    sequence bigint not null,
    as_of timestamptz not null,
    source numeric not null,
    pending numeric not null,
    granted numeric not null,
    held numeric not null,
    used numeric not null,
    overdraft numeric not null,
    overage numeric not null,
    burst numeric not null,
    expired numeric not null,
    transit numeric not null,
    counters json not null,
    feature_key text collate "C",
    next_due timestamptz,
    unique (organization_id, key),
    foreign key (organization_id, customer_key) references customer
) with (fillfactor = 50);
create index on pool (organization_id, customer_key, key);
create index on pool (organization_id, subscription_key) where subscription_key is not null;
create unique index on pool (organization_id, customer_key, feature_key)
    where feature_key is not null;
select protect('pool', 'select, insert, update');

-- When usage burned a pool, by which rate card, and whether that of the customers below its own did.
-- A span that has begun is only ever ended: what was burned in it stays burned.
create table pool_burn (
    organization_id uuid not null,
    pool_id uuid not null references pool,
    since timestamptz not null,
    until timestamptz,
    rate_card_key text collate "C" not null,
    serves_children boolean not null,
    primary key (pool_id, since)
);
select protect('pool_burn', 'select, insert, update');

-- What a customer was given apart from its plans, or denied.
create table entitlement_override (
    organization_id uuid not null,
    customer_key text collate "C" not null,
    feature_key text collate "C" not null,
    definition json not null,
    ends_at timestamptz,
    created_at timestamptz not null,
    primary key (organization_id, customer_key, feature_key),
    foreign key (organization_id, customer_key) references customer
);
select protect('entitlement_override', 'select, insert, update, delete');

-- A feature for a term, bought with units of a pool; taking the draw back takes it back too.
create table access (
    organization_id uuid not null,
    access_id uuid primary key,
    customer_key text collate "C" not null,
    subject text collate "C",
    feature_key text collate "C" not null,
    pool_id uuid not null references pool,
    operation bigint not null,
    starts_at timestamptz not null,
    ends_at timestamptz not null,
    revoked_at timestamptz,
    unique (pool_id, operation),
    foreign key (organization_id, customer_key) references customer
);
create index on access (organization_id, customer_key, feature_key, ends_at);
select protect('access', 'select, insert, update');

-- `number` is the sequence of the transfer that brought the grant; a hold has that of its own.
create table pool_grant (
    organization_id uuid not null,
    pool_id uuid not null references pool,
    number bigint not null,
    key text collate "C",
    status text collate "C" not null,
    amount numeric not null,
    available numeric not null,
    held numeric not null,
    basis text collate "C" not null,
    priority integer not null,
    issued_at timestamptz not null,
    effective_at timestamptz not null,
    expires_at timestamptz,
    cost numeric,
    on_invoice boolean not null,
    pay_by timestamptz,
    recurrence bigint,
    metadata json not null,
    primary key (pool_id, number),
    check (available >= 0 and held >= 0)
) with (fillfactor = 70);
create unique index on pool_grant (pool_id, key) where key is not null;
create index on pool_grant (pool_id) where status <> 'closed';
create index on pool_grant (pool_id, issued_at) where on_invoice;
select protect('pool_grant', 'select, insert, update');

create table pool_recurrence (
    organization_id uuid not null,
    pool_id uuid not null references pool,
    number bigint not null,
    key text collate "C" not null,
    definition json not null,
    next_at timestamptz,
    primary key (pool_id, number),
    unique (pool_id, key)
);
select protect('pool_recurrence', 'select, insert, update');

create table hold (
    organization_id uuid not null,
    pool_id uuid not null references pool,
    number bigint not null,
    status text collate "C" not null,
    amount numeric not null,
    slices json not null,
    subject text collate "C",
    allotment text collate "C",
    held_at timestamptz not null,
    expires_at timestamptz not null,
    settled numeric,
    closed_at timestamptz,
    primary key (pool_id, number)
) with (fillfactor = 70);
create index on hold (pool_id) where status = 'open';
select protect('hold', 'select, insert, update');

create table allotment (
    organization_id uuid not null,
    pool_id uuid not null references pool,
    key text collate "C" not null,
    definition json not null,
    used numeric not null,
    beyond numeric not null,
    lent numeric not null,
    used_at timestamptz,
    idle_since timestamptz,
    removed boolean not null default false,
    primary key (pool_id, key)
) with (fillfactor = 70);
select protect('allotment', 'select, insert, update');

-- The entries of the ledger. `pool_id` is not declared to reference the pool, which would look at
-- it once an entry; post_transfers, the only one to write here, holds its lock. `operation` is the
-- sequence of the first transfer of its group. `origin`: for what leaves the held account, where it
-- came from. `undoes`: the operation that this one settles, releases or takes back. The key and
-- digest of a request stand at its first transfer.
create table transfer (
    organization_id uuid not null,
    pool_id uuid not null,
    sequence bigint not null,
    operation bigint not null,
    reason text collate "C" not null,
    source text collate "C" not null,
    target text collate "C" not null,
    amount numeric not null check (amount > 0),
    source_after numeric not null,
    target_after numeric not null,
    available_after numeric not null,
    time timestamptz not null,
    grant_number bigint,
    origin text collate "C",
    subject text collate "C",
    allotment text collate "C",
    price numeric,
    key text collate "C",
    digest uuid,
    undoes bigint,
    used_at timestamptz,
    note json,
    primary key (pool_id, sequence)
);
create unique index on transfer (pool_id, key) where key is not null;
create index on transfer (pool_id, undoes) where undoes is not null;
create index transfer_beyond on transfer (pool_id, sequence)
    where source in ('overage', 'burst') or origin in ('overage', 'burst');
create index transfer_returned on transfer (pool_id, sequence)
    where reason in ('grant_voided', 'grant_unpaid');
select protect('transfer', 'select, insert');

-- Refusals, counted by pool, subject, code and minute; written by post_transfers alone, as transfers
-- are. resolved_at: when the same subject was next granted something by this pool.
create table refusal (
    organization_id uuid not null,
    pool_id uuid not null,
    subject text collate "C" not null,
    code text collate "C" not null,
    minute timestamptz not null,
    count bigint not null,
    first_at timestamptz not null,
    last_at timestamptz not null,
    asked numeric not null,
    available numeric,
    refills_at timestamptz,
    resolved_at timestamptz,
    primary key (pool_id, minute, code, subject)
);
create index on refusal (organization_id, minute);
create index on refusal (pool_id, subject) where resolved_at is null;
select protect('refusal', 'select, insert, update');

-- Up to which event usage has burned pools; a row is made with the first pool that names a rate card.
create table burn_watermark (
    organization_id uuid primary key references organization,
    sequence bigint not null
);
select protect('burn_watermark', 'select, insert, update');

-- Usage that should have burned a pool and could not, because its rate card has no rate for it.
create table unburned (
    organization_id uuid not null,
    pool_id uuid not null references pool,
    meter_key text collate "C" not null,
    dimensions text collate "C" not null,
    reason text collate "C" not null,
    events bigint not null,
    quantity numeric not null,
    first_time timestamptz not null,
    last_time timestamptz not null,
    last_sequence bigint not null,
    primary key (pool_id, meter_key, dimensions, reason)
);
select protect('unburned', 'select, insert, update');

-- Pools whose ledger grew, for whoever follows it; a row is removed by the one that followed.
create table pool_touched (
    organization_id uuid not null,
    touched_id bigint generated always as identity,
    pool_ids uuid[] not null,
    primary key (touched_id)
);
select protect('pool_touched', 'select, insert, delete');
