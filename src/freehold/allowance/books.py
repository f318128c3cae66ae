"""Is what an account was granted what the chain says? Pure: it compares, and changes nothing."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from freehold.allowance import rules
from freehold.chain.model import AllowanceChanged, Deposited, Event
from freehold.clock import Day
from freehold.ledger.books import IssuedAccount
from freehold.ledger.model import Difference, Source
from freehold.money import MAX_NANO, usdc_to_nano

STAKED = "the allowance of a day is what is staked for it on chain"
ACTIVATED = "the strip credit of a day is what is activated for it on chain"
DEPOSITED = "prepaid credit is what was deposited or paid on chain"


@dataclass(frozen=True, slots=True)
class Told:
    """What the chain tells of one account."""

    events: Sequence[Event]
    """Those that stand, in the chain's order."""
    deposits: Mapping[str, str]
    """Which grant each event's deposit was posted as, by external ids."""
    today: int | None
    """The day whose grants follow every event; None while yesterday is over and today isn't open yet."""
    payments: Mapping[str, int] = field(default_factory=dict)
    """Base units of USDC that were paid by authorization, by the external ids of their grants."""
    reverted: bool = False
    """A reorg took back an event of this account before."""


def differences(account: IssuedAccount, told: Told, operator: str) -> list[Difference]:
    """Everything of `account` that the chain doesn't grant, or grants otherwise."""
    return [
        *_staked(account, told, operator, Source.ALLOWANCE),
        *_staked(account, told, operator, Source.STRIP),
        *_deposited(account, told),
    ]


def _staked(account: IssuedAccount, told: Told, operator: str, source: Source) -> Iterable[Difference]:
    """A day that is over may have been granted less than its last events say: they counted after its end."""
    changes = rules.changes(told.events, operator, strips=source is Source.STRIP)
    granted: dict[int, int] = defaultdict(int)
    for grant in account.grants:
        if grant.source is source:
            granted[Day.of(grant.starts_at_s).number] += grant.amount_nano
    if told.today is not None and account.opened_day == told.today:
        granted[told.today] += 0
    for day, found in sorted(granted.items()):
        most = rules.nano_down(rules.allowance(changes, day))
        least = most if day == told.today else _least(changes, day, most, told.reverted)
        if not least <= found <= most:
            law = ACTIVATED if source is Source.STRIP else STAKED
            yield Difference(law, account.account_id, str(Day(day)), str(most), str(found))


def _least(changes: Sequence[AllowanceChanged], day: int, most: int, reverted: bool) -> int:
    return 0 if reverted else min(most, rules.nano_down(rules.opening(changes, day)))


def _deposited(account: IssuedAccount, told: Told) -> Iterable[Difference]:
    paid: dict[str, int] = defaultdict(int)
    for name, amount in told.payments.items():
        paid[name] += usdc_to_nano(amount)
    for event in told.events:
        if not isinstance(event, Deposited):
            continue
        name = event.place.external_id()
        if name in told.deposits:
            paid[told.deposits[name]] += min(usdc_to_nano(event.amount), MAX_NANO)
        elif account.opened_day >= 0:  # else nobody has asked the chain about this account yet
            paid[name] += min(usdc_to_nano(event.amount), MAX_NANO)
    granted: dict[str, int] = defaultdict(int)
    for grant in account.grants:
        if grant.source is Source.PREPAID:
            granted[grant.external_id] += grant.amount_nano
    for name in sorted(paid.keys() | granted.keys()):
        if paid[name] != granted[name]:
            yield Difference(DEPOSITED, account.account_id, name, str(paid[name]), str(granted[name]))
