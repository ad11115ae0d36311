-- An event may name the draw that paid for the use it tells of (`fareboxdraw`). The draw pays for
-- those whom its pool serves; anybody else's usage burns and is billed as though it named none.

-- From when on a pool serves the customers below its own, or no more: what it pays for is decided by
-- what stood at the time of use. Before the first, and where there is none, it does not.
create table pool_children (
    organization_id uuid not null,
    pool_id uuid not null references pool,
    since timestamptz not null,
    serves boolean not null,
    primary key (pool_id, since)
);
select protect('pool_children', 'select, insert, update');

-- Of a pool that usage burns the spans say it; of any other only what stands is known.
with span as (
    select organization_id, pool_id, since, serves_children as serves from pool_burn
    where until is null or since < until
    union all
    select p.organization_id, p.pool_id,
           coalesce((select max(b.until) from pool_burn b where b.pool_id = p.pool_id), '0001-01-02Z'),
           coalesce((p.definition ->> 'serves_children')::boolean, false)
    from pool p
    where not exists (select from pool_burn b where b.pool_id = p.pool_id and b.until is null)
)
insert into pool_children
select organization_id, pool_id,
       case row_number() over (partition by pool_id order by since)
           when 1 then '0001-01-02Z' else since end,
       serves
from span where pool_id in (select pool_id from span where serves);

-- Up to which event of an organization any text was believed to name a draw that paid, for nobody
-- looked: no pool has burned for such an event, and none ever will.
create table draw_believed (
    organization_id uuid primary key,
    last_sequence bigint not null
);
select protect('draw_believed', 'select');
insert into draw_believed
select organization_id, last_sequence from stream_head where shard = 0 and last_sequence > 0;

create function is_believed(for_organization uuid, of_sequence bigint) returns boolean
    language plpgsql stable
    as $$
begin
    return exists (
        select from draw_believed b
        where b.organization_id = for_organization and b.last_sequence >= of_sequence);
end $$;

-- The pool of a draw, by the id of the draw as it goes over the wire: `drw_`, 26 characters of
-- Crockford's base 32, and perhaps a number. Null for any other text.
create function draw_pool(named text) returns uuid
    language plpgsql immutable strict parallel safe
    as $$
declare
    alphabet constant text := '0123456789abcdefghjkmnpqrstvwxyz';
    bits bit varying := '';
begin
    if named collate "C" !~ '^drw_[0-7][0-9a-hjkmnp-tv-z]{25}(_[0-9]{1,18})?$' then
        return null;
    end if;
    for at in 5..30 loop
        bits := bits || (strpos(alphabet, substr(named, at, 1)) - 1)::bit(5);
    end loop;
    return (lpad(to_hex(substring(bits from 3 for 64)::bit(64)::bigint), 16, '0')
        || lpad(to_hex(substring(bits from 67 for 64)::bit(64)::bigint), 16, '0'))::uuid;
end $$;

-- Whether a draw from this pool pays for what a customer uses at a time: the pool's own customer, or
-- one below it where the pool serves children then. A pool of a subject pays for that one alone.
-- What is nobody's yet (customer null) any pool may have paid for; that is decided once it is
-- somebody's.
--
-- Planned once a session, and each row found by its key, whatever the caller hashes for itself.
create function pool_pays(
    for_organization uuid, of_pool uuid, for_customer text, for_subject text, used timestamptz)
    returns boolean
    language plpgsql stable
    set plan_cache_mode = force_generic_plan
    set enable_nestloop = on
    set enable_seqscan = off
    set enable_hashjoin = off
    set enable_mergejoin = off
    set enable_bitmapscan = off
    as $$
declare
    owner text;
    subject_alone text;
begin
    select p.customer_key, p.subject into owner, subject_alone
        from pool p where p.organization_id = for_organization and p.pool_id = of_pool;
    if not found then
        return false;
    end if;
    if for_customer is null then
        return true;
    end if;
    if subject_alone is not null and for_subject not in ('', subject_alone) then
        return false;
    end if;
    if owner is null then
        return coalesce(subject_alone = for_subject, false);
    end if;
    if owner = for_customer then
        return true;
    end if;
    return coalesce((
        select s.serves from pool_children s
        where s.organization_id = for_organization and s.pool_id = of_pool and s.since <= used
        order by s.since desc limit 1), false)
    and exists (
        with recursive above (key) as (
            select for_customer collate "C"
            union select c.parent_key from above a cross join lateral (
                select p.parent_key from customer_parent p
                where p.organization_id = for_organization and p.customer_key = a.key
                  and p.since <= used and (p.until is null or used < p.until)
                offset 0) c)
        select from above a where a.key = owner);
