"""Where the contracts are: on a chain that isn't ours, and on a dev chain that an older Freehold made."""

from pathlib import Path

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from tests.chain.lab import Anvil

from freehold.app.first import ensure_deployment
from freehold.app.settings import Settings, load
from freehold.chain import deployments
from freehold.host.process import HostError


async def mainnet(request: web.Request) -> web.Response:
    """A node that says which chain it is on."""
    asked = await request.json()
    return web.json_response({"jsonrpc": "2.0", "id": asked["id"], "result": "0x1"})


async def test_a_foreign_chain_without_a_deployment_names_the_setting(tmp_path: Path) -> None:
    node = web.Application()
    node.router.add_post("/", mainnet)
    async with TestServer(node) as server:
        url = str(server.make_url("/"))
        with pytest.raises(HostError, match=r"on chain 1, and no deployment .* FREEHOLD_DEPLOYMENT"):
            await ensure_deployment(load({}, folder=tmp_path), tmp_path / "deployment.toml", url, url, print)


async def test_a_dev_chain_of_an_older_freehold_gets_new_contracts_and_that_is_said(tmp_path: Path) -> None:
    anvil = Anvil()
    await anvil.start()
    file, said = tmp_path / "deployment.toml", list[str]()
    made = await ensure_deployment(Settings(data=tmp_path), file, anvil.rpc.node, "http://x", said.append)
    assert said == ["Deploying the contracts."]
    older = [line for line in file.read_text().splitlines(True) if not line.startswith(("strips", "book"))]
    file.write_text("".join(older))
    again = await ensure_deployment(Settings(data=tmp_path), file, anvil.rpc.node, "http://x", said.append)
    assert said[1].startswith("This dev chain's contracts are of an older Freehold: deploying new ones.")
    assert again.contracts["vault"] != made.contracts["vault"]
    assert deployments.load(file) == again
    await anvil.stop()
