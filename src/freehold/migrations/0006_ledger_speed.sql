-- The ledger's hot path, made cheaper: the same decisions in fewer statements. And what is over is dropped.
--
-- Whatever a statement does for one call, PostgreSQL prepares it anew in each transaction: every check is parsed, every
-- expression compiled. A batch of one pays all of that, so there are few statements, few checks, and in the loop over a
-- batch few expressions.

-- One check for each table that calls write to. What never changes after its row was made is checked when it is made.

alter table ledger.grants
    drop constraint grants_source_check, drop constraint grants_amount_check, drop constraint grants_available_check,
    drop constraint grants_held_check, drop constraint grants_absorbed_check, drop constraint grants_check,
    add constraint grants_never_negative check (least(amount, available, held, absorbed) >= 0);

create function ledger.require_grant() returns trigger
language plpgsql
as $$
begin
    if new.source in ('allowance', 'strip', 'promo', 'prepaid') and new.expires_at_s > new.starts_at_s
       and new.external_id <> '' then
        return new;
    end if;
    raise exception 'a grant has a name and a known source, and ends after it starts' using errcode = 'check_violation';
end $$;
create trigger required before insert on ledger.grants for each row execute function ledger.require_grant();

alter table ledger.keys
    drop constraint keys_state_check, drop constraint keys_day_cap_check, drop constraint keys_total_cap_check,
    drop constraint keys_day_used_check, drop constraint keys_day_held_check, drop constraint keys_total_used_check,
    drop constraint keys_total_held_check, drop constraint keys_month_cap_check, drop constraint keys_rpm_check,
    drop constraint keys_tpm_check, drop constraint keys_month_used_check, drop constraint keys_month_held_check,
    add constraint keys_never_negative
        check (least(day_used, day_held, total_used, total_held, month_used, month_held) >= 0);

create function ledger.require_key() returns trigger
language plpgsql
as $$
begin
    if new.state in ('active', 'revoked') and coalesce(least(new.rpm, new.tpm), 1) > 0
       and coalesce(least(new.day_cap, new.month_cap, new.total_cap), 0) >= 0 then
        return new;
    end if;
    raise exception 'a key is active or revoked, and its limits are no less than 0' using errcode = 'check_violation';
end $$;
create trigger required before insert on ledger.keys for each row execute function ledger.require_key();

alter table ledger.charges
    drop constraint charges_cost_check, drop constraint charges_absorbed_check,
    add constraint charges_never_negative check (least(cost, absorbed) >= 0);

-- A hold is a row while its call runs. Its charge takes its place; a released one leaves its row for a day, so that the
-- same request which comes late isn't held again.

alter table ledger.holds
    drop constraint holds_state_check,
    add column rate_seconds bigint[],        -- where it is counted in the key's limit per minute, oldest step first;
    add column rate_counts bigint[];         -- and how many tokens each is. null: the key had no limit
update ledger.holds set rate_seconds = array[rate_second], rate_counts = array[rate_tokens]
where state = 'open' and rate_second is not null;
alter table ledger.holds drop column tokens, drop column rate_second, drop column rate_tokens;
delete from ledger.holds where state in ('settled', 'expired');
create index holds_closed on ledger.holds (opened_at) where state = 'released';
alter table ledger.holds set (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 2000);

-- A batch's statements are planned once, perhaps on empty tables, where every index seems as good as the other. So where
-- a row is sought by its whole key there is no other index to take: these are for who names their condition.

drop index ledger.charges_in_order;
create index charges_in_order on ledger.charges (account_id, at_s, position) where at_s >= 0;
drop index ledger.grants_external;
create unique index grants_external on ledger.grants (account_id, external_id) where external_id <> '';

create or replace function ledger.key_used_on(p_account bigint, p_key bigint, p_day int) returns bigint
language sql stable
as $$
    select coalesce(sum(cost), 0)::bigint from ledger.charges
    where account_id = p_account and key_id = p_key and day = p_day and at_s >= 0 and at_s >= p_day::bigint * 86400
$$;

create or replace function ledger.key_used_in(p_account bigint, p_key bigint, p_first int, p_after int) returns bigint
language sql stable
as $$
    select coalesce(sum(cost), 0)::bigint from ledger.charges
    where account_id = p_account and key_id = p_key and day >= p_first and day < p_after
      and at_s >= 0 and at_s >= p_first::bigint * 86400
$$;

-- What a release still owes to upstreams is posted by itself.

alter table ledger.postings drop constraint postings_kind_check,
    add constraint postings_kind_check check (kind in ('grant', 'raise', 'expire', 'reverse', 'transfer', 'attempts'));

