-- A call reads its account's live grants by the index of these, and changes some of them. It finds them by the same index
-- now: by the primary key it was one more page for each account, which with a million of them nobody has just looked at.
-- A grant that a hold has a leg on is never spent, for what it holds is above 0. `+ 0` says that the key isn't meant.

do $$
declare
    v_name text; v_before text; v_after text;
begin
    foreach v_name in array array['hold_batch', 'settle_batch'] loop
        v_before := pg_get_functiondef(('ledger.' || v_name)::regproc);
        v_after := replace(v_before, 'where g.account_id = d.account_id and g.id = d.grant_id',
                           'where g.account_id = d.account_id and not g.spent and g.id + 0 = d.grant_id');
        if v_after = v_before then
            raise exception '% changes grants otherwise than this migration knows', v_name;
        end if;
        execute v_after;
    end loop;
end $$;
