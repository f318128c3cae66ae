"""`freehold up` from the outside: one command, a call, its end, and what a kill leaves."""

import http.client
import itertools
import json
import os
import signal
import socket
import stat
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from freehold.host.process import identity

from .conftest import Server

CHAT = {"model": "scripted-echo", "messages": [{"role": "user", "content": "hello"}], "max_tokens": 20}

Up = Callable[..., Server]


def test_one_command_starts_everything_and_the_printed_curl_works(up: Up) -> None:
    server = up()
    answer = subprocess.run(
        ["/bin/sh", "-c", server.curl().replace("curl ", "curl -s -i ", 1)],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert answer.stdout.startswith("HTTP/1.1 200")
    assert "x-freehold-purse: allowance=" in answer.stdout
    assert server.cli("books", "check").stdout.strip() == "The books balance."
    assert stat.S_IMODE((server.data / "credentials.json").stat().st_mode) == 0o600
    assert stat.S_IMODE(server.data.stat().st_mode) == 0o700

    children = server.children()
    assert len(children) == 3  # PostgreSQL, the dev chain, one worker
    assert server.stop() == 0
    assert [pid for pid in children if identity(pid) is not None] == []
    assert list((server.data / "run").glob("*.pid")) == []

    refused = server.cli("books", "check")
    assert refused.stdout.strip() == "The books balance.", refused.stderr  # PostgreSQL is started for the moment


def load(server: Server, enough: threading.Event, stop: threading.Event) -> None:
    """Call until told to stop, or until nobody answers; set `enough` after some calls."""
    for number in itertools.count(1):
        try:
            server.call("/v1/chat/completions", CHAT)
        except (OSError, ValueError, http.client.HTTPException):
            return
        if number == 10:
            enough.set()
        if stop.is_set():
            return


def test_after_a_kill_of_everything_under_load_the_next_start_takes_over(up: Up) -> None:
    server = up("--workers", "2")
    kept = server.credentials()
    enough, stop = threading.Event(), threading.Event()
    callers = [threading.Thread(target=load, args=(server, enough, stop)) for _ in range(8)]
    for caller in callers:
        caller.start()
    assert enough.wait(60)
    for pid in (server.process.pid, *server.children()):
        os.kill(pid, signal.SIGKILL)
    server.process.wait(30)
    stop.set()
    for caller in callers:
        caller.join(60)

    again = up()
    assert again.credentials()["api_key"] == kept["api_key"]
    assert again.call("/v1/chat/completions", CHAT)[0] == 200
    status, books = again.call("/v1/admin/books", token=kept["admin_token"])
    assert (status, books) == (200, {"balanced": True, "differences": []})
    for purse in again.call("/v1/account/balance")[1]["purses"]:
        whole = purse["available_nano"] + purse["held_nano"] + purse["used_nano"]
        assert whole == purse["granted_nano"], purse


def test_after_a_kill_of_the_supervisor_alone_nothing_keeps_running(up: Up) -> None:
    server = up()
    children = server.children()
    os.kill(server.process.pid, signal.SIGKILL)
    server.process.wait(30)
    again = up()  # ends whatever is left
    assert [pid for pid in children if identity(pid) is not None] == []
    assert again.call("/v1/chat/completions", CHAT)[0] == 200


def test_a_worker_that_dies_is_started_again(up: Up) -> None:
    server = up()
    noted = server.data / "run" / "worker-1.pid"
    before = noted.read_text("utf-8")
    victim = next(pid for pid in server.children() if f'"pid": {pid},' in before)
    os.kill(victim, signal.SIGKILL)
    until = time.monotonic() + 60
    while noted.read_text("utf-8") == before:
        assert time.monotonic() < until, server.said()
        time.sleep(0.1)
    assert server.call("/v1/chat/completions", CHAT)[0] == 200
    assert "Worker 1 ended (killed by SIGKILL)" in server.said()


def test_without_its_database_it_stops_with_a_sentence(up: Up) -> None:
    server = up()
    postgres = next(pid for pid in server.children() if f"{pid}," in (server.data / "run/postgres.pid").read_text())
    os.kill(postgres, signal.SIGKILL)
    assert server.process.wait(60) == 1
    assert "PostgreSQL ended (killed by SIGKILL), so Freehold stops; start it again" in server.said()
    assert server.children() == []


def refused(up: Up, *arguments: str, **settings: str) -> str:
    """What a start says that is refused: one sentence, exit code 2, no child."""
    server = up(*arguments, ready=False, **settings)
    assert server.process.wait(120) == 2, server.said()
    assert server.children() == []
    said = [line for line in server.said().splitlines() if line not in ("Stopping.",)]
    assert not any("Traceback" in line for line in said)
    return said[-1]


def test_a_port_in_use_is_one_sentence(up: Up) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert refused(up, "--port", str(port)) == (
            f"Port {port} on 127.0.0.1 is in use; stop what listens there, or choose another with --port."
        )


def test_a_second_start_on_the_same_data_is_one_sentence(up: Up) -> None:
    server = up()
    again = up(ready=False)
    assert again.process.wait(60) == 2
    assert again.said() == f"Freehold already runs on {server.data}; stop it first, or choose another --data.\n"
    assert server.call("/v1/chat/completions", CHAT)[0] == 200


def test_a_data_path_that_is_a_file_is_one_sentence(up: Up, tmp_path: Path) -> None:
    (tmp_path / "data directory").write_text("not a directory", "utf-8")
    assert "can't be used: " in refused(up)


def test_a_database_of_another_version_is_one_sentence(up: Up, tmp_path: Path) -> None:
    if os.geteuid() == 0:
        cluster_id = "0" * 16
        folder = tmp_path / "data directory" / "postgres"
        folder.mkdir(mode=0o700, parents=True)
        (folder / "cluster-id").write_text("../../.." + str(tmp_path / cluster_id), "utf-8")
        cluster = tmp_path / cluster_id / "cluster"
        (tmp_path / cluster_id / "socket").mkdir(parents=True)
    else:
        cluster = tmp_path / "data directory" / "postgres" / "cluster"
    cluster.mkdir(parents=True)
    (cluster / "PG_VERSION").write_text("9.6\n", "utf-8")
    assert "is of PostgreSQL 9.6, and this is 18" in refused(up)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"FREEHOLD_PROT": "1"}, "The setting FREEHOLD_PROT is not known: did you mean FREEHOLD_PORT?"),
        (
            {"FREEHOLD_DATABASE_URL": "postgresql://nobody:secret@127.0.0.1:1/none"},
            "The database can't be reached: ",
        ),
        ({"FREEHOLD_RPC_URL": "http://127.0.0.1:1"}, "127.0.0.1:1"),
        ({"FREEHOLD_UPSTREAMS": '[{"name": "x", "kind": "opnai"}]'}, "The upstreams can't be used: kind of upstream x"),
    ],
)
def test_a_wrong_setting_is_one_sentence(up: Up, settings: dict[str, str], sentence: str) -> None:
    said = refused(up, **settings)
    assert sentence in said
    assert "secret" not in said


