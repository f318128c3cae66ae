"""Receipts as files, and checking them against the chain alone."""

import asyncio
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from freehold.cli.output import Output
from freehold.cli.refusal import Refusal
from freehold.cli.session import Session, common

if TYPE_CHECKING:
    from freehold.receipts.model import Receipt
    from freehold.receipts.verifying import OnChain, Pinned


@click.command()
@click.argument(
    "file", required=False, metavar="RECEIPT", type=click.Path(path_type=Path, dir_okay=False, allow_dash=True)
)
@click.option(
    "--bill",
    "bill",
    metavar="FILE",
    type=click.Path(path_type=Path, dir_okay=False, allow_dash=True),
    help="What `freehold bill --receipts` wrote: whether the receipts come to the bill.",
)
@click.option("--rpc", "rpc_url", envvar="FREEHOLD_RPC_URL", metavar="URL",
              help="A node of the chain; that of the server on this machine when left out. [env: FREEHOLD_RPC_URL]")  # fmt: skip
@click.option(
    "--deployment",
    envvar="FREEHOLD_DEPLOYMENT",
    metavar="FILE",
    type=click.Path(path_type=Path, dir_okay=False),
    help="The deployment file that pins chain, contracts and operator; that in the data folder when left out. "
    "[env: FREEHOLD_DEPLOYMENT]",
)
@common
def verify(
    session: Session, file: Path | None, bill: Path | None, rpc_url: str | None, deployment: Path | None
) -> None:
    """Check a receipt (what `freehold receipt ID > FILE` wrote) against the chain, without asking its server.

    Chain, book, vault and operator are taken from the deployment file, never from the receipt. Exit code 1 when
    anything about it isn't so, with the reason.
    """
    if (file is None) == (bill is None):
        raise click.UsageError("Name a receipt's file, or a bill's with --bill.")
    chosen = _read(file or bill or Path())
    pinned = _pinned(session, deployment)
    node = rpc_url or _local_node(session)
    if bill is not None:
        _verify_bill(session, pinned, node, chosen)
        return
    if not session.out.as_json:
        _show_pinned(session.out, pinned)
    with session.out.busy("Asking the chain …"):
        chain, receipt = asyncio.run(_check_one(pinned, node, _signed(chosen)))
    session.out.document(
        {"verified": True, "pinned": _pinned_facts(pinned), "signer": chain.signer, "receipt": _signed(chosen)},
        lambda out: out.say(_sentence(receipt)),
    )


def signed_file(session: Session, read: dict[str, Any]) -> bool:
    """Write the receipt's file, when stdout goes into one; whether that was so."""
    if session.out.as_json or sys.stdout.isatty() or read.get("signed") is None:
        return False
    session.out.raw(json.dumps(read["signed"], indent=2, ensure_ascii=False) + "\n")
    return True


def bill_with_receipts(session: Session, client: Any, query: dict[str, object], bill: dict[str, Any]) -> None:
    """Write a bill with all its receipts, for `verify --bill`."""
    found: list[Any] = []
    cursor = None
    with session.out.busy("Fetching receipts …"):
        while True:
            asked = {**query, "month": bill["month"], "limit": 200, "cursor": cursor}
            page = client.get("/v1/account/receipts", **asked)
            found += page["data"]
            cursor = page["next_cursor"]
            if cursor is None:
                break
    session.out.raw(json.dumps({"bill": bill, "receipts": found}, indent=1, ensure_ascii=False) + "\n")


async def _check_one(pinned: "Pinned", node: str, document: object) -> "tuple[OnChain, Receipt]":
    from freehold.chain.rpc import Rpc
    from freehold.receipts import verifying

    async with Rpc(node) as rpc:
        chain = await verifying.chain_of(rpc, pinned)
        return chain, await verifying.verify(rpc, pinned, chain, document)


