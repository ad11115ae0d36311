-- Whether all arrived: what sources said they sent, and what was seen of them.

-- What a source was seen to send, up to the sequence in source_watermark. It is brought up to date
-- when somebody looks, so that ingest pays nothing for it. seen: the numbers that events carried in
-- the CloudEvents extension `sequence`; what is missing between them has not arrived.
create table source_seen (
    organization_id uuid not null references organization,
    source text collate "C" not null,
    events bigint not null,
    numbered bigint not null,
    seen int8multirange not null,
    first_time timestamptz not null,
    last_time timestamptz not null,
    last_received_at timestamptz not null,
    primary key (organization_id, source)
);
select protect('source_seen', 'select, insert, update');

create table source_watermark (
    organization_id uuid primary key references organization,
    sequence bigint not null
);
select protect('source_watermark', 'select, insert, update');

-- How long a source may be silent before that is worth a warning.
create table source_limit (
    organization_id uuid not null references organization,
    source text collate "C" not null,
    silence_seconds bigint not null check (silence_seconds > 0),
    primary key (organization_id, source)
);
select protect('source_limit', 'select, insert, update, delete');

-- What a source says it sent with a time in [start_at, end_at): events, and totals by meter.
create table source_control (
    organization_id uuid not null references organization,
    source text collate "C" not null,
    start_at timestamptz not null,
    end_at timestamptz not null,
    events bigint not null,
    totals json not null,
    declared_at timestamptz not null,
    primary key (organization_id, source, start_at, end_at),
    check (start_at < end_at)
);
create index on source_control (organization_id, end_at);
select protect('source_control', 'select, insert, update, delete');

-- Subjects that use for nobody are looked for in order.
create index series_user on series (organization_id, subject);

-- Billing runs that began before an instant and did not end: their process is gone.
create function interrupted_billing_runs(before timestamptz)
    returns table (organization_id uuid, billing_run_id uuid, as_of timestamptz, finalize boolean)
    language sql stable security definer set search_path = public, pg_temp
    as $$
    select organization_id, billing_run_id, as_of, finalize
    from billing_run where status = 'running' and started_at < before $$;
revoke execute on function interrupted_billing_runs(timestamptz) from public;
grant execute on function interrupted_billing_runs(timestamptz) to farebox_runtime;
