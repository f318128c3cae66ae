-- Payments by x402: ERC-3009 authorizations. Each is claimed here, for one purpose, before it goes to the chain, and
-- is credited once, when its transfer has enough confirmations.

create table x402_payment (
    chain_id bigint not null,
    token text not null,
    payer text not null,
    nonce bytea not null check (octet_length(nonce) = 32),
    pay_to text not null,
    amount bigint not null check (amount > 0),                   -- base units of the token
    valid_after bigint not null check (valid_after >= 0),        -- unix seconds of block time
    valid_before bigint not null check (valid_before >= 0),
    signature bytea not null,
    purpose bytea not null check (octet_length(purpose) = 32),   -- digest of the request that it pays for
    account_id bigint,                       -- whom it funds; null until it is credited: the payer's own account
    state text not null default 'open' check (state in ('open', 'credited', 'lapsed', 'reversed')),
    from_block bigint not null,              -- it was not used before this block
    claimed_at timestamptz not null default clock_timestamp(),
    sent_at timestamptz,                     -- when a worker last sent it to the chain
    given_up boolean not null default false, -- it was refused, and is only watched: others may carry it out
    tx_hash text,                            -- where it was last sent, or has landed
    landed_block bigint,
    landed_hash text,                        -- of that block
    credited_at timestamptz,
    position bigint generated always as identity,
    primary key (chain_id, token, payer, nonce),
    check (state not in ('credited', 'reversed') or account_id is not null)
);
create index x402_payment_open on x402_payment (position) where state = 'open';
create index x402_payment_landed on x402_payment (landed_block) where state = 'credited';
create index x402_payment_account on x402_payment (account_id) where state = 'credited';
