"""Commands of the operator: prices, accounts, promotional grants, and the check of the books."""

from collections.abc import Callable
from typing import Any

import click

from freehold.cli.output import Output, nano_usd, when
from freehold.cli.refusal import ServerUnreachable
from freehold.cli.session import Session, common, items, segment

# --- prices -----------------------------------------------------------------------------------------------------------


@click.group()
def prices() -> None:
    """Show prices, or set them."""


@prices.command("show")
@click.option("--version", "number", type=click.IntRange(0), metavar="N", help="An older version of the book.")
@common
def prices_show(session: Session, number: int | None) -> None:
    """Show the current price of each model, in USD per million tokens, and what is to come."""
    read = session.client.get("/v1/prices", version=number)

    def draw(out: Output) -> None:
        out.table(_PRICE_COLUMNS, [cells for row in items(read) for cells in _price_rows(row)])
        if isinstance(read, dict) and "version" in read:
            out.say(f"Version {read['version']} of the book.")
        for row in read.get("coming", ()) if isinstance(read, dict) else ():
            out.say(f"From {when(row['effective_at'])} version {row['version']} prices {row['model']} anew.")

    session.out.document(read, draw)


_RATE_COLUMNS = (">input USD/M", ">cached input", ">cache write", ">output USD/M", ">reasoning")
_PRICE_COLUMNS = ("model", *_RATE_COLUMNS, "note")
_SHOWN = ("input", "cached_input", "cache_write", "output", "reasoning")


def _price_rows(row: dict[str, Any]) -> list[tuple[str, ...]]:
    """A line for the price, and one for each of its tiers."""
    lines = [(str(row.get("model", "")), row, str(row.get("label", "")))]
    for tier in row.get("tiers", ()):
        lines.append((f"  above {tier['above_tokens']:,}", tier, ""))
    return [
        (name, *(str(rates.get(f"{unit}_usd_per_million", "-")) for unit in _SHOWN), note)
        for name, rates, note in lines
    ]


@prices.command("history")
@click.argument("model", metavar="MODEL")
@common
def prices_history(session: Session, model: str) -> None:
    """Show every price that a model has had, and those that begin later."""
    read = session.client.get(f"/v1/prices/{segment(model)}/history")

    def draw(out: Output) -> None:
        out.table(
            ("from (UTC)", ">version", *_RATE_COLUMNS, "note"),
            [
                ("" if tier else _minute(row["effective_at"]), name, *rates, "" if tier else str(row["note"]))
                for row in items(read)
                for tier, (name, *rates, _) in enumerate(_price_rows({**row, "model": row["version"]}))
            ],
        )

    session.out.document(read, draw)


def _minute(moment: Any) -> str:
    return str(moment).removesuffix("Z").replace("T", " ")


@prices.command("diff")
@click.option("--from", "before", type=click.IntRange(0), metavar="N", help="A version of the book.")
@click.option("--to", "after", type=click.IntRange(0), metavar="N", help="Another one; left out, the one that holds.")
@common
def prices_diff(session: Session, before: int | None, after: int | None) -> None:
    """Show where the book differs from what genai-prices publishes, or one version from another.

    Without --from and --to the book is compared with the data of the genai-prices package that the server has
    installed, for models that it states; this needs the operator's token.
    """
    if before is None and after is None:
        read = session.operator().get("/v1/admin/prices/published")
    else:
        read = session.client.get("/v1/prices/diff", **{"from": before, "to": after})

    def draw(out: Output) -> None:
        if not items(read):
            out.say(f"{read['before']} and {read['after']} price the same.")
            return
        out.table(
            ("model", "in calls", "unit", f">{read['before']}", f">{read['after']}", ">change"),
            [
                (
                    str(row["model"]),
                    f"above {row['above_tokens']:,}" if row["above_tokens"] else "all",
                    str(row["unit"]),
                    str(row["before_usd_per_million"] or "-"),
                    str(row["after_usd_per_million"] or "-"),
                    _change(row["before_nano_per_million"], row["after_nano_per_million"]),
                )
                for row in items(read)
            ],
        )
        out.remark("USD per million tokens.")

    session.out.document(read, draw)


def _change(before: int | None, after: int | None) -> str:
    if not before or after is None:
        return "new" if before is None else "gone" if after is None else "-"
    tenths = round((after - before) * 1000 / before)
    return f"{'+' if tenths >= 0 else '-'}{abs(tenths) // 10}.{abs(tenths) % 10} %"


