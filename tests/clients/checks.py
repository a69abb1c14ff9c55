"""For suites in Python: the lines of the contract (see suites.py), what every
check needs, and environments of pinned packages.

A check is a function that raises if something is not as it should be. It has
CHECK_LIMIT_S; so a reply that never comes is told of this check and the others
still run.
"""
import asyncio
import hashlib
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import traceback
import urllib.request

sys.path.append(os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "bench"))
import resp  # noqa: E402

HOST = os.environ.get("KEYFERRY_HOST", "")
PORT = int(os.environ.get("KEYFERRY_PORT", "0"))
# All are on loopback.
SHARDS = [int(shard.rsplit(":", 1)[1]) for shard in os.environ.get("KEYFERRY_SHARDS", "").split(",") if shard]
MUST_SKIP = 77
CHECK_LIMIT_S = 30
# How long a client may take to find back after the proxy was restarted.
RECONNECT_LIMIT_S = 10
# What ioredis 6 and node-redis 6 want.
NODE_MAJOR_MIN = 20
# What pip and npm say when no registry answers.
NO_REGISTRY = re.compile(
    r"from versions: none|NewConnectionError|ConnectTimeout|Temporary failure in name resolution"
    r"|ENOTFOUND|ECONNREFUSED|EAI_AGAIN|ETIMEDOUT|ECONNRESET|ENETUNREACH")

BLOCKED = re.compile(rb"blocked_clients:(\d+)")


class Late(Exception):
    """A check did not end in its time."""


class Report:
    """Prints the checks of one client."""

    def __init__(self, client, version):
        self.row = "%s %s" % (client, version)
        self.failed = False

    def check(self, name, function, *args):
        signal.signal(signal.SIGALRM, late)
        signal.alarm(CHECK_LIMIT_S)
        try:
            function(*args)
        except Exception as error:  # a check may raise whatever its client does
            self.fail(name, error)
        else:
            self.line("ok", name)
        finally:
            signal.alarm(0)

    async def check_async(self, name, function, *args):
        try:
            await asyncio.wait_for(function(*args), CHECK_LIMIT_S)
        except Exception as error:
            self.fail(name, error)
        else:
            self.line("ok", name)

    def fail(self, name, error):
        self.failed = True
        traceback.print_exception(error, file=sys.stderr)
        why = " ".join(("%s: %s" % (type(error).__name__, error)).split())
        self.line("failed", name, why[:300])

    def skip(self, name, reason):
        self.line("skipped", name, reason)

    def line(self, outcome, name, why=None):
        print("%s %s %s%s" % (outcome, self.row, name, ": " + why if why else ""), flush=True)

    def end(self):
        sys.exit(1 if self.failed else 0)


def late(*_):
    raise Late("not done in %d s" % CHECK_LIMIT_S)


def equal(got, wanted):
    if got != wanted:
        raise AssertionError("got %.200r, not %.200r" % (got, wanted))


def raises(kind, function, *args):
    """The error that must come."""
    try:
        got = function(*args)
    except kind as error:
        return error
    raise AssertionError("got %.200r, not %s" % (got, kind.__name__))


def restart():
    order("/restart")


def flush():
    order("/flush")


def order(path):
    request = urllib.request.Request(os.environ["KEYFERRY_CONTROL"] + path, method="POST", data=b"")
    with urllib.request.urlopen(request, timeout=CHECK_LIMIT_S) as answer:
        equal(answer.status, 200)


def until(function, limit_s=RECONNECT_LIMIT_S, errors=(Exception,)):
    """Calls until it neither raises one of `errors` nor gives False."""
    deadline = time.monotonic() + limit_s
    while True:
        try:
            got = function()
            if got is not False:
                return got
        except errors:
            if time.monotonic() > deadline:
                raise
        if time.monotonic() > deadline:
            raise Late("not so in %d s" % limit_s)
        time.sleep(0.02)


def keys_by_shard(pattern):
    """How many keys of the pattern each shard has, asked behind the proxy's back."""
    return [len(keys) for keys in of_every_shard("KEYS", pattern)]