def _verify_bill(session: Session, pinned: "Pinned", node: str, chosen: Any) -> None:
    if not isinstance(chosen, dict) or not isinstance(chosen.get("receipts"), list) or "bill" not in chosen:
        raise Refusal("That is no bill with receipts: write one with `freehold bill --receipts > FILE`.")
    if not session.out.as_json:
        _show_pinned(session.out, pinned)
    with session.out.busy("Asking the chain …"):
        proven, signed_only = asyncio.run(_check_bill(pinned, node, chosen["bill"], chosen["receipts"]))

    def draw(out: Output) -> None:
        out.say(
            f"The bill of {chosen['bill']['month']} is right: its {proven + signed_only} receipts come to "
            f"{chosen['bill']['used']} USD. {proven} are proven by the chain."
        )
        if signed_only:
            out.say(f"{signed_only} are signed, and of days that aren't published yet.")

    session.out.document(
        {"verified": True, "pinned": _pinned_facts(pinned), "proven": proven, "signed_only": signed_only}, draw
    )


async def _check_bill(pinned: "Pinned", node: str, bill: Any, documents: list[Any]) -> tuple[int, int]:
    """How many receipts the chain proves, and how many only their signature."""
    from freehold.chain.rpc import Rpc
    from freehold.receipts import verifying
    from freehold.receipts.problems import BillDoesNotSum, NotClosed, NotPublished

    receipts: list[Receipt] = []
    roots: dict[int, bytes] = {}
    signed_only = 0
    async with Rpc(node) as rpc:
        chain = await verifying.chain_of(rpc, pinned)
        for document in documents:
            try:
                receipts.append(await verifying.verify(rpc, pinned, chain, document, roots=roots))
            except (NotClosed, NotPublished):
                if bill.get("final"):
                    raise
                signed_only += 1
                receipts.append(verifying.claimed(document))
    try:
        verifying.require_sums(bill, receipts)
    except (KeyError, TypeError):
        raise BillDoesNotSum(reason="the bill isn't one as `freehold bill --json` writes it") from None
    return len(receipts) - signed_only, signed_only


def _read(path: Path) -> Any:
    try:
        text = sys.stdin.read() if str(path) == "-" else path.read_text("utf-8")
    except UnicodeDecodeError:
        raise Refusal(f"{path} is not a text.") from None
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise Refusal(f"{path} is not JSON: a receipt's file is what `freehold receipt ID > FILE` wrote.") from None


def _signed(document: Any) -> Any:
    """The signed receipt of a file: it alone, or the API's answer around it."""
    return document["signed"] if isinstance(document, dict) and isinstance(document.get("signed"), dict) else document


def _pinned(session: Session, chosen: Path | None) -> "Pinned":
    from freehold.chain import deployments
    from freehold.receipts.verifying import Pinned

    if chosen is None:
        if session.local is None:
            raise Refusal("Say with --deployment which file pins chain, contracts and operator.")
        chosen = session.local.data / "deployment.toml"
    return Pinned(deployments.load(chosen), str(chosen))


def _local_node(session: Session) -> str:
    """The node that the server on this machine uses."""
    if session.local is not None:
        try:
            kept = json.loads((session.local.data / "credentials.json").read_text("utf-8"))
            return str(kept["rpc_url"])
        except (OSError, ValueError, KeyError):
            pass
    raise Refusal("Say with --rpc which node of the chain to ask.")


def _pinned_facts(pinned: "Pinned") -> dict[str, Any]:
    domain = pinned.domain()
    return {
        "file": pinned.file,
        "chain_id": domain.chain_id,
        "book": domain.book,
        "vault": pinned.deployment.contracts["vault"],
        "operator": domain.operator,
    }


def _show_pinned(out: Output, pinned: "Pinned") -> None:
    facts = _pinned_facts(pinned)
    out.say(f"Pinned by {facts.pop('file')}:")
    out.facts([(name.replace("_id", ""), str(value)) for name, value in facts.items()])


def _sentence(receipt: "Receipt") -> str:
    from freehold.clock import Day
    from freehold.money import format_usd

    return (
        f"The receipt req_{receipt.request_id.hex} is right: {format_usd(receipt.cost_nano)} USD for {receipt.model}, "
        f"charged to {Day(receipt.day)}, signed by the operator and in the root of that day on the chain."
    )
