-- What usage burned is told apart by the version of its meter and by its times, too. Of draws made
-- before, that is what the events say which they were made for.
update transfer t set note = jsonb_set(t.note::jsonb, '{uses}', (
        select jsonb_agg(n.part || jsonb_build_object('meter_version', coalesce(f.version, 1),
                   'first_time', coalesce(f.first, t.time), 'last_time', coalesce(f.last, t.time))
                   order by n.place)
        from jsonb_array_elements(t.note::jsonb -> 'uses') with ordinality n(part, place)
        cross join lateral (
            select max(s.meter_version) as version, min(e.time) as first, max(e.time) as last
            from event e cross join unnest(e.series) u(series_id)
            join series s on s.organization_id = e.organization_id and s.series_id = u.series_id
            where e.organization_id = t.organization_id
              and e.sequence between (t.note ->> 'first_sequence')::bigint
                                 and (t.note ->> 'last_sequence')::bigint
              and s.meter_key = n.part ->> 'meter') f))::json
    where t.reason = 'metered' and t.note -> 'uses' -> 0 is not null
      and t.note -> 'uses' -> 0 -> 'meter_version' is null;
