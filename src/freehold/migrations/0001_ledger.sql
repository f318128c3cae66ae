-- The ledger: double entry in nano-USD. Everything lives in the schema `ledger`, every table but the clocks begins
-- its key with account_id, and every posting touches one account.
--
-- Postings and charges are the books: rows that are only ever added. Grants' available and held, and keys' used and
-- held, are projections of them and of the open holds, kept so that one call need not read a history.

create schema ledger;

-- Time and price: one row each.

create table ledger.clock (
    one boolean primary key default true check (one),
    at_s bigint not null,                    -- newest block time
    refreshed_at timestamptz not null,       -- when it last moved, by this database's clock
    opened_day int not null                  -- newest day whose allowance may be issued
);
insert into ledger.clock values (true, 0, 'epoch', -1);  -- never set: runs by the wall clock from the epoch

create view ledger.present as
select x.at_s, (x.at_s / 86400)::int as day, x.provisional, x.opened_day
from (
    select case when i.idle > 120 then c.at_s + floor(i.idle)::bigint else c.at_s end as at_s,
           i.idle > 120 as provisional,
           c.opened_day
    from ledger.clock c
    cross join lateral (select extract(epoch from clock_timestamp() - c.refreshed_at) as idle) i
) x;

create table ledger.price (
    one boolean primary key default true check (one),
    version int not null
);
insert into ledger.price values (true, 0);

-- Accounts, keys, grants.

create table ledger.accounts (
    id bigint generated always as identity primary key,
    opened_day int not null default -1,      -- newest day whose allowance was issued, or found to be none
    created_at timestamptz not null default now()
) with (fillfactor = 80);

create table ledger.keys (
    account_id bigint not null references ledger.accounts (id),
    key_id bigint not null,
    version int not null,
    state text not null check (state in ('active', 'revoked')),
    expires_at_s bigint,
    day_cap bigint check (day_cap >= 0),
    total_cap bigint check (total_cap >= 0),
    day int not null default -1,             -- the ledger day that day_used and day_held are of
    day_used bigint not null default 0 check (day_used >= 0),
    day_held bigint not null default 0 check (day_held >= 0),
    total_used bigint not null default 0 check (total_used >= 0),
    total_held bigint not null default 0 check (total_held >= 0),
    month_cap bigint check (month_cap >= 0),
    rpm int check (rpm > 0),
    tpm bigint check (tpm > 0),
    month_first int not null default -1,     -- the month that month_used and month_held are of begins,
    month_after int not null default -1,     -- and the next one does
    month_used bigint not null default 0 check (month_used >= 0),
    month_held bigint not null default 0 check (month_held >= 0),
    primary key (account_id, key_id)
) with (fillfactor = 50);

create table ledger.grants (
    account_id bigint not null references ledger.accounts (id),
    id bigint generated always as identity,
    source text not null check (source in ('allowance', 'strip', 'promo', 'prepaid')),
    external_id text not null,
    day int,                                 -- of a day's allowance
    amount bigint not null check (amount >= 0),
    available bigint not null check (available >= 0),
    held bigint not null default 0 check (held >= 0),
    absorbed bigint not null default 0 check (absorbed >= 0),  -- taken back by a reorg after it was spent
    starts_at_s bigint not null,
    expires_at_s bigint not null check (expires_at_s > starts_at_s),
    priority int not null,
    expiries int not null default 0,
    spent boolean not null generated always as (available = 0 and held = 0) stored,
    primary key (account_id, id)
) with (fillfactor = 50);
create unique index grants_external on ledger.grants (account_id, external_id);
create unique index grants_of_day on ledger.grants (account_id, source, day) where day is not null;
-- On `spent`, not on the amounts: an index that names them would make every hold rewrite it.
create index grants_alive on ledger.grants (account_id) where not spent;
create index grants_ending on ledger.grants (expires_at_s) where not spent;
create index grants_absorbed on ledger.grants (account_id) where absorbed > 0;  -- for the metrics

-- Worker epochs and holds.

create table ledger.epochs (
    id bigint generated always as identity primary key,
    started_at timestamptz not null default clock_timestamp(),
    beat_at timestamptz not null default clock_timestamp(),
    lapsed_at timestamptz                    -- from here on it opens no hold, and those it left open are swept
);

create table ledger.holds (
    account_id bigint not null,
    request_id uuid not null,
    key_id bigint not null,
    epoch bigint not null,
    state text not null default 'open' check (state in ('open', 'settled', 'released', 'expired')),
    asked bigint not null,
    amount bigint not null check (amount >= 0),
    price_version int not null,
    day int not null,
    at_s bigint not null,
    opened_at timestamptz not null default clock_timestamp(),
    deadline_at timestamptz not null,
    leg_grants bigint[] not null,
    leg_sources text[] not null,
    leg_amounts bigint[] not null,
    leg_ends bigint[] not null,              -- each grant's expires_at_s
    step int not null default 0,             -- how often it was extended
    idempotency_key text,
    tokens bigint,                           -- counted in the key's limit per minute; null: it has none
    rate_second bigint,                      -- where the newest of them are counted,
    rate_tokens bigint,                      -- and how many they are
    primary key (account_id, request_id)
) with (fillfactor = 70);
create index holds_open on ledger.holds (account_id, epoch) where state = 'open';

-- The books.

create table ledger.chart (
    line text primary key,
    meaning text not null
);
insert into ledger.chart values
    ('purse:allowance', 'credit of an account: what today''s stake grants'),
    ('purse:strip', 'credit of an account: dated capacity'),
    ('purse:promo', 'credit of an account: given'),
    ('purse:prepaid', 'credit of an account: paid for'),
    ('issuance:allowance', 'where allowance comes from'),
    ('issuance:strip', 'where strips'' credit comes from'),
    ('issuance:promo', 'where promotional credit comes from'),
    ('cash:usdc', 'where prepaid credit comes from'),
    ('revenue:usage', 'what calls came to'),
    ('breakage:expired', 'credit that ended unused'),
    ('absorbed:overage', 'cost above its hold that the operator bears'),
    ('absorbed:unsettled', 'estimated cost of calls whose worker died'),
    ('absorbed:reorg', 'credit that a reorg took back after it was spent'),
    ('transit', 'between two accounts'),
    ('cost:upstream', 'what attempts at an upstream cost the operator; its name follows'),
    ('payable:upstream', 'what the operator owes to an upstream; its name follows');

create function ledger.total(amounts bigint[]) returns bigint
language sql immutable parallel safe
as $$ select coalesce(sum(x), 0)::bigint from unnest(amounts) x $$;

