-- Usage that is voided gives units back, backfills burn, and a commit writes a pool's row but once.

-- Whether the event of a reading names a draw, so that it has burned already.
alter table backfill_reading add column drawn boolean not null default false;
alter table backfill_reading alter column drawn drop default;
update backfill_reading b set drawn = true from event e
    where e.organization_id = b.organization_id and e.time = b.time and e.sequence = b.sequence
      and e.payload ->> 'fareboxdraw' is not null;

-- That of the request for a recurrence, which a repetition under its key has too.
alter table pool_recurrence add column digest uuid;

-- Recurring grants of entitlements were called by the key of a subscription, or "override", `#` and
-- a time: a subscription of that name was taken for an override. Now no key is like theirs.
update pool_recurrence r set key = n.key,
        definition = jsonb_set(r.definition::jsonb, '{key}', to_jsonb(n.key))::json
    from (
        select pool_id, number,
               case split_part(key, '#', 1)
                   when 'override' then 'override/' || split_part(key, '#', 2)
                   else 'subscription/' || split_part(key, '#', 1) || '/' || split_part(key, '#', 2)
               end as key
        from pool_recurrence where key like '%#%') n
    where r.pool_id = n.pool_id and r.number = n.number;

create index transfer_metered on transfer (pool_id, sequence) where reason = 'metered';

-- What was voided of the usage that a draw was made for, and the units that it gave back for that.
-- parts: quantity, events and units by the place, from 0, of a part in the draw's note.
create table draw_voided (
    organization_id uuid not null,
    pool_id uuid not null references pool,
    operation bigint not null,
    given numeric not null,
    parts json not null,
    primary key (pool_id, operation)
);
select protect('draw_voided', 'select, insert, update');

-- In place of the one before, which locked the pools first. There is one function of this name.
drop function post_transfers;

-- Commits what was decided for some pools, each of which must still stand at the version that the
-- decisions were made on. The rows of pools are written first, in the order of their ids, in which
-- pool_ids come; so nobody else changes them until the transaction ends.
--
-- new_grants, recurrences, holds, new_holds, allotments: rows as JSON arrays, where `pool` is the
-- place (from 1) in pool_ids. What is said of pools, of grants that were there before and of
-- transfers holds one value for each, separated by the unit separator (U+001F); '' is null, an
-- argument that is null is null for all of them. pool_balances: in the order of the columns, of those
-- that changed. asked: pools and keys of requests that were refused, and so are in no transfer.
--
-- stale: whether a pool stands at another version. known: keys that are in the ledger already, as
-- pool and key. Where there is either, nothing was written.
--
-- Its statements are planned once a session, for planning takes longer than most commits. There is
-- one good plan whatever the tables hold, and they leave no other: what comes in is gone through row
-- by row, each row is found by its key (`lateral`, which `limit` or `offset` keeps apart) and written
-- where it was found.
create function post_transfers(
    for_organization uuid, pool_ids uuid[], versions bigint[],
    pool_sequences text, pool_times text, pool_balances text[], pool_counters text, pool_dues text,
    grant_places text, grant_rows text, grant_statuses text, grants_available text,
    grants_held text, grant_ends text,
    new_grants json, recurrences json, holds json, new_holds json, allotments json,
    at text, sequences text, operations text, reasons text, sources text, targets text,
    amounts text, sources_after text, targets_after text, available_after text, times text,
    grant_numbers text, origins text, subjects text, allotment_keys text, prices text,
    keys text, digests text, undone text, used_times text, notes text,
    asked_pools uuid[], asked_keys text[], refusals json, resolved json,
    out stale boolean, out known_pools uuid[], out known_keys text[])
    language plpgsql
    set plan_cache_mode = force_generic_plan
    set enable_seqscan = off
    set enable_hashjoin = off
    set enable_mergejoin = off
    set enable_bitmapscan = off
    as $$
#variable_conflict use_column
declare
    separator constant text := chr(31);
    written bigint;
