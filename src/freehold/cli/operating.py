"""Commands of the operator: prices, accounts, promotional grants, and the check of the books."""

from typing import Any

import click

from freehold.cli.output import Output, when
from freehold.cli.refusal import ServerUnreachable
from freehold.cli.session import Session, common, items, segment

# --- prices -----------------------------------------------------------------------------------------------------------


@click.group()
def prices() -> None:
    """Show prices, or set them."""


@prices.command("show")
@common
def prices_show(session: Session) -> None:
    """Show the current price of each model, in USD per million tokens."""
    read = session.client.get("/v1/prices")

    def draw(out: Output) -> None:
        out.table(
            ("model", ">input USD/M", ">cached input", ">output USD/M", "note"),
            [
                (
                    str(row.get("model", "")),
                    str(row.get("input_usd_per_million", "-")),
                    str(row.get("cached_input_usd_per_million", "-")),
                    str(row.get("output_usd_per_million", "-")),
                    str(row.get("label", "")),
                )
                for row in items(read)
            ],
        )
        if isinstance(read, dict) and "version" in read:
            out.say(f"Version {read['version']} of the book.")

    session.out.document(read, draw)


@prices.command("set")
@click.argument("model", metavar="MODEL")
@click.option("--input", "input_usd", required=True, metavar="USD", help="Per million input tokens.")
@click.option("--output", "output_usd", metavar="USD", help="Per million output tokens.")
@click.option("--label", default="", help="Shown beside the price, such as 'demo'.")
@common
def prices_set(session: Session, model: str, input_usd: str, output_usd: str | None, label: str) -> None:
    """Set a model's price: a new version of the book, for calls from now on. Needs the operator's token."""
    from freehold.money import format_usd, parse_usd

    body: dict[str, Any] = {"input_usd_per_million": format_usd(parse_usd(input_usd)), "label": label}
    if output_usd is not None:
        body["output_usd_per_million"] = format_usd(parse_usd(output_usd))
    read = session.operator().call("PUT", f"/v1/admin/prices/{segment(model)}", body=body).json()
    session.out.document(
        read, lambda out: out.say(f"Version {read.get('version', '')} of the book prices {model} anew.")
    )


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
