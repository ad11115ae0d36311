-- Which subscription pays for which entries of a pool, so that what a pool cost stays on the invoices
-- of the one that it named then.

-- Of the entries from `first_sequence` on it pays for what is taken before `used_until`, and what comes
-- back before `returned_until` is credited to it; null: to this day. Where a pool names none for a
-- while, the one before is credited with what comes back until another takes over.
create table pool_subscription (
    organization_id uuid not null,
    pool_id uuid not null references pool,
    first_sequence bigint not null,
    used_until bigint,
    returned_until bigint,
    subscription_key text collate "C" not null,
    primary key (pool_id, first_sequence),
    check (first_sequence <= used_until),
    check (used_until <= returned_until)
);
create index on pool_subscription (organization_id, subscription_key);
create unique index on pool_subscription (pool_id) where returned_until is null;
select protect('pool_subscription', 'select, insert, update');

-- Until now all that a pool cost was on the invoices of the subscription that it names.
insert into pool_subscription (organization_id, pool_id, first_sequence, subscription_key)
select organization_id, pool_id, 1, subscription_key from pool where subscription_key is not null;
