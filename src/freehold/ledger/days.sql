-- name: first_day
select least((select min(day) from ledger.charges), (select min(at_s) / 86400 from ledger.postings))::int

-- name: is_over
select not n.provisional and n.opened_day > $1::int
   and not exists (select 1 from ledger.holds h where h.state = 'open' and h.day <= $1::int)
   and not exists (
       select 1 from ledger.grants g
       where not g.spent and g.source in ('allowance', 'strip') and g.expires_at_s <= ($1::int::bigint + 1) * 86400
   )
from ledger.present n

-- name: charges
select * from ledger.charges where day = $1::int

-- name: account_charges
select * from ledger.charges
where account_id = $1 and day >= $2::int and day < $3::int
  and ($4::bigint is null or (at_s, position) > ($4, $5::bigint))
order by at_s, position
limit $6

-- name: moved
-- Allowance and strips by the day that their grants are of, the others by the day of what moved them.
with dated as (
    select l.line, l.amount
    from ledger.postings p
    cross join lateral unnest(p.lines, p.grant_ids, p.amounts) as l (line, grant_id, amount)
    join ledger.grants g on g.account_id = p.account_id and g.id = l.grant_id
    where p.at_s >= $1::int::bigint * 86400 and g.day = $1::int and l.line in ('purse:allowance', 'purse:strip')
), lasting as (
    select l.line, l.amount
    from ledger.postings p
    cross join lateral unnest(p.lines, p.amounts) as l (line, amount)
    where p.at_s >= $1::int::bigint * 86400 and p.at_s < ($1::int::bigint + 1) * 86400
      and l.line in ('purse:promo', 'purse:prepaid')
), spent as (
    select l.source, l.amount
    from ledger.charges c
    cross join lateral unnest(c.leg_sources, c.leg_grants, c.leg_amounts) as l (source, grant_id, amount)
    left join ledger.grants g
        on l.source in ('allowance', 'strip') and g.account_id = c.account_id and g.id = l.grant_id
    where c.day in ($1::int, $1::int - 1) and case when g.id is null then c.day else g.day end = $1::int
)
select s.source,
       coalesce((select sum(m.amount) from (table dated union all table lasting) m
                 where m.line = 'purse:' || s.source and m.amount > 0), 0)::bigint as granted,
       coalesce((select sum(x.amount) from spent x where x.source = s.source), 0)::bigint as used,
       coalesce(-(select sum(m.amount) from (table dated union all table lasting) m
                  where m.line = 'purse:' || s.source and m.amount < 0), 0)::bigint as expired
from unnest(array['allowance', 'strip', 'promo', 'prepaid']) as s (source)
