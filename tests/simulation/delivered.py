"""The gateway's laws: the books against what clients were told and what upstreams did."""

from collections import Counter
from typing import TYPE_CHECKING, Any

from . import laws
from .gateway import LIES, NOT_SETTLED, REPORTED_INPUT, RULE_INPUT, cost_nano

if TYPE_CHECKING:
    from .gateway import GatewayWorld, Sent

Row = dict[str, Any]

BILL = "a bill is what was reported, or the rule"
NOTHING = "nothing delivered, nothing charged"
DURABLE = "what was told is durable"


def final(world: "GatewayWorld") -> None:
    """When everything is over."""
    books = laws.checkpoint(world)
    for row in books["holds"]:
        if row["state"] == "open":
            world.breaks("no hold leaks", f"{row['request_id']} of epoch {row['epoch']} was never swept")
    for account in world.accounts:
        laws.grants_are_what_was_posted(world, books, account)
    laws.only_the_silent_are_swept(world, books)
    laws.one_charge_for_a_key(world, books)
    laws.the_ledger_agrees(world)
    holds = {row["request_id"]: row for row in books["holds"]}
    charges = {row["request_id"]: row for row in books["charges"]}
    asked = {str(sent.id): sent for sent in world.sent}
    for request_id in (set(holds) | set(charges)) - set(asked):
        world.breaks("nothing from nowhere", f"{request_id} was never asked for")
    _once(world, charges)
    for sent in world.sent:
        _told(world, sent, asked, charges)
        charge = charges.get(str(sent.id))
        if charge is not None and charge["outcome"] != "unsettled":
            _billed(world, sent, charge)
        elif charge is None and sent.words() and sent.name() == sent.id:
            world.breaks("what was delivered is charged", f"{sent.id} got {sent.words()[:3]} and has no charge")


def _once(world: "GatewayWorld", charges: dict[str, Row]) -> None:
    """Of the requests that bring one idempotency key, one is charged."""
    charged: Counter[tuple[int, str]] = Counter()
    for sent in world.sent:
        charge = charges.get(str(sent.id))
        if sent.again is not None and charge is not None and charge["outcome"] != "unsettled":
            charged[sent.account.id, sent.again] += 1
    for key, count in charged.items():
        if count > 1:
            world.breaks("an idempotency key is charged once", f"{key}: {count} charges")


def _told(world: "GatewayWorld", sent: "Sent", asked: "dict[str, Sent]", charges: dict[str, Row]) -> None:
    """What the client got, against the books."""
    if sent.status == 200 and sent.revoked:
        world.breaks("the hold call decides", f"{sent.id} was answered to a key known as revoked")
    first = asked.get(str(sent.name()))
    if first is None:
        world.breaks("a repeat gets the first call's answer", f"{sent.id} got the answer of {sent.name()}")
        return
    expected = first.script["chunks"]
    if sent.status == 200 and "".join(sent.words()) != "".join(expected)[: len("".join(sent.words()))]:
        world.breaks("a client gets what its upstream said", f"{sent.id}: {sent.words()}")
    charge = charges.get(str(sent.name()))
    if sent.whole():
        if charge is None or (charge["outcome"] != "unsettled" and charge["cost"] != sent.told_nano()):
            world.breaks(DURABLE, f"{sent.id} was told {sent.told_nano()}, and stands as {charge}")
        elif sent.name() != sent.id and charge["outcome"] == "unsettled":
            world.breaks("a repeat gets the first call's answer", f"{sent.id} was answered by a swept call")
    refused = sent.status >= 400 and NOT_SETTLED.encode() not in b"".join(sent.parts)
    if refused and charge is not None and charge["outcome"] != "unsettled" and sent.name() == sent.id:
        world.breaks(NOTHING, f"{sent.id} was refused with {sent.status} {sent.parts}, and costs {charge['cost']}")


def _billed(world: "GatewayWorld", sent: "Sent", charge: Row) -> None:
    """One charge, against what the upstream did and the rule."""
    seen = world.seen().get(str(sent.id), [])
    chunks = sent.script["chunks"]
    said = max((one.chunks_sent for one in seen), default=0)
    usage = charge["usage"]
    name = f"{sent.id} ({charge['outcome']}, {sent.script}, {said} of {len(chunks)} said)"
    total = charge["cost"] + charge["absorbed"]
    if total != cost_nano(charge["price_version"], world.token_nano, usage):
        world.breaks("no precision is lost", f"{name}: {total} for {usage}")
    if not seen:
        world.breaks(NOTHING, f"{name} was asked of no upstream, and costs {total}")
    lies = "usage" in sent.script and sent.script["usage"] in LIES
    if not charge["estimated"]:
        if lies or usage != {"input": REPORTED_INPUT, "output": len(chunks)}:
            world.breaks(BILL, f"{name}: {usage} was never reported")
        return
    # The upstream counts a word when it is asked for the next one, which a call that was cut short never did.
    cut = charge["outcome"] in ("deadline", "disconnected")
    if said == 0 and chunks and sent.stream and not cut:
        world.breaks(NOTHING, f"{name} costs {total}")
    if usage["input"] != RULE_INPUT:
        world.breaks(BILL, f"{name}: the rule counts {RULE_INPUT} of input, not {usage['input']}")
    if sent.stream:
        got = len(sent.words())
        if cut:
            said = min(said + 1, len(chunks))
        most = sent.most if sent.most is not None else 64
        if not min(got, most) <= usage["output"] <= min(said, most):
            world.breaks(BILL, f"{name}: {got} were delivered, {said} were said, and {usage['output']} are billed")
        if not (sent.gone_early or cut) and usage["output"] != min(said, most):
            world.breaks(BILL, f"{name}: all {said} were delivered, and {usage['output']} are billed")
    elif charge["outcome"] == "complete" and usage["output"] != min(-(-len("".join(chunks)) // 4), sent.most or 64):
        world.breaks(BILL, f"{name}: a quarter of {len(''.join(chunks))} bytes is not {usage['output']}")
