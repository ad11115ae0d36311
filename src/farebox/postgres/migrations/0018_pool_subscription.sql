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

-- Until now all that a pool cost was on the invoices of the subscription that it names.
insert into pool_subscription
select p.organization_id, p.pool_id, 1, p.subscription_key,
       coalesce(p.definition #>> '{policy,currency}', v.definition ->> 'currency'), 1
from pool p
left join subscription s
    on s.organization_id = p.organization_id and s.key = p.subscription_key
left join catalog_version v
    on v.organization_id = s.organization_id and v.kind = 'plan' and v.key = s.plan_key
    and v.version = s.plan_version;

-- What was taken back, wherever it is, among millions of entries that were not.
create index transfer_back on transfer (pool_id, sequence) where source = 'used';

-- The same with the entry that follows the last one.
create view pool_payer with (security_invoker = true) as
select r.*, (
    select min(n.first_sequence) from pool_subscription n
    where n.pool_id = r.pool_id and n.first_sequence > r.first_sequence) as next_sequence
from pool_subscription r;
grant select on pool_payer to farebox_runtime;

-- The one place that says who pays. `charged`: the subscription that an operation or a purchase is
-- charged to: the one of its row, if that runs then and a hold that was settled has its price in the
-- same currency. `credited`: the one to which what comes back with the entry `back` is credited: the
-- charged one while it runs, then the last one that was named by then, if it runs and its currency is
-- the same. Null: nobody. (Where entries are many, a period of a subscription stands for its dates.)
create function pool_charge(of_pool uuid, of_operation bigint, back bigint,
    out charged text, out credited text, out currency text)
    language plpgsql stable
    as $$
#variable_conflict use_column
declare
    paid record;
    named record;
    came timestamptz;
begin
    select r.subscription_key, r.currency, r.priced_from, s.starts_at, s.ends_at, t.time,
           coalesce(t.undoes, t.sequence) as priced_at
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
    if paid.priced_at < paid.priced_from then
        currency := (
            select r.currency from pool_subscription r
            where r.pool_id = of_pool and r.first_sequence <= paid.priced_at
            order by r.first_sequence desc limit 1);
        return;
    end if;
    if paid.time >= paid.starts_at and (paid.time < paid.ends_at) is not false then
        charged := paid.subscription_key;
    end if;
    if charged is null or back is null then
        return;
    end if;
    select t.time into came from transfer t where t.pool_id = of_pool and t.sequence = back;
    if (came < paid.ends_at) is not false then
        credited := charged;
        return;
    end if;
    select r.subscription_key, r.currency, s.starts_at, s.ends_at
        into named
        from pool_subscription r
        left join subscription s
            on s.organization_id = r.organization_id and s.key = r.subscription_key
        where r.pool_id = of_pool and r.first_sequence <= back and r.subscription_key is not null
        order by r.first_sequence desc limit 1;
    if came >= named.starts_at and (came < named.ends_at) is not false
            and named.currency = paid.currency then
        credited := named.subscription_key;
    end if;
end $$;
