"""The laws of the ledger, checked against what the simulation's own actors were told.

Nothing here uses the ledger's code but `Ledger.check`, which must agree.
"""

import json
from collections import Counter, defaultdict
from datetime import date, datetime, timedelta
from typing import TYPE_CHECKING, Any

from freehold.ledger.ledger import Ledger

if TYPE_CHECKING:
    from .world import Account, Call, World

Row = dict[str, Any]
Books = dict[str, list[Row]]

LAPSE_S = 15
EPOCH = date(1970, 1, 1)
RATE = "a key's limit per minute holds"

BOOKS = """
select json_build_object(
    'accounts', (select json_agg(x order by x.id) from (select id from ledger.accounts) x),
    'keys', (select json_agg(x order by x.account_id, x.key_id) from ledger.keys x),
    'grants', (select json_agg(x order by x.account_id, x.id) from ledger.grants x),
    'holds', (select json_agg(x order by x.account_id, x.request_id) from (
        select h.*, ledger.total(h.rate_counts) as tokens from ledger.holds h
        union all
        select (jsonb_populate_record(h, jsonb_build_object(
            'state', case c.outcome when 'unsettled' then 'expired' else 'settled' end))).*,
               ledger.total(h.rate_counts)
        from sim.ended h join ledger.charges c on c.account_id = h.account_id and c.request_id = h.request_id) x),
    'postings', (select json_agg(x order by x.account_id, x.position) from ledger.postings x),
    'charges', (select json_agg(x order by x.account_id, x.position) from ledger.charges x),
    'rates', (select json_agg(x order by x.account_id, x.key_id) from ledger.rates x),
    'epochs', (select json_agg(x order by x.id) from (
        select id, extract(epoch from lapsed_at) as lapsed, extract(epoch from beat_at) as beat from ledger.epochs) x)
)
"""


def read(world: "World") -> Books:
    """Every table, from one statement's snapshot."""
    books = json.loads(world.server.admin("fetchval", BOOKS))
    return {table: rows or [] for table, rows in books.items()}


def snapshot(world: "World", books: Books | None = None) -> dict[tuple[str, int, str], str]:
    """Each row of the books by its name."""
    found = {}
    for table, name in (("postings", "external_id"), ("charges", "request_id")):
        for row in (books or read(world))[table]:
            found[table, row["account_id"], row[name]] = json.dumps(row, sort_keys=True)
    return found


def checkpoint(world: "World") -> Books:
    """What holds at each moment; the books as read."""
    books = read(world)
    _append_only(world, books)
    _sums(world, books)
    _order(world, books)
    _caps(world, books)
    _rates(world, books)
    return books


def at_rest(world: "World") -> None:
    """With every caller gone and no fault, nothing is held by a worker that lives."""
    epochs = [worker.ledger.epoch for worker in world.alive()]
    held = world.server.admin(
        "fetch", "select request_id from ledger.holds where state = 'open' and epoch = any ($1)", epochs
    )
    for row in held:
        world.breaks("no hold leaks", f"{row['request_id']} is open and nobody has it")
    checkpoint(world)


def final(world: "World") -> None:
    """What holds when everything is over, and whether it is what the actors were told."""
    books = checkpoint(world)
    for row in books["holds"]:
        if row["state"] == "open":
            world.breaks("no hold leaks", f"{row['request_id']} of epoch {row['epoch']} was never swept")
    _calls(world, books)
    for account in world.accounts:
        grants_are_what_was_posted(world, books, account)
    only_the_silent_are_swept(world, books)
    one_charge_for_a_key(world, books)
    the_ledger_agrees(world)


def the_ledger_agrees(world: "World") -> None:
    """`freehold books check` finds nothing."""
    for difference in world.server.now(Ledger(world.server.database).check()):
        world.breaks(f"books check: {difference.law}", f"{difference.subject}: {difference}")


def _append_only(world: "World", books: Books) -> None:
    now = snapshot(world, books)
    for name, text in world.seen_books.items():
        if now.get(name) != text:
            world.breaks("append-only", f"{name} was {text} and is {now.get(name)}")
    world.seen_books = now


