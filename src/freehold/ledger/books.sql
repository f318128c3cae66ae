-- One statement per law: it returns what breaks the law as (account_id, subject, expected, found).

-- name: each_transaction_sums_to_zero
select account_id, external_id as subject, '0' as expected, sum(amount)::text as found
from ledger.entries group by account_id, external_id having sum(amount) <> 0

-- name: a_grant_holds_what_its_entries_say
select g.account_id, 'grant ' || g.id as subject, coalesce(e.amount, 0)::text as expected,
       (g.available::numeric + g.held)::text as found
from ledger.grants g
left join (
    select account_id, grant_id, sum(amount) as amount from ledger.entries where line like 'purse:%' group by 1, 2
) e on e.account_id = g.account_id and e.grant_id = g.id
where g.available::numeric + g.held <> coalesce(e.amount, 0)

-- name: the_amount_of_a_grant_is_what_was_issued
select g.account_id, 'grant ' || g.id as subject, coalesce(e.amount, 0)::text as expected,
       (g.amount - g.absorbed)::text as found
from ledger.grants g
left join (
    select account_id, grant_id, -sum(amount) as amount from ledger.entries
    where line like 'issuance:%' or line like 'cash:%' group by 1, 2
) e on e.account_id = g.account_id and e.grant_id = g.id
where g.amount - g.absorbed <> coalesce(e.amount, 0)

-- name: the_loss_of_a_grant_is_what_a_reorg_took
select g.account_id, 'grant ' || g.id as subject, coalesce(e.amount, 0)::text as expected, g.absorbed::text as found
from ledger.grants g
left join (
    select account_id, grant_id, -sum(amount) as amount from ledger.entries
    where line = 'absorbed:reorg' group by 1, 2
) e on e.account_id = g.account_id and e.grant_id = g.id
where g.absorbed <> coalesce(e.amount, 0)

-- name: no_balance_is_negative
select g.account_id, 'grant ' || g.id as subject, '0 or more' as expected,
       'available ' || g.available || ', held ' || g.held as found
from ledger.grants g where g.available < 0 or g.held < 0

-- name: held_is_the_sum_of_open_holds
select g.account_id, 'grant ' || g.id as subject, coalesce(l.amount, 0)::text as expected, g.held::text as found
from ledger.grants g
left join (
    select h.account_id, l.grant_id, sum(l.amount) as amount
    from ledger.holds h cross join lateral unnest(h.leg_grants, h.leg_amounts) as l (grant_id, amount)
    where h.state = 'open' group by 1, 2
) l on l.account_id = g.account_id and l.grant_id = g.id
where g.held <> coalesce(l.amount, 0)

-- name: a_hold_is_the_sum_of_its_legs
select account_id, 'hold ' || request_id as subject, amount::text as expected,
       ledger.total(leg_amounts)::text as found
from ledger.holds where amount <> ledger.total(leg_amounts)

-- name: a_charge_is_the_sum_of_its_legs
select account_id, 'req:' || request_id as subject, cost::text as expected, ledger.total(leg_amounts)::text as found
from ledger.charges where cost <> ledger.total(leg_amounts)

-- name: a_call_is_held_or_charged
select h.account_id, 'req:' || h.request_id as subject, 'no charge, of an open or released hold' as expected,
       h.state || ', and ' || case when c.request_id is null then 'no charge' else 'charged ' || c.cost end as found
from ledger.holds h
left join ledger.charges c on c.account_id = h.account_id and c.request_id = h.request_id
where (h.state in ('open', 'released')) <> (c.request_id is null)

-- name: a_charge_is_within_its_hold
select account_id, 'req:' || request_id as subject, '0 to ' || held as expected, cost::text as found
from ledger.charges where cost > held or (outcome = 'unsettled' and (cost <> 0 or absorbed <> held))

-- name: sources_are_not_mixed
select e.account_id, e.external_id as subject, coalesce('purse:' || g.source, 'a grant of this account') as expected,
       e.line as found
from ledger.entries e
left join ledger.grants g on g.account_id = e.account_id and g.id = e.grant_id
where e.line like 'purse:%' and e.line is distinct from 'purse:' || g.source

-- name: each_entry_is_on_the_chart
select e.account_id, e.external_id as subject, 'a line of the chart' as expected, e.line as found
from ledger.entries e
left join ledger.chart c on c.line = substring(e.line from '^((cost|payable):upstream):.') or c.line = e.line
where c.line is null or e.line = any (array['cost:upstream', 'payable:upstream'])

-- name: a_key_has_used_the_sum_of_its_charges
select k.account_id, 'key ' || k.key_id as subject,
       'total ' || coalesce(c.total, 0) || ', month ' || coalesce(c.month, 0) || ', day ' || coalesce(c.today, 0)
           as expected,
       'total ' || k.total_used || ', month ' || k.month_used || ', day ' || k.day_used as found
