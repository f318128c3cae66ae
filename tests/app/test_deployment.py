"""Where the contracts are, on a chain that isn't ours."""

from pathlib import Path

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from freehold.app.first import ensure_deployment
from freehold.app.settings import load
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
