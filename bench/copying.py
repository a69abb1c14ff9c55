"""Ways to copy all keys of some servers to others, each timed to the moment
when the copy is whole. Every way returns a `Sample`, or ends the program when
what arrived is not what was there.
"""
import dataclasses
import os
import shlex
import signal
import subprocess
import sys
import threading
import time

import processes
import resp

COPY_LIMIT_S = 900
POLL_S = 0.01
# Keys of one MIGRATE, and of one SCAN.
MIGRATE_KEYS = 100
SCAN_COUNT = 1000


@dataclasses.dataclass
class Sample:
    """`job_cpu_s` and `job_memory` are None where no process but the servers works."""
    keys: int
    seconds: float
    source_cpu_s: float
    target_cpu_s: float
    job_cpu_s: float | None = None
    job_memory: int | None = None


class Copy:
    """Fresh servers for one copy from `sources`, and what all used meanwhile."""

    def __init__(self, place, sources, target_count):
        self.place, self.sources = place, sources
        self.targets = [place.keep(processes.redis_server(place.directory)) for _ in range(target_count)]
        self.clients = [resp.Client(target.port) for target in self.targets]
        self.keys = sum(dbsize(source) for source in sources)
        self.before = self.source_cpu_s()
        self.start = time.monotonic()

    def source_cpu_s(self):
        return sum(source.cpu_seconds_with_children() for source in self.sources)

    def arrived(self):
        return sum(keys_held(client) for client in self.clients)

    def wait_whole(self, what, still_running=lambda: True):
        poll(what, lambda: self.arrived() >= self.keys, still_running)

    def end(self, job_cpu_s=None, job_memory=None, seconds=None):
        """The sample; the targets are gone after it."""
        seconds = seconds or time.monotonic() - self.start
        arrived = self.arrived()
        if arrived != self.keys:
            raise SystemExit("the targets hold %d keys of %d" % (arrived, self.keys))
        for source in self.sources:
            with resp.Client(source.port) as client:
                # The fork that wrote a snapshot counts once it is waited for.
                poll("snapshot", lambda: resp.info(client, "persistence")["rdb_bgsave_in_progress"] == "0")
        sample = Sample(arrived, seconds, self.source_cpu_s() - self.before,
                        sum(target.cpu_seconds_with_children() for target in self.targets), job_cpu_s, job_memory)
        for client in self.clients:
            client.__exit__()
        for target in self.targets:
            self.place.drop(target)
        return sample


def keys_held(client):
    try:
        return client.call("DBSIZE")
    except resp.ErrorReply as reply:
        # A target that another tool made a replica is loading.
        if "-LOADING" in str(reply):
            return 0
        raise


def dbsize(server):
    with resp.Client(server.port) as client:
        return client.call("DBSIZE")


def poll(what, whole, still_running=lambda: True):
    """Waits until `whole()`; the job or the server ends the wait by dying."""
    deadline = time.monotonic() + COPY_LIMIT_S
    while not whole():
        if not still_running() and not whole():
            raise SystemExit("%s ended before the copy was whole" % what)
        if time.monotonic() > deadline:
            raise SystemExit("%s took longer than %d s" % (what, COPY_LIMIT_S))
        time.sleep(POLL_S)


def native(place, sources):
    """One full sync of each source, all at the same time."""
    copy = Copy(place, sources, len(sources))
    for source, client in zip(sources, copy.clients):
        client.call("REPLICAOF", "127.0.0.1", source.port)
    up = [False] * len(sources)

    def all_up():
        for at, client in enumerate(copy.clients):
            up[at] = up[at] or resp.info(client, "replication").get("master_link_status") == "up"
        return all(up)
    poll("full sync", all_up, lambda: all(target.child.poll() is None for target in copy.targets))
    return copy.end()


def reshard(place, binary, sources, target_count):
    """A job from a pool of `sources` to fresh servers, so that every key moves;
    it is stopped once they hold all keys."""
    proxy = place.keep(processes.keyferry(binary, place.directory, sources))
    copy = Copy(place, sources, target_count)
    name = os.path.join(place.directory, "job-%d" % proxy.port)
    layout = processes.write_lines(
        name + ".toml", [*processes.LAYOUT, *processes.shard_tables("shard", copy.targets)])
    with open(name + ".log", "wb") as log:
        copy.start = time.monotonic()
        job = subprocess.Popen(
            [binary, "reshard", "start", "-c", proxy.config, "-p", "bench", "--to", layout, "--yes",
             "--switch", "manual", "--proxy", proxy.admin, "--state", name],
            stdout=log, stderr=log, stdin=subprocess.DEVNULL, cwd=place.directory)
    try:
        copy.wait_whole("reshard", lambda: job.poll() is None)
        seconds = time.monotonic() - copy.start
        used = (processes.cpu_seconds_with_children(job.pid),
                processes.status_number("/proc/%d/status" % job.pid, "VmHWM") * 1024)
    except SystemExit as failure:
        raise SystemExit("%s:\n%s" % (failure, tail(name + ".log"))) from None
    finally:
        processes.stop(job, signal.SIGINT)
    sample = copy.end(*used, seconds=seconds)
    place.drop(proxy)
    return sample


