-- What nobody has any more comes back within minutes.

-- A worker ends each call at its hold's deadline, and settles it. What is open two minutes after it, nobody will end: it
-- was opened by a statement that PostgreSQL began when its worker had long given it up, or its settlement can't be
-- written. It is given back as if its worker had lapsed. While this server was down nobody could settle: the two minutes
-- are counted at the earliest from its start.

create or replace function ledger.sweep(p_lapse_s float8, p_limit int) returns int
language plpgsql
as $$
declare
    v_up constant timestamptz := pg_postmaster_start_time();
    v_accounts bigint[]; v_requests uuid[]; v_swept int;
begin
    update ledger.epochs e set lapsed_at = clock_timestamp()
    where e.lapsed_at is null
      and greatest(e.beat_at, v_up) < clock_timestamp() - p_lapse_s * interval '1 second';
    select array_agg(x.account_id), array_agg(x.request_id) into v_accounts, v_requests
    from (
        select h.account_id, h.request_id
        from ledger.holds h join ledger.epochs e on e.id = h.epoch
        where h.state = 'open'
          and (e.lapsed_at is not null or greatest(h.deadline_at, v_up) < clock_timestamp() - interval '2 minutes')
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
