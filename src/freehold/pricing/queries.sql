-- name: version_at
select version, note, effective_at_s, extract(epoch from created_at)::float8 as created_at_s
from price_versions
where effective_at_s <= coalesce($1, extract(epoch from clock_timestamp())::bigint)
order by version desc limit 1;

-- name: version
select version, note, effective_at_s, extract(epoch from created_at)::float8 as created_at_s
from price_versions where version = $1;

-- name: prices_at
with newest as (
    select distinct on (price.model) price.model, price.from_version, price.label
    from price_versions wanted
    join price_versions held on held.version <= wanted.version and held.effective_at_s <= wanted.effective_at_s
    join prices price on price.from_version = held.version
    where wanted.version = $1
    order by price.model, price.from_version desc
)
select newest.model, newest.label, rate.above, rate.unit, rate.nano_per_million
from newest join price_rates rate using (model, from_version)
order by newest.model, rate.above, rate.unit;

-- name: changes_of
select price.model, price.label, rate.above, rate.unit, rate.nano_per_million
from prices price join price_rates rate using (model, from_version)
where price.from_version = $1
order by price.model, rate.above, rate.unit;

-- name: coming
select distinct on (effective_at_s) version, note, effective_at_s, extract(epoch from created_at)::float8 as created_at_s
from price_versions where effective_at_s > $1
order by effective_at_s, version desc;

-- name: since
select version, effective_at_s from price_versions where version >= $1 order by version;

-- name: history
select price.from_version as version, price.label, version.note, version.effective_at_s,
       extract(epoch from version.created_at)::float8 as created_at_s,
       rate.above, rate.unit, rate.nano_per_million
from prices price
join price_versions version on version.version = price.from_version
join price_rates rate using (model, from_version)
where price.model = $1
  and not exists (select 1 from price_versions anew where anew.replaces = version.version)
order by version.effective_at_s, price.from_version, rate.above, rate.unit;

-- name: one_writer
lock table price_versions in share row exclusive mode;

-- name: add_version
insert into price_versions(version, note, effective_at_s, replaces)
select coalesce(max(version), 0) + 1, $1, $2, $3 from price_versions
returning version;

-- name: add_price
insert into prices(model, from_version, label) values ($1, $2, $3);

-- name: add_rate
insert into price_rates(model, from_version, above, unit, nano_per_million) values ($1, $2, $3, $4, $5);
