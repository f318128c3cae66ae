-- Who may call: users, accounts, members, sessions, nonces and keys. Times are unix seconds.
-- Accounts carry the ledger's ids. A key's caps are in the ledger's row of the same key.

create schema identity;

-- One row: what makes this installation's derived addresses its own, and the hash of the operator's token.
create table identity.instance(
    one boolean primary key default true check (one),
    salt bytea not null check (octet_length(salt) = 32),
    operator_hash bytea check (octet_length(operator_hash) = 32)
);

insert into identity.instance(salt)
values (sha256(uuid_send(gen_random_uuid()) || uuid_send(gen_random_uuid()) || uuid_send(gen_random_uuid())));

create table identity.users(
    id bigint generated always as identity primary key,
    name text not null,
    address text unique,
    created_at_s bigint not null
);

create table identity.accounts(
    id bigint primary key,
    name text not null,
    kind text not null check (kind in ('wallet', 'local')),
    address text not null unique,
    created_at_s bigint not null
);

create table identity.members(
    account_id bigint not null references identity.accounts(id),
    user_id bigint not null references identity.users(id),
    role text not null check (role in ('owner', 'member', 'viewer')),
    created_at_s bigint not null,
    primary key (account_id, user_id)
);

create index members_user on identity.members(user_id);

create table identity.sessions(
    hash bytea primary key check (octet_length(hash) = 32),
    user_id bigint not null references identity.users(id),
    created_at_s bigint not null,
    expires_at_s bigint not null
);

create index sessions_expires on identity.sessions(expires_at_s);

-- A used nonce stays until it would have expired, so that a replay is told apart from an unknown nonce.
create table identity.nonces(
    nonce text primary key,
    address text not null,
    expires_at_s bigint not null,
    used_at_s bigint
);

create index nonces_expires on identity.nonces(expires_at_s);

create table identity.keys(
    id bigint generated always as identity primary key,
    account_id bigint not null references identity.accounts(id),
    user_id bigint references identity.users(id),
    name text not null,
    prefix text not null,
    hash bytea not null unique check (octet_length(hash) = 32),
    scopes text[] not null,
    models text[],
    expires_at_s bigint,
    revoked_at_s bigint,
    created_at_s bigint not null,
    version int not null default 1
);

create index keys_account on identity.keys(account_id, id);
