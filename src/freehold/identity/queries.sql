-- name: salt
select salt from identity.instance

-- name: set_operator_hash
update identity.instance set operator_hash = $1 where operator_hash is distinct from $1

-- name: is_operator
select one from identity.instance where operator_hash = $1

-- name: add_account
insert into identity.accounts(id, name, kind, address, created_at_s) values($1, $2, $3, $4, $5) returning *

-- name: account
select * from identity.accounts where id = $1

-- name: account_of_address
select * from identity.accounts where address = $1

-- name: accounts
select * from identity.accounts where id > $1 order by id limit $2

-- name: addresses
select id, address from identity.accounts order by id

-- name: add_user
-- The update takes the row's lock, so that two sign-ins of one new wallet come one after the other.
insert into identity.users(name, address, created_at_s) values($1, $2, $3)
on conflict (address) do update set address = excluded.address returning id

-- name: add_nonce
insert into identity.nonces(nonce, address, expires_at_s) values($1, $2, $3)

-- name: clean_nonces
delete from identity.nonces where nonce in (
    select nonce from identity.nonces where expires_at_s <= $1 limit 100 for update skip locked)

-- name: clean_sessions
delete from identity.sessions where hash in (
    select hash from identity.sessions where expires_at_s <= $1 limit 100 for update skip locked)

-- name: use_nonce
update identity.nonces set used_at_s = $3
where nonce = $1 and address = $2 and used_at_s is null and expires_at_s > $3 returning nonce

-- name: nonce
select * from identity.nonces where nonce = $1

-- name: add_session
insert into identity.sessions(hash, user_id, created_at_s, expires_at_s) values($1, $2, $3, $4)

-- name: session
select s.user_id, s.expires_at_s, u.address from identity.sessions s join identity.users u on u.id = s.user_id
where s.hash = $1

-- name: end_session
delete from identity.sessions where hash = $1 returning user_id

-- name: end_sessions
delete from identity.sessions where user_id = $1

-- name: membership
-- Without an account named: the user's own first, then the one joined first.
select m.account_id, m.role from identity.members m join identity.accounts a on a.id = m.account_id
where m.user_id = $1 and ($2::bigint is null or m.account_id = $2)
order by a.address is not distinct from $3 desc, m.created_at_s, m.account_id limit 1

-- name: memberships
select a.id, a.name, m.role from identity.members m join identity.accounts a on a.id = m.account_id
where m.user_id = $1 order by a.id

-- name: members
select m.account_id, m.user_id, u.name, u.address, m.role
from identity.members m join identity.users u on u.id = m.user_id where m.account_id = $1 order by m.created_at_s, m.user_id

-- name: lock_account
select id from identity.accounts where id = $1 for update

-- name: put_member
insert into identity.members(account_id, user_id, role, created_at_s) values($1, $2, $3, $4)
on conflict (account_id, user_id) do update set role = excluded.role

-- name: remove_member
delete from identity.members where account_id = $1 and user_id = $2 returning user_id

-- name: keys_of_member
select * from identity.keys where account_id = $1 and user_id = $2 and revoked_at_s is null order by id

-- name: add_key
insert into identity.keys(account_id, user_id, name, prefix, hash, scopes, models, expires_at_s, created_at_s)
values($1, $2, $3, $4, $5, $6, $7, $8, $9) returning *

-- name: key_by_hash
select * from identity.keys where hash = $1

-- name: key_caller
select k.*, m.role from identity.keys k
left join identity.members m on m.account_id = k.account_id and m.user_id = k.user_id where k.hash = $1

-- name: keys
select * from identity.keys where account_id = $1 order by id

-- name: lock_key
select * from identity.keys where account_id = $1 and id = $2 for update

-- name: update_key
update identity.keys set name = $3, scopes = $4, models = $5, expires_at_s = $6, version = version + 1
where account_id = $1 and id = $2 returning *

-- name: revoke_key
update identity.keys set revoked_at_s = $3, version = version + 1
where account_id = $1 and id = $2 and revoked_at_s is null returning *
