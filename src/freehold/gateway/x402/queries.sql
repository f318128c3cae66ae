-- name: claim
insert into x402_payment (chain_id, token, payer, nonce, pay_to, amount, valid_after, valid_before, signature, purpose,
                          account_id, from_block)
values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)
on conflict do nothing;

-- name: payment
select *, extract(epoch from credited_at)::float8 as credited_at_s from x402_payment
where chain_id = $1 and token = $2 and payer = $3 and nonce = $4;

-- name: lock
select *, extract(epoch from credited_at)::float8 as credited_at_s from x402_payment
where chain_id = $1 and token = $2 and payer = $3 and nonce = $4 for update;

-- name: lease
-- Who gets the row sends it; nobody else does for a while.
update x402_payment set sent_at = clock_timestamp()
where chain_id = $1 and token = $2 and payer = $3 and nonce = $4
  and not given_up and (sent_at is null or sent_at < clock_timestamp() - $5::float8 * interval '1 second')
returning position;

-- name: sending
select pg_advisory_xact_lock(hashtextextended('freehold-x402-sending', 0));

-- name: sent
update x402_payment set tx_hash = $5 where chain_id = $1 and token = $2 and payer = $3 and nonce = $4;

-- name: unsent
-- May be sent again at once: the transaction $5 did nothing.
update x402_payment set sent_at = null, tx_hash = null
where chain_id = $1 and token = $2 and payer = $3 and nonce = $4 and tx_hash is not distinct from $5;

-- name: give_up
update x402_payment set given_up = true
where chain_id = $1 and token = $2 and payer = $3 and nonce = $4 and state = 'open';

-- name: credit
update x402_payment
set state = 'credited', account_id = $5, tx_hash = $6, landed_block = $7, landed_hash = $8,
    credited_at = clock_timestamp()
where chain_id = $1 and token = $2 and payer = $3 and nonce = $4
returning *, extract(epoch from credited_at)::float8 as credited_at_s;

-- name: landed
update x402_payment set tx_hash = coalesce($5, tx_hash), landed_block = $6, landed_hash = $7
where chain_id = $1 and token = $2 and payer = $3 and nonce = $4 and state = 'credited';

-- name: end
update x402_payment set state = $5 where chain_id = $1 and token = $2 and payer = $3 and nonce = $4;

-- name: open
select *, null::float8 as credited_at_s from x402_payment where state = 'open' order by position limit $1;

-- name: doubtful
-- Credited ones of which the reader's blocks don't say that they stand where they were seen.
select p.*, extract(epoch from p.credited_at)::float8 as credited_at_s
from x402_payment p
where p.state = 'credited' and p.landed_block is null
union all
select p.*, extract(epoch from p.credited_at)::float8
from chain_block b join x402_payment p on p.state = 'credited' and p.landed_block = b.number
where p.landed_hash <> b.hash and b.number > (select number from chain_cursor) - 300  -- as many as the reader keeps
union all
select p.*, extract(epoch from p.credited_at)::float8
from x402_payment p
where p.state = 'credited' and p.landed_block > (select number from chain_cursor);
