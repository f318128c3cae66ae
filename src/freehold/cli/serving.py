"""Commands about the server: start it, see how it is, see its models."""

from typing import Any

import click

from freehold.cli.calling import model_kind
from freehold.cli.output import Output, when
from freehold.cli.session import Session, acting, common, items


@click.command()
def up() -> None:
    """Start everything in the foreground."""


@click.command()
@common
def status(session: Session) -> None:
    """Show whether the server runs, its ledger time, its chain and its models."""
    read = session.client.get("/v1/status")
    chain = session.client.get("/v1/chain")
    document = {"url": session.url, "status": read, "chain": chain}

    def draw(out: Output) -> None:
        rows = [("server", session.url)]
        for name, value in read.items():
            rows.append((name.replace("_", " "), _shown(name, value)))
        for name, value in chain.items():
            if name not in read:
                rows.append(
                    (
                        f"chain {name.replace('_', ' ')}" if name in ("head", "confirmed") else name.replace("_", " "),
                        _shown(name, value),
                    )
                )
        out.facts(rows)

    session.out.document(document, draw)


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
