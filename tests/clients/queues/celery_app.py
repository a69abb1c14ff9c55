"""What the Celery worker runs. Every key and channel of a broker and of a result
backend begins with `global_keyprefix`, so one prefix rule keeps them together."""
import os

import celery

PREFIX = "celery:"
URL = "redis://%s:%s/0" % (os.environ["KEYFERRY_HOST"], os.environ["KEYFERRY_PORT"])

app = celery.Celery("celery_app", broker=URL, backend=URL)
app.conf.update(
    broker_transport_options={"global_keyprefix": PREFIX},
    result_backend_transport_options={"global_keyprefix": PREFIX},
    broker_connection_retry_on_startup=True,
    # So that an ack after the task is part of what is looked at.
    task_acks_late=True,
    worker_prefetch_multiplier=1,
)


@app.task
def add(one, two):
    return one + two


@app.task
def total(numbers):
    return sum(numbers)


@app.task
def process():
    return os.getpid()