def wait_blocked(count=1):
    """Until clients wait at a shard: what comes now finds them waiting."""
    def blocked():
        told = [BLOCKED.search(info) for info in of_every_shard("INFO", "clients")]
        return max(int(number[1]) for number in told) >= count
    until(blocked)


def of_every_shard(*command):
    replies = []
    for port in SHARDS:
        with resp.Client(port) as shard:
            replies.append(shard.call(*command))
    return replies


def spread_over_shards(pattern):
    """That a client's keys went to more than one shard: it talked to the proxy."""
    counts = keys_by_shard(pattern)
    if sum(count > 0 for count in counts) < 2:
        raise AssertionError("keys on the shards: %r" % counts)


def install_packages(directory, pins):
    """What each requirements file pins, in a folder of its own: place -> file."""
    missing = [name for name, requirements in pins.items() if not installed(packages(directory, name), requirements)]
    if not missing:
        return
    # One environment for its pip; a second one would only take time.
    environment = os.path.join(directory, "pip")
    if tool([sys.executable, "-m", "venv", "--clear", environment]).returncode != 0:
        must_skip("python3 -m venv does not work here (on Debian: apt-get install python3-venv)")
    for name in missing:
        place = packages(directory, name)
        shutil.rmtree(place, ignore_errors=True)
        end_if_failed(tool([
            os.path.join(environment, "bin", "python"), "-m", "pip", "install", "--quiet",
            "--disable-pip-version-check", "--retries", "1", "--only-binary", ":all:",
            "--target", place, "-r", pins[name]]), "PyPI")
        note_installed(place, pins[name])


def packages(directory, name):
    return os.path.join(directory, "packages", name)


def with_packages(directory, name):
    """The environment in which Python finds them, and these checks."""
    here = os.path.dirname(os.path.abspath(__file__))
    path = os.pathsep.join([packages(directory, name), here])
    return {**os.environ, "PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1"}


def install_node_packages(directory, pins):
    """What the lock file in the folder `pins` pins, in a folder of the same name."""
    place = packages(directory, os.path.basename(pins))
    files = [os.path.join(pins, name) for name in ("package.json", "package-lock.json")]
    if installed(place, *files):
        return
    need_node()
    shutil.rmtree(place, ignore_errors=True)
    os.makedirs(place)
    for file in files:
        shutil.copy(file, place)
    argv = ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--fetch-retries", "1"]
    end_if_failed(tool(argv, cwd=place), "The npm registry")
    note_installed(place, *files)


def need_node():
    if shutil.which("node") is None or shutil.which("npm") is None:
        must_skip("Node.js is missing: node and npm, %d or newer" % NODE_MAJOR_MIN)
    version = tool(["node", "--version"]).stdout.strip()
    if int(version.lstrip("v").split(".")[0]) < NODE_MAJOR_MIN:
        must_skip("Node.js is too old: %s, and %d or newer is needed" % (version, NODE_MAJOR_MIN))


def with_node_packages(directory, name):
    return {**os.environ, "NODE_PATH": os.path.join(packages(directory, name), "node_modules")}


def installed(directory, *pins):
    try:
        with open(os.path.join(directory, "installed")) as file:
            return file.read() == digest(*pins)
    except OSError:
        return False


def note_installed(directory, *pins):
    with open(os.path.join(directory, "installed"), "w") as file:
        file.write(digest(*pins))


def digest(*pins):
    """Of the pins and of what runs them: another interpreter wants other wheels."""
    whole = hashlib.sha256(sys.version.encode())
    for pin in pins:
        with open(pin, "rb") as file:
            whole.update(file.read())
    return whole.hexdigest()


def tool(argv, **options):
    done = subprocess.run(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False, **options)
    sys.stderr.write(done.stdout)
    return done


def end_if_failed(done, registry):
    if done.returncode == 0:
        return
    if NO_REGISTRY.search(done.stdout):
        must_skip("%s does not answer here" % registry)
    sys.exit(1)


def must_skip(reason):
    print(reason)
    sys.exit(MUST_SKIP)
