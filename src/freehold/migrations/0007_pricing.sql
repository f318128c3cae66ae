-- Prices of a later moment, and tiers.

alter table price_versions
    add column effective_at_s bigint not null default 0,  -- ledger time from which it holds
    add column replaces int references price_versions;    -- the version that this one was written for anew, before it held

alter table price_rates add column above int not null default 0 check (above >= 0);  -- prompt tokens; 0: the base
alter table price_rates drop constraint price_rates_pkey, add primary key (model, from_version, above, unit);

-- The ledger's copy: which version holds is decided in the hold call, by ledger time. The greatest number among those
-- that have begun holds: whoever writes a version also writes those that begin after it anew, with greater numbers.

create table ledger.price_versions (
    version int primary key,
    effective_at_s bigint not null
);
insert into ledger.price_versions select version, 0 from ledger.price;
insert into ledger.price_versions values (0, 0) on conflict do nothing;
drop table ledger.price;

create view ledger.price as
select v.version
from ledger.present n
cross join lateral (
    select p.version from ledger.price_versions p where p.effective_at_s <= n.at_s order by p.version desc limit 1
) v;