def _sums(world: "World", books: Books) -> None:
    grants = {(row["account_id"], row["id"]): row for row in books["grants"]}
    entries: Counter[tuple[int, int]] = Counter()
    issued: Counter[tuple[int, int]] = Counter()
    lost: Counter[tuple[int, int]] = Counter()
    for row in books["postings"]:
        if sum(row["amounts"]) != 0:
            world.breaks("balanced", f"{row['external_id']} sums to {sum(row['amounts'])}")
        for line, grant_id, amount in zip(row["lines"], row["grant_ids"], row["amounts"], strict=True):
            place = row["account_id"], grant_id
            if line.startswith("purse:"):
                entries[place] += amount
                if place not in grants or line != f"purse:{grants[place]['source']}":
                    world.breaks("sources are not mixed", f"{row['external_id']}: {line} of grant {place}")
            elif line.startswith(("issuance:", "cash:")):
                issued[place] -= amount
            elif line == "absorbed:reorg":
                lost[place] -= amount
    for row in books["charges"]:
        if row["cost"] != sum(row["leg_amounts"]):
            world.breaks("balanced", f"charge {row['request_id']}: {row['cost']} of legs {row['leg_amounts']}")
        for source, grant_id, amount in zip(row["leg_sources"], row["leg_grants"], row["leg_amounts"], strict=True):
            place = row["account_id"], grant_id
            entries[place] -= amount
            if place not in grants or source != grants[place]["source"]:
                world.breaks("sources are not mixed", f"charge {row['request_id']}: {source} of grant {place}")
    held: Counter[tuple[int, int]] = Counter()
    for row in books["holds"]:
        if row["state"] == "open":
            for grant_id, amount in zip(row["leg_grants"], row["leg_amounts"], strict=True):
                held[row["account_id"], grant_id] += amount
    for place, row in grants.items():
        if row["available"] < 0 or row["held"] < 0:
            world.breaks("never negative", f"grant {place}: {row['available']} available, {row['held']} held")
        if row["available"] + row["held"] != entries[place]:
            world.breaks(
                "balance = projection", f"grant {place}: {row['available']} + {row['held']} is not {entries[place]}"
            )
        if row["held"] != held[place]:
            world.breaks("balance = projection", f"grant {place}: {row['held']} held, open legs {held[place]}")
        if row["amount"] - row["absorbed"] != issued[place] or row["absorbed"] != lost[place]:
            world.breaks(
                "state rebuilds from entries",
                f"grant {place}: {row['amount']} less {row['absorbed']}; issued {issued[place]}, lost {lost[place]}",
            )
    _keys_rebuild(world, books)


def _keys_rebuild(world: "World", books: Books) -> None:
    used: Counter[tuple[int, int]] = Counter()
    held: Counter[tuple[int, int]] = Counter()
    for row in books["charges"]:
        used[row["account_id"], row["key_id"]] += row["cost"]
    for row in books["holds"]:
        if row["state"] == "open":
            held[row["account_id"], row["key_id"]] += row["amount"]
    for row in books["keys"]:
        key = row["account_id"], row["key_id"]
        if (row["total_used"], row["total_held"]) != (used[key], held[key]):
            world.breaks(
                "state rebuilds from entries",
                f"key {key}: {row['total_used']} used, {row['total_held']} held; is {used[key]} and {held[key]}",
            )


def _order(world: "World", books: Books) -> None:
    """In an account, what was posted later is of a later moment: of the database's clock, and of ledger time."""
    for table in ("postings", "charges"):
        last: dict[int, Row] = {}
        for row in books[table]:
            before = last.get(row["account_id"])
            last[row["account_id"]] = row
            if before is None:
                continue
            if row["written_at"] < before["written_at"]:
                world.breaks("order is monotonic", f"{table} {before['position']}, {row['position']}: written before")
            # Provisional time may have run ahead of the next block's.
            if not world.provisional and row["at_s"] < before["at_s"]:
                world.breaks(
                    "order is monotonic",
                    f"{table} {before['position']}, {row['position']}: {row['at_s']} after {before['at_s']}",
                )


