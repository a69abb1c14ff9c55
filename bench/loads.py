"""The two loads: canned clients before canned shards, and redis-benchmark
before real Redis. Each runs one row against one proxy and returns a sample.
"""
import csv
import io
import json
import os
import re
import subprocess
import time
import urllib.request

import cases
import processes
import quiet
import resp

LARGE_KEY = "big:__rand_int__"
SYSCALLS = re.compile(r'^keyferry_worker_syscalls_total\{([^}]*)\} (\S+)$', re.MULTILINE)


class Canned:
    """Saturates the proxy: neither clients nor shards look at what they move."""

    name = "canned"

    def __init__(self, arguments):
        self.program = os.path.join(arguments.examples, "canned")
        self.seconds = 0.4 if arguments.quick else arguments.seconds
        self.cpus = arguments.load_cpus

    def start_shards(self, place, ports):
        argv = [self.program, "--shard-ports", ",".join(map(str, ports)), "--value-bytes", "64"]
        self.canned = place.keep(processes.Process("canned", argv, ports[0], place.directory, self.cpus, talks=True))
        return []  # they are one with the clients

    def fill(self, subject):
        """There is nothing to find: a GET is answered whatever its key is."""

    def run(self, row, proxy, measure):
        try:
            self.canned.ask("connect --port %d --clients %d --pipeline %d --command %s --value-bytes %d --keys %d "
                            "--warm-ms %d" % (proxy.port, row.clients, row.pipeline, row.command, row.value_bytes,
                                              row.keys, self.seconds * 150))
            measure.start(lambda: 0)
            result = json.loads(self.canned.ask("go --ms %d" % (self.seconds * 1000)))
            sample = measure.stop(result["requests"])
            self.canned.ask("close")
        except SystemExit as failure:
            raise SystemExit("%s, %s: %s" % (proxy.name, row.title, failure)) from None
        sample.update(rps=result["rps"], p50_ms=result["p50_us"] / 1e3, p99_ms=result["p99_us"] / 1e3,
                      p999_ms=result["p999_us"] / 1e3)
        return sample


class RealRedis:
    """What a user sees: redis-benchmark, and redis-server behind the proxy."""

    name = "redis"

    def __init__(self, arguments):
        self.quick = arguments.quick
        self.scale = arguments.seconds / 2
        self.value = "x" * max(row.value_bytes for row in cases.ROWS)

    def start_shards(self, place, ports):
        return [place.keep(processes.redis_server(place.directory, port=port)) for port in ports]

    def fill(self, subject):
        """Every proxy its own way to place keys: no GET of it finds nothing."""
        resp.fill(subject.port, cases.KEYS, 64)

    def run(self, row, proxy, measure):
        count = int(row.requests * (0.1 if self.quick else self.scale))
        argv = [processes.need("redis-benchmark", "redis-tools"), "-h", "127.0.0.1", "-p", str(proxy.port),
                "-c", str(row.clients), "-n", str(count), "-P", str(row.pipeline), "-r", str(row.keys), "--csv"]
        if row.keys == cases.KEYS:
            argv += ["-d", str(row.value_bytes), "-t", row.command]
        else:
            argv += ["SET", LARGE_KEY, self.value[:row.value_bytes]]  # not over the small values that GETs read
        used = os.times()
        children = lambda: os.times().children_user + os.times().children_system - (
            used.children_user + used.children_system)
        measure.start(children)
        done = subprocess.run(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, check=False)
        sample = measure.stop(count)
        lines = list(csv.DictReader(io.StringIO(done.stdout[done.stdout.find('"test"'):])))
        if done.returncode != 0 or len(lines) != 1:
            raise SystemExit("redis-benchmark failed against %s:\n%s%s" % (proxy.name, done.stdout, done.stderr))
        sample.update(rps=float(lines[0]["rps"]), p50_ms=float(lines[0]["p50_latency_ms"]),
                      p99_ms=float(lines[0]["p99_latency_ms"]))
        return sample


class Measure:
    """What is read just before and just after one load."""

    def __init__(self, proxy, shards, ours):
        self.proxy = proxy
        self.shards = shards
        self.ours = ours

    def start(self, load_cpu_seconds):
        mine = os.getpid()
        self.watch = quiet.Watch(lambda: load_cpu_seconds() + processes.cpu_seconds(mine)
                                 + sum(process.cpu_seconds() for process in self.ours))
        self.calls = system_calls(self.proxy)
        self.switches = self.proxy.involuntary_switches()
        self.started = time.monotonic()
        self.behind = self.shards_cpu_seconds()
        self.cpu = self.proxy.cpu_seconds()

    def shards_cpu_seconds(self):
        return sum(shard.cpu_seconds() for shard in self.shards)

    def stop(self, requests):
        cpu = self.proxy.cpu_seconds() - self.cpu
        behind = self.shards_cpu_seconds() - self.behind
        seconds = time.monotonic() - self.started
        steal, others = self.watch.stop()
        sample = {
            "requests": requests, "seconds": seconds, "cpu_per_million": cpu / requests * 1e6,
            "shards_cpu_per_million": behind / requests * 1e6,
            "busy": cpu / seconds, "steal": steal, "others": others,
            "switches_per_s": (self.proxy.involuntary_switches() - self.switches) / seconds,
        }
        calls = system_calls(self.proxy)
        if calls:
            sample["calls_per_request"] = {
                op: (count - self.calls.get(op, 0)) / requests for op, count in sorted(calls.items())}
        return sample


def system_calls(proxy):
    """By kind, of all workers; empty for a proxy that does not count them."""
    if not hasattr(proxy, "admin"):
        return {}
    with urllib.request.urlopen(proxy.admin + "/metrics", timeout=10) as answer:
        text = answer.read().decode()
    calls = {}
    for labels, value in SYSCALLS.findall(text):
        op = re.search(r'op="([^"]*)"', labels)
        if op:
            calls[op.group(1)] = calls.get(op.group(1), 0) + float(value)
    return calls
