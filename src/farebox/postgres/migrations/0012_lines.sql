-- Rows come to the database as lines. Before, each column was a list of its own; a statement sets up
-- a scan for each list, and a commit of few draws spent more time on that than on its rows.

-- There is one function of this name.
drop function post_transfers;

-- Commits what was decided for some pools, each of which must still stand at the version that the
-- decisions were made on. The rows of pools are written first, in the order of their ids, in which
-- pool_ids come; so nobody else changes them until the transaction ends.
--
-- A line ends before the record separator (U+001E), a value of it before the unit separator
-- (U+001F); '' is null. pool_lines: pool, version, sequence, as_of, the balances in the order of their
-- columns ('' where one is as it was), counters, next_due. grant_lines, of grants that were there
-- before: place (from 1) of the pool in pool_ids, number, status, available, held, expires_at.
-- transfer_lines: place of the pool, then the columns that are inserted, from sequence to note.
-- new_grants, recurrences, holds, new_holds, allotments: rows as JSON arrays, where `pool` is that
-- place. asked: pools and keys of requests that were refused, and so are in no transfer.
--
-- stale: whether a pool stands at another version. known: keys that are in the ledger already, as
-- pool and key. Where there is either, nothing was written.
--
-- Its statements are planned once a session, for planning takes longer than most commits. There is
-- one good plan whatever the tables hold, and they leave no other: what comes in is gone through row
-- by row, each row is found by its key (`lateral`, which `limit` or `offset` keeps apart) and written
-- where it was found.
create function post_transfers(
    for_organization uuid, pool_ids uuid[], pool_lines text, grant_lines text, transfer_lines text,
    new_grants json, recurrences json, holds json, new_holds json, allotments json,
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
    line_end constant text := chr(30);
    value_end constant text := chr(31);
    written bigint;
begin
    perform set_config('farebox.organization', for_organization::text, true);
    begin
        -- First of all, for whoever changes a pool holds its row until the transaction ends.
        update pool p set
                version = p.version + 1, sequence = n.sequence, as_of = n.as_of,
                source = coalesce(n.source, p.source), pending = coalesce(n.pending, p.pending),
                granted = coalesce(n.granted, p.granted), held = coalesce(n.held, p.held),
                used = coalesce(n.used, p.used), overdraft = coalesce(n.overdraft, p.overdraft),
                overage = coalesce(n.overage, p.overage), burst = coalesce(n.burst, p.burst),
                expired = coalesce(n.expired, p.expired), transit = coalesce(n.transit, p.transit),
                counters = n.counters, next_due = n.next_due
            from string_to_table(pool_lines, line_end) l(line)
            cross join lateral (
                select v[1]::uuid as pool_id, v[2]::bigint as version, v[3]::bigint as sequence,
                       v[4]::timestamptz as as_of, nullif(v[5], '')::numeric as source,
                       nullif(v[6], '')::numeric as pending, nullif(v[7], '')::numeric as granted,
                       nullif(v[8], '')::numeric as held, nullif(v[9], '')::numeric as used,
                       nullif(v[10], '')::numeric as overdraft,
                       nullif(v[11], '')::numeric as overage, nullif(v[12], '')::numeric as burst,
                       nullif(v[13], '')::numeric as expired,
                       nullif(v[14], '')::numeric as transit, v[15]::json as counters,
                       nullif(v[16], '')::timestamptz as next_due
                from (select string_to_array(l.line, value_end) offset 0) v(v) offset 0) n
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
            select for_organization, pool_ids[v[1]::integer], v[2]::bigint, v[3]::bigint, v[4], v[5],
                   v[6], v[7]::numeric, v[8]::numeric, v[9]::numeric, v[10]::numeric,
                   v[11]::timestamptz, nullif(v[12], '')::bigint, nullif(v[13], ''),
                   nullif(v[14], ''), nullif(v[15], ''), nullif(v[16], '')::numeric,
                   nullif(v[17], ''), nullif(v[18], '')::uuid, nullif(v[19], '')::bigint,
                   nullif(v[20], '')::timestamptz, nullif(v[21], '')::json
            from string_to_table(transfer_lines, line_end) l(line)
            cross join lateral (select string_to_array(l.line, value_end) offset 0) v(v);
    exception
        when sqlstate 'FB001' then
            stale := true;
            return;
        when sqlstate 'FB002' then
            return;
        when unique_violation then
            select array_agg(t.pool_id), array_agg(t.key) into known_pools, known_keys
                from string_to_table(transfer_lines, line_end) l(line)
                cross join lateral (select string_to_array(l.line, value_end) offset 0) v(v)
                cross join lateral (
                    select t.pool_id, t.key from transfer t
                    where t.pool_id = pool_ids[v[1]::integer] and t.key = v[17] limit 1) t;
            if known_keys is null then
                raise;
            end if;
            return;
    end;
    if grant_lines is not null then
        update pool_grant g set status = n.v[3], available = n.v[4]::numeric,
                held = n.v[5]::numeric, expires_at = nullif(n.v[6], '')::timestamptz
            from string_to_table(grant_lines, line_end) l(line)
            cross join lateral (select string_to_array(l.line, value_end) offset 0) n(v)
            cross join lateral (
                select o.ctid from pool_grant o
                where o.pool_id = pool_ids[n.v[1]::integer] and o.number = n.v[2]::bigint
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
    if transfer_lines is not null then
        insert into pool_touched (organization_id, pool_ids) values (for_organization, pool_ids);
    end if;
end $$;
