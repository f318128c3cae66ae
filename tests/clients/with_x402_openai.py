"""x402-openai as anybody installs it, and a wallet's key: it pays for a call and for a stream by itself.

`with_x402_openai.py URL MODEL`, the key in the environment.
"""

import os
import sys

from x402_openai import X402OpenAI
from x402_openai.wallets import EvmWallet


def main(url: str, model: str) -> None:
    client = X402OpenAI(wallet=EvmWallet(private_key=os.environ["PAYER_KEY"]), base_url=url, max_retries=0)
    asked = [{"role": "user", "content": "Say something."}]
    whole = client.chat.completions.create(model=model, messages=asked, max_tokens=64)
    assert whole.choices[0].message.content
    stream = client.chat.completions.create(model=model, messages=asked, max_tokens=64, stream=True)
    assert "".join(part.choices[0].delta.content or "" for part in stream if part.choices)
    print("paid twice")  # noqa: T201


main(*sys.argv[1:])
