-- Closed days: the root over each day's receipts, and the tree that proofs are read from. Append-only, as the books are.

create schema receipts;

create table receipts.days (
    chain_id bigint not null,
    book text not null,                      -- the EpochBook that the receipts are for
    day int not null,
    root bytea not null check (length(root) = 32),
    count bigint not null check (count >= 0),
    totals jsonb not null,                   -- purse → [opening, granted, used, expired, closing], nano-USD
    closed_at timestamptz not null default clock_timestamp(),
    primary key (chain_id, book, day),
    check ((count = 0) = (root = decode(repeat('00', 32), 'hex')))
);

create table receipts.nodes (
    chain_id bigint not null,
    book text not null,
    day int not null,
    level smallint not null,                 -- 0: the leaves, in order
    chunk int not null,                      -- so many times 1,024 nodes come before
    first bytea not null,
    hashes bytea not null,
    primary key (chain_id, book, day, level, chunk)
);
create index nodes_leaves on receipts.nodes (chain_id, book, day, first) where level = 0;

create trigger append_only before update or delete on receipts.days
    for each row execute function ledger.refuse_change();
create trigger append_only before update or delete on receipts.nodes
    for each row execute function ledger.refuse_change();

-- What was read of the chain's book: kept, so that the check of the books needs no node.

create table receipts.published (
    chain_id bigint not null,
    book text not null,
    day int not null,
    root bytea not null,
    totals_hash bytea not null,
    seen_at timestamptz not null default clock_timestamp(),
    primary key (chain_id, book, day)
);

-- A day's rows are found without an index that each charge would have to write.
create index charges_by_day on ledger.charges using brin (day) with (pages_per_range = 32);
create index postings_by_time on ledger.postings using brin (at_s) with (pages_per_range = 32);
