"""`freehold up`: starts everything in the foreground, watches it, and stops it.

The supervisor itself serves nothing. It holds the data directory's lock, opens the listening socket and passes it to
the workers, so that a worker's restart refuses nobody. Each child ends with it, and what a killed supervisor left
behind, the next start recognises by pid and start time, and ends.
"""

import asyncio
import contextlib
import errno
import fcntl
import getpass
import json
import os
import secrets
import shutil
import signal
import socket
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from types import FrameType
from typing import Any

from freehold.app import first, reload
from freehold.app.plan import Plan
from freehold.app.settings import Settings, SettingsError, child_environment, config_folder
from freehold.chain.model import DEV_CHAIN_ID
from freehold.chain.problems import WalletRefused
from freehold.chain.rpc import shown
from freehold.host.anvil import GENESIS_S, Anvil, program_in
from freehold.host.postgres import Postgres
from freehold.host.process import Child, HostError, end_leftover, write_private

LEAST_FREE_BYTES = 200_000_000
MODEL_READY_S = 120.0
SERVER_READY_S = 60.0
WATCH_S = 0.2
COPY_S = 2.0
QUICK_DEATH_S = 10.0
MOST_DEATHS = 6

Say = Callable[[str], None]


class CannotStart(Exception):
    """Why the server doesn't start or go on: one sentence for whoever started it."""


class _Stopped(BaseException):
    """Somebody asked to stop: Ctrl-C, or SIGTERM."""


def up(settings: Settings, *, again: Callable[[], Settings] | None = None) -> int:
    """Run until stopped; the process's exit code: 0 when stopped, 2 when it can't start, 1 when a part died for good.

    `again` reads the settings anew, at SIGHUP.
    """
    say = _sayer()
    supervisor = _Supervisor(settings, say, again or (lambda: settings))
    try:
        with _stop_on_signals(supervisor.reload_soon):
            try:
                supervisor.start()
                supervisor.watch()
            finally:
                for how in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                    signal.signal(how, signal.SIG_IGN)  # once is enough: a second one must not leave half of it running
                supervisor.stop()
    except _Stopped:
        say("Stopped.")
        return 0
    except (CannotStart, HostError, SettingsError, WalletRefused) as reason:
        sys.stderr.write(f"{reason}\n")
        return 1 if supervisor.served else 2
    return 0


def _sayer() -> Say:
    def say(sentence: str) -> None:
        sys.stderr.write(f"{sentence}\n")
        sys.stderr.flush()

    return say


@contextlib.contextmanager
def _stop_on_signals(reload_soon: Callable[[], None]) -> Iterator[None]:
    on_terminal = os.isatty(0)

    def stop(_number: int, _frame: FrameType | None) -> None:
        raise _Stopped

    def hung_up(_number: int, _frame: FrameType | None) -> None:
        if on_terminal and _terminal_is_gone():
            raise _Stopped
        reload_soon()

    kinds = {signal.SIGINT: stop, signal.SIGTERM: stop, signal.SIGHUP: hung_up}
    before = {how: signal.signal(how, handler) for how, handler in kinds.items()}
    try:
        yield
    finally:
        for how, handler in before.items():
            signal.signal(how, handler)


def _terminal_is_gone() -> bool:
    """SIGHUP also comes when the terminal closes, which is no wish to reload."""
    try:
        os.tcgetpgrp(0)
    except OSError:
        return True
    return False


