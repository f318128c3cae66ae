-- Allowances by activated strips, beside those by stakes: the same event of another contract, which speaks of one month.

alter table chain_event drop constraint chain_event_kind_check;
alter table chain_event add constraint chain_event_kind_check
    check (kind in ('AllowanceChanged', 'StripsChanged', 'Deposited'));
alter table chain_event add constraint chain_event_strips_check
    check (kind <> 'StripsChanged' or (operator, day, today, onward) is not null);
