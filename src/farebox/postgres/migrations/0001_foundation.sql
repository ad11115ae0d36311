-- The foundation: organizations and keys, the catalog, the event stream, rollups, invoices.
--
-- Every table carries organization_id and a row-level security policy that binds it to the
-- organization of the transaction. The runtime role (group farebox_runtime) owns nothing; what it
-- may do to a table is granted at the table. Text keys are COLLATE "C": compared as bytes.

create function current_organization() returns uuid
    language sql stable parallel safe
    as $$ select nullif(current_setting('farebox.organization', true), '')::uuid $$;

create function protect(table_name regclass, privileges text) returns void
    language plpgsql
    as $$
begin
    execute format('alter table %s enable row level security', table_name);
    execute format(
        'create policy one_organization on %s'
        ' using (organization_id = (select current_organization()))'
        ' with check (organization_id = (select current_organization()))', table_name);
    execute format('grant %s on %s to farebox_runtime', privileges, table_name);
end $$;

-- Organizations and API keys ---------------------------------------------------------------------

create table organization (
    organization_id uuid primary key,
    key text collate "C" not null unique,
    name text not null,
    created_at timestamptz not null
);
select protect('organization', 'select, insert, update');

create table api_key (
    organization_id uuid not null references organization,
    api_key_id uuid primary key,
    name text not null,
    secret_hash bytea not null unique,
    scopes text[] not null,
    customer_key text collate "C",
    created_at timestamptz not null,
    revoked_at timestamptz
);
create index on api_key (organization_id);
select protect('api_key', 'select, insert, update');

-- The catalog ------------------------------------------------------------------------------------

-- Definitions that may still change, and the versions that never do again.
create table catalog_draft (
    organization_id uuid not null references organization,
    kind text collate "C" not null,
    key text collate "C" not null,
    definition json not null,
    revision bigint not null,
    updated_at timestamptz not null,
    primary key (organization_id, kind, key)
);
select protect('catalog_draft', 'select, insert, update, delete');

create table catalog_version (
    organization_id uuid not null references organization,
    kind text collate "C" not null,
    key text collate "C" not null,
    version integer not null,
    definition json not null,
    digest text collate "C" not null,
    effective_from timestamptz not null,
    published_at timestamptz not null,
    from_sequence bigint not null,
    primary key (organization_id, kind, key, version)
);
select protect('catalog_version', 'select, insert');

create table customer (
    organization_id uuid not null references organization,
    key text collate "C" not null,
    customer_id uuid not null unique,
    name text not null,
    timezone text not null,
    definition json not null,
    created_at timestamptz not null,
    updated_at timestamptz not null,
    primary key (organization_id, key)
);
select protect('customer', 'select, insert, update');

-- Who used on whose behalf, and when. Resolved by the time of the event.
create table subject (
    organization_id uuid not null references organization,
    subject text collate "C" not null,
    customer_key text collate "C" not null,
    valid_from timestamptz not null,
    valid_to timestamptz not null,
    primary key (organization_id, subject, valid_from),
    check (valid_from < valid_to)
);
create index on subject (organization_id, customer_key);
select protect('subject', 'select, insert, update, delete');

create table subscription (
    organization_id uuid not null references organization,
    key text collate "C" not null,
    subscription_id uuid not null unique,
    customer_key text collate "C" not null,
    plan_key text collate "C" not null,
    plan_version integer not null,
    starts_at timestamptz not null,
    ends_at timestamptz,
    timezone text not null,
    anchor_day integer,
    definition json not null,
    created_at timestamptz not null,
    primary key (organization_id, key),
    foreign key (organization_id, customer_key) references customer,
    check (ends_at is null or starts_at < ends_at)
);
create index on subscription (organization_id, customer_key);
select protect('subscription', 'select, insert, update');

-- The event stream -------------------------------------------------------------------------------

-- One row an organization (a shard column is reserved). Who holds its lock appends: so a sequence
-- is dense and in commit order, and a change of the catalog falls between two events.
create table stream_head (
    organization_id uuid not null references organization,
    shard smallint not null default 0,
    last_sequence bigint not null,
    catalog_revision bigint not null,
    primary key (organization_id, shard)
);
select protect('stream_head', 'select, insert, update');

-- Proves that an event counts once, for ever. key: digest of organization, source and id.
-- digest: of the canonical payload, which tells a duplicate from a conflict.
create table event_key (
    organization_id uuid not null,
    key uuid primary key,
    digest uuid not null,
    sequence bigint not null
);
select protect('event_key', 'select, insert');

