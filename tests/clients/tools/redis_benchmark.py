"""The checks of redis-benchmark. An error of the server ends it with 1."""
import csv
import subprocess

import checks
from checks import equal

REQUESTS = 2000
# All that it has, but the longest LRANGE.
TESTS = ("ping_inline,ping_mbulk,set,get,incr,lpush,rpush,lpop,rpop,sadd,hset,spop,zadd,zpopmin,"
         "lrange_100,mset")


def benchmark(*arguments):
    """The rows it prints: test -> requests per second."""
    done = subprocess.run([
        "redis-benchmark", "-h", checks.HOST, "-p", str(checks.PORT), "-n", str(REQUESTS), "--csv", *arguments,
    ], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, check=False,
        timeout=checks.CHECK_LIMIT_S)
    # It warns when CONFIG GET is refused, and of ports that -k 0 uses up.
    warnings = [line for line in done.stderr.splitlines() if "Keepalive disabled" not in line]
    if done.returncode != 0 or warnings:
        raise AssertionError("%s: %d %s%s" % (arguments, done.returncode, done.stdout, done.stderr))
    return {row["test"]: float(row["rps"]) for row in csv.DictReader(done.stdout.splitlines())}


def all_ran(rows, count):
    equal((len(rows), all(rate > 0 for rate in rows.values())), (count, True))


def connect():
    """A connection for each request, too."""
    all_ran(benchmark("-t", "ping"), 2)
    all_ran(benchmark("-t", "set", "-k", "0", "-c", "10"), 1)


def get_set():
    all_ran(benchmark("-t", "set,get", "-r", "1000", "-d", "100"), 2)
    checks.spread_over_shards("key:*")
    equal(sum(checks.keys_by_shard("key:*")) <= 1000, True)


def pipeline():
    # LRANGE has a row for what fills its list.
    all_ran(benchmark("-t", TESTS, "-r", "1000", "-P", "16"), len(TESTS.split(",")) + 1)


def resp3():
    all_ran(benchmark("-3", "-t", "set,get,hset,zadd", "-r", "1000", "-P", "4"), 4)


def threads():
    all_ran(benchmark("--threads", "2", "-t", "set,get,mset", "-r", "1000", "-P", "8"), 3)


def script():
    all_ran(benchmark("EVAL", "return redis.call('INCR', KEYS[1])", "1", "benchmark:script"), 1)


def scan():
    all_ran(benchmark("SCAN", "0", "COUNT", "10"), 1)


def main():
    told = subprocess.run(["redis-benchmark", "--version"], capture_output=True, text=True, check=True).stdout
    report = checks.Report("redis-benchmark", told.split()[1])
    for check in connect, get_set, pipeline, resp3, threads, script, scan:
        report.check(check.__name__, check)
    for name in "transaction", "blocking_pop", "pubsub":
        report.skip(name, "it sends one command over and over, and wants one reply to each")
    report.skip("reconnect", "it ends when its connection is lost, before a bare server too")
    report.end()


main()
