-- name: totals
select (select count(*) from ledger.holds where state = 'open') as holds,
       (select coalesce(sum(amount), 0)::bigint from ledger.holds where state = 'open') as held,
       (select coalesce(extract(epoch from clock_timestamp() - min(opened_at)), 0)::float8
        from ledger.holds where state = 'open') as oldest_s,
       (select coalesce(sum(absorbed), 0)::bigint from ledger.charges
        where absorbed > 0 and outcome <> 'unsettled') as overage,
       (select coalesce(sum(absorbed), 0)::bigint from ledger.charges
        where absorbed > 0 and outcome = 'unsettled') as unsettled,
       (select coalesce(sum(absorbed), 0)::bigint from ledger.grants where absorbed > 0) as reorg
