"""Servers for measurements: started on free loopback ports in a temporary
directory, ended by their own process handle, and what they used read from /proc.
"""
import os
import shutil
import signal
import socket
import statistics
import subprocess
import tempfile
import time

START_LIMIT_S = 20
TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def need(program, package):
    """The program's path, or an end that says what to install."""
    path = shutil.which(program, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")
    if path is None:
        raise SystemExit("%s is missing: install the Debian package %s" % (program, package))
    return path


class Process:
    """A child that listens on `port`. It runs on the processors `cpus`, in
    `cwd`; one that `talks` has lines to be read from its stdout and written to
    its stdin."""

    def __init__(self, name, argv, port, directory, cpus=None, cwd=None, talks=False):
        self.name = name
        self.port = port
        self.log_path = os.path.join(directory, "%s-%d.log" % (name, port))
        with open(self.log_path, "wb") as log:
            self.child = subprocess.Popen(
                argv, stdin=subprocess.PIPE if talks else subprocess.DEVNULL,
                stdout=subprocess.PIPE if talks else log, stderr=log, text=True,
                cwd=cwd or directory, preexec_fn=pinned_to(cpus))
        self.wait_listening()

    def ask(self, line):
        """Says a line to a child that talks; the line it answers by."""
        self.child.stdin.write(line + "\n")
        self.child.stdin.flush()
        answer = self.child.stdout.readline()
        if not answer:
            raise SystemExit("%s: %s\n%s" % (self.name, line, self.log_tail()))
        return answer

    def log_tail(self):
        with open(self.log_path, errors="replace") as log:
            return "".join(log.readlines()[-15:])

    def wait_listening(self):
        deadline = time.monotonic() + START_LIMIT_S
        while time.monotonic() < deadline:
            if self.child.poll() is not None:
                break
            try:
                socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
                return
            except OSError:
                time.sleep(0.02)
        self.stop()
        raise SystemExit("%s does not listen on port %d:\n%s" % (self.name, self.port, self.log_tail()))

    def cpu_seconds(self):
        """CPU time of the threads that live, in nanosecond steps."""
        return cpu_seconds(self.child.pid)

    def involuntary_switches(self):
        """How often a thread of it was taken off its processor."""
        tasks = "/proc/%d/task" % self.child.pid
        return sum(status_number("%s/%s/status" % (tasks, task), "nonvoluntary_ctxt_switches")
                   for task in os.listdir(tasks))

    def peak_memory_bytes(self):
        return status_number("/proc/%d/status" % self.child.pid, "VmHWM") * 1024

    def cpu_seconds_with_children(self):
        """CPU time of all threads and of children that ended, in 10 ms steps."""
        return cpu_seconds_with_children(self.child.pid)

    def stop(self):
        stop(self.child)


def pinned_to(cpus):
    """For `preexec_fn`; the processors of this process are left as they are."""
    return None if cpus is None else lambda: os.sched_setaffinity(0, cpus)


def cpu_seconds(pid):
    total = 0
    tasks = "/proc/%d/task" % pid
    for task in os.listdir(tasks):
        with open("%s/%s/schedstat" % (tasks, task)) as stat:
            total += int(stat.read().split()[0])
    return total / 1e9


def status_number(path, name):
    with open(path) as status:
        for line in status:
            if line.startswith(name + ":"):
                return int(line.split()[1])
    raise SystemExit("%s has no %s" % (path, name))


def cpu_seconds_with_children(pid):
    with open("/proc/%d/stat" % pid) as stat:
        fields = stat.read().rsplit(")", 1)[1].split()
    # utime, stime, cutime, cstime: fields 14 to 17 of proc(5), counted from 1.
    return sum(int(field) for field in fields[11:15]) / TICKS_PER_SECOND


def stop(child, how=signal.SIGTERM):
    if child.poll() is None:
        child.send_signal(how)
        try:
            child.wait(timeout=10)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
    return child.returncode


def redis_server(directory, *extra, port=None):
    port = port or free_port()
    return Process("redis-server", [
        need("redis-server", "redis-server"), "--port", str(port), "--bind", "127.0.0.1", "--save", "",
        "--appendonly", "no", "--dir", directory, "--dbfilename", "dump-%d.rdb" % port,
        "--repl-diskless-sync-delay", "0", *extra,
    ], port, directory)


def nutcracker(directory, shards, *extra, cpus=None):
    port, stats = free_port(), free_port()
    lines = ["bench:", "  listen: 127.0.0.1:%d" % port, "  hash: fnv1a_64", "  distribution: ketama",
             "  redis: true", "  auto_eject_hosts: false", "  servers:"]
    lines += ["    - 127.0.0.1:%d:1 s%d" % (shard.port, number) for number, shard in enumerate(shards, 1)]
    config = write_lines(os.path.join(directory, "nutcracker-%d.yml" % port), lines)
    # -v 4: its default, 5, logs each request and costs it a fifth of its speed.
    return Process("nutcracker", [
        need("nutcracker", "nutcracker"), "-v", "4", "-c", config, "-s", str(stats), "-a", "127.0.0.1",
        "-p", os.path.join(directory, "nutcracker-%d.pid" % port), "-o", os.path.join(directory, "nutcracker.log"),
        *extra,
    ], port, directory, cpus)


LAYOUT = ['hash = "fnv1a_64"', 'distribution = "ketama"', ""]


def shard_tables(table_name, shards):
    """Shards s1, s2, ... as a pool or a layout file has them."""
    lines = []
    for number, shard in enumerate(shards, 1):
        lines += ["[[%s]]" % table_name, 'name = "s%d"' % number, 'addr = "127.0.0.1:%d"' % shard.port, ""]
    return lines


def write_lines(path, lines):
    with open(path, "w") as file:
        file.write("\n".join(lines) + "\n")
    return path


def keyferry(binary, directory, shards, workers=1, cpus=None):
    """`keyferry run` with one pool, `bench`; `.config` and `.admin` are what a
    reshard of it needs."""
    port, admin_port = free_port(), free_port()
    state = os.path.join(directory, "state-%d" % port)
    os.makedirs(state)
    config = write_lines(os.path.join(directory, "keyferry-%d.toml" % port), [
        "[server]", "workers = %d" % workers, 'state_dir = "%s"' % state, "",
        "[log]", 'level = "warn"', "", "[admin]", 'http = "127.0.0.1:%d"' % admin_port, "",
        "[pool.bench]", 'listen = ["127.0.0.1:%d"]' % port, *LAYOUT, *shard_tables("pool.bench.shard", shards),
    ])
    process = Process("keyferry", [binary, "run", "-c", config], port, directory, cpus)
    process.config = config
    process.admin = "http://127.0.0.1:%d" % admin_port
    return process


class Workplace:
    """A temporary directory and what runs in it; both go at the end."""

    def __enter__(self):
        self.directory = tempfile.mkdtemp(prefix="keyferry-bench-")
        self.processes = []
        return self

    def __exit__(self, *_):
        for process in reversed(self.processes):
            process.stop()
        shutil.rmtree(self.directory, ignore_errors=True)

    def keep(self, process):
        self.processes.append(process)
        return process

    def drop(self, process):
        self.processes.remove(process)
        process.stop()


def machine():
    """One line for the reader of a table: processor, cores, kernel."""
    model = "unknown processor"
    with open("/proc/cpuinfo") as info:
        for line in info:
            if line.startswith("model name"):
                model = line.split(":", 1)[1].strip()
                break
    return "%s, %d cores, Linux %s" % (model, os.cpu_count(), os.uname().release)


def table(header, rows):
    lines = ["| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
    lines += ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join(lines)


def spread(values, form):
    """Median, and the range in brackets."""
    if not values:
        return "-"
    middle, low, high = form % statistics.median(values), form % min(values), form % max(values)
    return middle if low == high else "%s (%s-%s)" % (middle, low, high)
