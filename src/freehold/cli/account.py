"""Commands on an account: balance, usage, receipts, keys, and who is signed in."""

from collections.abc import Mapping
from typing import Any

import click

from freehold.cli.chainside import unlock, with_keystore
from freehold.cli.output import Output, seconds_of, usd, when
from freehold.cli.refusal import Refusal, ServerRefused
from freehold.cli.session import OPERATOR_ACCOUNT, Session, acting, common, ended, items, segment
from freehold.cli.verifying import bill_with_receipts, signed_file

GROUPS = ("day", "hour", "model", "key")
NONE = "none"
"""Takes a limit away."""


class PerMinute(click.ParamType[str]):
    """A whole number above 0, or `none`; kept as text."""

    name = "number"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        if value != NONE and not (str(value).isdecimal() and 0 < int(value) < 2**31):
            self.fail(f"{value!r} is not a whole number above 0.", param, ctx)
        return str(value)


PER_MINUTE = PerMinute()


# --- balance ----------------------------------------------------------------------------------------------------------


@click.command()
@acting
def balance(session: Session) -> None:
    """Show what is left in each purse, today's allowance and when it is renewed."""
    read = read_balance(session)
    session.out.document(read, lambda out: draw_balance(out, read))


def read_balance(session: Session) -> dict[str, Any]:
    """The account's balance. Raises ServerRefused, and says how to log in again when the login has ended."""
    client, query = session.account()
    return dict(_own(session, lambda: client.get("/v1/account/balance", **query)))


def draw_balance(out: Output, read: dict[str, Any]) -> None:
    now_s = seconds_of(read["ledger_time"])
    rows = [
        (str(purse["source"]), str(purse["granted"]), str(purse["used"]), str(purse["held"]), str(purse["available"]))
        for purse in purses_worth_showing(read)
    ]
    out.table(("purse", ">granted USD", ">used", ">held", ">available"), rows)
    note = " (provisional: the chain has stalled)" if read["provisional"] else ""
    out.facts(
        [
            ("available", usd(read["available"])),
            ("renewed", when(read["reset_at"], now_s=now_s)),
            ("ledger time", when(read["ledger_time"]) + note),
            ("next days", next_days(read["next_days"])),
        ]
    )


def purses_worth_showing(read: dict[str, Any]) -> list[dict[str, Any]]:
    """Those that were ever granted something; allowance and prepaid always."""
    return [purse for purse in read["purses"] if purse["granted_nano"] or purse["source"] in ("allowance", "prepaid")]


def next_days(days: list[dict[str, Any]]) -> str:
    """Coming allowances, equal days taken together."""
    told: list[tuple[str, str, str]] = []
    for day in days:
        if told and told[-1][2] == day["amount"]:
            told[-1] = (told[-1][0], day["day"], day["amount"])
        else:
            told.append((day["day"], day["day"], day["amount"]))
    parts = [
        f"{usd(amount)} on {first}" if first == last else f"{usd(amount)} a day from {first} to {last}"
        for first, last, amount in told
    ]
    return "; ".join(parts) or "not known"


# --- usage and receipts -----------------------------------------------------------------------------------------------


@click.command()
@click.option(
    "--by", type=click.Choice(GROUPS), help="Add up by day, hour, model or key, in place of one row per call."
)
@click.option("--from", "since", metavar="TIME", help="From this time on, such as 2026-11-23 or 2026-11-23T08:00:00Z.")
@click.option("--to", "until", metavar="TIME", help="Up to this time.")
@click.option("--limit", type=click.IntRange(1, 1000), help="Rows at most: 50 calls, and as CSV all of them.")
@click.option("--csv", "as_csv", is_flag=True, help="Write CSV to stdout.")
@acting
def usage(
    session: Session, by: str | None, since: str | None, until: str | None, limit: int | None, as_csv: bool
) -> None:
    """Show what was called, what it cost and which purse paid."""
    if as_csv and session.out.as_json:
        raise click.UsageError("--csv and --json exclude each other.")
    client, query = session.account()
    asked = {**query, "group_by": by, "from": since, "to": until, "limit": limit}
    if as_csv:
        reply = _own(session, lambda: client.call("GET", "/v1/account/usage", query={**asked, "format": "csv"}))
        session.out.raw(reply.body.decode("utf-8", "replace"))
        return
    with session.out.busy("Adding up …"):
        read = _own(session, lambda: client.get("/v1/account/usage", **asked))
    session.out.document(read, lambda out: draw_usage(out, read, by))