_RATE_OPTIONS = (
    ("input", "input_usd_per_million", "Per million input tokens."),
    ("output", "output_usd_per_million", "Per million output tokens; else what input costs."),
    ("cached-input", "cached_input_usd_per_million", "Read from a cache; else what input costs."),
    ("cache-write", "cache_write_usd_per_million", "Written to a cache; else what input costs."),
    ("cache-write-1h", "cache_write_1h_usd_per_million", "Written to a cache for an hour; else as --cache-write."),
    ("reasoning", "reasoning_usd_per_million", "Reasoning; else what output costs."),
    ("input-audio", "input_audio_usd_per_million", "Audio in; else what input costs."),
    ("cached-audio", "cached_audio_usd_per_million", "Audio read from a cache; else as --input-audio."),
    ("output-audio", "output_audio_usd_per_million", "Audio out; else what output costs."),
)


def _rates(command: Callable[..., None]) -> Callable[..., None]:
    """An option for each rate, the first one required."""
    for place, (name, field, text) in reversed(list(enumerate(_RATE_OPTIONS))):
        command = click.option(f"--{name}", field, metavar="USD", required=place == 0, help=text)(command)
    return command


@prices.command("set")
@click.argument("model", metavar="MODEL")
@_rates
@click.option(
    "--tier", "tiers", multiple=True, metavar="TOKENS:NAME=USD,…",
    help="Other rates for calls with a longer prompt, such as 200000:input=6,output=22.5. Repeatable.",
)  # fmt: skip
@click.option("--from", "effective_at", metavar="TIME", help="When it begins, such as 2026-12-01T00:00:00Z; else now.")
@click.option("--label", default="", help="Shown beside the price, such as 'demo'.")
@click.option("--note", default="", help="Why, for the history.")
@click.option("--force", is_flag=True, help="Also for a model that nobody serves and that has no price yet.")
@common
def prices_set(
    session: Session,
    model: str,
    tiers: tuple[str, ...],
    effective_at: str | None,
    label: str,
    note: str,
    force: bool,
    **rates: str | None,
) -> None:
    """Set a model's price: a new version of the book, from now or a later time on. Needs the operator's token."""
    from freehold.money import format_usd, parse_usd

    body: dict[str, Any] = {"label": label, "note": note, "tiers": [_tier(text) for text in tiers]}
    body |= {name: format_usd(parse_usd(given)) for name, given in rates.items() if given is not None}
    if effective_at is not None:
        body["effective_at"] = effective_at
    query = {"force": "true"} if force else None
    read = session.operator().call("PUT", f"/v1/admin/prices/{segment(model)}", body=body, query=query).json()
    begins = f"from {when(effective_at)} on" if effective_at else "from now on"
    session.out.document(
        read, lambda out: out.say(f"Version {read.get('version', '')} of the book prices {model} anew, {begins}.")
    )


def _tier(text: str) -> dict[str, Any]:
    """`200000:input=6,output=22.5` as the API takes it. Raises BadParameter."""
    from freehold.money import format_usd, parse_usd

    known = {name: field for name, field, _ in _RATE_OPTIONS}
    above, _, rest = text.partition(":")
    pairs = [part.partition("=") for part in rest.split(",")]
    if not above.isascii() or not above.isdigit() or not all(name in known and usd for name, _, usd in pairs):
        raise click.BadParameter(
            f"{text!r} is not such as 200000:input=6,output=22.5, with names from {', '.join(known)}.",
            param_hint="--tier",
        )
    return {"above_tokens": int(above), **{known[name]: format_usd(parse_usd(usd)) for name, _, usd in pairs}}


# --- accounts and grants ----------------------------------------------------------------------------------------------


@click.group()
def accounts() -> None:
    """Create and list accounts. Needs the operator's token."""


@accounts.command("create")
@click.argument("name")
@common
def accounts_create(session: Session, name: str) -> None:
    """Create a local account, for people without a wallet, and a first API key; its secret is shown this once."""
    made = create_account(session, name)

    def draw(out: Output) -> None:
        out.facts(
            [
                ("account", f"{made['account']['id']} {made['account']['name']}"),
                ("address", str(made["account"]["address"])),
                ("API key", str(made["secret"])),
            ]
        )
        out.remark(f"The key is not shown again; here `--account {made['account']['id']}` uses it.")

    session.out.document(made, draw)