def _caps(world: "World", books: Books) -> None:
    """What a key has used and holds, of a day, a month and in all, is within its caps."""
    days: Counter[tuple[int, int, int]] = Counter()
    months: Counter[tuple[int, int, str]] = Counter()
    totals: Counter[tuple[int, int]] = Counter()
    open_holds = [(row, row["amount"]) for row in books["holds"] if row["state"] == "open"]
    for row, amount in [*((row, row["cost"]) for row in books["charges"]), *open_holds]:
        key = row["account_id"], row["key_id"]
        days[*key, row["day"]] += amount
        months[*key, (EPOCH + timedelta(row["day"])).strftime("%Y-%m")] += amount
        totals[key] += amount
    for account in world.accounts:
        for limits in account.keys.values():
            key = limits.account_id, limits.key_id
            for cap, spent in (
                (limits.day_cap_nano, days),
                (limits.month_cap_nano, months),
                (limits.total_cap_nano, totals),
            ):
                for place, amount in spent.items():
                    if cap is not None and place[:2] == key and amount > cap:
                        world.breaks("a key's cap holds", f"key {place}: {amount} of {cap}")


def _rates(world: "World", books: Books) -> None:
    """In no 60 seconds does a key have more requests or tokens than its limits; its counts are those of its holds."""
    charges = {row["request_id"]: row for row in books["charges"]}
    for account in world.accounts:
        for limits in account.keys.values():
            if limits.rpm is None and limits.tpm is None:
                continue
            held = [
                (datetime.fromisoformat(row["opened_at"]).timestamp(), row, *_tokens(row, world.taken(row, charges)))
                for row in books["holds"]
                if (row["account_id"], row["key_id"]) == (limits.account_id, limits.key_id)
            ]
            name = f"key {limits.account_id}.{limits.key_id}"
            for at, *_ in held:
                window = [one for one in held if at - 60 < one[0] <= at]
                if limits.rpm is not None and len(window) > limits.rpm:
                    world.breaks(RATE, f"{name}: {len(window)} requests of {limits.rpm} in the minute to {at}")
                tokens = sum(least for *_, least, _ in window)
                if limits.tpm is not None and tokens > limits.tpm:
                    world.breaks(RATE, f"{name}: {tokens} tokens of {limits.tpm} in the minute to {at}")
            for row in books["rates"]:
                if (row["account_id"], row["key_id"]) == (limits.account_id, limits.key_id):
                    _counts(world, name, row, held)


def _tokens(row: Row, taken: int | None) -> tuple[int, int]:
    """Of one hold that came to `taken`: the least that it can ever have counted, and what it counts now."""
    bound = row["tokens"] or 0
    if row["state"] != "settled":
        taken = None
    now = 0 if row["state"] == "released" else bound if taken is None else taken
    return (0 if row["step"] else min(bound, now)), now


def _counts(world: "World", name: str, row: Row, held: list[Any]) -> None:
    requests: Counter[int] = Counter(int(at) for at, *_ in held)
    tokens: Counter[int] = Counter()
    for at, *_, now in held:
        tokens[int(at)] += now
    for place, (asked, took) in enumerate(zip(row["requests"], row["tokens"], strict=True)):
        second = row["second"] - place
        if asked != requests[second]:
            world.breaks(RATE, f"{name} counts {asked} requests of second {second}, not {requests[second]}")
        if took != tokens[second] and not any(hold["step"] for _, hold, *_ in held):
            world.breaks(RATE, f"{name} counts {took} tokens of second {second}, not {tokens[second]}")


