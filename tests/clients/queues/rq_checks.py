"""The checks of rq: real workers, one in burst mode and one that waits. All its
keys begin with `rq:`, so one prefix rule keeps them together."""
import os
import subprocess
import sys

import checks
import redis
import rq
import rq_jobs
from checks import equal
from rq.command import send_shutdown_command

JOB_LIMIT_S = 20
JOBS = 20
WORKER = "checks"
CONNECTION = redis.Redis(checks.HOST, checks.PORT)


def worker(*arguments):
    url = "redis://%s:%d/0" % (checks.HOST, checks.PORT)
    return subprocess.Popen(
        [sys.executable, "-m", "rq.cli", "worker", "--url", url, "--quiet", *arguments],
        stdin=subprocess.DEVNULL, stdout=sys.stderr, cwd=os.path.dirname(os.path.abspath(__file__)))


def queue(name):
    return rq.Queue(name, connection=CONNECTION)


def value(job):
    """What it returned, once it has."""
    def ended():
        job.refresh()
        return job.is_finished or job.is_failed
    checks.until(ended, JOB_LIMIT_S)
    return job.return_value()


def connect():
    equal(CONNECTION.ping(), True)
    equal(rq.Worker.all(connection=CONNECTION), [])


def get_set():
    """A job is a hash, and its result an entry of a stream."""
    job = queue("stored").enqueue(rq_jobs.add, "a" * 100, "b", meta={"by": "checks"})
    again = rq.job.Job.fetch(job.id, connection=CONNECTION)
    equal((again.args, again.meta, again.get_status()), (("a" * 100, "b"), {"by": "checks"}, "queued"))
    again.delete()
    equal(rq.job.Job.exists(job.id, connection=CONNECTION), False)


def pipeline():
    many = [rq.Queue.prepare_data(rq_jobs.add, (number, 1)) for number in range(JOBS)]
    jobs = queue("burst").enqueue_many(many)
    equal(queue("burst").count, JOBS)
    equal([job.args[0] for job in jobs], list(range(JOBS)))


def burst():
    """A worker that takes what there is, the jobs of `pipeline`, and ends."""
    failing = queue("burst").enqueue(rq_jobs.fail)
    equal(worker("--burst", "burst").wait(timeout=checks.CHECK_LIMIT_S), 0)
    jobs = rq.job.Job.fetch_many(queue("burst").finished_job_registry.get_job_ids(), connection=CONNECTION)
    equal(sorted(job.return_value() for job in jobs), list(range(1, JOBS + 1)))
    equal(queue("burst").failed_job_registry.get_job_ids(), [failing.id])


def transaction():
    """A dependent job is enqueued by WATCH and MULTI."""
    first = queue("waiting").enqueue(rq_jobs.add, 1, 2)
    second = queue("waiting").enqueue(rq_jobs.add, 3, 4, depends_on=first)
    equal(value(second), 7)


def wait_idle():
    """Until the worker waits in BLPOP or BLMOVE."""
    checks.until(lambda: [each.get_state() for each in rq.Worker.all(connection=CONNECTION)] == ["idle"])
    checks.wait_blocked()


def blocking_pop():
    wait_idle()
    equal(value(queue("waiting").enqueue(rq_jobs.add, 5, 6)), 11)


def script():
    """A queue is emptied by one."""
    queue("stored").enqueue_many([rq.Queue.prepare_data(rq_jobs.add, (number, 1)) for number in range(5)])
    equal(queue("stored").empty(), 5)


def prefix():
    """All its keys are where the prefix rule says."""
    counts = checks.keys_by_shard("rq:*")
    equal([count > 0 for count in counts], [False, True, False])


def reconnect(waiting):
    # It survives a lost connection while it waits; at its book-keeping it would end.
    wait_idle()
    checks.restart()
    job = checks.until(lambda: queue("waiting").enqueue(rq_jobs.add, 7, 8), errors=(redis.ConnectionError,))
    equal(value(job), 15)
    equal(waiting.poll(), None)


def pubsub(waiting):
    """A worker listens to commands on a channel."""
    checks.until(lambda: send_shutdown_command(CONNECTION, WORKER) or waiting.poll() is not None)
    equal(waiting.wait(timeout=JOB_LIMIT_S), 0)


def main():
    report = checks.Report("rq", rq.__version__)
    for check in connect, get_set, pipeline, burst, script:
        report.check(check.__name__, check)
    waiting = worker("--name", WORKER, "waiting")
    try:
        for check in transaction, blocking_pop, prefix:
            report.check(check.__name__, check)
        for check in reconnect, pubsub:
            report.check(check.__name__, check, waiting)
    finally:
        waiting.kill()
        waiting.wait()
    report.skip("scan", "it never scans")
    report.end()


main()