def draw_usage(out: Output, read: Any, by: str | None) -> None:
    rows = items(read)
    if not rows:
        out.say("No calls yet. Try: freehold chat 'Hello'")
    elif by is not None:
        out.table(
            (by, ">calls", ">input", ">output", ">cost USD", "paid by"),
            [
                (
                    _group(row, by),
                    str(row.get("calls", "")),
                    _units(row, *_INPUTS),
                    _units(row, *_OUTPUTS),
                    str(row["cost"]),
                    _paid(row),
                )
                for row in rows
            ],
        )
    else:
        out.table(
            ("time (UTC)", "receipt", "model", ">input", ">output", ">cost USD", "paid by"),
            [
                (
                    str(row["at"]).removesuffix("Z").replace("T", " "),
                    str(row.get("request_id", "")),
                    str(row.get("model", "")),
                    _units(row, *_INPUTS),
                    _units(row, *_OUTPUTS),
                    str(row["cost"]),
                    _paid(row),
                )
                for row in rows
            ],
        )


_INPUTS = ("input", "cached_input", "cache_write", "cache_write_1h", "input_audio", "cached_audio")
_OUTPUTS = ("output", "reasoning", "output_audio")


def _units(row: dict[str, Any], *names: str) -> str:
    used = row.get("usage") or {}
    return str(sum(int(used.get(name, 0)) for name in names))


def _group(row: dict[str, Any], by: str) -> str:
    if by == "day":
        return str(row["group"])[:10]
    if by == "hour":
        return str(row["group"])[:16].replace("T", " ")
    return f"{row['group']} {row['key_name']}" if row.get("key_name") else str(row["group"])


def _paid(row: dict[str, Any]) -> str:
    """The purses of a row; with amounts when there are several."""
    purses: dict[str, str] = dict(
        row.get("by_source") or {leg["source"]: leg["amount"] for leg in row.get("legs") or ()}
    )
    return ", ".join(f"{name} {amount}" if len(purses) > 1 else name for name, amount in purses.items())


@click.command()
@click.option("--month", metavar="MONTH", help="Such as 2026-11; this month when left out.")
@click.option("--csv", "as_csv", is_flag=True, help="Write CSV to stdout.")
@click.option("--html", "page", metavar="FILE", help="Write a page to open or print; '-' is stdout.")
@click.option("--receipts", is_flag=True, help="Write the bill with all its receipts as JSON, for `verify --bill`.")
@acting
def bill(session: Session, month: str | None, as_csv: bool, page: str | None, receipts: bool) -> None:
    """Show a month's bill: balances, top-ups, and charges by day, model, key and purse."""
    from pathlib import Path

    if as_csv + session.out.as_json + (page is not None) + receipts > 1:
        raise click.UsageError("--csv, --html, --json and --receipts exclude each other.")
    client, query = session.account()
    asked = {**query, "month": month}
    if as_csv or page is not None:
        asked["format"] = "csv" if as_csv else "html"
        reply = _own(session, lambda: client.call("GET", "/v1/account/bill", query=asked))
        if page in (None, "-"):
            session.out.raw(reply.body.decode("utf-8", "replace"))
            return
        Path(str(page)).write_bytes(reply.body)
        session.out.say(f"The bill is in {page}.")
        return
    with session.out.busy("Adding up …"):
        read = _own(session, lambda: client.get("/v1/account/bill", **asked))
    if receipts:
        bill_with_receipts(session, client, query, read)
        return
    session.out.document(read, lambda out: draw_bill(out, read))