from ledger.keys k
left join (
    select c.account_id, c.key_id, sum(c.cost) as total, sum(c.cost) filter (where c.day = x.day) as today,
           sum(c.cost) filter (where c.day >= x.month_first and c.day < x.month_after) as month
    from ledger.charges c join ledger.keys x on x.account_id = c.account_id and x.key_id = c.key_id group by 1, 2
) c on c.account_id = k.account_id and c.key_id = k.key_id
where k.total_used <> coalesce(c.total, 0) or k.day_used <> coalesce(c.today, 0)
   or k.month_used <> coalesce(c.month, 0)

-- name: a_key_holds_the_sum_of_its_open_holds
select k.account_id, 'key ' || k.key_id as subject,
       'total ' || coalesce(h.total, 0) || ', month ' || coalesce(h.month, 0) || ', day ' || coalesce(h.today, 0)
           as expected,
       'total ' || k.total_held || ', month ' || k.month_held || ', day ' || k.day_held as found
from ledger.keys k
left join (
    select h.account_id, h.key_id, sum(h.amount) as total, sum(h.amount) filter (where h.day = x.day) as today,
           sum(h.amount) filter (where h.day >= x.month_first and h.day < x.month_after) as month
    from ledger.holds h join ledger.keys x on x.account_id = h.account_id and x.key_id = h.key_id
    where h.state = 'open' group by 1, 2
) h on h.account_id = k.account_id and h.key_id = k.key_id
where k.total_held <> coalesce(h.total, 0) or k.day_held <> coalesce(h.today, 0)
   or k.month_held <> coalesce(h.month, 0)

-- name: an_attempt_names_its_upstream_and_its_cost
select c.account_id, 'req:' || c.request_id as subject, '[upstream, nano-USD of 0 or more, outcome] each' as expected,
       c.attempts::text as found
from ledger.charges c
where c.attempts is not null and not coalesce((
    select bool_and(jsonb_array_length(a.attempt) = 3 and a.attempt ->> 0 <> ''
                    and jsonb_typeof(a.attempt -> 1) = 'number' and (a.attempt ->> 1)::numeric >= 0)
    from jsonb_array_elements(c.attempts) as a (attempt)
), false)

-- name: what_is_owed_to_upstreams_is_what_attempts_cost
select account_id, external_id as subject, (-sum(amount) filter (where line like 'cost:upstream:%'))::text as expected,
       (sum(amount) filter (where line like 'payable:upstream:%'))::text as found
from ledger.entries where line like '%:upstream:%'
group by account_id, external_id, split_part(line, ':', 3)
having sum(amount) <> 0

-- name: the_bill_is_its_entries
with billed as (
    select c.account_id, ledger.month_first(c.day) as month, -sum(c.cost) as amount from ledger.charges c group by 1, 2
    union all
    select p.account_id, ledger.month_first((p.at_s / 86400)::int), sum(e.amount)
    from ledger.postings p cross join lateral unnest(p.lines, p.amounts) as e (line, amount)
    where e.line like 'purse:%' and p.kind in ('grant', 'raise', 'expire', 'reverse') group by 1, 2
), b as (
    select account_id, month, sum(amount) as amount from billed group by 1, 2
), e as (
    select e.account_id, ledger.month_first(coalesce(c.day, (e.at_s / 86400)::int)) as month, sum(e.amount) as amount
    from ledger.entries e
    left join ledger.charges c
        on c.account_id = e.account_id and e.kind = 'settle' and 'req:' || c.request_id = e.external_id
    where e.line like 'purse:%' group by 1, 2
)
select account_id, 'month that begins with day ' || month as subject, coalesce(e.amount, 0)::text as expected,
       coalesce(b.amount, 0)::text as found
from b full join e using (account_id, month)
where coalesce(e.amount, 0) <> coalesce(b.amount, 0)

-- name: an_idempotency_key_runs_with_its_hold
select i.account_id, 'key ' || i.key as subject,
       case when h.state = 'open' then 'running' when c.outcome <> 'unsettled' then 'done' else 'no key' end as expected,
       i.state as found
from ledger.idempotency i
left join ledger.holds h on h.account_id = i.account_id and h.request_id = i.request_id
left join ledger.charges c on c.account_id = i.account_id and c.request_id = i.request_id
where i.state is distinct from
    case when h.state = 'open' then 'running' when c.outcome <> 'unsettled' then 'done' end

-- name: the_counts_of_a_minute_are_not_negative
select account_id, 'key ' || key_id as subject, '0 or more' as expected, least(requests, tokens)::text as found
from (
    select r.account_id, r.key_id, (select min(x) from unnest(r.requests) x) as requests,
           (select min(x) from unnest(r.tokens) x) as tokens
    from ledger.rates r
) r
where least(requests, tokens) < 0

-- name: the_books_are_append_only
select null::bigint as account_id, x.name as subject, 'two triggers that refuse changes' as expected,
       count(t.oid)::text as found
from (values ('ledger.postings'), ('ledger.charges')) x (name)
left join pg_trigger t on t.tgrelid = x.name::regclass and t.tgenabled in ('O', 'A')
     and t.tgname in ('append_only', 'never_emptied')
group by x.name having count(t.oid) <> 2