-- Readings are what meters read at admission. series[i] gained quantities[i]; value_* are for
-- meters that keep distinct values, point_* for meters whose result depends on order.
create table event (
    organization_id uuid not null,
    sequence bigint not null,
    received_at timestamptz not null,
    time timestamptz not null,
    source text collate "C" not null,
    id text collate "C" not null,
    type text collate "C" not null,
    subject text collate "C",
    series uuid[],
    quantities numeric[],
    value_series uuid[],
    value_texts text[],
    point_series uuid[],
    point_quantities numeric[],
    payload json not null
) partition by range (received_at);
create index event_sequence on event (organization_id, sequence);
create index event_time on event using brin (time) with (pages_per_range = 32, autosummarize = on);
create table event_default partition of event default;
select protect('event', 'select, insert');

-- Partitions belong to the owner, so the runtime role asks for a month through this function.
create function ensure_event_partition(month date) returns void
    language plpgsql security definer set search_path = public, pg_temp
    as $$
declare
    first_day date := date_trunc('month', month)::date;
    name text := 'event_' || to_char(first_day, 'YYYYMM');
    starts timestamptz := first_day::timestamp at time zone 'UTC';
    ends timestamptz := (first_day + interval '1 month')::timestamp at time zone 'UTC';
begin
    perform pg_advisory_xact_lock(1702260340); -- one at a time, whoever asks
    if to_regclass('public.' || name) is null then
        execute format('create table %I (like event including defaults including indexes)', name);
        -- Rows that came before their month had a partition move from the default one; none may
        -- come in meanwhile.
        lock table event_default in access exclusive mode;
        execute format(
            'with moved as (delete from event_default'
            ' where received_at >= %L and received_at < %L returning *)'
            ' insert into %I select * from moved', starts, ends, name);
        execute format('alter table event attach partition %I for values from (%L) to (%L)',
            name, starts, ends);
    end if;
end $$;
revoke execute on function ensure_event_partition(date) from public;
grant execute on function ensure_event_partition(date) to farebox_runtime;

-- Event types that no meter reads: usage that would otherwise be dropped in silence.
create table unread_type (
    organization_id uuid not null references organization,
    type text collate "C" not null,
    events bigint not null,
    first_time timestamptz not null,
    last_time timestamptz not null,
    last_sequence bigint not null,
    primary key (organization_id, type)
);
select protect('unread_type', 'select, insert, update, delete');

-- Rollups ----------------------------------------------------------------------------------------

-- A series is one meter version, subject and set of dimension values. series_id is the digest of
-- these, so that every process makes the same one without asking.
create table series (
    organization_id uuid not null,
    series_id uuid not null,
    meter_key text collate "C" not null,
    meter_version integer not null,
    subject text collate "C" not null,
    customer_key text collate "C" not null,
    dimensions text[] not null,
    primary key (organization_id, series_id)
);
create index series_subject on series (organization_id, meter_key, subject);
create index series_customer on series (organization_id, meter_key, customer_key)
    where customer_key <> '';
select protect('series', 'select, insert');

-- Rollups hold every event up to this sequence; later ones are read from the stream.
create table watermark (
    organization_id uuid primary key references organization,
    sequence bigint not null,
    folded_at timestamptz not null
);
select protect('watermark', 'select, insert, update');

create table rollup (
    organization_id uuid not null,
    series_id uuid not null,
    bucket timestamptz not null,
    count bigint not null,
    total numeric not null,
    minimum numeric not null,
    maximum numeric not null,
    primary key (organization_id, series_id, bucket)
) with (fillfactor = 80, autovacuum_vacuum_scale_factor = 0.05);
select protect('rollup', 'select, insert, update, delete');

create table value_count (
    organization_id uuid not null,
    series_id uuid not null,
    bucket timestamptz not null,
    value text collate "C" not null,
    count bigint not null,
    primary key (organization_id, series_id, bucket, value)
) with (fillfactor = 80);
select protect('value_count', 'select, insert, update, delete');

create table point (
    organization_id uuid not null,
    series_id uuid not null,
    time timestamptz not null,
    sequence bigint not null,
    value numeric not null,
    primary key (organization_id, series_id, time, sequence)
);
select protect('point', 'select, insert, delete');

-- Invoices ---------------------------------------------------------------------------------------

create table number_sequence (
    organization_id uuid not null references organization,
    legal_entity text collate "C" not null,
    last_number bigint not null,
    primary key (organization_id, legal_entity)
);
select protect('number_sequence', 'select, insert, update');

create table billing_run (
    organization_id uuid not null references organization,
    billing_run_id uuid primary key,
    as_of timestamptz not null,
    finalize boolean not null,
    status text collate "C" not null,
    invoices bigint not null default 0,
    warnings json not null default '[]',
    started_at timestamptz not null,
    finished_at timestamptz
);
create index on billing_run (organization_id, started_at);
select protect('billing_run', 'select, insert, update');