async def test_with_its_own_parts_given_it_starts_none(up: Up, database_url: str) -> None:
    first = up()
    second_settings = {
        "FREEHOLD_DATABASE_URL": database_url,
        "FREEHOLD_RPC_URL": str(first.credentials()["rpc_url"]),
        "FREEHOLD_UPSTREAMS": '[{"name": "mine", "kind": "scripted"}]',
        "FREEHOLD_DEPLOYMENT": str(first.data / "deployment.toml"),
    }
    second = up("--data", str(first.data.with_name("second")), **second_settings)
    second.data = first.data.with_name("second")
    assert [path.name for path in (second.data / "run").glob("*.pid")] == ["worker-1.pid"]
    assert second.call("/v1/chat/completions", CHAT)[0] == 200
    assert second.call("/v1/status")[1]["upstreams"] == ["mine"]


def test_the_numbers_of_two_workers_are_summed_and_logs_are_json_without_prompts_or_secrets(up: Up) -> None:
    server = up(FREEHOLD_WORKERS="2", FREEHOLD_LOG_FORMAT="json")
    secret_words = "the moon is made of cheese"
    ask = {**CHAT, "messages": [{"role": "user", "content": secret_words}]}
    assert {server.call("/v1/chat/completions", ask)[0] for _ in range(12)} == {200}
    shown = server.text("/metrics").splitlines()
    assert "freehold_workers 2" in shown
    assert 'freehold_requests_total{code="ok",route="/v1/chat/completions",status="200"} 12' in shown
    assert 'freehold_calls_total{model="scripted-echo",outcome="complete"} 12' in shown
    assert "freehold_holds_open 0" in shown
    assert 'freehold_upstream_broken{upstream="scripted"} 0' in shown
    rows = server.call("/v1/account/usage?limit=50")[1]["data"]
    paid = next(float(line.rsplit(" ", 1)[1]) for line in shown if line.startswith("freehold_cost_usd_total"))
    assert round(paid * 1e9) == sum(row["cost_nano"] for row in rows)
    logged = "".join(path.read_text("utf-8") for path in (server.data / "logs").glob("*worker*"))
    calls = [json.loads(line) for line in logged.splitlines() if '"request_id"' in line]
    assert {row["request_id"] for row in rows} <= {call["request_id"] for call in calls}
    assert secret_words not in logged
    assert server.credentials()["api_key"] not in logged
