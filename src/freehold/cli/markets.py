"""Where the pools and lending markets are that a command uses, and `freehold dev defi`, which puts them onto the chain."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from freehold.cli.output import Output
from freehold.cli.refusal import Refusal
from freehold.cli.session import Session, common
from freehold.cli.wallets import Wallets

if TYPE_CHECKING:
    from freehold.chain.defi.model import Defi


def defi_of(session: Session, wallets: Wallets) -> "Defi":
    """The protocols of this server's chain. Refused in words where there are none, or where nobody knows of any."""
    from freehold.chain.defi import kept

    data = data_of(session)
    return wallets.look(lambda rpc: kept.find(rpc, wallets.deployment, data))


def data_of(session: Session) -> Path:
    """The data directory of the server that is meant. Raises Refusal when it isn't on this machine."""
    if session.local is None:
        raise Refusal(
            "Where the pools and markets are is kept in the data folder of the server; run it there, or name that folder with --data."
        )
    return session.local.data


@click.command("defi")
@click.option("--yes", is_flag=True, help="Agree to the licences of what is fetched, without being asked.")
@common
def dev_defi(session: Session, yes: bool) -> None:
    """Put Uniswap v3 and Morpho Blue onto the chain, with pools and lending markets, from npm; shows their licences first.

    The second time it only says where everything is. The first moves the chain on by half an hour, which the markets'
    oracles look back over.
    """
    from freehold.chain.defi import kept, packages

    wallets, data, out = Wallets(session), data_of(session), session.out
    standing = wallets.look(lambda rpc: kept.standing(rpc, wallets.deployment, data))
    if standing is None and kept.missing(data):
        out.remark(packages.licences())
        if not yes and not _agreed():
            raise Refusal(
                "Nothing was fetched. `freehold dev defi --yes` agrees to these licences without being asked."
            )
    found, new = wallets.look(lambda rpc: kept.ensure(rpc, wallets.deployment, data, say=out.remark))
    read = document(found, new=new)
    out.document(read, lambda shown: draw(shown, read))


def _agreed() -> bool:
    try:
        return click.confirm("Fetch them, and agree to these licences?", err=True)
    except click.Abort:  # nobody to ask
        click.echo(err=True)
        return False


def document(defi: "Defi", *, new: bool) -> dict[str, Any]:
    """For --json."""
    from dataclasses import asdict

    return {"deployed_now": new, **asdict(defi)}


def draw(out: Output, read: dict[str, Any]) -> None:
    out.say("Uniswap v3 and Morpho Blue are deployed." if read["deployed_now"] else "They are deployed already.")
    names = ("factory", "router", "positions", "quoter", "morpho", "permit2", "multicall")
    out.facts([(name, read[name]) for name in names])
    out.table(
        ("pool against USDC", ">fee", "address"),
        [(symbol, f"{pool['fee'] / 10_000:g} %", pool["address"]) for symbol, pool in read["pools"].items()],
    )
    out.table(
        ("market that lends USDC against", ">up to", "id"),
        [(symbol, f"{market['lltv'] / 10**16:g} %", market["id"]) for symbol, market in read["markets"].items()],
    )