def _calls(world: "World", books: Books) -> None:
    holds = {row["request_id"]: row for row in books["holds"]}
    charges = {row["request_id"]: row for row in books["charges"]}
    postings = {row["external_id"]: row for row in books["postings"]}
    asked = {str(call.request.request_id) for call in world.calls}
    for request_id in (set(holds) | set(charges)) - asked:
        world.breaks("nothing from nowhere", f"{request_id} was never asked for")
    for call in world.calls:
        request_id = str(call.request.request_id)
        hold, charge = holds.get(request_id), charges.get(request_id)
        if call.refused is not None and not call.unknown:
            if hold is not None or charge is not None:
                world.breaks("what was refused is not applied", f"{request_id} was refused as {call.refused}")
            continue
        if not call.holds:
            _unheard(world, request_id, charge)
            continue
        if hold is None:
            world.breaks("what was told is durable", f"{request_id} was held, and there is no hold")
            continue
        _held(world, call, hold)
        _charged(world, call, hold, charge)
        _owed(world, call, hold, postings.get(f"req:{request_id}:attempts"))


def _unheard(world: "World", request_id: str, charge: Row | None) -> None:
    """Nobody was told of a hold: it costs its account nothing."""
    if charge is not None and (charge["cost"] != 0 or charge["outcome"] != "unsettled"):
        world.breaks("what was refused is not applied", f"{request_id} was charged and its caller never had a hold")


def _held(world: "World", call: "Call", hold: Row) -> None:
    name = call.request.request_id
    if not call.extended and hold["amount"] != call.holds[0].amount_nano:
        world.breaks("what was told is durable", f"{name}: told {call.holds[0].amount_nano}, stands {hold['amount']}")
    if hold["price_version"] < call.known["price"]:
        world.breaks("the hold call decides", f"{name} was held at price {hold['price_version']} after {call.known}")
    if call.known["revoked"] or call.request.key_version < call.known["version"]:
        world.breaks("the hold call decides", f"{name} was held by key {call.request.key_id}, known: {call.known}")
    ends_s = next(
        account.keys[hold["key_id"]].expires_at_s for account in world.accounts if account.id == hold["account_id"]
    )
    if ends_s is not None and hold["at_s"] >= ends_s:
        world.breaks("the hold call decides", f"{name} was held at {hold['at_s']} by a key that ended at {ends_s}")
    lapsed = world.lapsed_known.get(hold["epoch"])
    if lapsed is not None and lapsed < call.began:
        world.breaks("a lapsed worker is fenced", f"{name} was held by epoch {hold['epoch']}, lapsed at step {lapsed}")


def _charged(world: "World", call: "Call", hold: Row, charge: Row | None) -> None:
    name = call.request.request_id
    swept = charge is not None and charge["outcome"] == "unsettled"
    if swept and charge is not None and charge["cost"] != 0:
        world.breaks("a swept call costs nothing", f"{name} cost {charge['cost']}")
    for body, told in call.charges:
        if charge is None or (told.cost_nano, told.absorbed_nano, told.outcome) != (
            charge["cost"], charge["absorbed"], charge["outcome"],
        ):  # fmt: skip
            world.breaks("what was told is durable", f"{name}: told {told}, stands {charge}")
        elif not swept and charge["cost"] + charge["absorbed"] != body.cost_nano:
            world.breaks("no precision is lost", f"{name}: {body.cost_nano} came to {charge['cost']} in {charge}")
    if charge is not None and not swept:
        total = charge["cost"] + charge["absorbed"]
        if total not in {settlement.cost_nano for settlement in call.settlements}:
            world.breaks("what was told is durable", f"{name} was charged {total}, which nobody sent")
        sent = [[one.upstream, one.cost_nano, one.outcome] for one in call.settlements[0].attempts]
        if (charge["attempts"] or []) != sent:
            world.breaks("what upstreams are owed stands", f"{name}: {charge['attempts']}, not {sent}")
        if charge["cost"] < min(total, hold["amount"]):
            world.breaks("no precision is lost", f"{name}: {charge['cost']} of {total} within {hold['amount']}")
    if call.released and charge is not None and not swept:
        world.breaks("what was told is durable", f"{name} was released, and charged")
    given_back = call.release_sent or call.left or call.unknown
    if hold["state"] == "released" and not given_back:
        world.breaks("what was told is durable", f"{name} was given back by nobody")
    if call.charges and hold["state"] not in ("settled", "expired"):
        world.breaks("what was told is durable", f"{name} was charged and is {hold['state']}")


