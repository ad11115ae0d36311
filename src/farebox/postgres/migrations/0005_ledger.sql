-- Pools of units on one double-entry ledger: what was granted, who took what, where all of it went.

-- A customer may be part of another; its pools may then serve it.
alter table customer add column parent_key text collate "C";
alter table customer add foreign key (organization_id, parent_key) references customer;
create index on customer (organization_id, parent_key) where parent_key is not null;

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
    rate_card_key text collate "C",
    burns_since timestamptz,
    burns_until timestamptz,
    next_due timestamptz,
    unique (organization_id, key),
    foreign key (organization_id, customer_key) references customer
) with (fillfactor = 50);
create index on pool (organization_id, customer_key, key);
create index on pool (organization_id, subscription_key) where subscription_key is not null;
create unique index on pool (organization_id, customer_key, feature_key)
    where feature_key is not null;
select protect('pool', 'select, insert, update');

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

-- Commits what was decided for some pools, each of which must still stand at the version that the
-- decisions were made on. The pools are locked, in the order of their ids, until the transaction
-- ends; pool_ids come in that order.
--
-- new_grants, recurrences, holds, new_holds, allotments: rows as JSON arrays, where `pool` is the
-- place (from 1) in pool_ids. What is said of pools, of grants that were there before and of
-- transfers holds one value for each, separated by the unit separator (U+001F); '' is null, an
-- argument that is null is null for all of them. pool_balances: in the order of the columns. asked:
-- pools and keys of requests that were refused, and so are in no transfer.
--
-- stale: the pools that stand at another version. known: keys that are in the ledger already, as
-- pool and key. Where there is one of either, nothing was written.
--
-- Its statements are planned once a session, for planning takes longer than most commits. There is
-- one good plan whatever the tables hold, and they leave no other: what comes in is gone through row
-- by row, each row is found by its key (`lateral`, which `limit` or `offset` keeps apart) and written
-- where it was found.
create function post_transfers(
    for_organization uuid, pool_ids uuid[], versions bigint[],
    pool_sequences text, pool_times text, pool_balances text[], pool_counters text, pool_dues text,
    grant_places text, grant_rows text, grant_statuses text, grants_available text,
    grants_held text, grant_ends text,
    new_grants json, recurrences json, holds json, new_holds json, allotments json,
    at text, sequences text, operations text, reasons text, sources text, targets text,
    amounts text, sources_after text, targets_after text, available_after text, times text,
    grant_numbers text, origins text, subjects text, allotment_keys text, prices text,
    keys text, digests text, undone text, used_times text, notes text,
    asked_pools uuid[], asked_keys text[], refusals json, resolved json,
    out stale uuid[], out known_pools uuid[], out known_keys text[])
    language plpgsql
    set plan_cache_mode = force_generic_plan
    set enable_seqscan = off
    set enable_hashjoin = off
    set enable_mergejoin = off
    set enable_bitmapscan = off
    as $$
#variable_conflict use_column
declare
    separator constant text := chr(31);
    found_ids uuid[];
    found_versions bigint[];
