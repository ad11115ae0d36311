-- Taking events in and asking for usage at full speed: one round trip for a commit, and no look at
-- raw events for a range that ends after the last of them.

-- The latest time of any event up to the watermark.
alter table watermark add column last_time timestamptz;
update watermark w set last_time = (
    select max(e.time) from event e
    where e.organization_id = w.organization_id and e.sequence <= w.sequence);

-- Events by time, each organization's own: an index of block ranges is cheaper to keep, but it reads
-- every organization's events, and all new ones until it is summarized.
drop index event_time;
create index event_time on event (organization_id, time);

-- Appends the events of one catalog revision whose keys are not in the stream, in their order,
-- with sequences that follow the head without a gap. The head is locked until the transaction ends;
-- until then nobody else appends to this organization.
--
-- An argument in the plural holds one value an event, separated by the unit separator (U+001F),
-- which neither a name nor JSON text contains; a value too many in one of them meets a missing key
-- and is refused. '' is null, an argument that is null is null for every event. series_ids,
-- quantities, value_series, point_series and point_quantities are array literals, value_texts are
-- JSON arrays. new_series: rows of `series` with the places (from 1) of the events read into them, as
-- a JSON array. unread_types: what no meter reads.
--
-- last_before: the head's sequence before; null when another revision is in force, and then nothing
-- is appended. known: the places (from 1) of the events that were in the stream already;
-- known_digests: what their digests are there, 32 hexadecimal digits each.
create function append_events(
    for_organization uuid, revision bigint, received timestamptz, may_know boolean,
    times text, keys text, digests text, sources text, ids text, types text, subjects text,
    series_ids text, quantities text, value_series text, value_texts text,
    point_series text, point_quantities text, payloads text,
    new_series json, unread_types text[],
    out last_before bigint, out appended bigint, out known bigint[], out known_digests text[])
    language plpgsql
    as $$
#variable_conflict use_column
declare
    separator constant text := chr(31);
    in_force bigint;
begin
    perform set_config('farebox.organization', for_organization::text, true);
    -- A statement of its own: the next ones then see what whoever held the lock has committed.
    select h.last_sequence, h.catalog_revision into strict last_before, in_force
        from stream_head h where h.organization_id = for_organization and h.shard = 0 for update;
    if in_force <> revision then
        last_before := null;
        return;
    end if;
    known := '{}';
    for attempt in 1..2 loop
        if may_know then
            select coalesce(array_agg(i.at order by i.at), '{}'),
                   array_agg(replace(k.digest::text, '-', '') order by i.at)
                into known, known_digests
                from rows from (string_to_table(keys, separator), string_to_table(digests, separator))
                    with ordinality i(key, digest, at)
                cross join lateral (
                    select k.digest from event_key k
                    where k.organization_id = for_organization and k.key = i.key::uuid offset 0) k;
        end if;
        begin
            -- `known` is sorted: width_bucket counts by halving how many of it come up to a place.
            insert into event_key (organization_id, key, digest, sequence)
                select for_organization, i.key::uuid, i.digest::uuid,
                       last_before + i.at - width_bucket(i.at, known)
                from rows from (string_to_table(keys, separator), string_to_table(digests, separator))
                    with ordinality i(key, digest, at)
                where known[width_bucket(i.at, known)] is distinct from i.at;
            get diagnostics appended = row_count;
            exit;
        exception when unique_violation then
            -- Most events are new, so keys are looked for when one is found to be there.
            if may_know then
                raise;
            end if;
            may_know := true;
        end;
    end loop;
    if appended = 0 then
        return;
    end if;
    insert into event (organization_id, sequence, received_at, time, source, id, type, subject,
            series, quantities, value_series, value_texts, point_series, point_quantities, payload)
        select for_organization, last_before + i.at - width_bucket(i.at, known), received,
               i.time::timestamptz, i.source, i.id, i.type, nullif(i.subject, ''),
               nullif(i.series, '')::uuid[], nullif(i.quantities, '')::numeric[],
               nullif(i.value_series, '')::uuid[],
               case when i.value_texts <> '' then
                   array(select v from json_array_elements_text(i.value_texts::json) v) end,
               nullif(i.point_series, '')::uuid[], nullif(i.point_quantities, '')::numeric[],
               i.payload::json
        from rows from (
            string_to_table(times, separator), string_to_table(sources, separator),
            string_to_table(ids, separator), string_to_table(types, separator),
            string_to_table(subjects, separator), string_to_table(series_ids, separator),
            string_to_table(quantities, separator), string_to_table(value_series, separator),
            string_to_table(value_texts, separator), string_to_table(point_series, separator),
            string_to_table(point_quantities, separator), string_to_table(payloads, separator))
            with ordinality i(time, source, id, type, subject, series, quantities, value_series,
                value_texts, point_series, point_quantities, payload, at)
        where known[width_bucket(i.at, known)] is distinct from i.at;
    update stream_head h set last_sequence = h.last_sequence + appended
        where h.organization_id = for_organization and h.shard = 0;
    if new_series is not null then
        insert into series
            select for_organization, s.series_id, s.meter_key, s.meter_version, s.subject,
                   s.customer_key, s.dimensions
            from json_to_recordset(new_series) s(series_id uuid, meter_key text,
                meter_version integer, subject text, customer_key text, dimensions text[],
                places bigint[])
            where exists (select from unnest(s.places) p
                          where known[width_bucket(p, known)] is distinct from p)
            on conflict do nothing;
    end if;
    if unread_types is not null then
        insert into unread_type as u
            select for_organization, i.type, count(*), min(i.time::timestamptz),
                   max(i.time::timestamptz), last_before + appended
            from rows from (string_to_table(types, separator), string_to_table(times, separator))
                with ordinality i(type, time, at)
            where i.type = any(unread_types)
              and known[width_bucket(i.at, known)] is distinct from i.at
            group by i.type order by i.type
            on conflict (organization_id, type) do update set
                events = u.events + excluded.events,
                first_time = least(u.first_time, excluded.first_time),
                last_time = greatest(u.last_time, excluded.last_time),
                last_sequence = excluded.last_sequence;
    end if;
end $$;
