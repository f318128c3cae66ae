"""Who has a part in an account: list, add, change, remove."""

from typing import Any

import click

from freehold.cli.output import Output
from freehold.cli.refusal import Refusal
from freehold.cli.session import Session, acting, items

ROLES = ("owner", "member", "viewer")


@click.group()
def members() -> None:
    """Let others use the account: owners do all, members call and have keys, viewers read."""


@members.command("list")
@acting
def members_list(session: Session) -> None:
    """List who has a part in the account."""
    client, query = session.account()
    _show(session, client.get("/v1/account/members", **query))


@members.command("add")
@click.argument("address", metavar="ADDRESS")
@click.option("--role", type=click.Choice(ROLES), default="member", show_default=True, help="What they may do.")
@click.option("--name", metavar="TEXT", help="What to call a wallet that has not been here before.")
@acting
def members_add(session: Session, address: str, role: str, name: str | None) -> None:
    """Give a wallet's holder a part in the account, or another role. Who becomes a viewer loses their keys."""
    client, query = session.account()
    asked = {"address": address, "role": role, **({"name": name} if name else {})}
    made = client.post("/v1/account/members", asked, **query)
    session.out.document(made, lambda out: out.say(f"{made['name']} ({made['address']}) is {_a(made['role'])} now."))


@members.command("remove")
@click.argument("who", metavar="WHO")
@acting
def members_remove(session: Session, who: str) -> None:
    """End a member's part, and revoke the keys they made. WHO is an address, a name or an id of `members list`."""
    client, query = session.account()
    user_id = _user(items(client.get("/v1/account/members", **query)), who)
    left = client.call("DELETE", f"/v1/account/members/{user_id}", query=query).json()
    _show(session, left)


def _user(known: list[dict[str, Any]], who: str) -> int:
    """The id of who is meant. Raises Refusal for nobody, and for several of one name."""
    wanted = who.lower()
    found = [
        int(row["user_id"])
        for row in known
        if wanted in (str(row["user_id"]), str(row.get("address")).lower(), str(row["name"]).lower())
    ]
    if len(found) == 1:
        return found[0]
    if found:
        raise Refusal(
            f"{len(found)} members are called {who}; name one by address, or by id: see `freehold members list`."
        )
    names = ", ".join(str(row["name"]) for row in known) or "nobody"
    raise Refusal(f"{who} is no member of this account; its members: {names}.")


def _show(session: Session, read: Any) -> None:
    rows = items(read)

    def draw(out: Output) -> None:
        if not rows:
            out.say("Nobody has a part in this account but the operator.")
            return
        out.table(
            (">id", "name", "role", "address"),
            [(str(row["user_id"]), str(row["name"]), str(row["role"]), str(row.get("address") or "")) for row in rows],
        )

    session.out.document(read, draw)


def _a(role: str) -> str:
    return f"an {role}" if role[0] in "aeiou" else f"a {role}"