end $$;

-- As `pool_pays`, for the draw that an event names; null where it names none. of_sequence: of the
-- event; null where it is not in the stream.
create function draw_pays(
    for_organization uuid, named text, of_sequence bigint, for_customer text, for_subject text,
    used timestamptz)
    returns boolean
    language sql stable
    as $$
    select case when named is not null
        then pool_pays(for_organization, draw_pool(named), for_customer, for_subject, used)
            or is_believed(for_organization, of_sequence) end
    $$;

-- How many units a draw took for good and has not given back. Null where there is no such draw, or
-- it is one that was made for usage events.
create function draw_left(for_organization uuid, of_pool uuid, of_number bigint) returns numeric
    language plpgsql stable
    as $$
declare
    next_operation bigint;
    taken numeric;
begin
    -- The entries of an operation follow each other, so that the next other one ends them.
    select t.sequence into next_operation from transfer t
        where t.pool_id = of_pool and t.sequence > of_number and t.operation <> of_number
        order by t.sequence limit 1;
    -- A variable, for the planner does not look up what is less than an expression.
    next_operation := coalesce(next_operation, 9223372036854775807);
    select sum(t.amount) into taken from transfer t
        where t.organization_id = for_organization and t.pool_id = of_pool
          and t.sequence >= of_number
          and t.sequence < next_operation and t.operation = of_number and t.target = 'used'
          and t.reason in ('drawn', 'settled', 'settled_beyond', 'settled_past_limit');
    if taken is not null then
        taken := taken - coalesce((select sum(u.amount) from transfer u
            where u.pool_id = of_pool and u.undoes = of_number and u.source = 'used'), 0);
    end if;
    return taken;
end $$;

-- As above, by the id of the draw as it goes over the wire.
create function draw_left(for_organization uuid, named text) returns numeric
    language sql stable
    as $$
    select case when draw_pool(named) is not null
        then draw_left(for_organization, draw_pool(named),
                       nullif(split_part(named, '_', 3), '')::bigint) end
    $$;

-- The draw that an event of the stream names, if it names one.
create function draw_named(for_organization uuid, of_sequence bigint) returns text
    language sql stable
    as $$
    select e.payload ->> 'fareboxdraw' from event e
    where e.organization_id = for_organization and e.sequence = of_sequence
    $$;

-- Which of these events name a draw that cannot have paid for them, and why, in order of precedence:
-- it took no units for good, all of it was taken back, or its pool serves somebody else. Events that
-- are in the stream already are passed over.
--
-- events: a JSON array of objects: key (of the event), pool and number (of the draw, or null), time,
-- users (of each reading, subject and the customer it names, '' for none). place: from 1.
--
-- Planned once a session, and each row found by its key, as in post_transfers.
create function refuse_draws(for_organization uuid, events json)
    returns table (place bigint, reason text)
    language plpgsql stable
    set plan_cache_mode = force_generic_plan
    set enable_seqscan = off
    set enable_bitmapscan = off
    as $$
#variable_conflict use_column
declare
    one record;
    units numeric;
begin
    perform set_config('farebox.organization', for_organization::text, true);
    for one in
        select * from rows from (json_to_recordset(events)
            as (key uuid, pool uuid, number bigint, used timestamptz, users json))
            with ordinality e(key, pool_id, number, used, users, at)
    loop
        if exists (select from event_key k
                   where k.organization_id = for_organization and k.key = one.key) then
            continue;
        end if;
        place := one.at;
        units := draw_left(for_organization, one.pool_id, one.number);
        if units is null then
            reason := 'draw_unknown';
            return next;
        elsif units <= 0 then
            reason := 'draw_reversed';
            return next;
        elsif exists (
            select from json_array_elements(one.users) u
            cross join lateral (select coalesce(nullif(u ->> 1, ''), (
                select m.customer_key from subject m
                where m.organization_id = for_organization and m.subject = u ->> 0
                  and m.valid_from <= one.used and one.used < m.valid_to)) as key) w
            join customer c on c.organization_id = for_organization and c.key = w.key
            where not pool_pays(for_organization, one.pool_id, c.key, u ->> 0, one.used)) then
            reason := 'subject_not_served';
            return next;
        end if;
    end loop;
end $$;