create table ledger.postings (
    account_id bigint not null,
    external_id text not null,
    position bigint generated always as identity,
    kind text not null check (kind in ('grant', 'raise', 'expire', 'reverse', 'transfer')),
    at_s bigint not null,
    written_at timestamptz not null default clock_timestamp(),
    digest bytea not null,                   -- of the body: a repeat must bring the same
    lines text[] not null,
    grant_ids bigint[] not null,
    amounts bigint[] not null check (ledger.total(amounts) = 0),
    primary key (account_id, external_id),
    check (cardinality(lines) = cardinality(amounts) and cardinality(grant_ids) = cardinality(amounts))
);

-- A charge is the posting `req:<request_id>`: its legs leave their purses, and revenue:usage takes them together
-- with what the operator absorbs.
create table ledger.charges (
    account_id bigint not null,
    request_id uuid not null,
    position bigint generated always as identity,
    key_id bigint not null,
    model text not null,
    usage jsonb not null,
    price_version int not null,
    held bigint not null,
    cost bigint not null check (cost >= 0),
    absorbed bigint not null check (absorbed >= 0),
    outcome text not null,
    estimated boolean not null,
    day int not null,
    at_s bigint not null,
    written_at timestamptz not null default clock_timestamp(),
    leg_grants bigint[] not null,
    leg_sources text[] not null,
    leg_amounts bigint[] not null,
    attempts jsonb,                          -- what is owed to upstreams: [[upstream, nano-USD, outcome], …]
    primary key (account_id, request_id)
);
create index charges_in_order on ledger.charges (account_id, at_s, position);
-- What the operator has borne is read at each scrape of the metrics: few rows, and these name them.
create index charges_absorbed on ledger.charges (account_id) where absorbed > 0;

create view ledger.entries as
select p.account_id, p.external_id, p.kind, p.at_s, e.line, e.grant_id, e.amount
from ledger.postings p
cross join lateral unnest(p.lines, p.grant_ids, p.amounts) as e (line, grant_id, amount)
union all
select c.account_id, 'req:' || c.request_id, 'settle', c.at_s, 'purse:' || l.source, l.grant_id, -l.amount
from ledger.charges c
cross join lateral unnest(c.leg_sources, c.leg_grants, c.leg_amounts) as l (source, grant_id, amount)
union all
select c.account_id, 'req:' || c.request_id, 'settle', c.at_s, v.line, null, v.amount
from ledger.charges c
cross join lateral (values
    ('revenue:usage', c.cost + c.absorbed),
    (case c.outcome when 'unsettled' then 'absorbed:unsettled' else 'absorbed:overage' end, -c.absorbed)
) as v (line, amount)
where v.amount <> 0
union all
select c.account_id, 'req:' || c.request_id, 'settle', c.at_s, v.line, null, v.amount
from ledger.charges c
cross join lateral jsonb_array_elements(c.attempts) as a (attempt)
cross join lateral (values
    ('cost:upstream:' || (a.attempt ->> 0), -(a.attempt ->> 1)::bigint),
    ('payable:upstream:' || (a.attempt ->> 0), (a.attempt ->> 1)::bigint)
) as v (line, amount)
where v.amount <> 0;

create function ledger.refuse_change() returns trigger
language plpgsql
as $$
begin
    raise exception 'the books are append-only: %.% is never changed', tg_table_schema, tg_table_name
        using errcode = 'restrict_violation';
end $$;
create trigger append_only before update or delete on ledger.postings
    for each row execute function ledger.refuse_change();
create trigger append_only before update or delete on ledger.charges
    for each row execute function ledger.refuse_change();
create trigger never_emptied before truncate on ledger.postings
    for each statement execute function ledger.refuse_change();
create trigger never_emptied before truncate on ledger.charges
    for each statement execute function ledger.refuse_change();

-- What a key has used and holds of a day that isn't the one its row counts: read when the day changes.

create function ledger.key_used_on(p_account bigint, p_key bigint, p_day int) returns bigint
language sql stable
as $$
    select coalesce(sum(cost), 0)::bigint from ledger.charges
    where account_id = p_account and key_id = p_key and day = p_day and at_s >= p_day::bigint * 86400
$$;

create function ledger.key_held_on(p_account bigint, p_key bigint, p_day int) returns bigint
language sql stable
as $$
    select coalesce(sum(amount), 0)::bigint from ledger.holds
    where account_id = p_account and key_id = p_key and day = p_day and state = 'open'
$$;

-- Keys: the calendar month (UTC) of ledger time beside the day, as the days where it and the next begin.

create function ledger.month_first(p_day int) returns int  -- the first day of the month that a day is in
language sql immutable parallel safe
as $$ select date_trunc('month', (date '1970-01-01' + p_day)::timestamp)::date - date '1970-01-01' $$;

create function ledger.month_after(p_day int) returns int  -- the first day of the month that follows
language sql immutable parallel safe
as $$
    select (date_trunc('month', (date '1970-01-01' + p_day)::timestamp) + interval '1 month')::date - date '1970-01-01'
$$;

create function ledger.key_used_in(p_account bigint, p_key bigint, p_first int, p_after int) returns bigint
language sql stable
as $$
    select coalesce(sum(cost), 0)::bigint from ledger.charges
    where account_id = p_account and key_id = p_key and day >= p_first and day < p_after
      and at_s >= p_first::bigint * 86400
$$;

create function ledger.key_held_in(p_account bigint, p_key bigint, p_first int, p_after int) returns bigint
language sql stable
as $$
    select coalesce(sum(amount), 0)::bigint from ledger.holds
    where account_id = p_account and key_id = p_key and state = 'open' and day >= p_first and day < p_after
$$;

-- What a key with a limit per minute asked for, second by second of this database's clock: the first element is of
-- `second`, the next of the second before. 61 of them cover any 60 seconds, however they fall on whole ones.
-- Only for keys that have such a limit.

create table ledger.rates (
    account_id bigint not null,
    key_id bigint not null,
    second bigint not null,
    requests bigint[] not null check (cardinality(requests) = 61),
    tokens bigint[] not null check (cardinality(tokens) = 61),
    primary key (account_id, key_id),
    foreign key (account_id, key_id) references ledger.keys (account_id, key_id)
) with (fillfactor = 40);

