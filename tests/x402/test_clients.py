"""x402-openai, unchanged, in the clients' own environment: with the SDK that it was written for."""

import asyncio
from pathlib import Path

from tests.clients.environment import HERE, binaries
from tests.x402.shop import USD, Shop


async def test_x402_openai_pays_with_nothing_but_a_wallets_key(shop: Shop, tmp_path: Path) -> None:
    wallet = await shop.wallet()
    programs = await asyncio.to_thread(binaries)
    process = await asyncio.create_subprocess_exec(
        str(programs / "python"),
        str(HERE / "with_x402_openai.py"),
        f"{shop.url}/v1",
        "scripted-echo",
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        cwd=tmp_path,
        env={"PATH": str(programs), "HOME": str(tmp_path), "PAYER_KEY": "0x" + wallet.key.hex()},
    )
    said, _ = await process.communicate()
    assert process.returncode == 0, said.decode()
    assert said.decode().strip().endswith("paid twice")
    assert len(await shop.charges_of(wallet)) == 2 and await shop.usdc_of(wallet.address) < 5 * USD
