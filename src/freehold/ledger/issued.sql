-- What was issued to accounts from the chain's side, from the entries alone, less what reversals took back.

-- name: issued
select a.id as account_id, a.opened_day, g.source, g.external_id, g.starts_at_s, coalesce(i.amount, 0) as amount
from ledger.accounts a
left join ledger.grants g on g.account_id = a.id and g.source = any ($2::text[])
left join lateral (
    select -sum(e.amount) as amount
    from ledger.entries e
    where e.account_id = a.id and e.grant_id = g.id and e.kind <> 'settle'
      and (e.line like 'issuance:%' or e.line = 'cash:usdc')
) i on true
where $1::bigint is null or a.id = $1
order by a.id, g.id
