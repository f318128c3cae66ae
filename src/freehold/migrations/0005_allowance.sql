-- Which of the chain's events have become grants, and how far its changes were followed.

create table allowance_progress (
    id int primary key default 1 check (id = 1),
    seq bigint not null,             -- newest chain_change that was followed
    newest_day int not null          -- newest day that was ever opened
);
insert into allowance_progress (id, seq, newest_day) values (1, 0, -1);

create table allowance_deposit (
    event text primary key,          -- external id of the event that stands
    account_id bigint not null,
    grant_external_id text not null, -- the ledger's grant
    tx_hash text not null
);
create index allowance_deposit_account on allowance_deposit (account_id);
