"""The checks of Celery: a real worker, its broker and its result backend."""
import os
import subprocess
import sys

import celery
import celery_app
import checks
from celery_app import add, app, process, total
from checks import equal

# A task that does not come back is told of its check.
RESULT_LIMIT_S = 20
TASKS = 40


class Worker:
    def __enter__(self):
        here = os.path.dirname(os.path.abspath(__file__))
        self.child = subprocess.Popen([
            sys.executable, "-m", "celery", "-A", "celery_app", "worker", "--pool", "solo", "--loglevel", "warning",
            "--hostname", "checks@here", "--without-mingle", "--without-gossip",
        ], stdin=subprocess.DEVNULL, stdout=sys.stderr, cwd=here)
        return self

    def __exit__(self, *_):
        self.child.terminate()
        try:
            self.child.wait(timeout=5)
        except subprocess.TimeoutExpired:
            self.child.kill()
            self.child.wait()


def connect():
    """The broker, the backend, and a worker that takes a task."""
    with app.connection_for_write() as connection:
        connection.ensure_connection(max_retries=1)
    equal(app.backend.client.ping(), True)
    equal(add.delay(1, 2).get(timeout=RESULT_LIMIT_S), 3)


def get_set():
    """A result is a value that is set by the worker and got by the caller."""
    result = add.delay("a" * 100, "b")
    equal(result.get(timeout=RESULT_LIMIT_S), "a" * 100 + "b")
    equal((result.state, app.AsyncResult(result.id).result), ("SUCCESS", "a" * 100 + "b"))
    result.forget()
    equal(app.AsyncResult(result.id).state, "PENDING")


def pipeline():
    """A group's results come in any order, got by one MGET and told by messages."""
    results = celery.group(add.s(number, number) for number in range(TASKS)).apply_async()
    equal(results.get(timeout=RESULT_LIMIT_S), [2 * number for number in range(TASKS)])


def transaction():
    """A result is set and published by one, and an ack takes a message from two keys."""
    equal(add.delay(5, 6).get(timeout=RESULT_LIMIT_S), 11)
    with app.connection_for_write() as connection:
        broker = connection.default_channel.client
        checks.until(lambda: broker.hlen("unacked") == 0)


def script():
    """A chord counts its parts by one."""
    chord = celery.chord((add.s(number, 1) for number in range(10)), total.s())
    equal(chord.apply_async().get(timeout=RESULT_LIMIT_S), 55)


def blocking_pop():
    """An idle worker waits in BRPOP of the queue's four keys, one for a priority."""
    checks.wait_blocked()
    equal(add.delay(3, 4).get(timeout=RESULT_LIMIT_S), 7)


def pubsub():
    """An order to all workers is published; each answers into a queue of the caller."""
    equal(checks.until(lambda: app.control.ping(timeout=2) or False), [{"checks@here": {"ok": "pong"}}])
    told = app.control.inspect(timeout=2).registered()
    equal("celery_app.add" in told["checks@here"], True)


def reconnect():
    before = process.delay().get(timeout=RESULT_LIMIT_S)
    checks.wait_blocked()
    checks.restart()
    # The worker that was there goes on; the caller's messages are subscribed to again.
    equal(process.delay().get(timeout=RESULT_LIMIT_S), before)


def purge():
    """All its keys are where the prefix rule says."""
    add.apply_async((1, 1), queue="nobody_listens")
    counts = checks.keys_by_shard(celery_app.PREFIX + "*")
    equal([count > 0 for count in counts], [True, False, False])
    with app.connection_for_write() as connection:
        equal(connection.default_channel.queue_purge("nobody_listens"), 1)


def main():
    report = checks.Report("Celery", celery.__version__)
    with Worker():
        for check in connect, get_set, pipeline, transaction, script, blocking_pop, pubsub, purge, reconnect:
            report.check(check.__name__, check)
    report.skip("scan", "it never scans")
    report.end()


main()
