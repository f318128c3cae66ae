-- What was read of the chain: how far, which blocks that was on, and the events. Amounts are base units.

create table chain_cursor (
    id int primary key default 1 check (id = 1),
    chain_id bigint not null,
    genesis_hash text not null,
    vault text not null,
    prepaid text not null,
    number bigint not null,          -- newest block that was read; the one before the first, when none was
    hash text,
    parent_hash text,
    time_s bigint,
    check ((hash is null) = (time_s is null) and (hash is null) = (parent_hash is null))
);

-- The last few hundred blocks, and every block with events: enough to find where a reorg began.
create table chain_block (
    number bigint primary key,
    hash text not null,
    parent_hash text not null,
    time_s bigint not null,
    has_events boolean not null
);

-- Events are never deleted: one that a reorg took back is marked, and unmarked if its block comes back.
create table chain_event (
    id bigint generated always as identity primary key,
    chain_id bigint not null,
    block_number bigint not null,
    block_hash text not null,
    block_time_s bigint not null,
    tx_hash text not null,
    log_index int not null,
    contract text not null,
    kind text not null check (kind in ('AllowanceChanged', 'Deposited')),
    beneficiary text not null,
    operator text,
    payer text,
    day int,
    today numeric(78) check (today >= 0),
    onward numeric(78) check (onward >= 0),
    amount numeric(78) check (amount >= 0),
    reverted boolean not null default false,
    unique (chain_id, block_hash, tx_hash, log_index),
    check (kind <> 'AllowanceChanged' or (operator, day, today, onward) is not null),
    check (kind <> 'Deposited' or (payer, amount) is not null)
);

create index chain_event_beneficiary on chain_event (beneficiary, block_number, log_index);
create index chain_event_block on chain_event (block_number) where not reverted;

-- What happened to events, in order, for whoever follows them with a cursor of its own.
create table chain_change (
    seq bigint generated always as identity primary key,
    event_id bigint not null references chain_event,
    reverted boolean not null
);

create index chain_change_reverted on chain_change (event_id) where reverted;
