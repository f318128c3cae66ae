-- name: latest_version
select version, note, extract(epoch from created_at)::float8 as created_at_s
from price_versions order by version desc limit 1;

-- name: version
select version, note, extract(epoch from created_at)::float8 as created_at_s
from price_versions where version = $1;

-- name: prices_at
with newest as (
    select distinct on (model) model, from_version, label
    from prices where from_version <= $1
    order by model, from_version desc
)
select newest.model, newest.label, rate.unit, rate.nano_per_million
from newest join price_rates rate using (model, from_version)
order by newest.model, rate.unit;

-- name: history
select price.from_version as version, price.label, version.note,
       extract(epoch from version.created_at)::float8 as created_at_s,
       rate.unit, rate.nano_per_million
from prices price
join price_versions version on version.version = price.from_version
join price_rates rate using (model, from_version)
where price.model = $1
order by price.from_version, rate.unit;

-- name: one_writer
lock table price_versions in share row exclusive mode;

-- name: add_version
insert into price_versions(version, note)
select coalesce(max(version), 0) + 1, $1 from price_versions
returning version;

-- name: add_price
insert into prices(model, from_version, label) values ($1, $2, $3);

-- name: add_rate
insert into price_rates(model, from_version, unit, nano_per_million) values ($1, $2, $3, $4);
