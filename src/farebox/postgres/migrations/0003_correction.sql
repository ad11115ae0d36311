-- Corrections of what was taken in: imports and their undoing, meters that came after their events.

-- How often what lies below the watermark was changed by other than folding: by an undo or a
-- backfill. Who read usage and is about to write what follows from it compares this.
alter table watermark add column rewritten bigint not null default 0;

-- An event that no longer counts. Its row and its key stay, so that sending it again is a duplicate.
-- No void lies above the watermark: what is not folded yet needs no look here.
create table void (
    organization_id uuid not null references organization,
    sequence bigint not null,
    voided_at timestamptz not null,
    reason text not null,
    primary key (organization_id, sequence)
);
select protect('void', 'select, insert');

-- Imports ----------------------------------------------------------------------------------------

create table import (
    organization_id uuid not null references organization,
    import_id uuid not null,
    name text collate "C" not null,
    file_digest text collate "C" not null,
    mapping_digest text collate "C" not null,
    status text collate "C" not null check (status in ('running', 'finished', 'undone')),
    last_row bigint not null default 0,
    accepted bigint not null default 0,
    duplicates bigint not null default 0,
    conflicts bigint not null default 0,
    rejected bigint not null default 0,
    started_at timestamptz not null,
    updated_at timestamptz not null,
    primary key (organization_id, import_id),
    unique (organization_id, name)
);
select protect('import', 'select, insert, update');

-- Which events an import brought: what one transaction appends has sequences without a gap.
create table import_range (
    organization_id uuid not null,
    import_id uuid not null,
    first_sequence bigint not null,
    last_sequence bigint not null,
    primary key (organization_id, import_id, first_sequence),
    foreign key (organization_id, import_id) references import
);
select protect('import_range', 'select, insert, update');

-- Rows that did not become an event: refused ones, and conflicts with an event that is there.
create table import_rejection (
    organization_id uuid not null,
    import_id uuid not null,
    row bigint not null,
    code text collate "C" not null,
    pointer text not null,
    message text not null,
    primary key (organization_id, import_id, row),
    foreign key (organization_id, import_id) references import
);
select protect('import_rejection', 'select, insert');

-- Backfills --------------------------------------------------------------------------------------

-- A meter version reads the events of its times up to from_sequence, which came before it. What it
-- reads is built aside; from the moment the status is 'switched' it counts.
create table backfill (
    organization_id uuid not null references organization,
    meter_key text collate "C" not null,
    meter_version integer not null,
    status text collate "C" not null check (status in ('building', 'built', 'switched')),
    event_type text collate "C" not null,
    effective_from timestamptz not null,
    effective_to timestamptz not null,
    from_sequence bigint not null,
    done_sequence bigint not null default 0,
    events bigint not null default 0,
    started_at timestamptz not null,
    updated_at timestamptz not null,
    primary key (organization_id, meter_key, meter_version)
);
select protect('backfill', 'select, insert, update, delete');

-- kind: how the reading is kept (totals, values, points). text_value: of values; else quantity.
create table backfill_reading (
    organization_id uuid not null,
    meter_key text collate "C" not null,
    meter_version integer not null,
    series_id uuid not null,
    time timestamptz not null,
    sequence bigint not null,
    kind text collate "C" not null,
    quantity numeric,
    text_value text collate "C",
    foreign key (organization_id, meter_key, meter_version) references backfill
);
create index backfill_reading_series on backfill_reading (organization_id, series_id, time);
create index backfill_reading_sequence on backfill_reading (organization_id, sequence);
create index backfill_reading_meter on backfill_reading
    (organization_id, meter_key, meter_version, sequence);
select protect('backfill_reading', 'select, insert, delete');

-- Series of a backfill; they join the others when it is switched.
create table backfill_series (
    organization_id uuid not null,
    meter_key text collate "C" not null,
    meter_version integer not null,
    series_id uuid not null,
    subject text collate "C" not null,
    customer_key text collate "C" not null,
    dimensions text[] not null,
    primary key (organization_id, series_id),
    foreign key (organization_id, meter_key, meter_version) references backfill
);
select protect('backfill_series', 'select, insert, delete');

-- Events that the meter matches and cannot read.
create table backfill_refusal (
    organization_id uuid not null,
    meter_key text collate "C" not null,
    meter_version integer not null,
    sequence bigint not null,
    code text collate "C" not null,
    field text not null,
    path text not null,
    primary key (organization_id, meter_key, meter_version, sequence),
    foreign key (organization_id, meter_key, meter_version) references backfill
);
select protect('backfill_refusal', 'select, insert, delete');

-- From this time on, readings of an older meter version no longer count: a newer version was
-- effective before it was published, and its backfill has read the same events anew.
create table superseded (
    organization_id uuid not null references organization,
    meter_key text collate "C" not null,
    meter_version integer not null,
    counted_until timestamptz not null,
    primary key (organization_id, meter_key, meter_version)
);
select protect('superseded', 'select, insert, update');
