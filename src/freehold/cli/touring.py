"""`freehold tour`: the story from HOLD to a paid call and back, by the same functions as the commands.

It makes an account of its own each time, so it can be run again on the same server. What it stakes and deposits follows
from the model's price, so that a few short calls use it up.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import click

from freehold.cli import chainside, development, operating
from freehold.cli.account import purses_worth_showing
from freehold.cli.calling import model_kind
from freehold.cli.chatting import Spoken, speak
from freehold.cli.output import duration, nano_usd, usd, when
from freehold.cli.refusal import Refusal, ServerRefused
from freehold.cli.session import Session, common, items
from freehold.cli.signing import sign_in
from freehold.cli.wallets import Done, Wallets, amount_of, shown

OWNER = "alice"
OTHER = "bob"
DAY_S = 86_400
LATE_S = 6 * 3_600
"""With less of the day than this left, a stake would grant too little of it."""

PATIENCE_S = 60.0
POLL_S = 0.3
ANSWER_TOKENS = 48
LEAST_ANSWER_TOKENS = 8
MOST_CALLS = 200
USUAL_STAKE = 10**14
"""0.0001 DIEM: the least that is staked."""
STAKE_STEP = 10**13

PROMPTS = (
    "Write a short story about a house by the sea.",
    "Describe a walk through a forest in autumn.",
    "Explain how bread is baked, step by step.",
    "Write about a lighthouse keeper's day.",
    "Describe a busy market in the morning.",
)


Action = dict[str, Any]
"""A command as one would type it, and its result."""


@click.command()
@click.option("--model", metavar="ID", help="The chat model to call; the server's first when left out.")
@common
def tour(session: Session, model: str | None) -> None:
    """Play the story with real transactions and real calls: own capacity, use it, pay, hand it on."""
    Tour(session, model).play()


@dataclass(slots=True)
class Step:
    """One step as it is told: what was typed, and what came of it."""

    number: int
    title: str
    why: str = ""
    actions: list[Action] = field(default_factory=list)


class Tour:
    """The story. Needs the operator's token of a server on this machine, and its development chain."""

    def __init__(self, session: Session, model: str | None) -> None:
        self.session = session
        self.out = session.out
        self.wallets = Wallets(session)
        self.model = model or self._some_model()
        self.input_price, self.output_price = self._prices()
        self.step = Step(0, "")
        self.prompts = 0

    def play(self) -> None:
        began = time.monotonic()
        if self.session.client.get("/v1/status")["upstreams"] == ["scripted"]:
            self.out.remark(
                "This server was started with --no-model, so a scripted model answers; everything else is real."
            )
        if self._seconds_left() < LATE_S:
            self._next_day_first()
        self._own()
        account_id, key = self._account()
        self._stake(account_id)
        self._call("Call: the allowance pays", account_id, key)
        self._two_purses(account_id, key)
        self._empty(account_id, key)
        self._deposit(account_id, key)
        self._hand_on()
        self._tomorrow(account_id, key)
        self._unstake(account_id)
        took = time.monotonic() - began
        self.out.line(
            {"object": "end", "steps": self.step.number, "seconds": round(took, 1)},
            f"\nThat was all of it, in {took:.0f} s. Each step was an ordinary command: `freehold --help` lists them.",
        )

    # the steps

    def _next_day_first(self) -> None:
        self._begin(
            "Begin a new day",
            f"Only {duration(self._seconds_left())} of this ledger day are left, and a stake grants the rest of its day; so the "
            "development chain first moves to the next one.",
        )
        self._advance()
        self._end()

    def _own(self) -> None:
        self._begin("Get HOLD", f"The development chain's deployer gives {OWNER} HOLD and USDC.")
        self._did(f"freehold dev fund {OWNER}", lambda: self.wallets.fund(OWNER))
        self._end()

        hold = amount_of("200", "HOLD")
        self._begin("Stake it", f"{OWNER} gets as much sHOLD, which can be locked to mint DIEM.")
        self._did(f"freehold stake hold 200 --from {OWNER}", lambda: self.wallets.stake_hold(OWNER, hold))
        self._end()

        self._begin("Mint DIEM", "sHOLD is locked at the curve's rate. One DIEM staked is one USD of inference a day.")
        self._did(f"freehold mint 1 --from {OWNER}", lambda: self.wallets.mint(OWNER, amount_of("1", "DIEM"), None))
        self._end()

    def _account(self) -> tuple[int, str]:
        self._begin("Make an account", "A local account needs no wallet; its address is there to be a beneficiary.")
        made = operating.create_account(self.session, "tour")
        account_id = int(made["account"]["id"])
        self._say(
            "freehold accounts create tour",
            f"Account {account_id}, address {made['account']['address']}, with an API key that is shown once.",
            account=made["account"],
        )
        self._end()
        return account_id, str(made["secret"])

    def _stake(self, account_id: int) -> None:
        units = self._stake_units()
        self._begin(
            "Stake a little DIEM for the account",
            f"{shown(units, 'DIEM')} are {shown(units, 'USD')} a day: enough for a few calls, so that their end comes soon.",
        )
        self._did(
            f"freehold stake diem {shown(units, 'DIEM', unit=False)} --for {account_id} --from {OWNER}",
            lambda: self.wallets.stake_diem(OWNER, units, self._address(account_id)),
        )
        read = self._await(account_id, "Waiting for the confirmations …", lambda now: self._nano(now, "allowance") > 0)
        self._say(
            f"freehold balance --account {account_id}",
            self._left(read) + ": of today, the seconds that are left of it",
            balance=read,
        )
        self._end()

    def _call(self, title: str, account_id: int, key: str) -> None:
        self._begin(
            title,
            f"The account's key calls {self.model}. The worst case is held first, and what it cost is taken after.",
        )
        self._speak(account_id, key, self._tokens(account_id))
        self._end()

    def _two_purses(self, account_id: int, key: str) -> None:
        units = max(100, -(-self._held(ANSWER_TOKENS) // 1_000))
        self._begin(
            "One call, two purses",
            f"{OWNER} also deposits {shown(units, 'USDC')}. The allowance is drawn first; the call that reaches its end goes on "
            "with prepaid credit.",
        )
        self._deposit_for(account_id, units)
        self._until(
            lambda: self._ask(account_id, key, self._tokens(account_id)),
            lambda spoken: len(spoken.purses) > 1 or "allowance" not in spoken.purses,
        )
        self._end()

    def _empty(self, account_id: int, key: str) -> None:
        self._begin(
            "Both are used up: 402",
            "Calls go on until a call's worst case is more than both purses hold. That one is refused before it runs, and costs "
            "nothing.",
        )
        try:
            self._until(
                lambda: self._ask(account_id, key, max(self._tokens(account_id), LEAST_ANSWER_TOKENS)),
                lambda spoken: False,
            )
        except ServerRefused as refused:
            if refused.status != 402:
                raise
            tokens = max(self._tokens(account_id), LEAST_ANSWER_TOKENS)
            self._say(
                self._typed(account_id, tokens),
                f"402 {refused.code}: {refused.message}",
                status=refused.status,
                code=refused.code,
            )
        self._end()

    def _deposit(self, account_id: int, key: str) -> None:
        units = max(50_000, -(-4 * self._held(ANSWER_TOKENS) // 1_000))
        self._begin("Deposit USDC and call again", "Prepaid credit doesn't end at midnight.")
        self._deposit_for(account_id, units)
        self._speak(account_id, key, self._tokens(account_id))
        self._end()

    def _hand_on(self) -> None:
        units = self._stake_units()
        self._begin(
            "Send DIEM to somebody else",
            f"DIEM is a plain ERC-20. {OTHER} signs in with a wallet, stakes what came, and calls.",
        )
        self._did(
            f"freehold transfer {shown(units, 'DIEM', unit=False)} diem {OTHER} --from {OWNER}",
            lambda: self.wallets.transfer(OWNER, "DIEM", units, self.wallets.address(OTHER)),
        )
        login = sign_in(self.session, OTHER)
        self._say(
            f"freehold login --from {OTHER}",
            f"Signed in as {OTHER}, account {login.account_id}, by EIP-4361.",
            account_id=login.account_id,
        )
        before = self._nano(self._balance(login.account_id), "allowance")
        self._did(
            f"freehold stake diem {shown(units, 'DIEM', unit=False)} --from {OTHER}",
            lambda: self.wallets.stake_diem(OTHER, units, login.address),
        )
        self._await(
            login.account_id, "Waiting for the confirmations …", lambda now: self._nano(now, "allowance") > before
        )
        key = login.api_key or self.session.make_key(login)
        self._speak(login.account_id, key, self._tokens(login.account_id), name=OTHER)
        self._end()

    def _tomorrow(self, account_id: int, key: str) -> None:
        self._begin(
            "The next day", "A stake grants its whole amount at every 00:00 UTC. The development chain can move there."
        )
        self._advance()
        self._speak(account_id, key, self._tokens(account_id))
        read = self._balance(account_id)
        self._say(f"freehold balance --account {account_id}", self._left(read), balance=read)
        self._end()

    def _unstake(self, account_id: int) -> None:
        units = self._stake_units_now(account_id)
        self._begin("Unstake", "Today's allowance stays; tomorrow's is gone. The DIEM can be withdrawn after 24 hours.")
        self._did(
            f"freehold unstake diem {shown(units, 'DIEM', unit=False)} --for {account_id} --from {OWNER}",
            lambda: self.wallets.unstake_diem(OWNER, units, self._address(account_id)),
        )
        read = self._await(
            account_id, "Waiting for the confirmations …", lambda now: not any(self._days_of_allowance(now))
        )
        self._say(
            f"freehold balance --account {account_id}", f"{self._left(read)}; nothing on the next days", balance=read
        )
        self._end()

    # their parts

    def _begin(self, title: str, why: str) -> None:
        self.step = Step(self.step.number + 1, title, why)
        if not self.out.as_json:
            self.out.say()
            self.out.strong(f"{self.step.number}. {title}")
            self.out.say(why)

    def _end(self) -> None:
        if self.out.as_json:
            self.out.line(
                {
                    "object": "step",
                    "step": self.step.number,
                    "title": self.step.title,
                    "text": self.step.why,
                    "actions": self.step.actions,
                }
            )

    def _say(self, command: str, result: str, **facts: Any) -> None:
        action = {"command": command, "result": result, **facts}
        self.step.actions.append(action)
        self._tell(action)

    def _tell(self, action: Action) -> None:
        if not self.out.as_json:
            self.out.say(f"  $ {action['command']}")
            for line in str(action["result"]).splitlines():
                self.out.say(f"    {line}")

    def _did(self, command: str, verb: Callable[[], Done]) -> None:
        with self.out.busy(f"{command}: waiting for it to be mined …"):
            done = verb()
        self._say(command, done.sentence(), transaction=done.document())

    def _typed(self, account_id: int, max_tokens: int, name: str | None = None) -> str:
        prompt = PROMPTS[self.prompts % len(PROMPTS)]
        return f'freehold chat "{prompt}" --max-tokens {max_tokens} --account {name or account_id}'

    def _until(self, ask: Callable[[], tuple[Action, Spoken]], done: Callable[[Spoken], bool]) -> None:
        """Call until it is `done`; tells the last call, and how many went before."""
        before: list[Spoken] = []
        try:
            for _ in range(MOST_CALLS):
                action, spoken = ask()
                if done(spoken):
                    break
                before.append(spoken)
            else:
                raise Refusal(
                    f"{MOST_CALLS} calls didn't use up what was there; are other calls paid by this account too?"
                )
        finally:
            if before and not self.out.as_json:
                cost = nano_usd(sum(parse_cost(spoken) for spoken in before))
                self.out.say(
                    f"    (first {plural(len(before), 'more call')} of that kind: {cost} from {before[-1].paid_by()})"
                )
        self._tell(action)

    def _speak(self, account_id: int, key: str, max_tokens: int, *, name: str | None = None) -> None:
        self._tell(self._ask(account_id, key, max_tokens, name=name)[0])

    def _ask(self, account_id: int, key: str, max_tokens: int, *, name: str | None = None) -> tuple[Action, Spoken]:
        """One call of the model."""
        prompt = PROMPTS[self.prompts % len(PROMPTS)]
        command = self._typed(account_id, max_tokens, name)
        with self.out.busy(f"{self.model} is answering …"):
            spoken = speak(
                self.session.client.bearing(key),
                model=self.model,
                messages=[{"role": "user", "content": prompt}],
                max_tokens=max_tokens,
            )
        self.prompts += 1
        answer = " ".join(spoken.text.split())
        cut = answer if len(answer) <= 90 else answer[:90].rsplit(" ", 1)[0] + " …"
        action = {
            "command": command,
            "result": f"{cut}\n[{spoken.cost} USD from {spoken.paid_by()}]",
            "answer": spoken.document(),
        }
        self.step.actions.append(action)
        return action, spoken

    def _deposit_for(self, account_id: int, units: int) -> None:
        before = self._nano(self._balance(account_id), "prepaid")
        self._did(
            f"freehold deposit {shown(units, 'USDC', unit=False)} --for {account_id} --from {OWNER}",
            lambda: self.wallets.deposit(OWNER, units, self._address(account_id)),
        )
        self._await(account_id, "Waiting for the confirmations …", lambda now: self._nano(now, "prepaid") > before)

    def _advance(self) -> None:
        with self.out.busy("Moving the development chain to the next 00:00 UTC …"):
            read = development.next_day(self.session, self.wallets)
        self._say("freehold dev advance-day", f"It is {when(read['ledger_time'])}.", ledger_time=read["ledger_time"])

    # what is known

    def _some_model(self) -> str:
        key = self.session.calling_key()
        for row in items(self.session.client.bearing(key).get("/v1/models")):
            if model_kind(row) == "chat":
                return str(row["id"])
        raise Refusal(
            "The tour calls a real model, and this server has no chat model; start it with `freehold up` (without --no-model), "
            "or configure an upstream."
        )

    def _prices(self) -> tuple[int, int]:
        from freehold.money import parse_usd

        for row in items(self.session.client.get("/v1/prices")):
            if row.get("model") == self.model:
                found = parse_usd(row["input_usd_per_million"]), parse_usd(row["output_usd_per_million"])
                if not any(found):
                    raise Refusal(
                        f"{self.model} costs nothing, so no purse would be used up; choose another with --model."
                    )
                return found
        raise Refusal(
            f"{self.model} has no price; set one with `freehold prices set {self.model} --input USD --output USD`."
        )

    def _held(self, max_tokens: int) -> int:
        """Nano-USD that a call with the longest prompt holds, as the server bounds it."""
        from freehold.money import cost_nano_up
        from freehold.pricing.bounds import input_bound

        longest = max(input_bound({"messages": [{"role": "user", "content": prompt}]}) for prompt in PROMPTS)
        return cost_nano_up([(longest, self.input_price), (max_tokens, self.output_price)])

    def _tokens(self, account_id: int) -> int:
        """The longest answer that the account can pay for, at most ANSWER_TOKENS; may be too few for a call."""
        available = sum(int(purse["available_nano"]) for purse in self._balance(account_id)["purses"])
        left = available - self._held(0)
        affordable = left * 1_000_000 // self.output_price if self.output_price else ANSWER_TOKENS
        return max(0, min(ANSWER_TOKENS, affordable))

    def _stake_units(self) -> int:
        """DIEM base units that grant two calls' hold for the rest of today, in steps of 0.00001 DIEM."""
        wanted_nano = 2 * self._held(ANSWER_TOKENS)
        left_s = self._seconds_left()
        units = wanted_nano * 10**9 * DAY_S // max(1, left_s)
        return max(USUAL_STAKE, -(-units // STAKE_STEP) * STAKE_STEP)

    def _stake_units_now(self, account_id: int) -> int:
        return self.wallets.staked(OWNER, self._address(account_id))

    def _seconds_left(self) -> int:
        """Of the chain's day: the grant follows block time."""
        return DAY_S - self.wallets.time() % DAY_S

    def _address(self, account_id: int) -> str:
        return chainside.address_of(self.session, self.wallets, str(account_id))

    def _balance(self, account_id: int) -> dict[str, Any]:
        return dict(self.session.operator().get("/v1/account/balance", account=account_id))

    def _await(self, account_id: int, text: str, there: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """Poll the balance until it is `there`."""
        with self.out.busy(text):
            until = time.monotonic() + PATIENCE_S
            while not there(read := self._balance(account_id)):
                if time.monotonic() > until:
                    raise Refusal(
                        f"The server hasn't booked this within {PATIENCE_S:.0f} s; `freehold status` tells whether it reads the chain."
                    )
                time.sleep(POLL_S)
        return read

    @staticmethod
    def _nano(read: dict[str, Any], source: str) -> int:
        return sum(int(purse["granted_nano"]) for purse in read["purses"] if purse["source"] == source)

    @staticmethod
    def _days_of_allowance(read: dict[str, Any]) -> list[bool]:
        return [int(day["amount_nano"]) > 0 for day in read.get("next_days") or ()]

    @staticmethod
    def _left(read: dict[str, Any]) -> str:
        return ", ".join(f"{purse['source']} {usd(purse['available'])}" for purse in purses_worth_showing(read))


def parse_cost(spoken: Spoken) -> int:
    """What a call cost, nano-USD."""
    from freehold.money import parse_usd

    return parse_usd(spoken.cost or "0")


def plural(count: int, what: str) -> str:
    return f"{count} {what}" if count == 1 else f"{count} {what}s"
