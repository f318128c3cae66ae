-- name: lock_account
select pg_advisory_xact_lock(hashtextextended('freehold-allowance:' || $1::bigint, 0));

-- name: progress
select seq, newest_day from allowance_progress;

-- name: put_seq
update allowance_progress set seq = $1 where seq < $1;

-- name: put_newest_day
update allowance_progress set newest_day = $1 where newest_day < $1;

-- name: posted
select event from allowance_deposit where account_id = $1;

-- name: deposits
select account_id, event, grant_external_id from allowance_deposit where $1::bigint is null or account_id = $1;

-- name: deposit
select grant_external_id from allowance_deposit where event = $1;

-- name: put_deposit
insert into allowance_deposit (event, account_id, grant_external_id, tx_hash) values ($1, $2, $3, $4)
on conflict (event) do nothing;

-- name: move_deposit
update allowance_deposit set event = $2 where event = $1;

-- name: drop_deposit
delete from allowance_deposit where event = $1;

-- name: payments
-- What was paid by ERC-3009 authorizations, in base units of USDC, by the external ids of the grants.
select account_id, 'x402:' || chain_id || ':' || token || ':' || payer || ':0x' || encode(nonce, 'hex') as name, amount
from x402_payment where state = 'credited' and ($1::bigint is null or account_id = $1);
