"""Changed upstreams are taken up without a restart; a broken file is refused and the old one stays."""

import json
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

from tests.app.conftest import Server

Up = Callable[..., Server]

ASK = {"messages": [{"role": "user", "content": "hello there"}], "max_tokens": 5}


def table(name: str, model: str) -> str:
    fields = f'{{id = "{model}", context_tokens = 8192, max_output_tokens = 4096}}'
    return f'[[upstream]]\nname = "{name}"\nkind = "scripted"\nmodels = [{fields}]\n'


def upstreams(server: Server) -> list[str]:
    return list(server.call("/v1/status")[1]["upstreams"])


def until_all_say(server: Server, names: list[str]) -> None:
    """Workers share a socket: ten answers in a row are of both."""
    until = time.monotonic() + 20
    while [upstreams(server) for _ in range(10)] != [names] * 10:
        assert time.monotonic() < until
        time.sleep(0.1)


def test_every_worker_takes_up_what_the_file_says_now(up: Up, tmp_path: Path) -> None:
    file = tmp_path / "upstreams.toml"
    file.write_text(table("one", "scripted-echo"))
    server = up(FREEHOLD_UPSTREAMS=str(file), FREEHOLD_WORKERS="2")
    admin = server.credentials()["admin_token"]
    assert server.call("/v1/chat/completions", {**ASK, "model": "scripted-echo"})[0] == 200

    file.write_text(table("two", "scripted-exact"))
    assert server.call("/v1/admin/reload", {}, token=admin) == (200, {"message": "Upstreams: two."})
    until_all_say(server, ["two"])
    assert server.call("/v1/chat/completions", {**ASK, "model": "scripted-exact"})[0] == 200
    assert server.call("/v1/chat/completions", {**ASK, "model": "scripted-echo"})[0] == 404

    file.write_text("[[upstream]]\nname = 'two'\nkind = 'opnai'\n")
    status, refused = server.call("/v1/admin/reload", {}, token=admin)
    assert status == 400
    assert "the old one stays: The upstreams can't be used: kind of upstream two" in refused["error"]["message"]
    assert upstreams(server) == ["two"]

    file.write_text(table("three", "scripted-echo"))
    os.kill(server.process.pid, signal.SIGHUP)
    until_all_say(server, ["three"])
    os.kill(json.loads((server.data / "run" / "worker-1.pid").read_text("utf-8"))["pid"], signal.SIGKILL)
    until_all_say(server, ["three"])


def test_only_the_operator_reloads(up: Up) -> None:
    server = up()
    assert server.call("/v1/admin/reload", {})[0] == 403
