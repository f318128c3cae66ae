"""Paying by x402: a wallet signs an authorization of USDC, which the server carries to the chain."""

import base64
import json
import secrets
import time
from collections.abc import Mapping
from typing import Any

import click

from freehold.cli.chainside import signer, signing, unlock
from freehold.cli.output import Output, usd
from freehold.cli.refusal import Refusal, ServerRefused
from freehold.cli.session import Session
from freehold.cli.wallets import Wallets, amount_of

PATH = "/v1/account/top-up"
TIMEOUT_S = 300
"""How long an authorization is good for where the offer doesn't say."""


@click.command("top-up")
@click.argument("amount", metavar="USD")
@click.option("--account", metavar="NAME", help="Whose credit: a login's name, 'default', or an account's id.")
@click.option("--api-key", envvar="FREEHOLD_API_KEY", metavar="KEY", help="An API key. [env: FREEHOLD_API_KEY]")
@click.option("--own", is_flag=True, help="The credit goes to the paying wallet's own account.")
@signing
def top_up(session: Session, amount: str, own: bool, name: str | None) -> None:
    """Add prepaid credit by x402: the wallet only signs, and the server pays the gas."""
    units = amount_of(amount, "USDC")
    wallets, who = Wallets(session), signer(session, name)
    client, query = (session.client, {}) if own else session.account()
    asked = {"amount": amount}
    try:
        client.call("POST", PATH, body=asked, query=query)
    except ServerRefused as refused:
        required = refused.headers.get("payment-required")
        if refused.status != 402 or required is None:
            raise
    else:
        raise Refusal("The server took no payment and yet answered; is it another version?")
    unlock(session)
    payment = pay(wallets, who, required, units)
    with session.out.busy("Waiting for the payment to be confirmed …"):
        done = client.call("POST", PATH, body=asked, query=query, headers={"PAYMENT-SIGNATURE": payment}).json()

    def draw(out: Output) -> None:
        out.say(
            f"{who} has paid {usd(done['amount'])}; account {done['account_id']} can spend {usd(done['available'])} now."
        )
        out.dim(f"transaction {done['transaction']}")

    session.out.document(done, draw)


def pay(wallets: Wallets, who: str, required: str, units: int) -> str:
    """The header PAYMENT-SIGNATURE for an offer of exactly so many base units of this chain's USDC. Raises Refusal."""
    offer = _offer(required)
    if offer.get("network") != f"eip155:{wallets.chain_id}" or str(offer.get("asset")).lower() != wallets.usdc.lower():
        raise Refusal("The server asks to be paid in another token than its chain's USDC; nothing was signed.")
    if offer.get("amount") != str(units):
        raise Refusal(
            f"The server asks for {offer.get('amount')} base units of USDC, and not {units}; nothing was signed."
        )
    authorization = {
        "from": wallets.address(who),
        "to": str(offer["payTo"]),
        "value": str(units),
        "validAfter": "0",
        "validBefore": str(int(time.time()) + int(offer.get("maxTimeoutSeconds", TIMEOUT_S))),
        "nonce": "0x" + secrets.token_hex(32),
    }
    signature = wallets.sign_typed(who, typed(offer, wallets.chain_id, authorization))
    payload = {"signature": signature, "authorization": authorization}
    sent = {"x402Version": 2, "accepted": offer, "payload": payload}
    return base64.b64encode(json.dumps(sent).encode()).decode()


def typed(offer: Mapping[str, Any], chain_id: int, authorization: Mapping[str, str]) -> dict[str, Any]:
    """ERC-3009's TransferWithAuthorization as typed data (EIP-712)."""
    extra = offer.get("extra") or {}
    return {
        "types": {
            "EIP712Domain": _fields("string name", "string version", "uint256 chainId", "address verifyingContract"),
            "TransferWithAuthorization": _fields(
                "address from",
                "address to",
                "uint256 value",
                "uint256 validAfter",
                "uint256 validBefore",
                "bytes32 nonce",
            ),
        },
        "primaryType": "TransferWithAuthorization",
        "domain": {
            "name": extra.get("name"),
            "version": extra.get("version"),
            "chainId": chain_id,
            "verifyingContract": offer["asset"],
        },
        "message": {
            **authorization,
            **{name: int(authorization[name]) for name in ("value", "validAfter", "validBefore")},
        },
    }


def _fields(*fields: str) -> list[dict[str, str]]:
    return [{"name": name, "type": kind} for kind, name in (field.split() for field in fields)]


def _offer(required: str) -> dict[str, Any]:
    try:
        accepts = json.loads(base64.b64decode(required))["accepts"]
        return next(dict(each) for each in accepts if each.get("scheme") == "exact")
    except (ValueError, KeyError, TypeError, AttributeError, StopIteration):
        raise Refusal("The server's PAYMENT-REQUIRED can't be read; is it another version?") from None