def draw_bill(out: Output, read: dict[str, Any]) -> None:
    so_far = "" if read["final"] else " so far"
    out.strong(f"Bill of {read['month']}{so_far}: account {read['account_id']} {read['account_name']}")
    purses = [
        purse for purse in read["purses"] if any(purse[f"{part}_nano"] for part in BILL_PARTS)
    ] or purses_of_nothing(read)
    rows = []
    for part in BILL_PARTS:
        if part == "reversed" and not any(purse["reversed_nano"] for purse in purses):
            continue
        minus = "-" if part in ("used", "expired", "reversed") else ""
        name = f"{part}{so_far}" if part == "closing" else part
        shown = [minus * bool(purse[f"{part}_nano"]) + str(purse[part]) for purse in purses]
        rows.append((name, *shown))
    out.table(("USD", *(f">{purse['source']}" for purse in purses)), rows)
    if read["top_ups"]:
        out.table(
            ("top-up (UTC)", "transaction", ">USD"),
            [(_second(row["at"]), str(row["transaction"] or row["reference"]), str(row["amount"]))
             for row in read["top_ups"]],
        )  # fmt: skip
    for by in ("day", "model", "key", "purse"):
        groups = read[f"by_{by}"]
        if groups:
            out.table(
                (by, ">calls", ">USD"), [(_group(row, by), str(row["calls"]), str(row["cost"])) for row in groups]
            )
    facts = [
        ("used" + so_far, f"{usd(read['used'])} in {read['calls']} calls"),
        ("balance" + so_far, usd(read["closing"])),
    ]
    for row in read["absorbed_by_cause"]:
        facts.append((f"not billed ({row['cause']})", f"{usd(row['amount'])}, borne by the operator"))
    out.facts(facts)


BILL_PARTS = ("opening", "granted", "used", "expired", "reversed", "closing")


def purses_of_nothing(read: dict[str, Any]) -> list[dict[str, Any]]:
    """The purses that an empty bill shows."""
    return [purse for purse in read["purses"] if purse["source"] in ("allowance", "prepaid")]


def _second(moment: Any) -> str:
    return str(moment).removesuffix("Z").replace("T", " ")


@click.command()
@click.argument("request_id", metavar="ID")
@acting
def receipt(session: Session, request_id: str) -> None:
    """Show the record of one call: its cost, its tokens and which grants bore it.

    Into a file (`freehold receipt ID > FILE`) it writes the signed receipt, which `freehold verify FILE` takes; its
    proof is in it once the call's day is closed.
    """
    client, query = session.account()
    read = _own(session, lambda: client.get(f"/v1/account/receipts/{segment(request_id)}", **query))
    if not signed_file(session, read):
        session.out.document(read, lambda out: draw_receipt(out, read))


def draw_receipt(out: Output, read: dict[str, Any]) -> None:
    legs = ", ".join(f"{leg['amount']} from {leg['source']} (grant {leg['grant_id']})" for leg in read["legs"])
    rows = [
        ("receipt", str(read["request_id"])),
        ("time", when(read["at"])),
        ("charged to", str(read["day"])),
        ("key", f"{read['key_id']} {read['key_name']}"),
        ("model", str(read["model"])),
        ("usage", ", ".join(f"{count} {unit}" for unit, count in read["usage"].items())),
        ("cost", f"{usd(read['cost'])} at version {read['price_version']} of the price book"),
        ("paid by", legs or "nobody"),
        ("held before", usd(read["held"])),
        ("outcome", str(read["outcome"]) + (" (usage estimated by the stated rule)" if read["estimated"] else "")),
    ]
    if read["absorbed_nano"]:
        rows.append(("borne by the operator", usd(read["absorbed"])))
    out.facts(rows)


# --- keys -------------------------------------------------------------------------------------------------------------


@click.group()
def keys() -> None:
    """Create, list, change and revoke API keys."""


@keys.command("create")
@click.argument("name")
@click.option("--scope", "scopes", multiple=True, type=click.Choice(["inference", "read", "admin"]), help="Repeatable.")
@click.option("--model", "models", multiple=True, metavar="ID", help="Only this model. Repeatable.")
@click.option("--expires", metavar="TIME", help="When it ends, such as 2026-12-31T00:00:00Z.")
@click.option("--day-cap", metavar="USD", help="The most that it may spend in a UTC day.")
@click.option("--month-cap", metavar="USD", help="The most that it may spend in a calendar month, UTC.")
@click.option("--total-cap", metavar="USD", help="The most that it may ever spend.")
@click.option("--rpm", type=PER_MINUTE, metavar="N", help="The most requests in any 60 seconds.")
@click.option("--tpm", type=PER_MINUTE, metavar="N", help="The most tokens in any 60 seconds.")
@acting
def keys_create(
    session: Session,
    name: str,
    scopes: tuple[str, ...],
    models: tuple[str, ...],
    expires: str | None,
    **limits: str | None,
) -> None:
    """Create an API key; its secret is shown this once."""
    wanted: dict[str, Any] = {"name": name, **_limits(models, expires, limits)}
    if scopes:
        wanted["scopes"] = list(scopes)
    client, query = session.account()
    made = _own(session, lambda: client.post("/v1/account/keys", wanted, **query))

    def draw(out: Output) -> None:
        out.say(str(made["secret"]))
        out.remark(f"Key {made.get('id', made.get('key', {}).get('id', ''))} ({name}). Keep it: it is not shown again.")

    session.out.document(made, draw)