def _owed(world: "World", call: "Call", hold: Row, posting: Row | None) -> None:
    """What the tries of a released call cost is posted once, when that release gave it back."""
    sent = [
        (line, amount)
        for one in call.owed
        if one.cost_nano
        for line, amount in (
            (f"cost:upstream:{one.upstream}", -one.cost_nano),
            (f"payable:upstream:{one.upstream}", one.cost_nano),
        )
    ]
    name = call.request.request_id
    if posting is not None and sorted(zip(posting["lines"], posting["amounts"], strict=True)) != sorted(sent):
        world.breaks("what upstreams are owed stands", f"{name} was released: {posting}, not {sent}")
    others = call.left or call.unknown
    if posting is None and sent and call.released and hold["state"] == "released" and not others:
        world.breaks("what upstreams are owed stands", f"{name} was released, and nothing is owed, not {sent}")


def grants_are_what_was_posted(world: "World", books: Books, account: "Account") -> None:
    """Each grant is what the chain's events made it, once each."""
    rows = {row["external_id"]: row for row in books["grants"] if row["account_id"] == account.id}
    posted = Counter(row["external_id"] for row in books["postings"] if row["account_id"] == account.id)
    for external_id, net in account.net.items():
        row = rows.pop(external_id, None)
        found = None if row is None else row["amount"] - row["absorbed"]
        if found != net:
            world.breaks("a repeat is a no-op", f"{external_id} of account {account.id} is {found}, not {net}")
    for external_id in rows:
        world.breaks("nothing from nowhere", f"grant {external_id} of account {account.id}")
    for issue in account.issues.values():
        count = posted[issue.external_id]
        if count > 1 or (issue.verb == "grant" and count != 1):
            world.breaks("what was told is durable", f"{issue.external_id} has {count} postings")
    kept = defaultdict(int)
    for row in books["grants"]:
        if row["account_id"] == account.id:
            kept[row["source"]] += row["amount"] - row["absorbed"]
    told: Counter[str] = Counter()
    for external_id, net in account.net.items():
        told[account.sources[external_id].value] += net
    if {name: amount for name, amount in kept.items() if amount} != {n: a for n, a in told.items() if a}:
        world.breaks("sources are not mixed", f"account {account.id}: {dict(kept)}, not {dict(told)}")


def only_the_silent_are_swept(world: "World", books: Books) -> None:
    """Only a worker that was silent for a lapse, or that ended, has its holds swept."""
    epochs = {row["id"]: row for row in books["epochs"]}
    holds = {row["request_id"]: row for row in books["holds"]}
    for row in books["epochs"]:
        silent = None if row["lapsed"] is None else row["lapsed"] - row["beat"]
        if silent is not None and silent < LAPSE_S and row["id"] not in world.ended:
            world.breaks("a live worker is not swept", f"epoch {row['id']} lapsed after {silent} s")
    for row in books["charges"]:
        if row["outcome"] == "unsettled" and epochs[holds[row["request_id"]]["epoch"]]["lapsed"] is None:
            world.breaks("a live worker is not swept", f"{row['request_id']} of a live epoch")


def one_charge_for_a_key(world: "World", books: Books) -> None:
    """Of the calls that bring one idempotency key, one is charged."""
    holds = {row["request_id"]: row for row in books["holds"]}
    charged: Counter[tuple[int, str]] = Counter()
    for row in books["charges"]:
        key = holds[row["request_id"]]["idempotency_key"]
        if key is not None and row["outcome"] != "unsettled":
            charged[row["account_id"], key] += 1
    for (account_id, key), count in charged.items():
        if count > 1:
            world.breaks("an idempotency key is charged once", f"{key} of account {account_id}: {count} charges")
