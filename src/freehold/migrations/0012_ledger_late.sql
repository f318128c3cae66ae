-- What comes late still counts.

-- While the chain stalls, ledger time runs ahead of its next block. A call held in the day that time then calls today
-- is settled before that day has begun, when the chain goes on: its charge is of that day, and at an earlier second.
-- An hour of the charges before a day is read with it, so that no cap forgets them.

create or replace function ledger.key_used_on(p_account bigint, p_key bigint, p_day int) returns bigint
language sql stable
as $$
    select coalesce(sum(cost), 0)::bigint from ledger.charges
    where account_id = p_account and key_id = p_key and day = p_day and at_s >= p_day::bigint * 86400 - 3600
$$;

create or replace function ledger.key_used_in(p_account bigint, p_key bigint, p_first int, p_after int) returns bigint
language sql stable
as $$
    select coalesce(sum(cost), 0)::bigint from ledger.charges
    where account_id = p_account and key_id = p_key and day >= p_first and day < p_after
      and at_s >= p_first::bigint * 86400 - 3600
$$;

-- A worker ends each call at its hold's deadline. What is open an hour after it, nobody will end: it was opened by a
-- statement that PostgreSQL began when its worker had long given it up. It is given back as if its worker had lapsed.

create or replace function ledger.sweep(p_lapse_s float8, p_limit int) returns int
language plpgsql
as $$
declare
    v_accounts bigint[]; v_requests uuid[]; v_swept int;
begin
    update ledger.epochs e set lapsed_at = clock_timestamp()
    where e.lapsed_at is null
      and greatest(e.beat_at, pg_postmaster_start_time()) < clock_timestamp() - p_lapse_s * interval '1 second';
    select array_agg(x.account_id), array_agg(x.request_id) into v_accounts, v_requests
    from (
        select h.account_id, h.request_id
        from ledger.holds h join ledger.epochs e on e.id = h.epoch
        where h.state = 'open'
          and (e.lapsed_at is not null or h.deadline_at < clock_timestamp() - interval '1 hour')
        order by h.account_id, h.opened_at, h.request_id limit p_limit
    ) x;
    if v_accounts is null then
        return 0;
    end if;
    select count(*) into v_swept
    from ledger.settle_batch(
        v_accounts, v_requests, array_fill('sweep'::text, array[cardinality(v_accounts)]),
        array_fill(0::bigint, array[cardinality(v_accounts)]), array_fill(''::text, array[cardinality(v_accounts)]),
        array_fill('{}'::jsonb, array[cardinality(v_accounts)]),
        array_fill('unsettled'::text, array[cardinality(v_accounts)]), array_fill(true, array[cardinality(v_accounts)]),
        null, null, null, null
    ) s where s.outcome = 'charged';
    return v_swept;
end $$;
