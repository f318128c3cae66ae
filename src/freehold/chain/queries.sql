-- name: cursor
select chain_id, genesis_hash, vault, prepaid, number, hash, parent_hash, time_s from chain_cursor;

-- name: lock_cursor
-- The table, for there is no row to lock before the first poll.
lock table chain_cursor in share row exclusive mode;

-- name: put_cursor
insert into chain_cursor (chain_id, genesis_hash, vault, prepaid, number, hash, parent_hash, time_s)
values ($1, $2, $3, $4, $5, $6, $7, $8)
on conflict (id) do update
set (chain_id, genesis_hash, vault, prepaid, number, hash, parent_hash, time_s) = ($1, $2, $3, $4, $5, $6, $7, $8);

-- name: blocks_down
select number, hash, parent_hash, time_s from chain_block where number <= $1 order by number desc limit $2;

-- name: put_blocks
insert into chain_block (number, hash, parent_hash, time_s, has_events)
select * from unnest($1::bigint[], $2::text[], $3::text[], $4::bigint[], $5::boolean[]);

-- name: drop_blocks_above
delete from chain_block where number > $1;

-- name: prune_blocks
delete from chain_block where number < $1 and not has_events;

-- name: revert_above
with taken_back as (
    update chain_event set reverted = true where not reverted and block_number > $1 returning id
)
insert into chain_change (event_id, reverted) select id, true from taken_back order by id desc;

-- name: add_events
with added as (
    insert into chain_event (chain_id, block_number, block_hash, block_time_s, tx_hash, log_index, contract, kind,
                             beneficiary, operator, payer, day, today, onward, amount)
    select * from unnest($1::bigint[], $2::bigint[], $3::text[], $4::bigint[], $5::text[], $6::int[], $7::text[],
                         $8::text[], $9::text[], $10::text[], $11::text[], $12::int[], $13::numeric[], $14::numeric[],
                         $15::numeric[])
    on conflict (chain_id, block_hash, tx_hash, log_index) do update set reverted = false where chain_event.reverted
    returning id, block_number, log_index
)
insert into chain_change (event_id, reverted) select id, false from added order by block_number, log_index;

-- name: events_of
select * from chain_event
where beneficiary = $1 and contract = any($2::text[]) and chain_id = $3 and not reverted
order by block_number, log_index;

-- name: all_events
select * from chain_event
where contract = any($1::text[]) and chain_id = $2 and not reverted
order by block_number, log_index;

-- name: changed_after
select exists (
    select from chain_change change join chain_event event on event.id = change.event_id
    where change.seq > $1 and event.beneficiary = $2
);

-- name: changes
select change.seq, change.reverted as taken_back, event.*
from chain_change change join chain_event event on event.id = change.event_id
where change.seq > $1 order by change.seq limit $2;

-- name: beneficiaries
select distinct beneficiary from chain_event where contract = any($1::text[]) and chain_id = $2 and not reverted;

-- name: last_reversal
select coalesce(max(change.seq), 0)
from chain_event event join chain_change change on change.event_id = event.id and change.reverted
where event.beneficiary = $1 and event.chain_id = $2;

-- name: last_reversal_of
select coalesce(max(change.seq), 0)
from chain_event event join chain_change change on change.event_id = event.id and change.reverted
where (event.chain_id, event.block_hash, event.tx_hash, event.log_index) = ($1, $2, $3, $4);
