-- The price book. Append-only: a version is a set of changes, and a price holds until a later version of the same model.

create table price_versions (
    version    int primary key check (version > 0),
    note       text not null,
    created_at timestamptz not null default now()
);

create table prices (
    model        text not null check (model <> ''),
    from_version int not null references price_versions,
    label        text not null,
    primary key (model, from_version)
);

create table price_rates (
    model            text not null,
    from_version     int not null,
    unit             text not null,
    nano_per_million bigint not null check (nano_per_million >= 0),
    primary key (model, from_version, unit),
    foreign key (model, from_version) references prices
);

create function refuse_price_change() returns trigger language plpgsql as $$
begin
    raise exception 'The price book is append-only: add a version instead of changing %.', tg_table_name
        using errcode = 'restrict_violation';
end
$$;

create trigger price_versions_stay before update or delete or truncate on price_versions
    for each statement execute function refuse_price_change();
create trigger prices_stay before update or delete or truncate on prices
    for each statement execute function refuse_price_change();
create trigger price_rates_stay before update or delete or truncate on price_rates
    for each statement execute function refuse_price_change();
