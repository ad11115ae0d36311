-- Notices of what happened, and their delivery to other systems as webhooks.

-- An outbox: a row is written in the transaction of what it tells. From then on only dispatched_at
-- changes, when the notice was handed to the endpoints that want it.
create table notice (
    organization_id uuid not null references organization,
    notice_id uuid not null,
    type text collate "C" not null,
    time timestamptz not null,
    customer_key text collate "C",
    data json not null,
    dispatched_at timestamptz,
    primary key (organization_id, notice_id)
);
create index on notice (organization_id, time, notice_id);
create index on notice (organization_id, customer_key, time, notice_id)
    where customer_key is not null;
create index notice_undispatched on notice (organization_id, notice_id) where dispatched_at is null;
select protect('notice', 'select, insert, update');

-- types: empty for all of them. customer_key: null for notices of every customer. The secrets stand
-- here as they are, because they sign; the earlier one holds until earlier_until. failures counts
-- since the last success; until rests_until nothing is sent.
create table webhook_endpoint (
    organization_id uuid not null references organization,
    key text collate "C" not null,
    url text not null,
    types text[] not null,
    customer_key text collate "C",
    description text not null,
    metadata json not null,
    enabled boolean not null,
    secret text not null,
    earlier_secret text,
    earlier_until timestamptz,
    created_at timestamptz not null,
    updated_at timestamptz not null,
    disabled_at timestamptz,
    disabled_reason text collate "C" check (disabled_reason in ('gone', 'failing')),
    last_success_at timestamptz,
    last_failure_at timestamptz,
    failing_since timestamptz,
    failures integer not null default 0,
    rests_until timestamptz,
    primary key (organization_id, key)
) with (fillfactor = 70);
select protect('webhook_endpoint', 'select, insert, update, delete');

-- A notice on its way to an endpoint. While leased_until lies ahead a worker is sending it. Attempts
-- before a replay are forgiven: they do not count towards giving up.
create table webhook_delivery (
    organization_id uuid not null,
    delivery_id uuid not null,
    endpoint_key text collate "C" not null,
    notice_id uuid not null,
    status text collate "C" not null check (status in ('waiting', 'failed', 'delivered', 'given_up')),
    attempts integer not null default 0,
    forgiven integer not null default 0,
    next_attempt_at timestamptz,
    leased_until timestamptz,
    last_status integer,
    last_failure text collate "C",
    created_at timestamptz not null,
    delivered_at timestamptz,
    primary key (organization_id, delivery_id),
    unique (organization_id, notice_id, endpoint_key),
    foreign key (organization_id, notice_id) references notice on delete cascade,
    foreign key (organization_id, endpoint_key) references webhook_endpoint on delete cascade,
    check ((status in ('waiting', 'failed')) = (next_attempt_at is not null))
);
create index webhook_delivery_endpoint on webhook_delivery
    (organization_id, endpoint_key, delivery_id);
create index webhook_delivery_due on webhook_delivery
    (organization_id, endpoint_key, next_attempt_at, notice_id) where next_attempt_at is not null;
create index webhook_delivery_leased on webhook_delivery
    (organization_id, endpoint_key) where leased_until is not null;
select protect('webhook_delivery', 'select, insert, update');

-- Every try. It has no duration while it is under way, or for ever where its worker was killed.
create table webhook_attempt (
    organization_id uuid not null,
    delivery_id uuid not null,
    number integer not null,
    started_at timestamptz not null,
    duration_ms integer,
    status integer,
    failure text collate "C",
    excerpt text,
    primary key (organization_id, delivery_id, number),
    foreign key (organization_id, delivery_id) references webhook_delivery on delete cascade
);
select protect('webhook_attempt', 'select, insert, update');

-- Work of all organizations ----------------------------------------------------------------------

-- Both jump from one organization or endpoint to the next in the index, however much waits there.
create function organizations_to_dispatch() returns table (organization_id uuid)
    language sql stable security definer set search_path = public, pg_temp
    as $$
    with recursive found as (
        (select n.organization_id from notice n where n.dispatched_at is null
         order by n.organization_id limit 1)
        union all
        select next.organization_id from found cross join lateral (
            select n.organization_id from notice n
            where n.dispatched_at is null and n.organization_id > found.organization_id
            order by n.organization_id limit 1) next)
    select f.organization_id from found f $$;

-- Endpoints with a delivery to send, at most `each` of an organization: those that waited longest.
create function webhook_endpoints_due(now timestamptz, each integer, at_most integer)
    returns table (organization_id uuid, endpoint_key text)
    language sql stable security definer set search_path = public, pg_temp
    as $$
    with recursive found as (
        (select d.organization_id, d.endpoint_key from webhook_delivery d
         where d.next_attempt_at is not null order by d.organization_id, d.endpoint_key limit 1)
        union all
        select next.organization_id, next.endpoint_key from found cross join lateral (
            select d.organization_id, d.endpoint_key from webhook_delivery d
            where d.next_attempt_at is not null
              and (d.organization_id, d.endpoint_key) > (found.organization_id, found.endpoint_key)
            order by d.organization_id, d.endpoint_key limit 1) next),
    due as (
        select f.organization_id, f.endpoint_key, first.next_attempt_at,
               row_number() over (partition by f.organization_id
                                  order by first.next_attempt_at, f.endpoint_key) as place
        from found f
        join webhook_endpoint e on e.organization_id = f.organization_id and e.key = f.endpoint_key
        cross join lateral (
            select d.next_attempt_at from webhook_delivery d
            where d.organization_id = f.organization_id and d.endpoint_key = f.endpoint_key
              and d.next_attempt_at <= now
            order by d.next_attempt_at limit 1) first
        where e.enabled and (e.rests_until is null or e.rests_until <= now)
          and not exists (select from webhook_delivery l
                          where l.organization_id = f.organization_id
                            and l.endpoint_key = f.endpoint_key
                            and l.leased_until is not null and l.leased_until > now))
    select d.organization_id, d.endpoint_key from due d where d.place <= each
    order by d.place, d.next_attempt_at limit at_most $$;

create function drop_webhook_attempts(before timestamptz) returns bigint
    language sql security definer set search_path = public, pg_temp
    as $$
    with gone as (delete from webhook_attempt where started_at < before returning 1)
    select count(*) from gone $$;

-- Their deliveries go with them.
create function drop_notices(before timestamptz) returns bigint
    language sql security definer set search_path = public, pg_temp
    as $$
    with gone as (delete from notice where dispatched_at < before returning 1)
    select count(*) from gone $$;

revoke execute on function organizations_to_dispatch(),
    webhook_endpoints_due(timestamptz, integer, integer), drop_webhook_attempts(timestamptz),
    drop_notices(timestamptz) from public;
grant execute on function organizations_to_dispatch(),
    webhook_endpoints_due(timestamptz, integer, integer), drop_webhook_attempts(timestamptz),
    drop_notices(timestamptz) to farebox_runtime;