-- Hold: as before, each item decided in the order account, key, arrival; one row per item comes back. What a row's legs
-- are: grant_id and source where one grant bears it all, else grant_ids, sources and amounts.
-- An item with a step above 0 extends the open hold of its request, which was of p_bases before.
-- Outcomes: held, repeat (amount and legs are the hold's as it now stands, number its day, used its step), and the
-- refusals conflict, fenced, ended (an extension of a hold that isn't open), key_revoked, key_expired (number: when),
-- stale_key, key_running, key_done and key_conflict (of the idempotency key that first_request brought first),
-- stale_price (number: the current version), day_unopened, key_day, key_month and key_total (cap and used; used
-- counts what is held), credit (sources and amounts: what is left in each grant; number: 1 while today's allowance
-- can't be issued yet), rate_requests and rate_tokens (cap and used; number: seconds until it fits, null: never).
-- rates, of a key with limits per minute: limit, remaining and seconds until all is free, of requests and of tokens.
-- A request id appears once in a batch.

create type ledger.opening as (
    item int,
    amount bigint,                           -- that this batch adds to the hold,
    of_day bigint, of_month bigint,          -- and to what its key holds today and this month
    hold_day int,
    second bigint,                           -- where its tokens are counted; null: nowhere
    grants bigint[], sources text[], amounts bigint[], ends bigint[]
);

drop function ledger.hold_batch;
create function ledger.hold_batch(
    p_epoch bigint, p_accounts bigint[], p_keys bigint[], p_requests uuid[], p_amounts bigint[], p_leasts bigint[],
    p_prices int[], p_key_versions int[], p_deadlines_s float8[], p_unopened_ok boolean[], p_tokens bigint[],
    p_idempotency_keys text[], p_digests bytea[], p_steps int[], p_bases bigint[]
) returns table (
    item int, outcome text, amount bigint, number bigint, used bigint, grant_id bigint, source text, rates bigint[],
    grant_ids bigint[], sources text[], amounts bigint[], day int, cap bigint, first_request uuid
)
language plpgsql
as $$
#variable_conflict use_column
declare
    v_most constant bigint := 9223372036854775807;
    v_now record;
    q record; h record; i record; k record;
    v_account bigint := null;
    v_key bigint := null;
    v_plain boolean := true;                 -- nothing is in the row but what each new hold puts there
    -- the account's live grants in the order that they are drawn; the one being drawn, and what is left of it
    g_ids bigint[]; g_sources text[]; g_left bigint[]; g_ends bigint[];
    g_at int; g_id bigint; g_source text; g_rest bigint; g_end bigint; g_available bigint;
    -- what the key's caps leave
    k_day_left bigint; k_month_left bigint; k_total_left bigint; k_month_begins int; k_month_ends int;
    v_stale boolean := false;
    v_first int; v_after int; v_left bigint; v_of_day bigint; v_of_month bigint; v_need bigint; v_part bigint; v_found int;
    -- what the key asked for in the last 60 s, where it is limited
    v_wall bigint; v_second bigint := null; k_limited boolean; k_requests bigint[]; k_tokens bigint[];
    k_requested bigint; k_took bigint; v_limited boolean := false;
    -- idempotency keys claimed by this batch for the account
    i_keys text[]; i_digests bytea[]; i_requests uuid[]; i_items int[] := '{}';
    -- holds opened or extended by this batch, with their new legs; and those extended, with all their legs
    o ledger.opening; o_all ledger.opening[] := '{}'; e_all ledger.opening[] := '{}';
begin
    -- Lock first and read in later statements: a statement that locks and reads the balance in one would read what
    -- the balance was before it waited.
    perform 1 from ledger.accounts a where a.id = any (p_accounts) order by a.id for no key update;
    select n.at_s, n.day, n.opened_day, p.version as price,
           (select e.lapsed_at is null from ledger.epochs e where e.id = p_epoch) as alive
    into v_now from ledger.present n cross join ledger.price p;
    outcome := 'held'; day := v_now.day; number := v_now.day; used := 0;

    for q in
        select r.item, r.account_id, r.key_id, r.amount, r.least, r.step,
               -- A new hold that nothing speaks against but what the batch itself takes: caps, rates, credit.
               h.request_id is null and c.request_id is null and r.step = 0 and v_now.alive and a.opened_day is not null
               and k.state = 'active' and (k.expires_at_s is null or k.expires_at_s > v_now.at_s)
               and k.version = r.key_version and r.price = v_now.price and r.idempotency_key is null
               and (a.opened_day >= v_now.day or v_now.opened_day < v_now.day or r.unopened_ok) as fine,
               k.day = v_now.day and k.month_first <= v_now.day and k.month_after > v_now.day as counted,
               coalesce(k.day_cap - k.day_used - k.day_held, v_most) as day_left,
               coalesce(k.month_cap - k.month_used - k.month_held, v_most) as month_left,
               coalesce(k.total_cap - k.total_used - k.total_held, v_most) as total_left,
               k.month_first, k.month_after, k.rpm, k.tpm, a.opened_day,
               g.ids, g.sources, g.lefts, g.ends, g.available
        from (
            select u.*, u.account_id is distinct from p_accounts[u.item - 1] as first
            from unnest(p_accounts, p_keys, p_requests, p_amounts, p_leasts, p_prices, p_key_versions, p_unopened_ok,
                        p_idempotency_keys, p_steps)
                with ordinality
                as u (account_id, key_id, request_id, amount, least, price, key_version, unopened_ok, idempotency_key,
                      step, item)
        ) r
        left join ledger.accounts a on a.id = r.account_id
        left join ledger.keys k on k.account_id = r.account_id and k.key_id = r.key_id
        left join ledger.holds h on h.account_id = r.account_id and h.request_id = r.request_id
        left join ledger.charges c on c.account_id = r.account_id and c.request_id = r.request_id
        left join lateral (
            select array_agg(o.id) as ids, array_agg(o.source) as sources, array_agg(o.available) as lefts,
                   array_agg(o.expires_at_s) as ends, sum(o.available)::bigint as available
            from (
                select g.id, g.source, g.available, g.expires_at_s
                from ledger.grants g
                where r.first and g.account_id = r.account_id and not g.spent and g.available > 0
                  and g.starts_at_s <= v_now.at_s and g.expires_at_s > v_now.at_s
                order by g.priority, g.expires_at_s, g.starts_at_s, g.id
            ) o
        ) g on true
        order by r.item
    loop
        item := q.item;
        if not v_plain then
            v_plain := true;
            outcome := 'held'; amount := null; number := v_now.day; used := 0; grant_id := null; source := null;
            grant_ids := null; sources := null; amounts := null; cap := null; first_request := null; rates := null;
        end if;
        if q.account_id is distinct from v_account then
            if q.account_id < v_account then
                raise exception 'a batch is in the order of its accounts' using errcode = 'data_exception';
            end if;
            v_account := q.account_id;
            v_key := null;
            i_keys := '{}'; i_digests := '{}'; i_requests := '{}';
            g_ids := coalesce(q.ids, '{}'); g_sources := coalesce(q.sources, '{}');
            g_left := coalesce(q.lefts, '{}'); g_ends := coalesce(q.ends, '{}');
            g_available := coalesce(q.available, 0);
            g_at := 1;
            g_id := g_ids[1]; g_source := g_sources[1]; g_rest := coalesce(g_left[1], 0); g_end := g_ends[1];
        end if;
        if q.key_id is distinct from v_key then
            if q.key_id < v_key then
                raise exception 'an account''s part of a batch is in the order of its keys' using errcode = 'data_exception';
            end if;
            v_key := q.key_id;
            v_second := null;
            if q.counted then
                k_day_left := q.day_left; k_month_left := q.month_left;
                k_month_begins := q.month_first; k_month_ends := q.month_after;
            else
                -- The key's row counts another day or month: what it has spent of these is summed.
                v_stale := true;
                v_first := ledger.month_first(v_now.day); v_after := ledger.month_after(v_now.day);
                k_month_begins := v_first; k_month_ends := v_after;
                select coalesce(case when x.day = v_now.day then x.day_cap - x.day_used - x.day_held
                                     else x.day_cap - ledger.key_used_on(v_account, v_key, v_now.day)
                                          - ledger.key_held_on(v_account, v_key, v_now.day) end, v_most) as of_day,
                       coalesce(case when x.month_first = v_first then x.month_cap - x.month_used - x.month_held
                                     else x.month_cap - ledger.key_used_in(v_account, v_key, v_first, v_after)
                                          - ledger.key_held_in(v_account, v_key, v_first, v_after) end, v_most) as of_month
                into k from ledger.keys x where x.account_id = v_account and x.key_id = v_key;
                k_day_left := k.of_day; k_month_left := k.of_month;
            end if;
            k_total_left := q.total_left;
            k_limited := q.rpm is not null or q.tpm is not null;
            if k_limited then
                v_limited := true;
                v_wall := floor(extract(epoch from clock_timestamp()))::bigint;
                select greatest(s.second, v_wall), ledger.slid(s.requests, v_wall - s.second, 0),
                       ledger.slid(s.tokens, v_wall - s.second, 0)
                into v_second, k_requests, k_tokens
                from ledger.rates s where s.account_id = v_account and s.key_id = v_key;
                if not found then
                    v_second := v_wall;
                    k_requests := array_fill(0::bigint, array[61]);
                    k_tokens := k_requests;
                end if;
                k_requested := ledger.total(k_requests);
                k_took := ledger.total(k_tokens);
            end if;
        end if;

        if q.fine is not true then
            v_plain := false;
            amount := null; grant_id := null; source := null;
            select x.state, x.epoch, x.key_id, x.asked, x.amount, x.price_version, x.day, x.step, x.leg_grants,
                   x.leg_sources, x.leg_amounts, x.leg_ends
            into h from ledger.holds x where x.account_id = v_account and x.request_id = p_requests[item];
            if q.step > 0 then
                if h.state is distinct from 'open' or h.key_id <> v_key then
                    outcome := 'ended'; return next; continue;
                elsif v_now.alive is not true or h.epoch <> p_epoch then
                    outcome := 'fenced'; return next; continue;
                elsif h.step = q.step and h.amount = p_bases[item] + q.amount then
                    outcome := 'repeat'; amount := h.amount; grant_ids := h.leg_grants; sources := h.leg_sources;
                    amounts := h.leg_amounts; number := h.day; used := h.step;
                    return next; continue;
                elsif h.step <> q.step - 1 or h.amount <> p_bases[item] then
                    outcome := 'conflict'; return next; continue;
                end if;
            elsif h.state is not null then
                if h.state = 'open' and h.epoch = p_epoch and h.key_id = v_key and h.asked = q.amount
                   and h.price_version = p_prices[item] then
                    outcome := 'repeat'; amount := h.amount; grant_ids := h.leg_grants; sources := h.leg_sources;
                    amounts := h.leg_amounts; number := h.day; used := h.step;
                else
                    outcome := 'conflict';
                end if;
                return next; continue;
            elsif exists (select from ledger.charges c
                          where c.account_id = v_account and c.request_id = p_requests[item]) then
                outcome := 'conflict'; return next; continue;
            elsif v_now.alive is not true then
                outcome := 'fenced'; return next; continue;
            end if;
            select x.version, x.state, x.expires_at_s, x.day_cap, x.month_cap
            into k from ledger.keys x where x.account_id = v_account and x.key_id = v_key;
            if q.opened_day is null or k.state is distinct from 'active' then
                outcome := 'key_revoked'; return next; continue;
            elsif k.expires_at_s <= v_now.at_s then
                outcome := 'key_expired'; number := k.expires_at_s; return next; continue;
            elsif q.step = 0 and k.version <> p_key_versions[item] then
                outcome := 'stale_key'; return next; continue;
            end if;
            if p_idempotency_keys[item] is not null then
                v_found := array_position(i_keys, p_idempotency_keys[item]);
                if v_found is not null then
                    outcome := case when i_digests[v_found] = p_digests[item] then 'key_running' else 'key_conflict' end;
                    first_request := i_requests[v_found];
                    return next; continue;
                end if;
                select x.request_id, case when x.digest <> p_digests[item] then 'key_conflict'
                                          when x.state = 'running' then 'key_running'
                                          when x.answer is null and x.answer_due > clock_timestamp() then 'key_running'
                                          else 'key_done' end as outcome
                into i
                from ledger.idempotency x
                where x.account_id = v_account and x.key = p_idempotency_keys[item] and x.expires_at > clock_timestamp();
                if found then
                    outcome := i.outcome; first_request := i.request_id; return next; continue;
                end if;
            end if;
            if q.step = 0 then
                if p_prices[item] <> v_now.price then
                    outcome := 'stale_price'; number := v_now.price; return next; continue;
                elsif q.opened_day < v_now.day and v_now.opened_day >= v_now.day and not p_unopened_ok[item] then
                    outcome := 'day_unopened'; return next; continue;
                end if;
            elsif q.least > g_available and q.opened_day < v_now.day and v_now.opened_day >= v_now.day
                  and not p_unopened_ok[item] then
                outcome := 'day_unopened'; return next; continue;
            end if;
        end if;

        if q.step = 0 then
            v_left := greatest(0, least(g_available, k_day_left, k_month_left, k_total_left));
        else
            -- An extension counts for the day and month of its hold, which may be over.
            v_of_day := k_day_left;
            v_of_month := k_month_left;
            if h.day <> v_now.day then
                v_of_day := coalesce(k.day_cap - ledger.key_used_on(v_account, v_key, h.day)
                                     - ledger.key_held_on(v_account, v_key, h.day)
                                     - (select coalesce(sum(n.amount), 0) from unnest(o_all) n
                                        where p_accounts[n.item] = v_account and p_keys[n.item] = v_key
                                          and n.hold_day = h.day), v_most);
            end if;
            if h.day < k_month_begins or h.day >= k_month_ends then
                v_first := ledger.month_first(h.day); v_after := ledger.month_after(h.day);
                v_of_month := coalesce(k.month_cap - ledger.key_used_in(v_account, v_key, v_first, v_after)
                                       - ledger.key_held_in(v_account, v_key, v_first, v_after)
                                       - (select coalesce(sum(n.amount), 0) from unnest(o_all) n
                                          where p_accounts[n.item] = v_account and p_keys[n.item] = v_key
                                            and n.hold_day >= v_first and n.hold_day < v_after), v_most);
            end if;
            v_left := greatest(0, least(g_available, v_of_day, v_of_month, k_total_left));
        end if;
        if q.least > v_left then
            v_plain := false;
            amount := null; grant_id := null; source := null;
            select x.day_cap, x.month_cap, x.total_cap into k
            from ledger.keys x where x.account_id = v_account and x.key_id = v_key;
            if q.step = 0 then
                v_of_day := k_day_left;
                v_of_month := k_month_left;
            end if;
            if q.least > greatest(0, v_of_day) then
                outcome := 'key_day'; cap := k.day_cap; used := k.day_cap - v_of_day;
            elsif q.least > greatest(0, v_of_month) then
                outcome := 'key_month'; cap := k.month_cap; used := k.month_cap - v_of_month;
            elsif q.least > greatest(0, k_total_left) then
                outcome := 'key_total'; cap := k.total_cap; used := k.total_cap - k_total_left;
            else
                if g_at <= cardinality(g_left) then
                    g_left[g_at] := g_rest;
                end if;
                outcome := 'credit'; sources := g_sources; amounts := g_left;
                number := (v_now.opened_day < v_now.day)::int;
            end if;
            return next; continue;
        end if;
        if k_limited then
            v_plain := false;
            amount := null; grant_id := null; source := null;
            if q.step = 0 and k_requested >= q.rpm then
                outcome := 'rate_requests'; cap := q.rpm; used := k_requested;
                number := ledger.rate_wait(k_requests, k_requested + 1 - q.rpm);
            elsif p_tokens[item] > q.tpm then
                outcome := 'rate_tokens'; cap := q.tpm; used := k_took; number := null;
            elsif k_took + p_tokens[item] > q.tpm and p_tokens[item] > 0 then
                outcome := 'rate_tokens'; cap := q.tpm; used := k_took;
                number := ledger.rate_wait(k_tokens, k_took + p_tokens[item] - q.tpm);
            end if;
            if outcome <> 'held' then
                rates := array[q.rpm, greatest(0, q.rpm - k_requested), ledger.rate_wait(k_requests, k_requested),
                               q.tpm, greatest(0, q.tpm - k_took), ledger.rate_wait(k_tokens, k_took)];
                return next; continue;
            end if;
            if q.step = 0 then
                k_requested := k_requested + 1;
                k_requests[1] := k_requests[1] + 1;
            end if;
            k_took := k_took + p_tokens[item];
            k_tokens[1] := k_tokens[1] + p_tokens[item];
            rates := array[q.rpm, q.rpm - k_requested, ledger.rate_wait(k_requests, k_requested),
                           q.tpm, greatest(0, q.tpm - k_took), ledger.rate_wait(k_tokens, k_took)];
        end if;

        amount := greatest(q.least, least(q.amount, v_left / 8));
        if amount < g_rest and amount > 0 then
            grant_id := g_id; source := g_source;
            g_rest := g_rest - amount;
            o := row(item, amount, amount, amount, v_now.day, v_second, array[g_id], array[g_source], array[amount],
                     array[g_end]);
        else
            v_plain := false;
            grant_id := null; source := null; grant_ids := '{}'; sources := '{}'; amounts := '{}';
            o := row(item, amount, amount, amount, v_now.day, v_second, grant_ids, sources, amounts, grant_ids);
            v_need := amount;
            while v_need > 0 loop
                v_part := least(v_need, g_rest);
                o.grants := o.grants || g_id; o.sources := o.sources || g_source;
                o.amounts := o.amounts || v_part; o.ends := o.ends || g_end;
                v_need := v_need - v_part;
                g_rest := g_rest - v_part;
                if g_rest = 0 then
                    g_left[g_at] := 0;
                    g_at := g_at + 1;
                    g_id := g_ids[g_at]; g_source := g_sources[g_at]; g_rest := coalesce(g_left[g_at], 0);
                    g_end := g_ends[g_at];
                end if;
            end loop;
            grant_ids := o.grants; sources := o.sources; amounts := o.amounts;
        end if;
        g_available := g_available - amount;
        k_total_left := k_total_left - amount;
        if q.step = 0 then
            k_day_left := k_day_left - amount;
            k_month_left := k_month_left - amount;
            o_all := o_all || o;
            if p_idempotency_keys[item] is not null then
                i_keys := i_keys || p_idempotency_keys[item];
                i_digests := i_digests || p_digests[item];
                i_requests := i_requests || p_requests[item];
                i_items := i_items || item;
            end if;
        else
            o.hold_day := h.day;
            if h.day = v_now.day then
                k_day_left := k_day_left - amount;
            else
                o.of_day := 0;
            end if;
            if h.day >= k_month_begins and h.day < k_month_ends then
                k_month_left := k_month_left - amount;
            else
                o.of_month := 0;
            end if;
            o_all := o_all || o;
            for j in 1 .. cardinality(o.grants) loop
                v_found := array_position(h.leg_grants, o.grants[j]);
                if v_found is not null then
                    h.leg_amounts[v_found] := h.leg_amounts[v_found] + o.amounts[j];
                else
                    h.leg_grants := h.leg_grants || o.grants[j]; h.leg_sources := h.leg_sources || o.sources[j];
                    h.leg_amounts := h.leg_amounts || o.amounts[j]; h.leg_ends := h.leg_ends || o.ends[j];
                end if;
            end loop;
            o.grants := h.leg_grants; o.sources := h.leg_sources; o.amounts := h.leg_amounts; o.ends := h.leg_ends;
            e_all := e_all || o;
            number := h.day; used := q.step;
            amount := h.amount + amount; grant_id := null; source := null;
            grant_ids := o.grants; sources := o.sources; amounts := o.amounts;
        end if;
        return next;
    end loop;

    if o_all = '{}' then
        return;
    end if;
    if v_stale then
        v_first := ledger.month_first(v_now.day); v_after := ledger.month_after(v_now.day);
        update ledger.keys k
        set day = v_now.day,
            day_used = case when k.day = v_now.day then k.day_used
                            else ledger.key_used_on(k.account_id, k.key_id, v_now.day) end,
            day_held = case when k.day = v_now.day then k.day_held
                            else ledger.key_held_on(k.account_id, k.key_id, v_now.day) end,
            month_first = v_first,
            month_after = v_after,
            month_used = case when k.month_first = v_first then k.month_used
                              else ledger.key_used_in(k.account_id, k.key_id, v_first, v_after) end,
            month_held = case when k.month_first = v_first then k.month_held
                              else ledger.key_held_in(k.account_id, k.key_id, v_first, v_after) end
        from (select distinct p_accounts[n.item] as account_id, p_keys[n.item] as key_id from unnest(o_all) n) d
        where k.account_id = d.account_id and k.key_id = d.key_id
          and (k.day <> v_now.day or k.month_first <> v_first);
    end if;
    with n as materialized (
        select p_accounts[x.item] as account_id, p_keys[x.item] as key_id, x.* from unnest(o_all) x
    ), of_grants as (
        update ledger.grants g
        set available = g.available - d.amount, held = g.held + d.amount
        from (
            select l.account_id, l.grant_id, sum(l.amount)::bigint as amount
            from (select n.account_id, unnest(n.grants) as grant_id, unnest(n.amounts) as amount from n) l group by 1, 2
        ) d
        where g.account_id = d.account_id and g.id = d.grant_id
    ), of_keys as (
        update ledger.keys k
        set total_held = k.total_held + d.amount, day_held = k.day_held + d.of_day, month_held = k.month_held + d.of_month
        from (
            select n.account_id, n.key_id, sum(n.amount)::bigint as amount, sum(n.of_day)::bigint as of_day,
                   sum(n.of_month)::bigint as of_month
            from n group by 1, 2
        ) d
        where k.account_id = d.account_id and k.key_id = d.key_id
    )
    insert into ledger.holds (account_id, request_id, key_id, epoch, asked, amount, price_version, day, at_s,
                              deadline_at, leg_grants, leg_sources, leg_amounts, leg_ends, idempotency_key, rate_seconds,
                              rate_counts)
    select n.account_id, p_requests[n.item], n.key_id, p_epoch, p_amounts[n.item], n.amount, p_prices[n.item], v_now.day,
           v_now.at_s, clock_timestamp() + p_deadlines_s[n.item] * interval '1 second', n.grants, n.sources, n.amounts,
           n.ends, p_idempotency_keys[n.item], case when n.second is not null then array[n.second] end,
           case when n.second is not null then array[p_tokens[n.item]] end
    from n where p_steps[n.item] = 0;
    if e_all <> '{}' then
        update ledger.holds h
        set amount = h.amount + n.amount, step = p_steps[n.item],
            leg_grants = n.grants, leg_sources = n.sources, leg_amounts = n.amounts, leg_ends = n.ends,
            rate_seconds = case when n.second is null then h.rate_seconds else h.rate_seconds || n.second end,
            rate_counts = case when n.second is null then h.rate_counts else h.rate_counts || p_tokens[n.item] end
        from unnest(e_all) n
        where h.account_id = p_accounts[n.item] and h.request_id = p_requests[n.item];
    end if;
    if v_limited then
        insert into ledger.rates as s (account_id, key_id, second, requests, tokens)
        select p_accounts[n.item], p_keys[n.item], max(n.second),
               array[sum((p_steps[n.item] = 0)::int)::bigint] || array_fill(0::bigint, array[60]),
               array[sum(p_tokens[n.item])::bigint] || array_fill(0::bigint, array[60])
        from unnest(o_all) n
        where n.second is not null group by 1, 2
        on conflict (account_id, key_id) do update
        set second = greatest(s.second, excluded.second),
            requests = ledger.slid(s.requests, excluded.second - s.second, excluded.requests[1]),
            tokens = ledger.slid(s.tokens, excluded.second - s.second, excluded.tokens[1]);
    end if;
    if i_items <> '{}' then
        insert into ledger.idempotency (account_id, key, request_id, digest)
        select p_accounts[n.item], p_idempotency_keys[n.item], p_requests[n.item], p_digests[n.item]
        from unnest(i_items) as n (item)
        on conflict (account_id, key) do update
        set request_id = excluded.request_id, digest = excluded.digest, state = 'running', answer = null,
            answer_due = null, expires_at = excluded.expires_at;
    end if;
end $$;

-- Settle, release, sweep: one call for a whole batch. A settlement takes its cost from the hold's legs in their order;
-- what is left goes back to its own grant, or to breakage:expired where that grant has ended meanwhile. The
-- operator absorbs what a cost is above the hold: a caller never pays more than was held for the call.
-- A sweep gives everything back and posts the hold's amount as absorbed:unsettled.
-- p_tokens corrects what the hold and its steps counted in its key's limit per minute (null: it stays; a release counts
-- none); a settlement makes its idempotency key done, with p_answers, which may follow; a release and a sweep free it.
-- What attempts of a released call cost is posted by itself, `req:<request_id>:attempts`.
-- Outcomes: charged, released, repeat (the charge stands already), conflict (it stands with another body), and
-- unknown (no such hold, or it was released). A request id appears once in a batch. Of a charge's legs only what isn't
-- the hold's first alone is named. Rows without an item say what is left to the batch's accounts: held names the
-- account.

create function ledger.spread(p_amounts bigint[], p_cost bigint) returns bigint[]  -- a cost over legs, in their order
language plpgsql immutable parallel safe
as $$
declare
    v_parts bigint[] := '{}'; v_rest bigint := p_cost;
begin
    for j in 1 .. cardinality(p_amounts) loop
        exit when v_rest <= 0;
        v_parts := v_parts || least(v_rest, p_amounts[j]);
        v_rest := v_rest - p_amounts[j];
    end loop;
    return v_parts;
end $$;

-- Which of the tokens that steps counted weren't taken: the newest. What was taken above all of them is the last's.

create function ledger.untaken(p_counts bigint[], p_taken bigint) returns bigint[]
language plpgsql immutable parallel safe
as $$
declare
    v_back bigint[] := '{}'; v_rest bigint := p_taken;
begin
    for j in 1 .. cardinality(p_counts) loop
        v_back := v_back || (p_counts[j] - least(v_rest, p_counts[j]));
        v_rest := v_rest - least(v_rest, p_counts[j]);
    end loop;
    v_back[cardinality(p_counts)] := v_back[cardinality(p_counts)] - v_rest;
    return v_back;
end $$;

drop function ledger.settle_batch;
create function ledger.settle_batch(
    p_accounts bigint[], p_requests uuid[], p_verbs text[], p_costs bigint[], p_models text[], p_usages jsonb[],
    p_outcomes text[], p_estimated boolean[], p_tokens bigint[], p_attempts jsonb[], p_answers bytea[],
    p_follows boolean[]
) returns table (
    item int, outcome text, cost bigint, absorbed bigint, held bigint, at_s bigint, grant_ids bigint[], sources text[],
    amounts bigint[]
)
language plpgsql
as $$
#variable_conflict use_column
declare
    v_now record;
begin
    perform 1 from ledger.accounts a where a.id = any (p_accounts) order by a.id for no key update;
    select n.at_s, f.* into v_now
    from (select n.at_s from ledger.present n offset 0) n
    cross join lateral (
        select bool_or(h.rate_seconds is not null) as counted, bool_or(h.idempotency_key is not null) as keyed,
               bool_or(n.at_s >= any (h.leg_ends)) as ended, bool_or(p_verbs[r.item] = 'release') as released
        from unnest(p_accounts, p_requests) with ordinality as r (account_id, request_id, item)
        join ledger.holds h on h.account_id = r.account_id and h.request_id = r.request_id
        where h.state <> 'released'
    ) f;

    -- What only some calls need.
    if v_now.counted then
        update ledger.rates s
        set tokens = (
            select array_agg(greatest(0, o.counted - coalesce(b.back, 0)) order by o.place)
            from unnest(s.tokens) with ordinality as o (counted, place)
            left join (
                select t.second, sum(t.back)::bigint as back
                from unnest(p_requests) with ordinality as r (request_id, item)
                join ledger.holds h on h.account_id = s.account_id and h.request_id = r.request_id
                    and h.state <> 'released' and h.key_id = s.key_id
                cross join lateral unnest(
                    h.rate_seconds,
                    ledger.untaken(h.rate_counts, case p_verbs[r.item] when 'settle' then p_tokens[r.item] else 0 end)
                ) as t (second, back)
                where p_verbs[r.item] = 'release' or (p_verbs[r.item] = 'settle' and p_tokens[r.item] is not null)
                group by 1
            ) b on b.second = s.second - o.place + 1
        )
        where (s.account_id, s.key_id) in (
            select h.account_id, h.key_id
            from unnest(p_accounts, p_requests) as r (account_id, request_id)
            join ledger.holds h on h.account_id = r.account_id and h.request_id = r.request_id
            where h.state <> 'released' and h.rate_seconds is not null
        );
    end if;
    if v_now.keyed then
        delete from ledger.idempotency d
        using unnest(p_accounts, p_requests, p_verbs) as r (account_id, request_id, verb), ledger.holds h
        where r.verb <> 'settle' and h.account_id = r.account_id and h.request_id = r.request_id and h.state <> 'released'
          and d.account_id = r.account_id and d.key = h.idempotency_key and d.request_id = r.request_id;
        update ledger.idempotency d
        set state = 'done', answer = p_answers[r.item],
            answer_due = case when p_follows[r.item] then clock_timestamp() + interval '30 seconds' end
        from unnest(p_accounts, p_requests, p_verbs) with ordinality as r (account_id, request_id, verb, item),
             ledger.holds h
        where r.verb = 'settle' and h.account_id = r.account_id and h.request_id = r.request_id and h.state <> 'released'
          and d.account_id = r.account_id and d.key = h.idempotency_key and d.request_id = r.request_id;
    end if;
    if v_now.ended then
        insert into ledger.postings (account_id, external_id, kind, at_s, digest, lines, grant_ids, amounts)
        select p_accounts[x.item], 'req:' || p_requests[x.item] || ':expire', 'expire', v_now.at_s,
               sha256(convert_to('req:' || p_requests[x.item], 'UTF8')),
               array_agg('purse:' || x.source) || 'breakage:expired'::text,
               array_agg(x.grant_id) || null::bigint,
               array_agg(-x.amount) || sum(x.amount)::bigint
        from (
            select r.item, l.grant_id, l.source, l.amount - coalesce(l.part, 0) as amount
            from unnest(p_accounts, p_requests, p_verbs, p_costs) with ordinality
                as r (account_id, request_id, verb, cost, item)
            join ledger.holds h on h.account_id = r.account_id and h.request_id = r.request_id and h.state <> 'released'
            cross join lateral unnest(
                h.leg_grants, h.leg_sources, h.leg_amounts, h.leg_ends,
                ledger.spread(h.leg_amounts, case r.verb when 'settle' then r.cost else 0 end)
            ) as l (grant_id, source, amount, ends, part)
            where l.ends <= v_now.at_s
        ) x
        where x.amount > 0 group by x.item;
    end if;
    if v_now.released then
        insert into ledger.postings (account_id, external_id, kind, at_s, digest, lines, grant_ids, amounts)
        select p_accounts[x.item], 'req:' || p_requests[x.item] || ':attempts', 'attempts', v_now.at_s,
               sha256(convert_to(p_attempts[x.item]::text, 'UTF8')), array_agg(x.line),
               array_agg(null::bigint), array_agg(x.amount)
        from (
            select r.item, v.line, v.amount
            from unnest(p_accounts, p_requests, p_verbs) with ordinality as r (account_id, request_id, verb, item)
            join ledger.holds h on h.account_id = r.account_id and h.request_id = r.request_id and h.state <> 'released'
            cross join lateral jsonb_array_elements(p_attempts[r.item]) as a (attempt)
            cross join lateral (values
                ('cost:upstream:' || (a.attempt ->> 0), -(a.attempt ->> 1)::bigint),
                ('payable:upstream:' || (a.attempt ->> 0), (a.attempt ->> 1)::bigint)
            ) as v (line, amount)
            where r.verb = 'release' and v.amount <> 0
        ) x
        group by x.item;
    end if;

    return query
    with x as materialized (
        select r.item, r.account_id, r.verb, r.asked, r.cost, r.held, r.key_id, r.price_version, r.day,
               r.leg_grants, r.leg_sources, r.leg_amounts, r.leg_ends,
               case when r.cost = 0 or r.held is null then '{}' when r.cost <= r.leg_amounts[1] then array[r.cost]
                    else ledger.spread(r.leg_amounts, r.cost) end as parts,
               case when r.verb = 'settle' then r.asked - r.cost else r.held end as absorbed,
               r.day = k.day as of_day, r.day >= k.month_first and r.day < k.month_after as of_month
        from (
            select u.item, u.account_id, u.verb, u.asked,
                   case u.verb when 'settle' then least(u.asked, h.amount) else 0 end as cost,
                   h.amount as held, h.account_id as of, h.key_id, h.price_version, h.day, h.leg_grants, h.leg_sources,
                   h.leg_amounts, h.leg_ends
            from unnest(p_accounts, p_requests, p_verbs, p_costs) with ordinality
                as u (account_id, request_id, verb, asked, item)
            left join ledger.holds h
                on h.account_id = u.account_id and h.request_id = u.request_id and h.state <> 'released'
        ) r
        left join ledger.keys k on k.account_id = r.of and k.key_id = r.key_id
    ), l as materialized (
        select j.account_id, j.leg_grants[j.place] as grant_id, j.leg_sources[j.place] as source,
               j.leg_amounts[j.place] as held, j.leg_amounts[j.place] - coalesce(j.parts[j.place], 0) as rest,
               j.leg_ends[j.place] > v_now.at_s as alive
        from (
            select x.account_id, x.leg_grants, x.leg_sources, x.leg_amounts, x.leg_ends, x.parts,
                   generate_subscripts(x.leg_grants, 1) as place
            from x
        ) j
    ), of_grants as (
        update ledger.grants g
        set available = g.available + d.back, held = g.held - d.held
        from (
            select l.account_id, l.grant_id, sum(l.held)::bigint as held,
                   coalesce(sum(l.rest) filter (where l.alive), 0)::bigint as back
            from l group by 1, 2
        ) d
        where g.account_id = d.account_id and g.id = d.grant_id
    ), of_keys as (
        -- A hold of an earlier day than its key counts now belongs to that day: only the key's total moves.
        update ledger.keys k
        set total_held = k.total_held - d.held,
            total_used = k.total_used + d.cost,
            day_held = k.day_held - d.day_held,
            day_used = k.day_used + d.day_cost,
            month_held = k.month_held - d.month_held,
            month_used = k.month_used + d.month_cost
        from (
            select x.account_id, x.key_id, sum(x.held)::bigint as held, sum(x.cost)::bigint as cost,
                   sum(case when x.of_day then x.held else 0 end)::bigint as day_held,
                   sum(case when x.of_day then x.cost else 0 end)::bigint as day_cost,
                   sum(case when x.of_month then x.held else 0 end)::bigint as month_held,
                   sum(case when x.of_month then x.cost else 0 end)::bigint as month_cost
            from x where x.held is not null group by 1, 2
        ) d
        where k.account_id = d.account_id and k.key_id = d.key_id
    ), of_holds as (
        delete from ledger.holds h
        using x
        where h.account_id = x.account_id and h.request_id = p_requests[x.item] and x.held is not null
          and x.verb <> 'release'
    ), charged as (
        insert into ledger.charges (account_id, request_id, key_id, model, usage, price_version, held, cost, absorbed,
                                    outcome, estimated, day, at_s, leg_grants, leg_sources, leg_amounts,
                                    attempts)
        select p_accounts[x.item], p_requests[x.item], x.key_id, p_models[x.item], p_usages[x.item], x.price_version,
               x.held, x.cost, x.absorbed, p_outcomes[x.item], p_estimated[x.item], x.day, v_now.at_s,
               x.leg_grants[1:cardinality(x.parts)], x.leg_sources[1:cardinality(x.parts)], x.parts, p_attempts[x.item]
        from x where x.held is not null and x.verb <> 'release'
    )
    select x.item::int,
           case when x.held is null then case when x.verb = 'settle' then coalesce(c.outcome, 'unknown')
                                              else 'released' end
                when x.verb = 'release' then 'released' else 'charged' end,
           x.cost, x.absorbed, x.held, v_now.at_s,
           case when cardinality(x.parts) > 1 then x.leg_grants[1:cardinality(x.parts)] end,
           case when cardinality(x.parts) > 1 then x.leg_sources[1:cardinality(x.parts)] end,
           case when cardinality(x.parts) > 1 then x.parts end
    from x
    left join lateral (
        select case when s.outcome = 'unsettled'
                      or (s.cost + s.absorbed = x.asked and s.model = p_models[x.item]
                          and s.usage = p_usages[x.item] and s.outcome = p_outcomes[x.item]
                          and s.estimated = p_estimated[x.item]
                          and s.attempts is not distinct from p_attempts[x.item]) then 'repeat' else 'conflict' end
                   as outcome
        from ledger.charges s
        where x.held is null and s.account_id = x.account_id and s.request_id = p_requests[x.item]
        offset 0
    ) c on true
    union all
    select null, 'left', null, null, p.account_id, v_now.at_s, null, array_agg(p.source), array_agg(p.available)
    from (
        select g.account_id, g.source, sum(g.available)::bigint as available
        from (
            select o.account_id, o.source, o.available
            from ledger.grants o
            where o.account_id = any (p_accounts) and not o.spent
              and o.starts_at_s <= v_now.at_s and o.expires_at_s > v_now.at_s
            union all
            select l.account_id, l.source, l.rest from l where l.alive
        ) g
        group by 1, 2
    ) p
    group by p.account_id;

    if v_now.released then
        update ledger.holds h set state = 'released'
        from unnest(p_accounts, p_requests, p_verbs) as r (account_id, request_id, verb)
        where r.verb = 'release' and h.account_id = r.account_id and h.request_id = r.request_id and h.state <> 'released';
    end if;
end $$;

-- What is over and nobody needs any more: released holds after p_keep_s, counts of a minute that is long past, workers' lives without a hold. Returns how many rows went.

create function ledger.forget_ended(p_keep_s float8, p_limit int) returns int
language plpgsql
as $$
declare
    v_before constant timestamptz := clock_timestamp() - p_keep_s * interval '1 second';
    v_more int; v_gone int;
begin
    delete from ledger.holds x
    using (
        select h.account_id, h.request_id from ledger.holds h
        where h.state = 'released' and h.opened_at < v_before order by h.opened_at limit p_limit for update skip locked
    ) o
    where x.account_id = o.account_id and x.request_id = o.request_id;
    get diagnostics v_gone = row_count;
    delete from ledger.rates x
    using (
        select s.account_id, s.key_id from ledger.rates s
        where s.second < extract(epoch from v_before) limit p_limit for update skip locked
    ) o
    where x.account_id = o.account_id and x.key_id = o.key_id;
    get diagnostics v_more = row_count;
    v_gone := v_gone + v_more;
    delete from ledger.epochs e
    where e.id in (
        select w.id from ledger.epochs w
        where w.lapsed_at < v_before and not exists (select from ledger.holds h where h.epoch = w.id and h.state = 'open')
        limit p_limit
    );
    get diagnostics v_more = row_count;
    return v_gone + v_more;
end $$;

-- A grant that a reorg took back, raised to p_to again: what was absorbed is made good first, the rest is available.

create function ledger.restore_grant(
    p_account bigint, p_grant_external text, p_to bigint, p_external text, p_digest bytea,
    out outcome text, out grant_id bigint
)
language plpgsql
as $$
declare
    v_done record; g record; v_more bigint; v_good bigint;
begin
    perform 1 from ledger.accounts a where a.id = p_account for no key update;
    if not found then
        outcome := 'no_account'; return;
    end if;
    select p.digest, p.grant_ids[1] as grant_id into v_done
    from ledger.postings p where p.account_id = p_account and p.external_id = p_external;
    if found then
        outcome := case when v_done.digest = p_digest then 'repeat' else 'conflict' end;
        grant_id := v_done.grant_id;
        return;
    end if;
    select * into g from ledger.grants x where x.account_id = p_account and x.external_id = p_grant_external and x.external_id <> '';
    if not found then
        outcome := 'no_grant'; return;
    end if;
    grant_id := g.id;
    v_more := p_to - (g.amount - g.absorbed);
    if v_more <= 0 then
        outcome := 'same'; return;
    end if;
    v_good := least(v_more, g.absorbed);
    update ledger.grants x
    set amount = x.amount + v_more - v_good, available = x.available + v_more - v_good, absorbed = x.absorbed - v_good
    where x.account_id = p_account and x.id = g.id;
    insert into ledger.postings (account_id, external_id, kind, at_s, digest, lines, grant_ids, amounts)
    select p_account, p_external, 'raise', n.at_s, p_digest,
           array['purse:' || g.source, 'absorbed:reorg', ledger.source_line(g.source)], array[g.id, g.id, g.id],
           array[v_more - v_good, v_good, -v_more]
    from ledger.present n;
    outcome := 'posted';
end $$;
