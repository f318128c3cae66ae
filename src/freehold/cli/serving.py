"""Commands about the server: start it, see how it is, see its models."""

from typing import Any

import click

from freehold.cli.calling import model_kind
from freehold.cli.output import Output, when
from freehold.cli.refusal import Refusal
from freehold.cli.session import Session, acting, common, items


class WrongSetting(Refusal):
    """The server can't be started as it is asked to."""

    exit_code = 2


@click.command()
@click.option("--data", metavar="DIR", help="Where everything is kept.")
@click.option("--host", metavar="ADDRESS", help="Address to listen on; 127.0.0.1 when left out.")
@click.option(
    "--port", type=click.IntRange(0, 65_535), help="Port to listen on; 8402 when left out, 0 takes a free one."
)
@click.option("--workers", type=click.IntRange(1, 64), help="Worker processes; 1 when left out.")
@click.option("--no-model", is_flag=True, help="Start without the embedded model; a scripted one answers.")
@click.option(
    "--defi",
    is_flag=True,
    help="With Uniswap v3 and Morpho Blue on the development chain; shows the licences of what it fetches, and agrees.",
)
def up(data: str | None, host: str | None, port: int | None, workers: int | None, no_model: bool, defi: bool) -> None:
    """Start everything in the foreground; Ctrl-C stops it. Settings: docs/reference/settings.md."""
    from freehold.app.settings import SettingsError, load

    chosen = {
        "data": data,
        "host": host,
        "port": port,
        "workers": workers,
        "no_model": no_model or None,
        "defi": defi or None,
    }
    try:
        settings = load(overrides=chosen)
    except SettingsError as wrong:
        raise WrongSetting(str(wrong)) from None
    from freehold.app.up import up as run

    click.get_current_context().exit(run(settings, again=lambda: load(overrides=chosen)))


@click.command()
@common
def reload(session: Session) -> None:
    """Take up changed upstreams without a restart; a broken file is refused and the old one stays. Needs the operator's token."""
    read = session.operator().post("/v1/admin/reload", {})
    session.out.document(read, lambda out: out.say(str(read["message"])))


@click.command()
@common
def status(session: Session) -> None:
    """Show whether the server runs, its ledger time, its chain and its models."""
    read = session.client.get("/v1/status")
    chain = session.client.get("/v1/chain")
    document = {"url": session.url, "status": read, "chain": chain}

    def draw(out: Output) -> None:
        rows = [("server", session.url)]
        rows += [
            (name.replace("_", " "), _shown(name, value))
            for name, value in read.items()
            if name not in ("url", "health")
        ]
        rows += [(f"upstream {upstream['name']}", _health(upstream)) for upstream in read.get("health", [])]
        rows += [
            (name.replace("_", " "), _shown(name, value))
            for name, value in chain.items()
            if name not in read and name != "contracts"
        ]
        rows += [(f"contract {name}", address) for name, address in chain["contracts"].items()]
        out.facts(rows)

    session.out.document(document, draw)


def _health(upstream: dict[str, Any]) -> str:
    """How an upstream fares, in words."""
    circuit = {"closed": "takes calls", "open": "is left alone for a while", "half_open": "is tried again"}
    failed = f", failed {upstream['failures']} times in a row" if upstream["failures"] else ""
    return f"{circuit.get(upstream['circuit'], upstream['circuit'])}{failed}, {upstream['running']} calls under way"


def _shown(name: str, value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, dict):
        return ", ".join(f"{key} {_shown(key, part)}" for key, part in value.items())
    if isinstance(value, list):
        return ", ".join(_shown(name, part) for part in value) or "none"
    if isinstance(value, str) and (name.endswith("_at") or name in ("time", "ledger_time")):
        return when(value)
    return str(value)


@click.group(invoke_without_command=True)
@acting
def models(session: Session) -> None:
    """List the server's models and their prices; `models install` gets the demo models."""
    if click.get_current_context().invoked_subcommand is not None:
        return
    listed = session.client.bearing(session.calling_key()).get("/v1/models")
    priced = {str(row.get("model", row.get("id"))): row for row in items(session.client.get("/v1/prices"))}

    def draw(out: Output) -> None:
        out.table(
            ("model", "kind", ">context", ">input USD/M", ">output USD/M", ""),
            [
                (
                    str(row["id"]),
                    model_kind(row),
                    str((row.get("freehold") or {}).get("context_tokens", "")),
                    per_million(priced.get(str(row["id"]), {}), "input"),
                    per_million(priced.get(str(row["id"]), {}), "output"),
                    str(priced.get(str(row["id"]), {}).get("label", "")),
                )
                for row in items(listed)
            ],
        )

    session.out.document(listed, draw)


def per_million(price: dict[str, Any], unit: str) -> str:
    """USD per million of a unit; '-' when it has no price."""
    return str(price.get(f"{unit}_usd_per_million", "-"))