create function ledger.slid(p_counts bigint[], p_by bigint, p_more bigint) returns bigint[]
language sql immutable parallel safe
as $$
    select case when p_by <= 0 then array[p_counts[1] + p_more] || p_counts[2:61]
                when p_by > 60 then array[p_more] || array_fill(0::bigint, array[60])
                else array[p_more] || array_fill(0::bigint, array[(p_by - 1)::int]) || p_counts[1:61 - p_by::int] end
$$;

-- Seconds until `p_leave` of what `p_counts` counts are older than 60 s.

create function ledger.rate_wait(p_counts bigint[], p_leave bigint) returns bigint
language plpgsql immutable parallel safe
as $$
declare
    v_left bigint := p_leave;
begin
    if v_left <= 0 then
        return 0;
    end if;
    for age in reverse 60 .. 0 loop
        v_left := v_left - p_counts[age + 1];
        if v_left <= 0 then
            return 61 - age;
        end if;
    end loop;
    return 61;
end $$;

-- Idempotency keys: claimed together with the hold of the call that first brings one, gone when that hold is released
-- or swept, done when it is settled.

create table ledger.idempotency (
    account_id bigint not null references ledger.accounts (id),
    key text not null,
    request_id uuid not null,
    digest bytea not null,                   -- of the request's body
    state text not null default 'running' check (state in ('running', 'done')),
    answer bytea,                            -- opaque; null while running, and where it isn't kept
    answer_due timestamptz,                  -- until when an answer that isn't here may still come
    expires_at timestamptz not null default clock_timestamp() + interval '24 hours',
    primary key (account_id, key)
);
create index idempotency_ending on ledger.idempotency (expires_at);