def create_account(session: Session, name: str) -> dict[str, Any]:
    """A new local account and its first key, which is kept here: {"account": {id, name, address, …}, "secret", …}."""
    made = dict(session.operator().post("/v1/admin/accounts", {"name": name}))
    session.credentials.keep_account_key(session.url, int(made["account"]["id"]), str(made["secret"]))
    return made


@accounts.command("list")
@common
def accounts_list(session: Session) -> None:
    """List all accounts of this server."""
    read = session.operator().get("/v1/admin/accounts")

    def draw(out: Output) -> None:
        out.table(
            (">id", "name", "kind", "address", "created"),
            [
                (
                    str(row["id"]),
                    "" if row["name"] == row["address"] else str(row["name"]),
                    str(row.get("kind", "")),
                    str(row.get("address", "")),
                    when(row.get("created_at")),
                )
                for row in items(read)
            ],
        )

    session.out.document(read, draw)


@click.command()
@click.argument("account_id", type=click.IntRange(min=1), metavar="ACCOUNT")
@click.argument("amount", metavar="USD")
@click.option("--days", type=click.IntRange(1, 3650), default=30, show_default=True, help="When it ends.")
@click.option("--id", "grant_id", help="Names the grant: the same id is granted once, however often it is sent.")
@common
def grant(session: Session, account_id: int, amount: str, days: int, grant_id: str | None) -> None:
    """Give an account promotional credit. Needs the operator's token."""
    import uuid

    from freehold.money import format_usd, parse_usd

    body = {
        "account_id": account_id,
        "amount_usd": format_usd(parse_usd(amount)),
        "expires_in_days": days,
        "id": grant_id or uuid.uuid4().hex,
    }
    read = session.operator().post("/v1/admin/grants", body)
    session.out.document(
        read, lambda out: out.say(f"Account {account_id} has {body['amount_usd']} USD of promo credit for {days} days.")
    )


# --- books ------------------------------------------------------------------------------------------------------------


@click.group()
def books() -> None:
    """Check that the books balance."""


@books.command("check")
@common
def books_check(session: Session) -> None:
    """Recompute balances, holds, charges and grants from the entries; exit code 1 when anything differs."""
    with session.out.busy("Recomputing the books …"):
        read = check_books(session)
    differences = read["differences"]

    def draw(out: Output) -> None:
        if not differences:
            out.say("The books balance.")
            return
        out.table(
            ("law", ">account", "subject", ">expected", ">found"),
            [
                tuple(
                    str(row.get(name) if row.get(name) is not None else "-")
                    for name in ("law", "account_id", "subject", "expected", "found")
                )
                for row in differences
            ],
        )
        out.remark(
            f"{len(differences)} differences: the books don't balance; keep the database as it is and report this."
        )

    session.out.document(read, draw)
    if differences:
        raise SystemExit(1)


@books.command("days")
@click.option("--before", metavar="DAY", help="Only days before this one, such as 2026-11-23.")
@common
def books_days(session: Session, before: str | None) -> None:
    """List closed days: how many receipts each has, its root, and whether it is on the chain."""
    read = session.client.get("/v1/epochs", before=before)

    def draw(out: Output) -> None:
        out.table(
            ("day", ">receipts", ">used USD", "on the chain", "root"),
            [
                (
                    str(row["day"]),
                    str(row["count"]),
                    nano_usd(sum(int(purse["used_nano"]) for purse in row["totals"].values())).removesuffix(" USD"),
                    "yes" if row["published"] else "no" if row["published_root"] is None else "WRONG",
                    str(row["root"]),
                )
                for row in items(read)
            ],
        )
        if any(row["published_root"] is not None and not row["published"] for row in items(read)):
            out.remark("A day stands on the chain otherwise than it was closed: see `freehold books check`.")

    session.out.document(read, draw)


def check_books(session: Session) -> dict[str, Any]:
    """What `GET /v1/admin/books` answers; of a server on this machine that is stopped, what its database tells."""
    operator = session.operator()
    try:
        return dict(operator.get("/v1/admin/books"))
    except ServerUnreachable:
        if session.local is None:
            raise
    from dataclasses import asdict

    from freehold.app.operate import books_check
    from freehold.app.settings import load

    found = [asdict(one) for one in books_check(load(overrides={"data": str(session.local.data)}))]
    return {"balanced": not found, "differences": found}