def tail(path):
    with open(path, errors="replace") as log:
        return log.read()[-4000:]


def dump_files(directory, name, sources, count):
    """The keys of all sources as RESTORE commands, dealt out to `count` files."""
    paths = [os.path.join(directory, "%s-%d.resp" % (name, at)) for at in range(count)]
    files = [open(path, "wb") for path in paths]
    turn = 0
    for source in sources:
        with resp.Client(source.port) as client:
            for keys in scan(client):
                client.socket.sendall(b"".join(resp.encode("DUMP", key) for key in keys))
                for key in keys:
                    files[turn % count].write(resp.encode("RESTORE", key, 0, client.reply()))
                    turn += 1
    for file in files:
        file.close()
    return paths


def scan(client):
    """Pages of keys; each key once, as nothing changes meanwhile."""
    cursor = b"0"
    while True:
        cursor, keys = client.call("SCAN", cursor, "COUNT", SCAN_COUNT)
        if keys:
            yield keys
        if cursor == b"0":
            return


def pipe(place, sources, paths):
    """`redis-cli --pipe` of files that are there already, one for each target."""
    copy = Copy(place, sources, len(paths))
    program = processes.need("redis-cli", "redis-tools")
    copy.start = time.monotonic()
    children = []
    for path, target in zip(paths, copy.targets):
        with open(path, "rb") as file:
            children.append(subprocess.Popen([program, "-p", str(target.port), "--pipe"], stdin=file,
                                             stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))
    return copy.end(*waited("redis-cli --pipe", [child.pid for child in children]))


def waited(what, pids):
    """CPU seconds of these children together, and the memory of their peaks."""
    cpu, memory = 0.0, 0
    for pid in pids:
        _, status, used = os.wait4(pid, 0)
        if status != 0:
            raise SystemExit("%s failed: wait status %d" % (what, status))
        cpu += used.ru_utime + used.ru_stime
        memory += used.ru_maxrss * 1024
    return cpu, memory


def migrate(place, sources, target_count):
    """MIGRATE of the keys that SCAN tells, page by page to the targets in turn;
    one process drives each source."""
    copy = Copy(place, sources, target_count)
    ports = [target.port for target in copy.targets]
    sys.stdout.flush()
    copy.start = time.monotonic()
    pids = []
    for source in sources:
        pid = os.fork()
        if pid == 0:
            # Nothing of the parent is cleaned up twice.
            try:
                drive_migrate(source.port, ports)
                os._exit(0)
            except BaseException as error:
                os.write(2, ("MIGRATE: %r\n" % error).encode())
                os._exit(1)
        pids.append(pid)
    return copy.end(*waited("MIGRATE", pids))


def drive_migrate(source_port, target_ports):
    with resp.Client(source_port) as scanner, resp.Client(source_port) as client:
        turn = 0
        for keys in scan(scanner):
            for start in range(0, len(keys), MIGRATE_KEYS):
                port = target_ports[turn % len(target_ports)]
                client.call("MIGRATE", "127.0.0.1", port, "", 0, COPY_LIMIT_S * 1000, "COPY", "KEYS",
                            *keys[start:start + MIGRATE_KEYS])
                turn += 1


def other(place, sources, command):
    """Somebody else's tool, from one source to one target: until the target
    holds all keys; then it is asked to end, as some follow for ever."""
    copy = Copy(place, sources, 1)
    words = [word.replace("{source}", "127.0.0.1:%d" % sources[0].port)
             .replace("{target}", "127.0.0.1:%d" % copy.targets[0].port)
             .replace("{source_port}", str(sources[0].port))
             .replace("{target_port}", str(copy.targets[0].port)) for word in shlex.split(command)]
    log_path = os.path.join(place.directory, "other-%d.log" % copy.targets[0].port)
    memory = Peak()
    with open(log_path, "wb") as log:
        copy.start = time.monotonic()
        job = subprocess.Popen(words, stdout=log, stderr=log, stdin=subprocess.DEVNULL,
                               cwd=place.directory, start_new_session=True)
    try:
        with memory.of(job.pid):
            copy.wait_whole(words[0], lambda: job.poll() is None)
            seconds = time.monotonic() - copy.start
            cpu = processes.cpu_seconds_with_children(job.pid) if job.poll() is None else memory.cpu_s
    except SystemExit as failure:
        raise SystemExit("%s:\n%s" % (failure, tail(log_path))) from None
    finally:
        processes.stop(job, signal.SIGINT)
    return copy.end(cpu, memory.bytes, seconds=seconds)


class Peak:
    """Looks at a process ten times a second: one that ends by itself leaves
    nothing to be read afterwards."""

    def __init__(self):
        self.bytes, self.cpu_s = 0, 0.0

    def of(self, pid):
        self.pid, self.over = pid, threading.Event()
        self.thread = threading.Thread(target=self.look, daemon=True)
        return self

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.over.set()
        self.thread.join()

    def look(self):
        while True:
            try:
                self.bytes = processes.status_number("/proc/%d/status" % self.pid, "VmHWM") * 1024
                self.cpu_s = processes.cpu_seconds_with_children(self.pid)
            except (OSError, SystemExit):
                return
            if self.over.wait(0.1):
                return