begin
    perform set_config('farebox.organization', for_organization::text, true);
    -- Materialized, for the versions must be read after the lock.
    with locked as materialized (
        select p.pool_id, p.version from pool p
        where p.pool_id = any(pool_ids) order by p.pool_id for update)
    select array_agg(l.pool_id), array_agg(l.version) into found_ids, found_versions from locked l;
    if found_ids is distinct from pool_ids then
        raise exception 'a pool of this commit is not there, or they come in another order';
    end if;
    if found_versions <> versions then
        select array_agg(v.pool_id) into stale
            from unnest(pool_ids, versions, found_versions) v(pool_id, expected, version)
            where v.version <> v.expected;
        return;
    end if;
    if asked_keys is not null then
        select array_agg(t.pool_id), array_agg(t.key) into known_pools, known_keys
            from unnest(asked_pools, asked_keys) a(pool_id, key)
            cross join lateral (
                select t.pool_id, t.key from transfer t
                where t.pool_id = a.pool_id and t.key = a.key limit 1) t;
        if known_keys is not null then
            return;
        end if;
    end if;
    begin
        insert into transfer (organization_id, pool_id, sequence, operation, reason, source, target,
                amount, source_after, target_after, available_after, time, grant_number, origin,
                subject, allotment, price, key, digest, undoes, used_at, note)
            select for_organization, pool_ids[t.at::integer], t.sequence::bigint,
                   t.operation::bigint, t.reason, t.source, t.target, t.amount::numeric,
                   t.source_after::numeric, t.target_after::numeric, t.available_after::numeric,
                   t.time::timestamptz, nullif(t.grant_number, '')::bigint, nullif(t.origin, ''),
                   nullif(t.subject, ''), nullif(t.allotment, ''), nullif(t.price, '')::numeric,
                   nullif(t.key, ''), nullif(t.digest, '')::uuid, nullif(t.undoes, '')::bigint,
                   nullif(t.used_at, '')::timestamptz, nullif(t.note, '')::json
            from rows from (
                string_to_table(at, separator), string_to_table(sequences, separator),
                string_to_table(operations, separator), string_to_table(reasons, separator),
                string_to_table(sources, separator), string_to_table(targets, separator),
                string_to_table(amounts, separator), string_to_table(sources_after, separator),
                string_to_table(targets_after, separator),
                string_to_table(available_after, separator), string_to_table(times, separator),
                string_to_table(grant_numbers, separator), string_to_table(origins, separator),
                string_to_table(subjects, separator), string_to_table(allotment_keys, separator),
                string_to_table(prices, separator), string_to_table(keys, separator),
                string_to_table(digests, separator), string_to_table(undone, separator),
                string_to_table(used_times, separator), string_to_table(notes, separator))
                t(at, sequence, operation, reason, source, target, amount, source_after,
                  target_after, available_after, time, grant_number, origin, subject, allotment,
                  price, key, digest, undoes, used_at, note);
    exception when unique_violation then
        select array_agg(t.pool_id), array_agg(t.key) into known_pools, known_keys
            from rows from (string_to_table(at, separator), string_to_table(keys, separator))
                i(at, key)
            cross join lateral (
                select t.pool_id, t.key from transfer t
                where t.pool_id = pool_ids[i.at::integer] and t.key = i.key limit 1) t;
        if known_keys is null then
            raise;
        end if;
        return;
    end;
    update pool p set
            version = p.version + 1, sequence = n.sequence::bigint, as_of = n.as_of::timestamptz,
            source = n.source::numeric, pending = n.pending::numeric,
            granted = n.granted::numeric, held = n.held::numeric, used = n.used::numeric,
            overdraft = n.overdraft::numeric, overage = n.overage::numeric,
            burst = n.burst::numeric, expired = n.expired::numeric, transit = n.transit::numeric,
            counters = n.counters::json, next_due = nullif(n.next_due, '')::timestamptz
        from rows from (
            unnest(pool_ids), string_to_table(pool_sequences, separator),
            string_to_table(pool_times, separator), string_to_table(pool_balances[1], separator),
            string_to_table(pool_balances[2], separator),
            string_to_table(pool_balances[3], separator),
            string_to_table(pool_balances[4], separator),
            string_to_table(pool_balances[5], separator),
            string_to_table(pool_balances[6], separator),
            string_to_table(pool_balances[7], separator),
            string_to_table(pool_balances[8], separator),
            string_to_table(pool_balances[9], separator),
            string_to_table(pool_balances[10], separator),
            string_to_table(pool_counters, separator),
            string_to_table(pool_dues, separator))
            n(pool_id, sequence, as_of, source, pending, granted, held, used, overdraft, overage,
              burst, expired, transit, counters, next_due)
        cross join lateral (select o.ctid from pool o where o.pool_id = n.pool_id limit 1) o
        where p.ctid = o.ctid;
    if grant_places is not null then
        update pool_grant g set status = n.status, available = n.available::numeric,
                held = n.held::numeric, expires_at = nullif(n.expires_at, '')::timestamptz
            from rows from (
                string_to_table(grant_places, separator), string_to_table(grant_rows, separator),
                string_to_table(grant_statuses, separator),
                string_to_table(grants_available, separator),
                string_to_table(grants_held, separator), string_to_table(grant_ends, separator))
                n(place, number, status, available, held, expires_at)
            cross join lateral (
                select o.ctid from pool_grant o
                where o.pool_id = pool_ids[n.place::integer] and o.number = n.number::bigint
                limit 1) o
            where g.ctid = o.ctid;
    end if;
    if new_grants is not null then
        insert into pool_grant (organization_id, pool_id, number, key, status, amount, available,
                held, basis, priority, issued_at, effective_at, expires_at, cost, on_invoice,
                pay_by, recurrence, metadata)
            select for_organization, pool_ids[n.pool], n.number, n.key, n.status, n.amount,
                   n.available, n.held, n.basis, n.priority, n.issued_at, n.effective_at,
                   n.expires_at, n.cost, n.on_invoice, n.pay_by, n.recurrence, n.metadata
            from json_to_recordset(new_grants) n(pool integer, number bigint, key text,
                status text, amount numeric, available numeric, held numeric, basis text,
                priority integer, issued_at timestamptz, effective_at timestamptz,
                expires_at timestamptz, cost numeric, on_invoice boolean, pay_by timestamptz,
                recurrence bigint, metadata json);
    end if;
    if holds is not null then
        update hold h set status = n.status, amount = n.amount, slices = n.slices,
                expires_at = n.expires_at, settled = n.settled, closed_at = n.closed_at
            from json_to_recordset(holds) n(pool integer, number bigint, status text,
                amount numeric, slices json, expires_at timestamptz, settled numeric,
                closed_at timestamptz)
            cross join lateral (
                select o.ctid from hold o
                where o.pool_id = pool_ids[n.pool] and o.number = n.number limit 1) o
            where h.ctid = o.ctid;
    end if;
    if new_holds is not null then
        insert into hold (organization_id, pool_id, number, status, amount, slices, subject,
                allotment, held_at, expires_at, settled, closed_at)
            select for_organization, pool_ids[n.pool], n.number, n.status, n.amount, n.slices,
                   n.subject, n.allotment, n.held_at, n.expires_at, n.settled, n.closed_at
            from json_to_recordset(new_holds) n(pool integer, number bigint, status text,
                amount numeric, slices json, subject text, allotment text, held_at timestamptz,
                expires_at timestamptz, settled numeric, closed_at timestamptz);
    end if;
    if recurrences is not null then
        insert into pool_recurrence as r
                (organization_id, pool_id, number, key, definition, next_at)
            select for_organization, pool_ids[n.pool], n.number, n.key,
                   n.definition, n.next_at
            from json_to_recordset(recurrences) n(pool integer, number bigint, key text,
                definition json, next_at timestamptz)
            on conflict (pool_id, number) do update set
                definition = excluded.definition, next_at = excluded.next_at;
    end if;
    if allotments is not null then
        update allotment a set used = n.used, beyond = n.beyond, lent = n.lent,
                used_at = n.used_at, idle_since = n.idle_since
            from json_to_recordset(allotments) n(pool integer, key text, used numeric,
                beyond numeric, lent numeric, used_at timestamptz, idle_since timestamptz)
            cross join lateral (
                select o.ctid from allotment o
                where o.pool_id = pool_ids[n.pool] and o.key = n.key limit 1) o
            where a.ctid = o.ctid;
    end if;
    if resolved is not null then
        update refusal r set resolved_at = n.at
            from json_to_recordset(resolved) n(pool integer, subject text, at timestamptz)
            cross join lateral (
                select o.ctid from refusal o
                where o.pool_id = pool_ids[n.pool] and o.subject = n.subject
                  and o.resolved_at is null
                offset 0) o
            where r.ctid = o.ctid;
    end if;
    if refusals is not null then
        insert into refusal as r (organization_id, pool_id, subject, code, minute, count, first_at,
                last_at, asked, available, refills_at, resolved_at)
            select for_organization, pool_ids[n.pool], n.subject, n.code, n.minute, n.count,
                   n.first_at, n.last_at, n.asked, n.available, n.refills_at, n.resolved_at
            from json_to_recordset(refusals) n(pool integer, subject text, code text,
                minute timestamptz, count bigint, first_at timestamptz, last_at timestamptz,
                asked numeric, available numeric, refills_at timestamptz,
                resolved_at timestamptz)
            on conflict (pool_id, minute, code, subject) do update set
                count = r.count + excluded.count, last_at = excluded.last_at,
                asked = r.asked + excluded.asked, available = excluded.available,
                refills_at = excluded.refills_at, resolved_at = excluded.resolved_at;
    end if;
    if sequences is not null then
        insert into pool_touched (organization_id, pool_ids) values (for_organization, pool_ids);
    end if;