-- Hold: one call for a whole batch. Decides each item in the order account, key, arrival; one row per item comes back.
-- An item with a step above 0 extends the open hold of its request, which was of p_bases before.
-- Outcomes: held, repeat (amount and legs are the hold's as it now stands, number its day, used its step), and the
-- refusals conflict, fenced, ended (an extension of a hold that isn't open), key_revoked, key_expired (number: when),
-- stale_key, key_running, key_done and key_conflict (of the idempotency key that first_request brought first),
-- stale_price (number: the current version), day_unopened, key_day, key_month and key_total (cap and used; used
-- counts what is held), credit (sources and amounts: what is left in each grant; number: 1 while today's allowance
-- can't be issued yet), rate_requests and rate_tokens (cap and used; number: seconds until it fits, null: never).
-- rates, of a key with limits per minute: limit, remaining and seconds until all is free, of requests and of tokens.
-- A request id appears once in a batch.

create function ledger.hold_batch(
    p_epoch bigint, p_accounts bigint[], p_keys bigint[], p_requests uuid[], p_amounts bigint[], p_leasts bigint[],
    p_prices int[], p_key_versions int[], p_deadlines_s float8[], p_unopened_ok boolean[], p_tokens bigint[],
    p_idempotency_keys text[], p_digests bytea[], p_steps int[], p_bases bigint[]
) returns table (
    item int, outcome text, amount bigint, grant_ids bigint[], sources text[], amounts bigint[], day int, at_s bigint,
    number bigint, cap bigint, used bigint, first_request uuid, rates bigint[]
)
language plpgsql
as $$
#variable_conflict use_column
declare
    v_most constant bigint := 9223372036854775807;
    v_now record;
    v_price int;
    v_alive boolean;
    q record;
    v_account bigint := null;
    v_key bigint := null;
    -- the account's live grants in the order that they are drawn, and what is left of each
    g_ids bigint[]; g_sources text[]; g_left bigint[]; g_ends bigint[];
    g_at int; g_available bigint;
    -- the key's spend so far
    k_day bigint; k_month bigint; k_total bigint; k_day_left bigint; k_month_left bigint; k_total_left bigint;
    v_left bigint; v_need bigint; v_part bigint; v_lo int; v_first int; v_after int; v_found int; v_from int; v_of_day bigint; v_of_month bigint;
    -- what the key asked for in the last 60 s, where it is limited
    v_wall bigint; v_second bigint; k_limited boolean; k_requests bigint[]; k_tokens bigint[];
    k_requested bigint; k_took bigint;
    -- idempotency keys claimed by this batch for the account
    i record; i_keys text[]; i_digests bytea[]; i_requests uuid[]; i_items int[] := '{}';
    -- holds opened or extended by this batch, and their new legs
    h_items int[] := '{}'; h_amounts bigint[] := '{}'; h_days int[] := '{}'; h_lo int[] := '{}'; h_hi int[] := '{}';
    h_seconds bigint[] := '{}'; h_limited boolean := false;
    -- all legs of the holds extended by it
    e_grants bigint[] := '{}'; e_sources text[] := '{}'; e_amounts bigint[] := '{}'; e_ends bigint[] := '{}';
    e_count int := 0;
    l_accounts bigint[] := '{}'; l_grants bigint[] := '{}'; l_sources text[] := '{}'; l_amounts bigint[] := '{}';
    l_ends bigint[] := '{}'; l_count int := 0;
begin
    -- Lock first and read in later statements: a statement that locks and reads the balance in one would read what
    -- the balance was before it waited.
    perform 1 from ledger.accounts a where a.id = any (p_accounts) order by a.id for no key update;
    select * into v_now from ledger.present;
    select version into v_price from ledger.price;
    select e.lapsed_at is null into v_alive from ledger.epochs e where e.id = p_epoch;
    v_first := ledger.month_first(v_now.day);
    v_after := ledger.month_after(v_now.day);
    v_wall := floor(extract(epoch from clock_timestamp()))::bigint;
    day := v_now.day;
    at_s := v_now.at_s;

    for q in
        select r.item, r.account_id, r.key_id, r.amount, r.least, r.price, r.key_version, r.unopened_ok,
               a.opened_day, k.version, k.state, k.expires_at_s, k.day_cap, k.month_cap, k.total_cap, k.total_used,
               k.total_held, k.rpm, k.tpm, r.idempotency_key, r.step,
               case when k.day = v_now.day then k.day_used
                    else ledger.key_used_on(r.account_id, r.key_id, v_now.day) end as day_used,
               case when k.day = v_now.day then k.day_held
                    else ledger.key_held_on(r.account_id, r.key_id, v_now.day) end as day_held,
               case when k.month_first = v_first then k.month_used + k.month_held
                    else ledger.key_used_in(r.account_id, r.key_id, v_first, v_after)
                         + ledger.key_held_in(r.account_id, r.key_id, v_first, v_after) end as in_month,
               h.state as h_state, h.epoch as h_epoch, h.key_id as h_key, h.asked as h_asked, h.amount as h_amount,
               h.price_version as h_price, h.day as h_day, h.step as h_step, h.leg_grants, h.leg_sources, h.leg_amounts,
               h.leg_ends,
               g.ids, g.sources, g.lefts, g.ends, g.available
        from (
            select u.*, row_number() over (partition by u.account_id order by u.key_id, u.item) = 1 as first
            from unnest(p_accounts, p_keys, p_requests, p_amounts, p_leasts, p_prices, p_key_versions, p_unopened_ok,
                        p_idempotency_keys, p_steps)
                with ordinality
                as u (account_id, key_id, request_id, amount, least, price, key_version, unopened_ok, idempotency_key,
                      step, item)
        ) r
        left join ledger.accounts a on a.id = r.account_id
        left join ledger.keys k on k.account_id = r.account_id and k.key_id = r.key_id
        left join lateral (
            select * from ledger.holds o where o.account_id = r.account_id and o.request_id = r.request_id offset 0
        ) h on true
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
        order by r.account_id, r.key_id, r.item
    loop
        item := q.item;
        amount := null; grant_ids := null; sources := null; amounts := null; number := null; cap := null; used := null;
        first_request := null; rates := null;
        if q.account_id is distinct from v_account then
            v_account := q.account_id;
            v_key := null;
            i_keys := '{}'; i_digests := '{}'; i_requests := '{}';
            g_ids := coalesce(q.ids, '{}'); g_sources := coalesce(q.sources, '{}');
            g_left := coalesce(q.lefts, '{}'); g_ends := coalesce(q.ends, '{}');
            g_available := coalesce(q.available, 0);
            g_at := 1;
        end if;
        if q.key_id is distinct from v_key then
            v_key := q.key_id;
            k_day := q.day_used + q.day_held;
            k_month := q.in_month;
            k_total := q.total_used + q.total_held;
            k_day_left := greatest(coalesce(q.day_cap - k_day, v_most), 0);
            k_month_left := greatest(coalesce(q.month_cap - k_month, v_most), 0);
            k_total_left := greatest(coalesce(q.total_cap - k_total, v_most), 0);
            k_limited := q.rpm is not null or q.tpm is not null;
            if k_limited then
                h_limited := true;
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

        if q.step > 0 then
            if q.h_state is distinct from 'open' or q.h_key <> q.key_id then
                outcome := 'ended'; return next; continue;
            elsif v_alive is not true or q.h_epoch <> p_epoch then
                outcome := 'fenced'; return next; continue;
            elsif q.h_step = q.step and q.h_amount = p_bases[item] + q.amount then
                outcome := 'repeat'; amount := q.h_amount; grant_ids := q.leg_grants; sources := q.leg_sources;
                amounts := q.leg_amounts; number := q.h_day; used := q.h_step;
                return next; continue;
            elsif q.h_step <> q.step - 1 or q.h_amount <> p_bases[item] then
                outcome := 'conflict'; return next; continue;
            end if;
        elsif q.h_state is not null then
            if q.h_state = 'open' and q.h_epoch = p_epoch and q.h_key = q.key_id and q.h_asked = q.amount
               and q.h_price = q.price then
                outcome := 'repeat'; amount := q.h_amount; grant_ids := q.leg_grants; sources := q.leg_sources;
                amounts := q.leg_amounts; number := q.h_day; used := q.h_step;
            else
                outcome := 'conflict';
            end if;
            return next; continue;
        elsif v_alive is not true then
            outcome := 'fenced'; return next; continue;
        end if;
        if q.opened_day is null or q.state is distinct from 'active' then
            outcome := 'key_revoked'; return next; continue;
        elsif q.expires_at_s <= v_now.at_s then
            outcome := 'key_expired'; number := q.expires_at_s; return next; continue;
        elsif q.step = 0 and q.version <> q.key_version then
            outcome := 'stale_key'; return next; continue;
        end if;
        if q.idempotency_key is not null then
            v_found := array_position(i_keys, q.idempotency_key);
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
            where x.account_id = v_account and x.key = q.idempotency_key and x.expires_at > clock_timestamp();
            if found then
                outcome := i.outcome; first_request := i.request_id; return next; continue;
            end if;
        end if;

        v_of_day := k_day_left;
        v_of_month := k_month_left;
        if q.step = 0 then
            if q.price <> v_price then
                outcome := 'stale_price'; number := v_price; return next; continue;
            elsif q.opened_day < v_now.day and v_now.opened_day >= v_now.day and not q.unopened_ok then
                outcome := 'day_unopened'; return next; continue;
            end if;
        else
            if q.least > g_available and q.opened_day < v_now.day and v_now.opened_day >= v_now.day
               and not q.unopened_ok then
                outcome := 'day_unopened'; return next; continue;
            end if;
            -- An extension counts for the day and month of its hold, which may be over.
            if q.h_day <> v_now.day and q.day_cap is not null then
                v_of_day := q.day_cap - ledger.key_used_on(v_account, v_key, q.h_day)
                            - ledger.key_held_on(v_account, v_key, q.h_day)
                            - (select coalesce(sum(n.amount), 0) from unnest(h_items, h_amounts, h_days)
                                   as n (item, amount, day)
                               where p_accounts[n.item] = v_account and p_keys[n.item] = v_key and n.day = q.h_day);
            end if;
            if (q.h_day < v_first or q.h_day >= v_after) and q.month_cap is not null then
                v_of_month := q.month_cap
                    - ledger.key_used_in(v_account, v_key, ledger.month_first(q.h_day), ledger.month_after(q.h_day))
                    - ledger.key_held_in(v_account, v_key, ledger.month_first(q.h_day), ledger.month_after(q.h_day))
                    - (select coalesce(sum(n.amount), 0) from unnest(h_items, h_amounts, h_days)
                           as n (item, amount, day)
                       where p_accounts[n.item] = v_account and p_keys[n.item] = v_key
                         and n.day >= ledger.month_first(q.h_day) and n.day < ledger.month_after(q.h_day));
            end if;
        end if;

        if q.least > v_of_day then
            outcome := 'key_day'; cap := q.day_cap; used := q.day_cap - v_of_day;
            if q.step = 0 then used := k_day; end if;
            return next; continue;
        elsif q.least > v_of_month then
            outcome := 'key_month'; cap := q.month_cap; used := q.month_cap - v_of_month;
            if q.step = 0 then used := k_month; end if;
            return next; continue;
        elsif q.least > k_total_left then
            outcome := 'key_total'; cap := q.total_cap; used := k_total; return next; continue;
        elsif q.least > g_available then
            outcome := 'credit'; sources := g_sources; amounts := g_left;
            number := (v_now.opened_day < v_now.day)::int;
            return next; continue;
        end if;
        if k_limited then
            if q.step = 0 and k_requested >= q.rpm then
                outcome := 'rate_requests'; cap := q.rpm; used := k_requested;
                number := ledger.rate_wait(k_requests, k_requested + 1 - q.rpm);
            elsif p_tokens[item] > q.tpm then
                outcome := 'rate_tokens'; cap := q.tpm; used := k_took;
            elsif k_took + p_tokens[item] > q.tpm and p_tokens[item] > 0 then
                outcome := 'rate_tokens'; cap := q.tpm; used := k_took;
                number := ledger.rate_wait(k_tokens, k_took + p_tokens[item] - q.tpm);
            end if;
            if outcome in ('rate_requests', 'rate_tokens') then
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

        v_left := least(g_available, v_of_day, v_of_month, k_total_left);
        amount := greatest(q.least, least(q.amount, v_left / 8));
        v_need := amount;
        v_lo := l_count + 1;
        while v_need > 0 loop
            v_part := least(v_need, g_left[g_at]);
            l_accounts := l_accounts || v_account;
            l_grants := l_grants || g_ids[g_at];
            l_sources := l_sources || g_sources[g_at];
            l_amounts := l_amounts || v_part;
            l_ends := l_ends || g_ends[g_at];
            l_count := l_count + 1;
            v_need := v_need - v_part;
            g_left[g_at] := g_left[g_at] - v_part;
            if g_left[g_at] = 0 then
                g_at := g_at + 1;
            end if;
        end loop;
        g_available := g_available - amount;
        k_total := k_total + amount;
        if q.step = 0 or q.h_day = v_now.day then
            k_day := k_day + amount;
            if q.day_cap is not null then k_day_left := k_day_left - amount; end if;
        end if;
        if q.step = 0 or (q.h_day >= v_first and q.h_day < v_after) then
            k_month := k_month + amount;
            if q.month_cap is not null then k_month_left := k_month_left - amount; end if;
        end if;
        if q.total_cap is not null then k_total_left := k_total_left - amount; end if;
        if q.idempotency_key is not null then
            i_keys := i_keys || q.idempotency_key;
            i_digests := i_digests || p_digests[item];
            i_requests := i_requests || p_requests[item];
            i_items := i_items || item;
        end if;
        h_items := h_items || item;
        h_amounts := h_amounts || amount;
        h_seconds := h_seconds || case when k_limited then v_second end;
        outcome := 'held';
        if q.step = 0 then
            h_days := h_days || v_now.day;
            h_lo := h_lo || v_lo;
            h_hi := h_hi || l_count;
            number := v_now.day; used := 0;
            grant_ids := l_grants[v_lo:l_count]; sources := l_sources[v_lo:l_count];
            amounts := l_amounts[v_lo:l_count];
        else
            v_from := e_count + 1;
            e_grants := e_grants || q.leg_grants; e_sources := e_sources || q.leg_sources;
            e_amounts := e_amounts || q.leg_amounts; e_ends := e_ends || q.leg_ends;
            e_count := e_count + cardinality(q.leg_grants);
            for j in v_lo .. l_count loop
                v_found := array_position(e_grants, l_grants[j], v_from);
                if v_found is not null then
                    e_amounts[v_found] := e_amounts[v_found] + l_amounts[j];
                else
                    e_grants := e_grants || l_grants[j]; e_sources := e_sources || l_sources[j];
                    e_amounts := e_amounts || l_amounts[j]; e_ends := e_ends || l_ends[j];
                    e_count := e_count + 1;
                end if;
            end loop;
            h_days := h_days || q.h_day;
            h_lo := h_lo || v_from;
            h_hi := h_hi || e_count;
            number := q.h_day; used := q.step;
            amount := q.h_amount + amount;
            grant_ids := e_grants[v_from:e_count]; sources := e_sources[v_from:e_count];
            amounts := e_amounts[v_from:e_count];
        end if;
        return next;
    end loop;

    if h_items = '{}' then
        return;
    end if;
    update ledger.grants g
    set available = g.available - d.amount, held = g.held + d.amount
    from (
        select l.account_id, l.grant_id, sum(l.amount)::bigint as amount
        from unnest(l_accounts, l_grants, l_amounts) as l (account_id, grant_id, amount) group by 1, 2
    ) d
    where g.account_id = d.account_id and g.id = d.grant_id;
    update ledger.keys k
    set total_held = k.total_held + d.amount,
        day = v_now.day,
        day_used = case when k.day = v_now.day then k.day_used
                        else ledger.key_used_on(k.account_id, k.key_id, v_now.day) end,
        day_held = d.of_day + case when k.day = v_now.day then k.day_held
                                   else ledger.key_held_on(k.account_id, k.key_id, v_now.day) end,
        month_first = v_first,
        month_after = v_after,
        month_used = case when k.month_first = v_first then k.month_used
                          else ledger.key_used_in(k.account_id, k.key_id, v_first, v_after) end,
        month_held = d.of_month + case when k.month_first = v_first then k.month_held
                                       else ledger.key_held_in(k.account_id, k.key_id, v_first, v_after) end
    from (
        select p_accounts[n.item] as account_id, p_keys[n.item] as key_id, sum(n.amount)::bigint as amount,
               sum(case when n.day = v_now.day then n.amount else 0 end)::bigint as of_day,
               sum(case when n.day >= v_first and n.day < v_after then n.amount else 0 end)::bigint as of_month
        from unnest(h_items, h_amounts, h_days) as n (item, amount, day) group by 1, 2
    ) d
    where k.account_id = d.account_id and k.key_id = d.key_id;
    insert into ledger.holds (account_id, request_id, key_id, epoch, asked, amount, price_version, day, at_s,
                              deadline_at, leg_grants, leg_sources, leg_amounts, leg_ends, idempotency_key, tokens,
                              rate_second, rate_tokens)
    select p_accounts[n.item], p_requests[n.item], p_keys[n.item], p_epoch, p_amounts[n.item], n.amount,
           p_prices[n.item], v_now.day, v_now.at_s, clock_timestamp() + p_deadlines_s[n.item] * interval '1 second',
           l_grants[n.lo:n.hi], l_sources[n.lo:n.hi], l_amounts[n.lo:n.hi], l_ends[n.lo:n.hi],
           p_idempotency_keys[n.item], case when n.second is not null then p_tokens[n.item] end, n.second,
           case when n.second is not null then p_tokens[n.item] end
    from unnest(h_items, h_amounts, h_lo, h_hi, h_seconds) as n (item, amount, lo, hi, second)
    where p_steps[n.item] = 0;
    if e_count > 0 then
        update ledger.holds h
        set amount = h.amount + n.amount, step = p_steps[n.item],
            leg_grants = e_grants[n.lo:n.hi], leg_sources = e_sources[n.lo:n.hi],
            leg_amounts = e_amounts[n.lo:n.hi], leg_ends = e_ends[n.lo:n.hi],
            tokens = case when n.second is null then h.tokens else coalesce(h.tokens, 0) + p_tokens[n.item] end,
            rate_second = coalesce(n.second, h.rate_second),
            rate_tokens = case when n.second is null then h.rate_tokens
                               when n.second = h.rate_second then h.rate_tokens + p_tokens[n.item]
                               else p_tokens[n.item] end
        from unnest(h_items, h_amounts, h_lo, h_hi, h_seconds) as n (item, amount, lo, hi, second)
        where p_steps[n.item] > 0 and h.account_id = p_accounts[n.item] and h.request_id = p_requests[n.item];
    end if;
    if h_limited then
        insert into ledger.rates as s (account_id, key_id, second, requests, tokens)
        select p_accounts[n.item], p_keys[n.item], max(n.second),
               array[sum((p_steps[n.item] = 0)::int)::bigint] || array_fill(0::bigint, array[60]),
               array[sum(p_tokens[n.item])::bigint] || array_fill(0::bigint, array[60])
        from unnest(h_items, h_seconds) as n (item, second)
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
-- p_tokens corrects what the hold counted in its key's limit per minute (null: it stays; a release counts none); a
-- settlement makes its idempotency key done, with p_answers, which may follow; a release and a sweep free it.
-- Outcomes: charged, released, repeat (the charge stands already), conflict (it stands with another body), and
-- unknown (no such hold, or it was released). A request id appears once in a batch.

create function ledger.settle_batch(
    p_accounts bigint[], p_requests uuid[], p_verbs text[], p_costs bigint[], p_models text[], p_usages jsonb[],
    p_outcomes text[], p_estimated boolean[], p_tokens bigint[], p_attempts jsonb[], p_answers bytea[],
    p_follows boolean[]
) returns table (
    item int, outcome text, cost bigint, absorbed bigint, held bigint, grant_ids bigint[], sources text[], amounts bigint[],
    at_s bigint, left_sources text[], left_amounts bigint[]
)
language plpgsql
as $$
#variable_conflict use_column
declare
    v_now record;
    q record;
    v_rest bigint; v_part bigint; v_lo int;
    -- holds that end here
    e_items int[] := '{}'; e_states text[] := '{}'; e_keys bigint[] := '{}'; e_days int[] := '{}';
    e_held bigint[] := '{}'; e_cost bigint[] := '{}';
    -- what happens to each leg's grant
    d_accounts bigint[] := '{}'; d_grants bigint[] := '{}'; d_held bigint[] := '{}'; d_back bigint[] := '{}';
    -- what goes to breakage
    b_items int[] := '{}'; b_grants bigint[] := '{}'; b_sources text[] := '{}'; b_amounts bigint[] := '{}';
    -- charges, and their legs
    c_items int[] := '{}'; c_keys bigint[] := '{}'; c_prices int[] := '{}'; c_days int[] := '{}';
    c_held bigint[] := '{}'; c_cost bigint[] := '{}'; c_absorbed bigint[] := '{}'; c_lo int[] := '{}';
    c_hi int[] := '{}';
    -- tokens per minute to correct, and idempotency keys
    r_items int[] := '{}'; r_keys bigint[] := '{}'; r_seconds bigint[] := '{}'; r_back bigint[] := '{}';
    i_items int[] := '{}'; i_keys text[] := '{}'; i_done boolean[] := '{}';
    l_grants bigint[] := '{}'; l_sources text[] := '{}'; l_amounts bigint[] := '{}'; l_count int := 0;
begin
    perform 1 from ledger.accounts a where a.id = any (p_accounts) order by a.id for no key update;
    select * into v_now from ledger.present;
    at_s := v_now.at_s;

    for q in
        select r.item, r.account_id, r.verb, r.cost, h.state, h.key_id, h.amount, h.price_version, h.day,
               h.leg_grants, h.leg_sources, h.leg_amounts, h.leg_ends, h.idempotency_key, h.tokens, h.rate_second,
               h.rate_tokens
        from unnest(p_accounts, p_requests, p_verbs, p_costs) with ordinality
            as r (account_id, request_id, verb, cost, item)
        left join lateral (
            select * from ledger.holds o where o.account_id = r.account_id and o.request_id = r.request_id offset 0
        ) h on true
    loop
        item := q.item;
        cost := null; absorbed := null; held := null;
        if q.state is distinct from 'open' then
            if q.verb <> 'settle' then
                outcome := 'released';
            else
                select case when c.outcome = 'unsettled'
                              or (c.cost + c.absorbed = q.cost and c.model = p_models[item]
                                  and c.usage = p_usages[item] and c.outcome = p_outcomes[item]
                                  and c.estimated = p_estimated[item]
                                  and c.attempts is not distinct from p_attempts[item]) then 'repeat' else 'conflict' end
                into outcome
                from ledger.charges c where c.account_id = q.account_id and c.request_id = p_requests[item];
                outcome := coalesce(outcome, 'unknown');
            end if;
            return next; continue;
        end if;

        cost := case when q.verb = 'settle' then least(q.cost, q.amount) else 0 end;
        v_rest := cost;
        v_lo := l_count + 1;
        for j in 1 .. cardinality(q.leg_grants) loop
            v_part := least(v_rest, q.leg_amounts[j]);
            v_rest := v_rest - v_part;
            d_accounts := d_accounts || q.account_id;
            d_grants := d_grants || q.leg_grants[j];
            d_held := d_held || q.leg_amounts[j];
            if q.leg_ends[j] > v_now.at_s then
                d_back := d_back || (q.leg_amounts[j] - v_part);
            else
                d_back := d_back || 0::bigint;
                if q.leg_amounts[j] > v_part then
                    b_items := b_items || item;
                    b_grants := b_grants || q.leg_grants[j];
                    b_sources := b_sources || q.leg_sources[j];
                    b_amounts := b_amounts || (q.leg_amounts[j] - v_part);
                end if;
            end if;
            if v_part > 0 then
                l_grants := l_grants || q.leg_grants[j];
                l_sources := l_sources || q.leg_sources[j];
                l_amounts := l_amounts || v_part;
                l_count := l_count + 1;
            end if;
        end loop;
        e_items := e_items || item;
        e_states := e_states || case q.verb when 'settle' then 'settled' when 'release' then 'released'
                                            else 'expired' end;
        e_keys := e_keys || q.key_id;
        e_days := e_days || q.day;
        e_held := e_held || q.amount;
        e_cost := e_cost || cost;
        if q.rate_second is not null and q.verb <> 'sweep' and (q.verb = 'release' or p_tokens[item] is not null) then
            r_items := r_items || item;
            r_keys := r_keys || q.key_id;
            r_seconds := r_seconds || q.rate_second;
            r_back := r_back || least(q.rate_tokens, q.tokens - case q.verb when 'settle' then p_tokens[item] else 0 end);
        end if;
        if q.idempotency_key is not null then
            i_items := i_items || item;
            i_keys := i_keys || q.idempotency_key;
            i_done := i_done || (q.verb = 'settle');
        end if;
        if q.verb = 'release' then
            outcome := 'released'; return next; continue;
        end if;
        c_items := c_items || item;
        c_keys := c_keys || q.key_id;
        c_prices := c_prices || q.price_version;
        c_days := c_days || q.day;
        c_held := c_held || q.amount;
        c_cost := c_cost || cost;
        c_absorbed := c_absorbed || case q.verb when 'settle' then q.cost - cost else q.amount end;
        c_lo := c_lo || v_lo;
        c_hi := c_hi || l_count;
    end loop;

    if e_items = '{}' then
        return;
    end if;
    update ledger.grants g
    set available = g.available + d.back, held = g.held - d.held
    from (
        select x.account_id, x.grant_id, sum(x.held)::bigint as held, sum(x.back)::bigint as back
        from unnest(d_accounts, d_grants, d_held, d_back) as x (account_id, grant_id, held, back) group by 1, 2
    ) d
    where g.account_id = d.account_id and g.id = d.grant_id;
    -- A hold of an earlier day than its key counts now belongs to that day: only the key's total moves.
    update ledger.keys k
    set total_held = k.total_held - d.held,
        total_used = k.total_used + d.cost,
        day_held = k.day_held - d.day_held,
        day_used = k.day_used + d.day_cost,
        month_held = k.month_held - d.month_held,
        month_used = k.month_used + d.month_cost
    from (
        select y.account_id, y.key_id, sum(x.held)::bigint as held, sum(x.cost)::bigint as cost,
               coalesce(sum(x.held) filter (where x.day = y.day), 0)::bigint as day_held,
               coalesce(sum(x.cost) filter (where x.day = y.day), 0)::bigint as day_cost,
               coalesce(sum(x.held) filter (where x.day >= y.month_first and x.day < y.month_after), 0)::bigint
                   as month_held,
               coalesce(sum(x.cost) filter (where x.day >= y.month_first and x.day < y.month_after), 0)::bigint
                   as month_cost
        from unnest(e_items, e_keys, e_days, e_held, e_cost) as x (item, key_id, day, held, cost)
        join ledger.keys y on y.account_id = p_accounts[x.item] and y.key_id = x.key_id
        group by 1, 2
    ) d
    where k.account_id = d.account_id and k.key_id = d.key_id;

    update ledger.holds h set state = x.state
    from unnest(e_items, e_states) as x (item, state)
    where h.account_id = p_accounts[x.item] and h.request_id = p_requests[x.item] and h.state = 'open';

    insert into ledger.charges (account_id, request_id, key_id, model, usage, price_version, held, cost, absorbed,
                                outcome, estimated, day, at_s, leg_grants, leg_sources, leg_amounts,
                                attempts)
    select p_accounts[x.item], p_requests[x.item], x.key_id, p_models[x.item], p_usages[x.item], x.price, x.held,
           x.cost, x.absorbed, p_outcomes[x.item], p_estimated[x.item], x.day, v_now.at_s,
           l_grants[x.lo:x.hi], l_sources[x.lo:x.hi], l_amounts[x.lo:x.hi], p_attempts[x.item]
    from unnest(c_items, c_keys, c_prices, c_days, c_held, c_cost, c_absorbed, c_lo, c_hi)
        as x (item, key_id, price, day, held, cost, absorbed, lo, hi);

    if b_items <> '{}' then
        insert into ledger.postings (account_id, external_id, kind, at_s, digest, lines, grant_ids, amounts)
        select p_accounts[x.item], 'req:' || p_requests[x.item] || ':expire', 'expire', v_now.at_s,
               sha256(convert_to('req:' || p_requests[x.item], 'UTF8')),
               array_agg('purse:' || x.source) || 'breakage:expired'::text,
               array_agg(x.grant_id) || null::bigint,
               array_agg(-x.amount) || sum(x.amount)::bigint
        from unnest(b_items, b_grants, b_sources, b_amounts) as x (item, grant_id, source, amount)
        group by x.item;
    end if;

    if r_items <> '{}' then
        update ledger.rates s
        set tokens = (
            select array_agg(greatest(0, o.counted - coalesce(b.back, 0)) order by o.place)
            from unnest(s.tokens) with ordinality as o (counted, place)
            left join (
                select x.second, sum(x.back)::bigint as back
                from unnest(r_items, r_keys, r_seconds, r_back) as x (item, key_id, second, back)
                where p_accounts[x.item] = s.account_id and x.key_id = s.key_id group by 1
            ) b on b.second = s.second - o.place + 1
        )
        where (s.account_id, s.key_id) in (
            select p_accounts[x.item], x.key_id from unnest(r_items, r_keys) as x (item, key_id)
        );
    end if;
    if i_items <> '{}' then
        delete from ledger.idempotency d
        using unnest(i_items, i_keys, i_done) as x (item, key, done)
        where not x.done and d.account_id = p_accounts[x.item] and d.key = x.key and d.request_id = p_requests[x.item];
        update ledger.idempotency d
        set state = 'done', answer = p_answers[x.item],
            answer_due = case when p_follows[x.item] then clock_timestamp() + interval '30 seconds' end
        from unnest(i_items, i_keys, i_done) as x (item, key, done)
        where x.done and d.account_id = p_accounts[x.item] and d.key = x.key and d.request_id = p_requests[x.item];
    end if;

    return query
    select x.item, 'charged'::text, x.cost, x.absorbed, x.held, l_grants[x.lo:x.hi], l_sources[x.lo:x.hi],
           l_amounts[x.lo:x.hi], v_now.at_s, r.sources, r.lefts
    from unnest(c_items, c_cost, c_absorbed, c_held, c_lo, c_hi) as x (item, cost, absorbed, held, lo, hi)
    left join (
        select s.account_id, array_agg(s.source) as sources, array_agg(s.available) as lefts
        from (
            select g.account_id, g.source, sum(g.available)::bigint as available
            from ledger.grants g
            where g.account_id = any (p_accounts) and not g.spent
              and g.starts_at_s <= v_now.at_s and g.expires_at_s > v_now.at_s
            group by 1, 2
        ) s group by 1
    ) r on r.account_id = p_accounts[x.item];
end $$;

-- Lapsed epochs' holds are given back. An epoch lapses when it has not beaten for p_lapse_s, counted at the earliest
-- from this server's own start: while it was down nobody could beat. A hold that a worker opened just as its epoch
-- was marked is found by the next sweep. Returns how many holds were swept.

create function ledger.sweep(p_lapse_s float8, p_limit int) returns int
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
        where h.state = 'open' and e.lapsed_at is not null
        order by h.account_id limit p_limit
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

-- Idempotency keys whose time is over; returns how many went.

create function ledger.forget_answers(p_limit int) returns int
language plpgsql
as $$
declare
    v_gone int;
begin
    delete from ledger.idempotency x
    using (
        select d.account_id, d.key from ledger.idempotency d
        where d.expires_at <= clock_timestamp() order by d.expires_at limit p_limit for update skip locked
    ) o
    where x.account_id = o.account_id and x.key = o.key;
    get diagnostics v_gone = row_count;
    return v_gone;
end $$;

-- Grants. Each returns an outcome: posted, repeat, same (nothing to raise), conflict (the id stands with another
-- body), no_account, no_grant.

create function ledger.source_line(p_source text) returns text
language sql immutable
as $$ select case p_source when 'prepaid' then 'cash:usdc' else 'issuance:' || p_source end $$;

create function ledger.grant_credit(
    p_account bigint, p_source text, p_amount bigint, p_external text, p_starts bigint, p_ends bigint,
    p_priority int, p_day int, p_digest bytea, out outcome text, out grant_id bigint
)
language plpgsql
as $$
declare
    v_done record;
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
    insert into ledger.grants (account_id, source, external_id, day, amount, available, starts_at_s, expires_at_s,
                               priority)
    values (p_account, p_source, p_external, p_day, p_amount, p_amount, p_starts, p_ends, p_priority)
    returning id into grant_id;
    insert into ledger.postings (account_id, external_id, kind, at_s, digest, lines, grant_ids, amounts)
    select p_account, p_external, 'grant', n.at_s, p_digest,
           array['purse:' || p_source, ledger.source_line(p_source)], array[grant_id, grant_id],
           array[p_amount, -p_amount]
    from ledger.present n;
    outcome := 'posted';
end $$;

-- A day's grant raised to at least p_to; made when there is none yet. What a reorg took back after it was spent is
-- made good first, so that a stake which returns is not granted twice.

create function ledger.raise_day(
    p_account bigint, p_day int, p_source text, p_to bigint, p_external text, p_priority int, p_open boolean,
    p_digest bytea, out outcome text, out grant_id bigint
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
    if p_open then
        update ledger.accounts a set opened_day = p_day where a.id = p_account and a.opened_day < p_day;
    end if;
    select p.digest, p.grant_ids[1] as grant_id into v_done
    from ledger.postings p where p.account_id = p_account and p.external_id = p_external;
    if found then
        outcome := case when v_done.digest = p_digest then 'repeat' else 'conflict' end;
        grant_id := v_done.grant_id;
        return;
    end if;
    select * into g from ledger.grants x
    where x.account_id = p_account and x.source = p_source and x.day = p_day;
    if not found then
        if p_to = 0 then
            outcome := 'same'; return;
        end if;
        select i.outcome, i.grant_id into outcome, grant_id
        from ledger.grant_credit(p_account, p_source, p_to, p_external, p_day::bigint * 86400,
                                 (p_day::bigint + 1) * 86400, p_priority, p_day, p_digest) i;
        return;
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
           array['purse:' || p_source, 'absorbed:reorg', ledger.source_line(p_source)], array[g.id, g.id, g.id],
           array[v_more - v_good, v_good, -v_more]
    from ledger.present n;
    outcome := 'posted';
end $$;

-- A grant brought down to p_to: takes what is available, and absorbs the rest. Nothing is deleted.

create function ledger.reverse_grant(
    p_account bigint, p_grant_external text, p_to bigint, p_external text, p_digest bytea,
    out outcome text, out taken bigint
)
language plpgsql
as $$
declare
    v_done record; g record; v_less bigint;
begin
    perform 1 from ledger.accounts a where a.id = p_account for no key update;
    if not found then
        outcome := 'no_account'; return;
    end if;
    select p.digest, -p.amounts[1] as taken into v_done
    from ledger.postings p where p.account_id = p_account and p.external_id = p_external;
    if found then
        outcome := case when v_done.digest = p_digest then 'repeat' else 'conflict' end;
        taken := v_done.taken;
        return;
    end if;
    select * into g from ledger.grants x where x.account_id = p_account and x.external_id = p_grant_external;
    if not found then
        outcome := 'no_grant'; return;
    end if;
    v_less := g.amount - g.absorbed - p_to;
    taken := 0;
    if v_less <= 0 then
        outcome := 'same'; return;
    end if;
    taken := least(v_less, g.available);
    update ledger.grants x
    set amount = x.amount - taken, available = x.available - taken, absorbed = x.absorbed + v_less - taken
    where x.account_id = p_account and x.id = g.id;
    insert into ledger.postings (account_id, external_id, kind, at_s, digest, lines, grant_ids, amounts)
    select p_account, p_external, 'reverse', n.at_s, p_digest,
           array['purse:' || g.source, 'absorbed:reorg', ledger.source_line(g.source)], array[g.id, g.id, g.id],
           array[-taken, -(v_less - taken), v_less]
    from ledger.present n;
    outcome := 'posted';
end $$;

-- Posts what is left in up to p_limit ended grants as breakage; returns how many. Not by provisional time: a chain
-- that comes back may say that it is earlier, and breakage isn't undone.

create function ledger.expire(p_limit int) returns int
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
