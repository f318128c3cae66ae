-- name: hold_batch
select * from ledger.hold_batch($1::bigint, $2::bigint[], $3::bigint[], $4::uuid[], $5::bigint[], $6::bigint[],
                                $7::int[], $8::int[], $9::float8[], $10::boolean[], $11::bigint[], $12::text[],
                                $13::bytea[], $14::int[], $15::bigint[])

-- name: settle_batch
select * from ledger.settle_batch($1::bigint[], $2::uuid[], $3::text[], $4::bigint[], $5::text[], $6::jsonb[],
                                  $7::text[], $8::boolean[], $9::bigint[], $10::jsonb[], $11::bytea[],
                                  $12::boolean[])

-- name: start_epoch
insert into ledger.epochs default values returning id

-- name: beat
update ledger.epochs set beat_at = clock_timestamp() where id = $1 and lapsed_at is null returning id

-- name: end_epoch
update ledger.epochs set lapsed_at = clock_timestamp() where id = $1 and lapsed_at is null

-- name: create_account
insert into ledger.accounts default values returning id

-- name: lock_account
select id from ledger.accounts where id = $1 for no key update

-- name: put_key
insert into ledger.keys (account_id, key_id, version, state, expires_at_s, day_cap, total_cap, month_cap, rpm, tpm)
values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)
on conflict (account_id, key_id) do update
set version = excluded.version, state = excluded.state, expires_at_s = excluded.expires_at_s,
    day_cap = excluded.day_cap, total_cap = excluded.total_cap, month_cap = excluded.month_cap,
    rpm = excluded.rpm, tpm = excluded.tpm
where ledger.keys.version <= excluded.version

-- name: key_limits
select account_id, key_id, version, state, expires_at_s, day_cap, total_cap, month_cap, rpm, tpm
from ledger.keys where account_id = $1 and key_id = $2

-- name: limits
select account_id, key_id, version, state, expires_at_s, day_cap, total_cap, month_cap, rpm, tpm
from ledger.keys where account_id = $1 order by key_id

-- name: key_and_time
select k.version, k.state, k.expires_at_s, n.at_s
from ledger.present n left join ledger.keys k on k.account_id = $1 and k.key_id = $2

-- name: key_spend
select k.key_id, n.day, k.total_used, k.total_held,
       case when k.day = n.day then k.day_used else ledger.key_used_on(k.account_id, k.key_id, n.day) end as day_used,
       case when k.day = n.day then k.day_held else ledger.key_held_on(k.account_id, k.key_id, n.day) end as day_held,
       case when k.month_first = n.first then k.month_used
            else ledger.key_used_in(k.account_id, k.key_id, n.first, n.after) end as month_used,
       case when k.month_first = n.first then k.month_held
            else ledger.key_held_in(k.account_id, k.key_id, n.first, n.after) end as month_held
from (select day, ledger.month_first(day) as first, ledger.month_after(day) as after from ledger.present) n,
     ledger.keys k
where k.account_id = $1
order by k.key_id

-- name: set_price_version
insert into ledger.price_versions (version, effective_at_s) values ($1, $2) on conflict do nothing

-- name: price_version
select version from ledger.price

-- name: set_time
update ledger.clock set at_s = $1, refreshed_at = clock_timestamp() where $1 > at_s or $2

-- name: set_opened_day
update ledger.clock set opened_day = $1 where opened_day < $1 or ($2 and opened_day <> $1)

-- name: time
select at_s, provisional, opened_day from ledger.present

-- name: grant_credit
select outcome, grant_id from ledger.grant_credit($1, $3, $4, $2, $5, $6, $7, null, $8)

-- name: raise_day
select outcome, grant_id from ledger.raise_day($1, $3, $4, $5, $2, $6, $7, $8)

-- name: restore_grant
select outcome, grant_id from ledger.restore_grant($1, $3, $4, $2, $5)

-- name: reverse_grant
select outcome, taken from ledger.reverse_grant($1, $2, $3, $4, $5)

-- name: grant
select * from ledger.grants where account_id = $1 and id = $2

-- name: grants
select g.* from ledger.grants g, ledger.present n
where g.account_id = $1
  and (not $2 or (g.starts_at_s <= n.at_s and g.expires_at_s > n.at_s))
order by g.priority, g.expires_at_s, g.starts_at_s, g.id

-- name: needs_day
select a.opened_day < n.day and n.opened_day >= n.day from ledger.accounts a, ledger.present n where a.id = $1

-- name: balance
select n.at_s, n.provisional, n.day, g.source, sum(g.amount)::bigint as granted,
       sum(g.available)::bigint as available, sum(g.held)::bigint as held
from ledger.accounts a
cross join ledger.present n
left join ledger.grants g on g.account_id = a.id and g.starts_at_s <= n.at_s and g.expires_at_s > n.at_s
where a.id = $1
group by n.at_s, n.provisional, n.day, g.source

-- name: charge
select * from ledger.charges where account_id = $1 and request_id = $2

-- name: charges
select * from ledger.charges
where account_id = $1 and at_s >= 0
  and ($2::bigint is null or (at_s, position) < ($2, $3::bigint))
  and ($4::bigint is null or at_s >= $4)
  and ($5::bigint is null or at_s < $5)
  and ($6::bigint is null or key_id = $6)
  and ($7::text is null or model = $7)