class _Watched:
    """A child that is started again when it ends, unless it ends at once again and again."""

    def __init__(self, start: Callable[[], Child]) -> None:
        self._start = start
        self.child = start()
        self._started_s = time.monotonic()
        self._deaths = 0
        self._again_s: float | None = None

    def look(self, say: Say) -> None:
        """Raises CannotStart when it is given up."""
        code = self.child.poll()
        if code is None:
            return
        now_s = time.monotonic()
        if self._again_s is None:
            if now_s - self._started_s > QUICK_DEATH_S:
                self._deaths = 0
            self._deaths += 1
            if self._deaths > MOST_DEATHS:
                raise CannotStart(
                    f"{self.child.name} ends again and again: {self.child.last_words(1) or f'exit code {code}'} "
                    f"(log: {self.child.log})."
                )
            pause_s = min(30.0, 0.5 * 2 ** (self._deaths - 1))
            say(f"{self.child.name} ended ({_how(code)}) and is started again in {pause_s:g} s.")
            self._again_s = now_s + pause_s
        if now_s >= self._again_s:
            self._again_s = None
            self._started_s = now_s
            self.child = self._start()


def _how(code: int) -> str:
    return f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"


class _Supervisor:
    def __init__(self, settings: Settings, say: Say, again: Callable[[], Settings]) -> None:
        self._settings = settings
        self._again = again
        self._reload_wanted = False
        self._reloads = 0
        self._plan: Plan | None = None
        self._first_upstreams: tuple[Mapping[str, Any], ...] = ()
        self._say = say
        self._data = settings.data
        self._run = self._data / "run"
        self._logs = self._data / "logs"
        self._lock: Any = None
        self._listener: socket.socket | None = None
        self._postgres: Postgres | None = None
        self._anvil: Anvil | None = None
        self._workers: list[_Watched] = []
        self._model: _Watched | None = None
        self._model_log_from = 0
        self._started_at_s = time.time()
        self.served = False

    # Start

    def start(self) -> None:
        settings = self._settings
        began_s = time.monotonic()
        first.check_upstreams(settings.upstreams)
        asyncio.run(first.check_deployment(settings))
        operator_secret = first.open_operator(settings, getpass.getpass if sys.stdin.isatty() else None)
        self._take_data()
        self._end_leftovers()
        self._listener = _bind(settings.host, settings.port)
        port = self._listener.getsockname()[1]
        url = settings.public_url or f"http://{_callable_host(settings.host)}:{port}"
        model = None if settings.no_model or settings.upstreams else self._begin_model()
        database_url = settings.database_url or self._start_postgres()
        rpc_url = settings.rpc_url or self._start_anvil()
        deployment_file = settings.deployment or self._data / "deployment.toml"
        asyncio.run(first.migrate(database_url))
        if self._anvil is not None:
            self._anvil.step_back(self._behind_s())
        deployment = asyncio.run(first.ensure_deployment(settings, deployment_file, rpc_url, url, self._say))
        first.check_payments(settings, deployment.chain_id)
        for remark in asyncio.run(first.remarks(rpc_url, deployment, settings, operator_secret)):
            self._say(remark)
        if settings.defi:
            asyncio.run(first.ensure_defi(self._data, rpc_url, deployment, self._say))
        upstreams = self._upstreams(model)
        self._first_upstreams = upstreams
        credentials = asyncio.run(
            first.ensure_credentials(self._data, database_url, url, rpc_url, deployment.chain_id, upstreams)
        )
        own = self._anvil is not None
        seeded = asyncio.run(
            first.ensure_first_stake(rpc_url, deployment, credentials["address"], self._say, mine_at_once=own)
        )
        if self._anvil is not None:
            self._anvil.go()
        self._write_credentials(credentials)
        plan = first.plan(
            settings,
            socket=self._listener.fileno(),
            database_url=database_url,
            rpc_url=rpc_url,
            deployment=deployment_file,
            upstreams=upstreams,
            public_url=url,
            started_at_s=self._started_at_s,
            operator_secret=operator_secret,
        )
        self._plan = plan
        (self._run / "reload.json").unlink(missing_ok=True)
        _listen(self._listener, settings)
        for number in range(1, settings.workers + 1):
            self._workers.append(_Watched(self._worker_starter(number)))
        self._await_ready(f"http://{_callable_host(settings.host)}:{port}", credentials, seeded)
        self.served = True
        self._greet(url, credentials, upstreams, time.monotonic() - began_s)

    def _take_data(self) -> None:
        try:
            self._data.mkdir(mode=0o700, parents=True, exist_ok=True)
            for folder in (self._run, self._logs):
                folder.mkdir(mode=0o700, exist_ok=True)
            self._lock = (self._data / "lock").open("a+", encoding="utf-8")
            tempfile.TemporaryFile(dir=self._data).close()  # all of it may be there, and nothing can be added
            free = shutil.disk_usage(self._data).free
        except OSError as error:
            raise CannotStart(
                f"The data directory {self._data} can't be used: {(error.strerror or str(error)).lower()}; "
                "choose another with --data."
            ) from None
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise CannotStart(
                f"Freehold already runs on {self._data}; stop it first, or choose another --data."
            ) from None
        if free < LEAST_FREE_BYTES:
            raise CannotStart(
                f"{self._data} has {free // 1_000_000} MB of free disk, and Freehold needs "
                f"{LEAST_FREE_BYTES // 1_000_000} MB: free some, or choose another --data."
            )

    def _end_leftovers(self) -> None:
        """What a killed supervisor left; the database is asked last, for the others use it."""
        names = sorted(path for path in self._run.glob("*.pid") if path.stem not in ("postgres", "anvil"))
        for path in names:
            if end_leftover(path, grace_s=5):
                self._say(f"Ended {path.stem}, which was left from an unclean end.")

    def _start_postgres(self) -> str:
        self._say("Starting PostgreSQL.")
        self._postgres = Postgres.start(self._data, say=self._say)
        write_private(self._run / "postgres.json", json.dumps({"url": self._postgres.url}))
        return self._postgres.url

    def _start_anvil(self) -> str:
        self._say("Starting the dev chain.")
        program = program_in(first.node_modules())
        self._anvil = Anvil.start(self._data, program, say=self._say, behind_s=self._behind_s())
        return self._anvil.url

    def _behind_s(self) -> int:
        """Where the chain's clock is set to, so that what is mined at once doesn't run ahead of the wall's time."""
        return GENESIS_S + (first.DEFI_HISTORY_S if self._settings.defi else 0)

    def _begin_model(self) -> Mapping[str, Any]:
        """Start the embedded model; it loads while the rest starts."""
        first.check_weights()
        self._say("Starting the embedded model.")
        key = secrets.token_urlsafe(32)
        log = self._logs / "model.log"
        port = _free_port()

        def start() -> Child:
            return Child.start(
                "The embedded model",
                [sys.executable, "-P", "-m", "freehold.upstream.embedded"],
                log=log,
                pid_file=self._run / "model.pid",
                env=child_environment(),
                stdin=json.dumps({"api_key": key, "port": port}).encode(),
            )

        self._model_log_from = log.stat().st_size if log.exists() else 0
        self._model = _Watched(start)
        return {"name": "embedded", "kind": "embedded", "url": f"http://127.0.0.1:{port}/v1", "api_key": key}

    def _upstreams(self, model: Mapping[str, Any] | None) -> tuple[Mapping[str, Any], ...]:
        if self._settings.upstreams:
            return self._settings.upstreams
        if model is None:
            return ({"name": "scripted", "kind": "scripted"},)
        self._await_model()
        return (model,)

    def _await_model(self) -> None:
        assert self._model is not None  # noqa: S101 - begun before
        child = self._model.child
        until = time.monotonic() + MODEL_READY_S
        while True:
            with child.log.open("rb") as file:
                file.seek(self._model_log_from)
                if b'"ready": true' in file.read():
                    return
            if child.poll() is not None:
                raise CannotStart(
                    f"The embedded model doesn't start: {child.last_words(1) or 'it ended without a word'} "
                    f"(log: {child.log}); `--no-model` starts without it."
                )
            if time.monotonic() > until:
                raise CannotStart(f"The embedded model wasn't ready after {MODEL_READY_S:.0f} s (log: {child.log}).")
            time.sleep(WATCH_S / 4)

    def _worker_starter(self, number: int) -> Callable[[], Child]:
        def start() -> Child:
            plan = self._plan
            assert plan is not None  # noqa: S101 - made before the first worker
            return Child.start(
                f"Worker {number}",
                [sys.executable, "-P", "-m", "freehold.app", "worker"],
                log=self._logs / f"worker-{number}.log",
                pid_file=self._run / f"worker-{number}.pid",
                env=child_environment(),
                stdin=plan.dump(),
                pass_fds=(plan.socket,),
            )

        return start

    def _await_ready(self, url: str, credentials: Mapping[str, Any], seeded: bool) -> None:
        until = time.monotonic() + SERVER_READY_S
        answer = "no answer"
        while True:
            code, answer = _get(f"{url}/readyz")
            if code == 200 and (not seeded or _has_credit(url, credentials["api_key"])):
                return
            for worker in self._workers:
                if worker.child.poll() is not None:
                    raise CannotStart(
                        f"{worker.child.name} doesn't start: {worker.child.last_words(1)} (log: {worker.child.log})."
                    )
            if time.monotonic() > until:
                raise CannotStart(
                    f"The server wasn't ready after {SERVER_READY_S:.0f} s: {answer} (logs: {self._logs})."
                )
            time.sleep(WATCH_S)

    def _write_credentials(self, credentials: Mapping[str, Any]) -> None:
        write_private(self._data / first.CREDENTIALS, json.dumps(credentials, indent=2) + "\n")
        folder = config_folder()
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            write_private(folder / "current.json", json.dumps({"data": str(self._data)}) + "\n")
        except OSError as error:
            self._say(
                f"The command line won't find this server by itself ({folder}: {error.strerror}); give it --data."
            )

    def _greet(self, url: str, credentials: Mapping[str, Any], upstreams: Any, took_s: float) -> None:
        model = first.example_model(upstreams)
        body = json.dumps({"model": model, "messages": [{"role": "user", "content": "Say hello."}], "max_tokens": 40})
        dev = credentials["chain_id"] == DEV_CHAIN_ID
        node = (
            credentials["rpc_url"] if dev else shown(credentials["rpc_url"])
        )  # the rest of another's URL may be a secret
        out = sys.stdout
        out.write(
            f"\nFreehold is ready after {took_s:.1f} s.\n\n"
            f"  URL          {url}\n"
            f"  API key      {credentials['api_key']}\n"
            f"  admin token  {credentials['admin_token']}\n"
            f"  {'dev chain' if dev else 'chain    '}    {node} (chain id {credentials['chain_id']})\n"
            f"  data         {self._data}\n\n"
            f"Try it:\n\n"
            f"curl {url}/v1/chat/completions -H 'Authorization: Bearer {credentials['api_key']}' "
            f"-H 'Content-Type: application/json' -d '{body}'\n\n"
            f"Key and token are kept in {self._data / first.CREDENTIALS}. Ctrl-C stops everything.\n"
        )
        out.flush()

    # Watch

    def watch(self) -> None:
        """Until a signal. Raises CannotStart when a part dies that the rest can't do without."""
        copied_s = time.monotonic()
        while True:
            time.sleep(WATCH_S)
            if self._reload_wanted:
                self._reload_wanted = False
                self._reload()
            for watched in (*self._workers, *((self._model,) if self._model else ())):
                watched.look(self._say)
            for part in (self._postgres, self._anvil):
                if part is not None and part.child.poll() is not None:
                    raise CannotStart(
                        f"{part.child.name} ended ({_how(part.child.poll() or 0)}), so Freehold stops; start it again "
                        f"and it goes on from there (log: {part.child.log})."
                    )
            if self._anvil is not None and time.monotonic() - copied_s > COPY_S:
                began_s = time.monotonic()
                self._anvil.keep_copy()
                copied_s = time.monotonic() + 50 * (time.monotonic() - began_s)  # a large state is copied less often

    # Reload

    def reload_soon(self) -> None:
        """As soon as the server is watched: a signal comes at any moment."""
        self._reload_wanted = True

    def _reload(self) -> None:
        """Take up the upstreams as they are configured now; what can't be used is refused, and the old ones stay."""
        assert self._plan is not None  # noqa: S101 - made at the start
        self._reloads += 1
        try:
            found = self._again().upstreams or self._unnamed_upstreams()
            first.check_upstreams(found)
            asyncio.run(first.seed_prices(self._plan.database_url, found))
        except (SettingsError, HostError) as reason:
            said = f"The configuration was not taken up, and the old one stays: {reason}"
            reload.write(self._run, reload.Outcome(self._reloads, ok=False, said=said))
        else:
            said = f"Upstreams: {', '.join(str(table['name']) for table in found)}."
            self._plan = replace(self._plan, upstreams=tuple(found))
            reload.write(self._run, reload.Outcome(self._reloads, ok=True, said=said), found)
            for watched in self._workers:
                watched.child.send(signal.SIGHUP)
        self._say(said)

    def _unnamed_upstreams(self) -> tuple[Mapping[str, Any], ...]:
        """Those of a configuration that names none."""
        assert self._plan is not None  # noqa: S101 - made at the start
        if self._settings.upstreams:
            raise SettingsError("No upstreams are configured any more; restart to run without.")
        return self._first_upstreams

    # Stop

    def stop(self) -> None:
        """Stop every child, the ones that use others first. Safe to call at any point of the start."""
        working = [watched.child for watched in self._workers]
        if working or self._postgres or self._anvil or self._model:
            self._say("Stopping.")
        for child in working:
            child.send(signal.SIGTERM)
        for child in working:
            child.stop(grace_s=30)
        if self._model is not None:
            self._model.child.stop(grace_s=3)
        if self._anvil is not None:
            self._anvil.stop()
        if self._postgres is not None:
            self._postgres.stop()
            (self._run / "postgres.json").unlink(missing_ok=True)
        if self._listener is not None:
            self._listener.close()
        if self._lock is not None:
            self._lock.close()


