-- Licenses: what a customer holds under a key of its own, from when to when, and the pools of one.

-- `definition` is the license as it stands, with its term; the columns are what is asked for.
create table license (
    organization_id uuid not null,
    key text collate "C" not null,
    customer_key text collate "C" not null,
    definition json not null,
    starts_at timestamptz not null,
    ends_at timestamptz,
    revoked_at timestamptz,
    created_at timestamptz not null,
    primary key (organization_id, key),
    -- What names a license and a customer names the one whose it is.
    unique (organization_id, customer_key, key),
    foreign key (organization_id, customer_key) references customer
);
select protect('license', 'select, insert, update');

-- Whoever changes a license raises the version of its pools, so that nobody decides on what it was.
alter table pool add column license_key text collate "C";
alter table pool add check (license_key is null or customer_key is not null);
alter table pool add foreign key (organization_id, customer_key, license_key)
    references license (organization_id, customer_key, key);
create index on pool (organization_id, license_key, key) where license_key is not null;

-- Units buy a feature, or a term of a license.
alter table access add column license_key text collate "C";
alter table access alter column feature_key drop not null;
alter table access add check ((feature_key is null) <> (license_key is null));
alter table access add foreign key (organization_id, customer_key, license_key)
    references license (organization_id, customer_key, key);