order by at_s desc, position desc
limit $8

-- name: usage
with chosen as (
    select case $2::text when 'day' then to_char(to_timestamp(day::bigint * 86400), 'YYYY-MM-DD"T00:00:00Z"')
                         when 'hour' then to_char(to_timestamp(at_s), 'YYYY-MM-DD"T"HH24":00:00Z"')
                         when 'model' then model
                         else key_id::text end as "group",
           cost, usage, leg_sources, leg_amounts
    from ledger.charges
    where account_id = $1 and at_s >= 0 and ($3::bigint is null or at_s >= $3) and ($4::bigint is null or at_s < $4)
)
select c."group", c.calls, c.cost, coalesce(u.units, '{}') as units, coalesce(s.sources, '{}') as sources
from (select "group", count(*) as calls, sum(cost)::bigint as cost from chosen group by 1) c
left join (
    select x."group", jsonb_object_agg(x.unit, x.quantity) as units
    from (select "group", e.key as unit, sum(e.value::bigint)::bigint as quantity
          from chosen, jsonb_each_text(usage) e group by 1, 2) x
    group by 1
) u using ("group")
left join (
    select x."group", jsonb_object_agg(x.source, x.amount) as sources
    from (select "group", l.source, sum(l.amount)::bigint as amount
          from chosen, unnest(leg_sources, leg_amounts) as l (source, amount) group by 1, 2) x
    group by 1
) s using ("group")
order by 1

-- name: stored_answer
select answer from ledger.idempotency where account_id = $1 and key = $2 and request_id = $3

-- name: store_answer
update ledger.idempotency set answer = $4, answer_due = null
where account_id = $1 and key = $2 and request_id = $3 and state = 'done' and answer is null
returning key

-- name: bill_head
select n.at_s >= $3::int::bigint * 86400 and not exists (
    select 1 from ledger.holds h
    where h.account_id = $1 and h.state = 'open' and h.day >= $2::int and h.day < $3::int
) as final
from ledger.accounts a, ledger.present n where a.id = $1

-- name: bill_purses
with moved as (
    select p.account_id, substr(e.line, 7) as source, p.kind, p.at_s / 86400 as day, e.amount
    from ledger.postings p
    cross join lateral unnest(p.lines, p.amounts) as e (line, amount)
    where p.account_id = $1 and e.line like 'purse:%' and p.at_s < $3::int::bigint * 86400
    union all
    select c.account_id, l.source, 'settle', c.day, -l.amount
    from ledger.charges c
    cross join lateral unnest(c.leg_sources, c.leg_amounts) as l (source, amount)
    where c.account_id = $1 and c.day < $3::int
)
select source,
       coalesce(sum(amount) filter (where day < $2), 0)::bigint as opening,
       coalesce(sum(amount) filter (where day >= $2 and kind in ('grant', 'raise')), 0)::bigint as granted,
       coalesce(-sum(amount) filter (where day >= $2 and kind = 'settle'), 0)::bigint as used,
       coalesce(-sum(amount) filter (where day >= $2 and kind = 'expire'), 0)::bigint as expired,
       coalesce(-sum(amount) filter (where day >= $2 and kind = 'reverse'), 0)::bigint as reversed,
       sum(amount)::bigint as closing
from moved group by source

-- name: bill_top_ups
select p.at_s, p.external_id, e.amount
from ledger.postings p
cross join lateral unnest(p.lines, p.amounts) as e (line, amount)
where p.account_id = $1 and e.line = 'purse:prepaid' and p.kind in ('grant', 'raise')
  and p.at_s >= $2::int::bigint * 86400 and p.at_s < $3::int::bigint * 86400
order by p.position

-- name: bill_lines
select c.day, c.model, c.key_id, l.source, count(*) filter (where coalesce(l.place, 1) = 1) as calls,
       coalesce(sum(l.amount), 0)::bigint as cost
from ledger.charges c
left join lateral unnest(c.leg_sources, c.leg_amounts) with ordinality as l (source, amount, place) on true
where c.account_id = $1 and c.day >= $2::int and c.day < $3::int
group by 1, 2, 3, 4
order by 1, 2, 3, 4

-- name: bill_absorbed
select x.cause, sum(x.amount)::bigint as amount
from (
    select case c.outcome when 'unsettled' then 'unsettled' else 'overage' end as cause, c.absorbed as amount
    from ledger.charges c
    where c.account_id = $1 and c.day >= $2::int and c.day < $3::int
    union all
    select 'reorg', -e.amount
    from ledger.postings p
    cross join lateral unnest(p.lines, p.amounts) as e (line, amount)
    where p.account_id = $1 and e.line = 'absorbed:reorg'
      and p.at_s >= $2::int::bigint * 86400 and p.at_s < $3::int::bigint * 86400
) x
group by 1 having sum(x.amount) <> 0
order by 1

-- name: forget_answers
select ledger.forget_answers($1)

-- name: forget_ended
select ledger.forget_ended($1, $2)

-- name: sweep
select ledger.sweep($1, $2)

-- name: expire
select ledger.expire($1)