create table invoice (
    organization_id uuid not null references organization,
    invoice_id uuid not null,
    number text collate "C",
    kind text collate "C" not null,
    status text collate "C" not null,
    customer_key text collate "C" not null,
    subscription_key text collate "C" not null,
    plan_key text collate "C" not null,
    plan_version integer not null,
    period_start timestamptz not null,
    period_end timestamptz not null,
    currency text collate "C" not null,
    total numeric not null,
    cutoff_sequence bigint not null,
    billing_run_id uuid,
    created_at timestamptz not null,
    finalized_at timestamptz,
    unpriced json not null,
    primary key (organization_id, invoice_id),
    unique (organization_id, subscription_key, period_start, kind),
    unique (organization_id, number),
    check ((status = 'final') = (number is not null))
);
create index invoice_customer on invoice (organization_id, customer_key, period_start);
create index invoice_period on invoice (organization_id, period_end);
select protect('invoice', 'select, insert, delete');

-- detail: the quantities, prices and parts the line was rated from; a replay reads only those.
create table invoice_line (
    organization_id uuid not null,
    invoice_id uuid not null,
    position integer not null,
    charge_key text collate "C" not null,
    kind text collate "C" not null,
    description text not null,
    quantity numeric,
    amount numeric not null,
    segment_start timestamptz not null,
    segment_end timestamptz not null,
    meter_key text collate "C",
    detail json not null,
    primary key (organization_id, invoice_id, position),
    foreign key (organization_id, invoice_id) references invoice
);
select protect('invoice_line', 'select, insert, delete');

-- A finalized invoice never changes, whoever asks; a draft may be dropped for a newer one.
create function refuse_final_change() returns trigger
    language plpgsql
    as $$
begin
    if tg_table_name = 'invoice' then
        if old.status = 'final' then
            raise exception 'invoice_final: a finalized invoice never changes';
        end if;
    elsif exists (select from invoice i where i.organization_id = old.organization_id
                  and i.invoice_id = old.invoice_id and i.status = 'final') then
        raise exception 'invoice_final: a finalized invoice never changes';
    end if;
    return case when tg_op = 'DELETE' then old else new end;
end $$;
create trigger invoice_final before update or delete on invoice
    for each row execute function refuse_final_change();
create trigger invoice_line_final before update or delete on invoice_line
    for each row execute function refuse_final_change();

-- Requests answered once -------------------------------------------------------------------------

create table response (
    organization_id uuid not null references organization,
    idempotency_key text collate "C" not null,
    digest bytea not null,
    status integer not null,
    body bytea not null,
    created_at timestamptz not null,
    primary key (organization_id, idempotency_key)
);
select protect('response', 'select, insert, delete');

-- Lookups that come before an organization is known ----------------------------------------------

create function find_api_key(hash bytea)
    returns table (organization_id uuid, api_key_id uuid, scopes text[], customer_key text,
                   revoked_at timestamptz)
    language sql stable security definer set search_path = public, pg_temp
    as $$
    select organization_id, api_key_id, scopes, customer_key, revoked_at
    from api_key where secret_hash = hash $$;

-- Organizations whose rollups are behind their stream.
create function organizations_to_fold() returns table (organization_id uuid)
    language sql stable security definer set search_path = public, pg_temp
    as $$
    select h.organization_id from stream_head h
    left join watermark w using (organization_id)
    where h.last_sequence > coalesce(w.sequence, 0) $$;

-- Answers are kept for retries; an old one serves nobody, whoever's it is.
create function drop_responses(before timestamptz) returns bigint
    language sql security definer set search_path = public, pg_temp
    as $$
    with gone as (delete from response where created_at < before returning 1)
    select count(*) from gone $$;

create function count_organizations() returns bigint
    language sql stable security definer set search_path = public, pg_temp
    as $$ select count(*) from organization $$;

create function find_organization(wanted text) returns uuid
    language sql stable security definer set search_path = public, pg_temp
    as $$ select organization_id from organization where key = wanted $$;

create function create_organization(id uuid, new_key text, new_name text, now timestamptz)
    returns void
    language sql security definer set search_path = public, pg_temp
    as $$
    insert into organization values (id, new_key, new_name, now);
    insert into stream_head (organization_id, last_sequence, catalog_revision) values (id, 0, 0);
    insert into watermark values (id, 0, now) $$;

revoke execute on function find_api_key(bytea), organizations_to_fold(), count_organizations(),
    drop_responses(timestamptz),
    find_organization(text), create_organization(uuid, text, text, timestamptz) from public;
grant execute on function find_api_key(bytea), organizations_to_fold(), count_organizations(),
    drop_responses(timestamptz),
    find_organization(text), create_organization(uuid, text, text, timestamptz) to farebox_runtime;