def _bind(host: str, port: int) -> socket.socket:
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
    except OSError:
        raise CannotStart(f"{host} is not an address to listen on; choose another with --host.") from None
    listener = socket.socket(found[0], socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind(found[4])
    except OSError as error:
        listener.close()
        raise CannotStart(_why_not(error, host, port)) from None
    return listener


def _listen(listener: socket.socket, settings: Settings) -> None:
    try:
        listener.listen(2048)
    except OSError as error:
        raise CannotStart(_why_not(error, settings.host, settings.port)) from None


def _why_not(error: OSError, host: str, port: int) -> str:
    if error.errno == errno.EADDRINUSE:
        return f"Port {port} on {host} is in use; stop what listens there, or choose another with --port."
    return f"Freehold can't listen on {host}, port {port}: {(error.strerror or str(error)).lower()}."


def _callable_host(host: str) -> str:
    """An address that a program on this machine can call."""
    named = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, host)  # noqa: S104 - shown, not bound
    return f"[{named}]" if ":" in named and not named.startswith("[") else named


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _get(url: str, key: str | None = None) -> tuple[int, str]:
    headers = {"authorization": f"Bearer {key}"} if key else {}
    request = urllib.request.Request(url, headers=headers)  # noqa: S310 - our own loopback URL
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=5) as answer:
            return answer.status, answer.read().decode("utf-8", errors="replace")
    except urllib.error.HTTPError as refused:
        return refused.code, refused.read().decode("utf-8", errors="replace")
    except OSError as error:
        return 0, str(error)


def _has_credit(url: str, key: str) -> bool:
    code, text = _get(f"{url}/v1/account/balance", key)
    if code != 200:
        return False
    purses = {purse["source"]: purse["granted_nano"] for purse in json.loads(text)["purses"]}
    return all(purses.get(source, 0) > 0 for source in ("allowance", "prepaid"))
