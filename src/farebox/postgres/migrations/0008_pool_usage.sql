-- Who used what of a pool and when: sums by the hour, kept close behind the ledger.

-- The instant at which an hour begins on the clocks of a time zone: so hours make up its days also
-- where its offset is not a whole number of hours.
create function hour_of(at timestamptz, timezone text) returns timestamptz
    language sql stable parallel safe
    as $$
    select at - ((at at time zone timezone) - date_trunc('hour', at at time zone timezone))
$$;

-- Units that reached the used account in the hour that begins at `hour` (in the pool's time zone),
-- less those that were taken back in it. covered: by grants; beyond: by overdraft, overage and
-- burst. operations: draws and settled holds. Subject and allotment are '' for none.
--
-- No reference to the pool is declared, here and below: checking it would lock the pool's row
-- against those who decide on it. What is written here comes from rows that name pools.
create table pool_usage (
    organization_id uuid not null,
    pool_id uuid not null,
    hour timestamptz not null,
    subject text collate "C" not null,
    allotment text collate "C" not null,
    used numeric not null,
    covered numeric not null,
    beyond numeric not null,
    operations bigint not null,
    primary key (pool_id, hour, subject, allotment)
) with (fillfactor = 70);
create index on pool_usage (pool_id, subject, hour);
select protect('pool_usage', 'select, insert, update');

-- Up to which entry of its ledger a pool's usage is in the sums.
create table pool_usage_mark (
    organization_id uuid not null,
    pool_id uuid primary key,
    sequence bigint not null
) with (fillfactor = 50);
select protect('pool_usage_mark', 'select, insert, update');

-- To take rows of the outbox "for update" the right to update a column is asked for; of all columns
-- this is the one that nobody can update.
grant update (touched_id) on pool_touched to farebox_runtime;

-- What entries after `after` and up to `up_to` used and took back, as rows of pool_usage. Not in SQL,
-- so that it is planned by itself: as a part of a join the whole ledger was read for a few entries.
create function pool_use(of_pool uuid, timezone text, after bigint, up_to bigint)
    returns table (hour timestamptz, subject text, allotment text, used numeric, covered numeric,
        beyond numeric, operations bigint)
    language plpgsql stable
    as $$
#variable_conflict use_column
begin
    return query
    select hour_of(case e.target when 'used' then coalesce(e.used_at, e.time) else e.time end,
                   timezone),
           coalesce(e.subject, ''), coalesce(e.allotment, ''), sum(e.signed),
           coalesce(sum(e.signed) filter (where e.giver = 'grant'), 0),
           coalesce(sum(e.signed) filter (where e.giver <> 'grant'), 0),
           count(distinct e.operation) filter (where e.target = 'used')
    from (
        select t.target, t.used_at, t.time, t.subject, t.allotment, t.operation,
               case t.target when 'used' then t.amount else -t.amount end as signed,
               coalesce(t.origin, case t.target when 'used' then t.source else t.target end)
                   as giver
        from transfer t
        where t.pool_id = of_pool and t.sequence > after and t.sequence <= up_to
          and (t.target = 'used' or t.source = 'used')
    ) e
    group by 1, 2, 3;
end $$;
