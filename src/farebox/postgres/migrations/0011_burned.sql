-- What usage burned is told apart by the version of its meter and by its times, too. Of draws made
-- before, that is what their subject's events say. Each range of events is read once for all.
with draw as materialized (
    select t.organization_id, t.pool_id, t.sequence, coalesce(t.subject, '') as subject, t.time,
           t.note, (t.note ->> 'first_sequence')::bigint as first,
           (t.note ->> 'last_sequence')::bigint as last
    from transfer t
    where t.reason = 'metered' and t.note -> 'uses' -> 0 is not null
      and t.note -> 'uses' -> 0 -> 'meter_version' is null
), burned as materialized (
    select r.organization_id, r.first, r.last, s.subject, s.meter_key,
           array_remove(s.dimensions, null) as dimensions, max(s.meter_version) as meter_version,
           min(e.time) as first_time, max(e.time) as last_time
    from (select distinct d.organization_id, d.first, d.last from draw d) r
    cross join lateral (
        select e.time, e.series from event e
        where e.organization_id = r.organization_id and e.sequence between r.first and r.last
        offset 0) e
    cross join unnest(e.series) u(series_id)
    join series s on s.organization_id = r.organization_id and s.series_id = u.series_id
    group by 1, 2, 3, 4, 5, 6
), part as (
    select d.organization_id, d.pool_id, d.sequence, d.subject, d.time, d.first, d.last, n.place,
           n.part, (n.part ->> 'meter') collate "C" as meter_key,
           -- In the order of the meter's dimensions, as those of a series; what has none is left out.
           array(select v.value from json_each_text(n.part -> 'dimensions') with ordinality
                     v(name, value, place) order by v.place) as dimensions
    from draw d cross join json_array_elements(d.note -> 'uses') with ordinality n(part, place)
), told as (
    select p.pool_id, p.sequence,
           jsonb_agg(p.part::jsonb || jsonb_build_object(
               'meter_version', coalesce(b.meter_version, 1),
               'first_time', coalesce(b.first_time, p.time),
               'last_time', coalesce(b.last_time, p.time)) order by p.place) as uses
    from part p left join burned b using (organization_id, first, last, subject, meter_key, dimensions)
    group by p.pool_id, p.sequence
)
update transfer t set note = jsonb_set(t.note::jsonb, '{uses}', o.uses)::json
    from told o where t.pool_id = o.pool_id and t.sequence = o.sequence;
