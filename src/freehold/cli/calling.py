"""Commands that call models: chat and embed."""

import sys
from contextlib import ExitStack
from typing import Any

import click

from freehold.cli.account import purses_worth_showing
from freehold.cli.chatting import read_purses, speak
from freehold.cli.output import Output
from freehold.cli.refusal import Refusal, ServerRefused
from freehold.cli.session import Session, acting, items


@click.command()
@click.argument("message", required=False)
@click.option("--model", metavar="ID", help="The model; the first chat model of the server when left out.")
@click.option("--system", metavar="TEXT", help="Instructions that go before the message.")
@click.option(
    "--max-tokens", type=click.IntRange(min=1), help="The longest answer; what it may cost is held beforehand."
)
@acting
def chat(session: Session, message: str | None, model: str | None, system: str | None, max_tokens: int | None) -> None:
    """Ask a model; the answer streams, then its cost and the purse that paid. Reads stdin without MESSAGE."""
    asked = message if message is not None and message != "-" else read_stdin()
    messages = [{"role": "system", "content": system}] if system else []
    messages.append({"role": "user", "content": asked})
    client = session.client.bearing(session.calling_key())
    out = session.out

    def show(piece: str) -> None:
        waiting.close()
        if out.as_json:
            out.line({"object": "text", "text": piece})
        else:
            out.raw(piece)

    with ExitStack() as waiting:
        waiting.enter_context(out.busy("Waiting for the answer …"))
        wanted = model or first_model(session, "chat")
        spoken = speak(client, model=wanted, messages=messages, max_tokens=max_tokens, on_text=show)
    if out.as_json:
        out.line(spoken.document())
        return
    out.raw("\n")
    out.remark(bill_line(spoken.cost, spoken.paid_by(), spoken.request_id, what_is_left(session)))


@click.command()
@click.argument("texts", nargs=-1, metavar="TEXT...")
@click.option("--model", metavar="ID", help="The model; the first embedding model of the server when left out.")
@acting
def embed(session: Session, texts: tuple[str, ...], model: str | None) -> None:
    """Turn each TEXT (or stdin) into a vector."""
    asked = list(texts) or [read_stdin()]
    client = session.client.bearing(session.calling_key())
    body = {"model": model or first_model(session, "embedding"), "input": asked}
    with session.out.busy("Embedding …"):
        reply = client.call("POST", "/v1/embeddings", body=body)
    read = reply.json()

    def draw(out: Output) -> None:
        for row, text in zip(items(read), asked, strict=False):
            vector = row.get("embedding") or []
            shown = ", ".join(f"{float(part):.4f}" for part in vector[:4])
            out.say(f"[{shown}, …] {len(vector)} dimensions: {' '.join(text.split())[:60]}")
        purses = read_purses(reply.headers.get("x-freehold-purse", ""))
        out.remark(
            bill_line(
                reply.headers.get("x-freehold-cost"),
                " + ".join(purses) or "nobody (no charge)",
                reply.headers.get("x-request-id", ""),
                what_is_left(session),
            )
        )

    session.out.document(read, draw)


def read_stdin() -> str:
    """All of stdin as text. Raises UsageError when it is a terminal, and when there is nothing."""
    if sys.stdin.isatty():
        raise click.UsageError("Give a text, or pipe one in.")
    text = sys.stdin.buffer.read().decode("utf-8", "replace")
    if not text.strip():
        raise click.UsageError("Give a text: stdin is empty.")
    return text


def first_model(session: Session, kind: str) -> str:
    """The first model of that kind that the server lists."""
    listed = items(session.client.bearing(session.calling_key()).get("/v1/models"))
    for row in listed:
        if model_kind(row) == kind:
            return str(row["id"])
    raise Refusal(
        f"This server has no {kind} model; install the demo models with `freehold models install`, "
        "or configure an upstream (docs/guide/operating.md)."
    )


def model_kind(row: dict[str, Any]) -> str:
    """`chat` or `embedding`, as the model list tells it."""
    return str((row.get("freehold") or {}).get("kind") or "chat")


def what_is_left(session: Session) -> str:
    """'allowance 0.99, prepaid 1.00', read with the key that called; nothing when it may not read."""
    try:
        read = session.client.bearing(session.calling_key()).get("/v1/account/balance")
    except ServerRefused:
        return ""
    return ", ".join(f"{purse['source']} {purse['available']}" for purse in purses_worth_showing(read))


def bill_line(cost: str | None, paid_by: str, request_id: str, left: str) -> str:
    """The line under an answer."""
    parts = [f"{cost or '0.00'} USD from {paid_by}"]
    if left:
        parts.append(f"left: {left}")
    if request_id:
        parts.append(f"receipt {request_id}")
    return "[" + " · ".join(parts) + "]"
