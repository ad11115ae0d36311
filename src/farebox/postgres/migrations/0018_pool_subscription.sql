-- Which subscription pays for which entries of a pool, so that what a pool cost stays on the invoices
-- of the one that it named then; and in which currency its prices and costs were.

-- From an entry on, until the next row's, what the pool costs is paid by this subscription, while it
-- runs, and is in this currency. No subscription: nobody pays; no currency: the pool never had one.
-- `priced_from`: the first entry since which the currency is the same, for a hold keeps its price.
create table pool_subscription (
    organization_id uuid not null,
    pool_id uuid not null references pool,
    first_sequence bigint not null,
    subscription_key text collate "C",
    currency text collate "C",
    priced_from bigint not null,
    primary key (pool_id, first_sequence),
    check (priced_from <= first_sequence)
);
create index on pool_subscription (organization_id, subscription_key)
    where subscription_key is not null;
select protect('pool_subscription', 'select, insert, update, delete');

-- Until now an invoice had all that its subscription's pools cost in its period, whomever they named
-- before. So what is on final ones is paid by whoever was invoiced, up to the end of the last such
-- period, each after the one before; the rest by the subscription that the pool names, if any.
with invoiced as (
    select distinct p.organization_id, p.pool_id, i.subscription_key, i.currency, i.period_end,
           i.finalized_at
    from invoice i
    join invoice_line l
        on l.organization_id = i.organization_id and l.invoice_id = i.invoice_id
        and l.kind in ('purchase', 'refund', 'overage', 'burst')
    join pool p on p.organization_id = i.organization_id and p.key = l.detail #>> '{pool,pool}'
    where i.status = 'final' and i.kind = 'period'
),
named as (
    select * from invoiced
    union all
    select p.organization_id, p.pool_id, p.subscription_key,
           coalesce(p.definition #>> '{policy,currency}', v.definition ->> 'currency'), null, null
    from pool p
    left join subscription s
        on s.organization_id = p.organization_id and s.key = p.subscription_key
    left join catalog_version v
        on v.organization_id = s.organization_id and v.kind = 'plan' and v.key = s.plan_key
        and v.version = s.plan_version
),
placed as (
    select n.organization_id, n.pool_id, n.subscription_key,
           coalesce(n.currency, lag(n.currency) over earlier) as currency,
           row_number() over earlier as place,
           lag(n.subscription_key) over earlier as subscription_before,
           lag(n.currency) over earlier as currency_before,
           lag(n.period_end) over earlier as since
    from named n
    window earlier as (
        partition by n.pool_id order by n.period_end, n.finalized_at, n.subscription_key)
),
begun as (
    select c.*, case place when 1 then 1 else sequence_at(pool_id, since) end as first_sequence
    from placed c
    where place = 1 or subscription_key is distinct from subscription_before
       or currency is distinct from currency_before
),
-- Where nothing moved meanwhile, the last of them stands.
standing as (
    select distinct on (pool_id, first_sequence) * from begun
    order by pool_id, first_sequence, place desc
),
priced as (
    select s.*, lag(currency, 1, currency) over (partition by pool_id order by first_sequence)
             is distinct from currency as anew
    from standing s
)
insert into pool_subscription
select organization_id, pool_id, first_sequence, subscription_key, currency,
       coalesce(max(first_sequence) filter (where anew) over (
           partition by pool_id order by first_sequence), 1)
from priced;

-- The invoices of before: a line of a pool has all that moved in its period, whoever pays for it.
create table invoice_whole (
    organization_id uuid not null,
    invoice_id uuid not null,
    primary key (organization_id, invoice_id)
);
select protect('invoice_whole', 'select');
insert into invoice_whole
select distinct organization_id, invoice_id from invoice_line
where kind in ('purchase', 'refund', 'overage', 'burst');

-- A closed pool pays for nothing from when it is closed. Those of before burn up to here, or to the
-- last event that is dated ahead: it may have burned them.
update pool_burn b set until = greatest(now(), p.as_of, (
        select max(e.time) + interval '1 microsecond' from event e
        where e.organization_id = b.organization_id
          and e.time >= now() and e.time <= now() + interval '1 hour'))
    from pool p
    where p.pool_id = b.pool_id and p.status = 'closed' and b.until is null;

-- What was taken back, wherever it is, among millions of entries that were not.
create index transfer_back on transfer (pool_id, sequence) where source = 'used';

-- The same with the entry that follows the last one.
create view pool_payer with (security_invoker = true) as
select r.*, (
    select min(n.first_sequence) from pool_subscription n
    where n.pool_id = r.pool_id and n.first_sequence > r.first_sequence) as next_sequence
from pool_subscription r;
grant select on pool_payer to farebox_runtime;

-- The first entry after those of an operation, which follow each other.
create function operation_end(of_pool uuid, of_operation bigint) returns bigint
    language sql stable
    as $$
    select coalesce((
        select t.sequence from transfer t
        where t.pool_id = of_pool and t.sequence > of_operation and t.operation <> of_operation
        order by t.sequence limit 1), 9223372036854775807)
    $$;

-- At which entry units got their price, of an entry that used them or took them back. Those that were
-- held keep the price of when they were set aside, in parts that stay in their order; those beyond
-- have the one of when they were used. What was used last is taken back first.
create function priced_at(of_pool uuid, of_entry bigint) returns bigint
    language plpgsql stable
    as $$
declare
    entry record;
    used record;
begin
    select t.* into entry from transfer t where t.pool_id = of_pool and t.sequence = of_entry;
    used := entry;
    if entry.source = 'used' then
        select u.* into used
            from (
                select t.*, sum(t.amount) over (order by t.sequence desc) as until
                from transfer t
                where t.pool_id = of_pool and t.sequence >= entry.undoes
                  and t.sequence < operation_end(of_pool, entry.undoes)
                  and t.target = 'used' and coalesce(t.origin, t.source) = entry.origin
                  and t.price is not distinct from entry.price) u
            where u.until > (
                select coalesce(sum(b.amount), 0) from transfer b
                where b.pool_id = of_pool and b.undoes = entry.undoes and b.source = 'used'
                  and b.sequence < of_entry and b.origin = entry.origin
                  and b.price is not distinct from entry.price)
            order by u.sequence desc limit 1;
    end if;
    if used.source <> 'held' then
        return used.sequence;
    end if;
    return (
        select h.sequence
        from (
            select t.sequence, t.target from transfer t
            where t.pool_id = of_pool and t.sequence >= used.undoes
              and t.sequence < operation_end(of_pool, used.undoes)
            union all
            select t.sequence, t.target from transfer t
            where t.pool_id = of_pool and t.undoes = used.undoes) h
        where h.target = 'held'
        order by h.sequence limit 1 offset (
            select count(*) from transfer t
            where t.pool_id = of_pool and t.sequence >= used.operation
              and t.sequence < used.sequence and t.source = 'held' and t.target = 'used'));
end $$;

-- The one place that says who pays. `charged`: the subscription that an operation or a purchase is
-- charged to: the one of its row, if that runs then and a hold that was settled has its price in the
-- same currency. `credited`: the one to which what comes back is credited: the charged one while it
-- runs, then the last one that was named by then, if it runs and its currency is the same. Null:
-- nobody. `of_entry`: the one that used the units in question, or with which they come back; of a
-- purchase null. (Where entries are many, a period of a subscription stands for its dates.)
create function pool_charge(of_pool uuid, of_operation bigint, of_entry bigint,
    out charged text, out credited text, out currency text)
    language plpgsql stable
    as $$
#variable_conflict use_column
declare
    paid record;
    named record;
    back record;
    priced bigint;
begin
    select r.subscription_key, r.currency, r.priced_from, s.starts_at, s.ends_at, t.time, t.undoes
        into paid
        from transfer t
        cross join lateral (
            select * from pool_subscription r
            where r.pool_id = of_pool and r.first_sequence <= of_operation
            order by r.first_sequence desc limit 1) r
        left join subscription s
            on s.organization_id = r.organization_id and s.key = r.subscription_key
        where t.pool_id = of_pool and t.sequence = of_operation;
    currency := paid.currency;
    if paid.undoes < paid.priced_from then
        priced := priced_at(of_pool, of_entry);
    end if;
    if priced < paid.priced_from then
        currency := (
            select r.currency from pool_subscription r
            where r.pool_id = of_pool and r.first_sequence <= priced
            order by r.first_sequence desc limit 1);
        return;
    end if;
    if paid.time >= paid.starts_at and (paid.time < paid.ends_at) is not false then
        charged := paid.subscription_key;
    end if;
    if charged is null or of_entry is null then
        return;
    end if;
    select t.time, t.operation into back
        from transfer t where t.pool_id = of_pool and t.sequence = of_entry;
    if back.operation = of_operation then
        return;
    end if;
    if (back.time < paid.ends_at) is not false then
        credited := charged;
        return;
    end if;
    select r.subscription_key, r.currency, s.starts_at, s.ends_at
        into named
        from pool_subscription r
        left join subscription s
            on s.organization_id = r.organization_id and s.key = r.subscription_key
        where r.pool_id = of_pool and r.first_sequence <= of_entry
          and r.subscription_key is not null
        order by r.first_sequence desc limit 1;
    if back.time >= named.starts_at and (back.time < named.ends_at) is not false
            and named.currency = paid.currency then
        credited := named.subscription_key;
    end if;
end $$;
