-- Breakage is dated by the ledger time that is read under its account's lock, as every posting: what waits for the lock
-- would otherwise be dated before what was posted meanwhile.

create or replace function ledger.expire(p_limit int) returns int
language plpgsql
as $$
declare
    v_at bigint; v_accounts bigint[]; g record; v_count int := 0; v_name text;
begin
    select n.at_s into v_at from ledger.present n where not n.provisional;
    select array_agg(distinct x.account_id) into v_accounts
    from (
        select c.account_id from ledger.grants c
        where not c.spent and c.expires_at_s <= v_at and c.available > 0
        order by c.expires_at_s limit p_limit
    ) x;
    if v_accounts is null then
        return 0;
    end if;
    perform 1 from ledger.accounts a where a.id = any (v_accounts) order by a.id for no key update;
    v_at := null;
    select n.at_s into v_at from ledger.present n where not n.provisional;
    for g in
        select x.account_id, x.id, x.source, x.external_id, x.available, x.expiries
        from ledger.grants x
        where x.account_id = any (v_accounts) and not x.spent and x.expires_at_s <= v_at and x.available > 0
        order by x.expires_at_s, x.id limit p_limit
    loop
        v_name := regexp_replace(g.external_id, ':open$', '') || ':expire';
        if exists (select 1 from ledger.postings p where p.account_id = g.account_id and p.external_id = v_name) then
            v_name := v_name || ':' || g.id || ':' || g.expiries;  -- raised again after its end
        end if;
        insert into ledger.postings (account_id, external_id, kind, at_s, digest, lines, grant_ids, amounts)
        values (g.account_id, v_name, 'expire', v_at, sha256(convert_to(v_name, 'UTF8')),
                array['purse:' || g.source, 'breakage:expired'], array[g.id, g.id], array[-g.available, g.available]);
        update ledger.grants x set available = 0, expiries = x.expiries + 1
        where x.account_id = g.account_id and x.id = g.id;
        v_count := v_count + 1;
    end loop;
    return v_count;
end $$;