begin
    perform set_config('farebox.organization', for_organization::text, true);
    begin
        -- First of all, for whoever changes a pool holds its row until the transaction ends.
        update pool p set
                version = p.version + 1, sequence = n.sequence::bigint,
                as_of = n.as_of::timestamptz,
                source = coalesce(n.source::numeric, p.source),
                pending = coalesce(n.pending::numeric, p.pending),
                granted = coalesce(n.granted::numeric, p.granted),
                held = coalesce(n.held::numeric, p.held),
                used = coalesce(n.used::numeric, p.used),
                overdraft = coalesce(n.overdraft::numeric, p.overdraft),
                overage = coalesce(n.overage::numeric, p.overage),
                burst = coalesce(n.burst::numeric, p.burst),
                expired = coalesce(n.expired::numeric, p.expired),
                transit = coalesce(n.transit::numeric, p.transit),
                counters = n.counters::json, next_due = nullif(n.next_due, '')::timestamptz
            from rows from (
                unnest(pool_ids), unnest(versions), string_to_table(pool_sequences, separator),
                string_to_table(pool_times, separator),
                string_to_table(pool_balances[1], separator),
                string_to_table(pool_balances[2], separator),
                string_to_table(pool_balances[3], separator),
                string_to_table(pool_balances[4], separator),
                string_to_table(pool_balances[5], separator),
                string_to_table(pool_balances[6], separator),
                string_to_table(pool_balances[7], separator),
                string_to_table(pool_balances[8], separator),
                string_to_table(pool_balances[9], separator),
                string_to_table(pool_balances[10], separator),
                string_to_table(pool_counters, separator),
                string_to_table(pool_dues, separator))
                n(pool_id, version, sequence, as_of, source, pending, granted, held, used,
                  overdraft, overage, burst, expired, transit, counters, next_due)
            cross join lateral (
                select o.ctid, o.version from pool o where o.pool_id = n.pool_id limit 1) o
            where p.ctid = o.ctid and o.version = n.version;
        get diagnostics written = row_count;
        if written < cardinality(pool_ids) then
            raise exception using errcode = 'FB001';
        end if;
        if asked_keys is not null then
            select array_agg(t.pool_id), array_agg(t.key) into known_pools, known_keys
                from unnest(asked_pools, asked_keys) a(pool_id, key)
                cross join lateral (
                    select t.pool_id, t.key from transfer t
                    where t.pool_id = a.pool_id and t.key = a.key limit 1) t;
            if known_keys is not null then
                raise exception using errcode = 'FB002';
            end if;
        end if;
        insert into transfer (organization_id, pool_id, sequence, operation, reason, source, target,
                amount, source_after, target_after, available_after, time, grant_number, origin,
                subject, allotment, price, key, digest, undoes, used_at, note)
            select for_organization, pool_ids[t.at::integer], t.sequence::bigint,
                   t.operation::bigint, t.reason, t.source, t.target, t.amount::numeric,
                   t.source_after::numeric, t.target_after::numeric, t.available_after::numeric,
                   t.time::timestamptz, nullif(t.grant_number, '')::bigint, nullif(t.origin, ''),
                   nullif(t.subject, ''), nullif(t.allotment, ''), nullif(t.price, '')::numeric,
                   nullif(t.key, ''), nullif(t.digest, '')::uuid, nullif(t.undoes, '')::bigint,
                   nullif(t.used_at, '')::timestamptz, nullif(t.note, '')::json
            from rows from (
                string_to_table(at, separator), string_to_table(sequences, separator),
                string_to_table(operations, separator), string_to_table(reasons, separator),
                string_to_table(sources, separator), string_to_table(targets, separator),
                string_to_table(amounts, separator), string_to_table(sources_after, separator),
                string_to_table(targets_after, separator),
                string_to_table(available_after, separator), string_to_table(times, separator),
                string_to_table(grant_numbers, separator), string_to_table(origins, separator),
                string_to_table(subjects, separator), string_to_table(allotment_keys, separator),
                string_to_table(prices, separator), string_to_table(keys, separator),
                string_to_table(digests, separator), string_to_table(undone, separator),
                string_to_table(used_times, separator), string_to_table(notes, separator))
                t(at, sequence, operation, reason, source, target, amount, source_after,
                  target_after, available_after, time, grant_number, origin, subject, allotment,
                  price, key, digest, undoes, used_at, note);
    exception
        when sqlstate 'FB001' then
            stale := true;
            return;
        when sqlstate 'FB002' then
            return;
        when unique_violation then
            select array_agg(t.pool_id), array_agg(t.key) into known_pools, known_keys
                from rows from (string_to_table(at, separator), string_to_table(keys, separator))
                    i(at, key)
                cross join lateral (
                    select t.pool_id, t.key from transfer t
                    where t.pool_id = pool_ids[i.at::integer] and t.key = i.key limit 1) t;
            if known_keys is null then
                raise;
            end if;
            return;
    end;
    if grant_places is not null then
        update pool_grant g set status = n.status, available = n.available::numeric,
                held = n.held::numeric, expires_at = nullif(n.expires_at, '')::timestamptz
            from rows from (
                string_to_table(grant_places, separator), string_to_table(grant_rows, separator),
                string_to_table(grant_statuses, separator),
                string_to_table(grants_available, separator),
                string_to_table(grants_held, separator), string_to_table(grant_ends, separator))
                n(place, number, status, available, held, expires_at)
            cross join lateral (
                select o.ctid from pool_grant o
                where o.pool_id = pool_ids[n.place::integer] and o.number = n.number::bigint
                limit 1) o
            where g.ctid = o.ctid;
    end if;
    if new_grants is not null then
        insert into pool_grant (organization_id, pool_id, number, key, status, amount, available,
                held, basis, priority, issued_at, effective_at, expires_at, cost, on_invoice,
                pay_by, recurrence, metadata)
            select for_organization, pool_ids[n.pool], n.number, n.key, n.status, n.amount,
                   n.available, n.held, n.basis, n.priority, n.issued_at, n.effective_at,
                   n.expires_at, n.cost, n.on_invoice, n.pay_by, n.recurrence, n.metadata
            from json_to_recordset(new_grants) n(pool integer, number bigint, key text,
                status text, amount numeric, available numeric, held numeric, basis text,
                priority integer, issued_at timestamptz, effective_at timestamptz,
                expires_at timestamptz, cost numeric, on_invoice boolean, pay_by timestamptz,
                recurrence bigint, metadata json);
    end if;
    if holds is not null then
        update hold h set status = n.status, amount = n.amount, slices = n.slices,
                expires_at = n.expires_at, settled = n.settled, closed_at = n.closed_at
            from json_to_recordset(holds) n(pool integer, number bigint, status text,
                amount numeric, slices json, expires_at timestamptz, settled numeric,
                closed_at timestamptz)
            cross join lateral (
                select o.ctid from hold o
                where o.pool_id = pool_ids[n.pool] and o.number = n.number limit 1) o
            where h.ctid = o.ctid;
    end if;
    if new_holds is not null then
        insert into hold (organization_id, pool_id, number, status, amount, slices, subject,
                allotment, held_at, expires_at, settled, closed_at)
            select for_organization, pool_ids[n.pool], n.number, n.status, n.amount, n.slices,
                   n.subject, n.allotment, n.held_at, n.expires_at, n.settled, n.closed_at
            from json_to_recordset(new_holds) n(pool integer, number bigint, status text,
                amount numeric, slices json, subject text, allotment text, held_at timestamptz,
                expires_at timestamptz, settled numeric, closed_at timestamptz);
    end if;
    if recurrences is not null then
        insert into pool_recurrence as r
                (organization_id, pool_id, number, key, definition, next_at)
            select for_organization, pool_ids[n.pool], n.number, n.key,
                   n.definition, n.next_at
            from json_to_recordset(recurrences) n(pool integer, number bigint, key text,
                definition json, next_at timestamptz)
            on conflict (pool_id, number) do update set
                definition = excluded.definition, next_at = excluded.next_at;
    end if;
    if allotments is not null then
        update allotment a set used = n.used, beyond = n.beyond, lent = n.lent,
                used_at = n.used_at, idle_since = n.idle_since
            from json_to_recordset(allotments) n(pool integer, key text, used numeric,
                beyond numeric, lent numeric, used_at timestamptz, idle_since timestamptz)
            cross join lateral (
                select o.ctid from allotment o
                where o.pool_id = pool_ids[n.pool] and o.key = n.key limit 1) o
            where a.ctid = o.ctid;
    end if;
    if resolved is not null then
        update refusal r set resolved_at = n.at
            from json_to_recordset(resolved) n(pool integer, subject text, at timestamptz)
            cross join lateral (
                select o.ctid from refusal o
                where o.pool_id = pool_ids[n.pool] and o.subject = n.subject
                  and o.resolved_at is null
                offset 0) o
            where r.ctid = o.ctid;
    end if;
    if refusals is not null then
        insert into refusal as r (organization_id, pool_id, subject, code, minute, count, first_at,
                last_at, asked, available, refills_at, resolved_at)
            select for_organization, pool_ids[n.pool], n.subject, n.code, n.minute, n.count,
                   n.first_at, n.last_at, n.asked, n.available, n.refills_at, n.resolved_at
            from json_to_recordset(refusals) n(pool integer, subject text, code text,
                minute timestamptz, count bigint, first_at timestamptz, last_at timestamptz,
                asked numeric, available numeric, refills_at timestamptz,
                resolved_at timestamptz)
            on conflict (pool_id, minute, code, subject) do update set
                count = r.count + excluded.count, last_at = excluded.last_at,
                asked = r.asked + excluded.asked, available = excluded.available,
                refills_at = excluded.refills_at, resolved_at = excluded.resolved_at;
    end if;
    if sequences is not null then
        insert into pool_touched (organization_id, pool_ids) values (for_organization, pool_ids);
    end if;
end $$;