@keys.command("list")
@acting
def keys_list(session: Session) -> None:
    """List the account's keys, their limits and what they have spent."""
    client, query = session.account()
    read = _own(session, lambda: client.get("/v1/account/keys", **query))

    def draw(out: Output) -> None:
        out.table(
            (
                "id",
                "name",
                "begins",
                "scopes",
                "models",
                ">day cap",
                ">month cap",
                ">total cap",
                ">rpm",
                ">tpm",
                ">used",
                "ends",
                "state",
            ),
            [
                (
                    str(row["id"]),
                    str(row["name"]),
                    str(row.get("prefix", "")),
                    ", ".join(row.get("scopes") or ()),
                    ", ".join(row.get("models") or ()) or "all",
                    str(row.get("day_cap_usd") or "-"),
                    str(row.get("month_cap_usd") or "-"),
                    str(row.get("total_cap_usd") or "-"),
                    str(row.get("rpm") or "-"),
                    str(row.get("tpm") or "-"),
                    str(row.get("total_used_usd", row.get("total_used", ""))),
                    when(row.get("expires_at")),
                    "revoked" if row.get("revoked_at") else str(row.get("state", "active")),
                )
                for row in items(read)
            ],
        )

    session.out.document(read, draw)


@keys.command("update")
@click.argument("key_id", metavar="ID")
@click.option("--name", help="Another name.")
@click.option(
    "--model", "models", multiple=True, metavar="ID", help="Only this model; 'none' for all again. Repeatable."
)
@click.option("--expires", metavar="TIME", help="When it ends; 'none' for never.")
@click.option("--day-cap", metavar="USD", help="The most that it may spend in a UTC day; 'none' for no cap.")
@click.option("--month-cap", metavar="USD", help="The most in a calendar month, UTC; 'none' for no cap.")
@click.option("--total-cap", metavar="USD", help="The most that it may ever spend; 'none' for no cap.")
@click.option("--rpm", type=PER_MINUTE, metavar="N", help="The most requests in any 60 seconds; 'none' for no limit.")
@click.option("--tpm", type=PER_MINUTE, metavar="N", help="The most tokens in any 60 seconds; 'none' for no limit.")
@acting
def keys_update(
    session: Session,
    key_id: str,
    name: str | None,
    models: tuple[str, ...],
    expires: str | None,
    **limits: str | None,
) -> None:
    """Change a key's name, models, end, caps or rates; it holds from the next request on."""
    changes = _limits(models, expires, limits) | ({"name": name} if name else {})
    if not changes:
        raise click.UsageError("Say what to change: --name, --model, --expires, a cap, --rpm or --tpm.")
    client, query = session.account()
    path = f"/v1/account/keys/{segment(key_id)}"
    made = _own(session, lambda: client.call("PATCH", path, body=changes, query=query)).json()
    session.out.document(made, lambda out: out.say(f"Key {key_id} is changed."))


@keys.command("revoke")
@click.argument("key_id", metavar="ID")
@acting
def keys_revoke(session: Session, key_id: str) -> None:
    """Revoke a key; its next request is refused."""
    client, query = session.account()
    reply = _own(session, lambda: client.call("DELETE", f"/v1/account/keys/{segment(key_id)}", query=query))
    read = reply.json() if reply.body else {"id": key_id, "state": "revoked"}
    session.out.document(read, lambda out: out.say(f"Key {key_id} is revoked."))


@keys.command("show")
@acting
def keys_show(session: Session) -> None:
    """Print the key that this command line calls with, for a script or a curl."""
    key = session.calling_key()
    session.out.document({"api_key": key, "url": session.url}, lambda out: out.say(key))


