-- What is unlimited is plain use: its units come from where grants come from and are covered. And a
-- feature that is published with another meter is looked at again.
--
-- A span of pool_burn names a rate card, or how a feature's meter uses up its pool: `meter/<key>`,
-- or `charged/<key>` where a plan charges that usage all the same.

-- What of the policy of a feature's pool changes by itself when a subscription begins or ends, next.
alter table pool add column terms json;

create or replace function pool_use(of_pool uuid, timezone text, after bigint, up_to bigint)
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
           coalesce(sum(e.signed) filter (where e.giver in ('grant', 'source')), 0),
           coalesce(sum(e.signed) filter (where e.giver not in ('grant', 'source')), 0),
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

create or replace function customers_to_sync(since timestamptz, until timestamptz)
    returns table (organization_id uuid, customer_key text)
    language sql stable security definer set search_path = public, pg_temp
    as $$
    select s.organization_id, s.customer_key from subscription s
    where s.starts_at > since and s.starts_at <= until or s.ends_at > since and s.ends_at <= until
    union
    select o.organization_id, o.customer_key from entitlement_override o
    where o.ends_at > since and o.ends_at <= until
    union
    -- Of customers who have something: those whose pool does not burn by the meter that is named now.
    select p.organization_id, p.customer_key
    from (select distinct on (v.organization_id, v.key) v.organization_id, v.key,
                 v.definition ->> 'meter' as meter
          from catalog_version v
          where v.kind = 'feature' and v.published_at > since and v.published_at <= until
          order by v.organization_id, v.key, v.version desc) f
    join pool p on p.organization_id = f.organization_id and p.feature_key = f.key
    left join pool_burn b on b.pool_id = p.pool_id and b.until is null
    where p.customer_key is not null
      and b.rate_card_key is distinct from 'meter/' || f.meter
      and b.rate_card_key is distinct from 'charged/' || f.meter
      and (exists (select from subscription s where s.organization_id = p.organization_id
                     and s.customer_key = p.customer_key
                     and s.starts_at <= customers_to_sync.until
                     and (s.ends_at is null or s.ends_at > customers_to_sync.until))
           or exists (select from entitlement_override o
                      where o.organization_id = p.organization_id
                        and o.customer_key = p.customer_key))
    order by 1, 2 $$;
create index catalog_version_feature on catalog_version (published_at) where kind = 'feature';

-- It was overage without a price. An override goes before what plans say.
update pool p
set definition = jsonb_set(p.definition::jsonb, '{policy,limit}', '{"mode": "unlimited"}')::json
where p.feature_key is not null and p.definition #>> '{policy,limit,mode}' = 'overage'
  and p.definition #>> '{policy,limit,price}' is null
  and coalesce(
    (select (o.definition ->> 'unlimited')::boolean from entitlement_override o
     where o.organization_id = p.organization_id and o.customer_key = p.customer_key
       and o.feature_key = p.feature_key and (o.ends_at is null or o.ends_at > now())),
    exists (
      select from subscription s
      join catalog_version v on v.organization_id = s.organization_id and v.kind = 'plan'
        and v.key = s.plan_key and v.version = s.plan_version
      cross join json_array_elements(v.definition -> 'entitlements') e
      where s.organization_id = p.organization_id and s.customer_key = p.customer_key
        and s.starts_at <= now() and (s.ends_at is null or s.ends_at > now())
        and e ->> 'feature' = p.feature_key and (e ->> 'unlimited')::boolean));