end $$;

-- The first entry of a pool that is not before `since`, or the one to come. The times of a
-- pool's entries never go back, so halving finds it, and no index by time has to be kept.
create function sequence_at(of_pool uuid, since timestamptz) returns bigint
    language plpgsql stable
    as $$
declare
    low bigint := 1;
    high bigint;
    middle bigint;
begin
    select p.sequence + 1 into high from pool p where p.pool_id = of_pool;
    while low < high loop
        middle := (low + high) / 2;
        if (select t.time >= since from transfer t
            where t.pool_id = of_pool and t.sequence = middle) then
            high := middle;
        else
            low := middle + 1;
        end if;
    end loop;
    return low;
end $$;

-- The organizations of the pools whose ledger somebody has to follow.
create function touched_organizations() returns table (organization_id uuid)
    language sql stable security definer set search_path = public, pg_temp
    as $$ select distinct t.organization_id from pool_touched t $$;

-- Organizations with events that may burn a pool.
create function organizations_to_burn() returns table (organization_id uuid)
    language sql stable security definer set search_path = public, pg_temp
    as $$
    select b.organization_id from burn_watermark b
    join stream_head h on h.organization_id = b.organization_id and h.shard = 0
    where h.last_sequence > b.sequence $$;

-- Pools on which something falls due by itself, the longest due first.
create function due_pools(now timestamptz, most integer)
    returns table (organization_id uuid, pool_id uuid)
    language sql stable security definer set search_path = public, pg_temp
    as $$
    select p.organization_id, p.pool_id from pool p
    where p.next_due <= now and p.status = 'open'
    order by p.next_due limit most