def _limits(models: tuple[str, ...], expires: str | None, limits: Mapping[str, str | None]) -> dict[str, Any]:
    """The request's fields for what was given; `limits` are the options day_cap, month_cap, total_cap, rpm, tpm."""
    from freehold.money import format_usd, parse_usd

    wanted: dict[str, Any] = {}
    if models:
        wanted["models"] = None if models == (NONE,) else list(models)
    if expires is not None:
        wanted["expires_at"] = None if expires == NONE else expires
    for name, limit in limits.items():
        if limit is None:
            continue
        if name.endswith("_cap"):
            wanted[f"{name}_usd"] = None if limit == NONE else format_usd(parse_usd(limit))
        else:
            wanted[name] = None if limit == NONE else int(limit)
    return wanted


# --- signing in -------------------------------------------------------------------------------------------------------


@click.command()
@click.option("--from", "name", metavar="NAME", help="A wallet of the development chain, such as alice.")
@with_keystore
def login(session: Session, name: str | None) -> None:
    """Sign in with a wallet (EIP-4361) and act as its account from now on."""
    from freehold.cli.signing import sign_in

    if session.keystore is not None:
        name = session.keystore.name
        unlock(session)
    if name is None:
        raise click.UsageError("Say who signs in: --from NAME, such as --from alice, or --wallet FILE.")
    with session.out.busy(f"Signing in as {name} …"):
        made = sign_in(session, name)
    session.credentials.use(session.url, name)
    document = {
        "name": made.name,
        "account_id": made.account_id,
        "address": made.address,
        "expires_at": made.expires_at,
        "url": session.url,
    }
    session.out.document(
        document,
        lambda out: out.say(
            f"Signed in as {made.name} ({made.address}), account {made.account_id}, until {when(made.expires_at)}."
        ),
    )


@click.command()
@click.option("--from", "name", metavar="NAME", help="Whose login; the current one when left out.")
@common
def logout(session: Session, name: str | None) -> None:
    """End a login, on the server and here."""
    name = name or session.credentials.current(session.url)
    kept = session.logins().get(name) if name else None
    if name is None:
        raise Refusal(f"You are not signed in at {session.url}; `freehold login --from NAME` signs in.")
    if kept is None:
        raise Refusal(f"{name} is not signed in at {session.url}; `freehold whoami` tells who is.")
    try:
        session.client.bearing(kept.token).post("/v1/auth/logout")
    except ServerRefused as refused:
        if refused.status != 401:
            raise
    session.credentials.forget(session.url, name)
    session.out.document({"name": name, "signed_in": False}, lambda out: out.say(f"{name} is signed out."))


@click.command()
@acting
def whoami(session: Session) -> None:
    """Show as which account commands act, and who else has signed in."""
    acts = session.acting()
    client = session.client.bearing(acts.token)
    read = _own(session, lambda: client.get("/v1/account", **acts.query()))
    others = sorted(set(session.logins()) | ({OPERATOR_ACCOUNT} if session.local else set()))
    document = {"acting_as": acts.name, "account": read, "known": others, "url": session.url}

    def draw(out: Output) -> None:
        out.facts(
            [
                ("acting as", acts.name),
                ("account", f"{read.get('id')} {read.get('name', '')} ({read.get('kind', '')})"),
                ("address", str(read.get("address", ""))),
                ("known here", ", ".join(others) or "nobody else"),
                ("server", session.url),
            ]
        )

    session.out.document(document, draw)


@click.group()
def account() -> None:
    """Choose the account that commands act as."""


@account.command("use")
@click.argument("name")
@common
def account_use(session: Session, name: str) -> None:
    """Act as NAME from now on: a login's name, 'default', or with the operator's token an account's id."""
    session.account_name = name
    acts = session.acting()
    _own(session, lambda: session.client.bearing(acts.token).get("/v1/account", **acts.query()))
    session.credentials.use(session.url, None if name == OPERATOR_ACCOUNT else name)
    session.out.document({"name": name}, lambda out: out.say(f"Commands now act as {name}."))


# --- parts ------------------------------------------------------------------------------------------------------------


def _own(session: Session, work: Any) -> Any:
    """Do `work`; when the token is no longer taken and it is a login's, say how to log in again."""
    try:
        return work()
    except ServerRefused as refused:
        name = session.acting().name
        if name in session.logins():
            raise ended(refused, name) from None
        raise
