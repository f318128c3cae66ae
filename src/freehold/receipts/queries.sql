-- name: newest
select day, root, count, totals from receipts.days where chain_id = $1 and book = $2 order by day desc limit 1

-- name: day
select day, root, count, totals from receipts.days where chain_id = $1 and book = $2 and day = $3

-- name: days
select day, root, count, totals from receipts.days
where chain_id = $1 and book = $2 and ($3::int is null or day < $3) order by day desc limit $4

-- name: close
insert into receipts.days (chain_id, book, day, root, count, totals) values ($1, $2, $3, $4, $5, $6)

-- name: add_nodes
insert into receipts.nodes (chain_id, book, day, level, chunk, first, hashes) values ($1, $2, $3, $4, $5, $6, $7)

-- name: leaf_chunk
select chunk, hashes from receipts.nodes
where chain_id = $1 and book = $2 and day = $3 and level = 0 and first <= $4
order by first desc limit 1

-- name: siblings
select w.level, substr(n.hashes, w.at * 32 + 1, 32) as hash
from unnest($4::int[], $5::int[], $6::int[]) as w (level, chunk, at)
join receipts.nodes n
    on n.chain_id = $1 and n.book = $2 and n.day = $3 and n.level = w.level and n.chunk = w.chunk
order by w.level

-- name: leaves_of
select hashes from receipts.nodes where chain_id = $1 and book = $2 and day = $3 and level = 0 order by chunk

-- name: saw
insert into receipts.published (chain_id, book, day, root, totals_hash) values ($1, $2, $3, $4, $5)
on conflict (chain_id, book, day) do update
set root = excluded.root, totals_hash = excluded.totals_hash, seen_at = clock_timestamp()

-- name: forget
delete from receipts.published where chain_id = $1 and book = $2 and day >= $3

-- name: published
select d.day, d.root, d.count, d.totals, p.root as their_root, p.totals_hash as their_totals
from receipts.days d
left join receipts.published p using (chain_id, book, day)
where d.chain_id = $1 and d.book = $2 and d.day >= $3
order by d.day