$$;
create index pool_due on pool (next_due) where status = 'open';

-- The organizations that have pools, for whoever looks through all ledgers.
create function organizations_with_pools() returns table (organization_id uuid, key text)
    language sql stable security definer set search_path = public, pg_temp
    as $$
    select o.organization_id, o.key from organization o
    where exists (select from pool p where p.organization_id = o.organization_id)
$$;

-- Customers whose subscriptions or overrides began or ended in a span of time.
create function customers_to_sync(since timestamptz, until timestamptz)
    returns table (organization_id uuid, customer_key text)
    language sql stable security definer set search_path = public, pg_temp
    as $$
    select s.organization_id, s.customer_key from subscription s
    where s.starts_at > since and s.starts_at <= until or s.ends_at > since and s.ends_at <= until
    union
    select o.organization_id, o.customer_key from entitlement_override o
    where o.ends_at > since and o.ends_at <= until
    order by 1, 2 $$;
create index on subscription (starts_at);
create index on subscription (ends_at) where ends_at is not null;
create index on entitlement_override (ends_at) where ends_at is not null;

revoke execute on function touched_organizations(), organizations_to_burn(),
    customers_to_sync(timestamptz, timestamptz),
    due_pools(timestamptz, integer), organizations_with_pools() from public;
grant execute on function touched_organizations(), organizations_to_burn(),
    customers_to_sync(timestamptz, timestamptz),
    due_pools(timestamptz, integer), organizations_with_pools() to farebox_runtime;
