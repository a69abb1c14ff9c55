"""The checks of redis-py's asyncio client: with_asyncio.py CLIENT."""
import asyncio
import sys

import checks
import redis
import redis.asyncio
from checks import equal

CLIENT = sys.argv[1]
PREFIX = "py:%s:" % CLIENT
KEYS = 200
# Each concurrent call takes a connection; a pool has 100 of them.
AT_ONCE = 50


def client(**options):
    return redis.asyncio.Redis(host=checks.HOST, port=checks.PORT, **options)


def key(name):
    return PREFIX + name


async def connect():
    async with client(client_name="checks") as ours:
        equal(await ours.ping(), True)
        equal(await ours.client_getname() in ("checks", b"checks"), True)


async def get_set():
    async with client() as ours:
        names = [key("%d" % number) for number in range(KEYS)]
        for start in range(0, KEYS, AT_ONCE):
            some = names[start:start + AT_ONCE]
            equal(await asyncio.gather(*(ours.set(name, name) for name in some)), [True] * AT_ONCE)
            equal(await asyncio.gather(*map(ours.get, some)), [name.encode() for name in some])
        checks.spread_over_shards(PREFIX + "*")
        equal(await ours.mget(names), [name.encode() for name in names])
        equal(await ours.delete(*names), KEYS)


async def pipeline():
    async with client() as ours, ours.pipeline(transaction=False) as pipe:
        for number in range(KEYS):
            pipe.set(key("p%d" % number), number).incr(key("p%d" % number))
        equal(await pipe.execute(), [reply for number in range(KEYS) for reply in (True, number + 1)])


async def transaction():
    async with client() as ours, client() as other, ours.pipeline() as pipe:
        equal(await pipe.set(key("{tx}a"), 1).incr(key("{tx}a")).rpush(key("{tx}b"), "x").execute(), [True, 2, 1])
        await pipe.watch(key("{tx}a"))
        await other.set(key("{tx}a"), 100)
        pipe.multi()
        pipe.set(key("{tx}a"), 0)
        try:
            got = await pipe.execute()
        except redis.WatchError:
            return
        raise AssertionError("a watched key changed, and EXEC was %r" % got)


async def blocking_pop():
    async with client() as ours, client() as other:
        waiting = asyncio.ensure_future(ours.blpop([key("{l}1"), key("{l}2")], timeout=10))
        await asyncio.to_thread(checks.wait_blocked)
        await other.rpush(key("{l}2"), "late")
        equal(list(await waiting), [key("{l}2").encode(), b"late"])


async def pubsub():
    async with client() as ours, ours.pubsub() as listener:
        names = [key("channel%d" % number) for number in range(5)]
        await listener.subscribe(*names)
        await confirmed(listener, len(names))
        for name in names:
            await ours.publish(name, "hello")
        got = [await heard(listener) for _ in names]
        equal(sorted(got), [(name.encode(), b"hello") for name in names])


async def confirmed(listener, count):
    while count:
        message = await listener.get_message(timeout=1)
        count -= message is not None and message["type"] == "subscribe"


async def heard(listener):
    while True:
        message = await listener.get_message(ignore_subscribe_messages=True, timeout=0.2)
        if message is not None:
            return message["channel"], message["data"]


async def scan():
    async with client() as ours:
        names = {key("scan:%d" % number).encode() for number in range(KEYS)}
        await ours.mset({name: 1 for name in names})
        seen = [name async for name in ours.scan_iter(match=PREFIX + "scan:*", count=50)]
        equal((set(seen), len(seen)), (names, KEYS))


async def script():
    async with client() as ours:
        double = ours.register_script("return redis.call('INCRBY', KEYS[1], 2 * ARGV[1])")
        await ours.script_flush()
        equal(await double(keys=[key("s")], args=[4]), 8)
        equal(await ours.script_exists(double.sha), [True])


async def reconnect():
    async with client() as ours:
        await ours.set(key("kept"), "kept")
        await asyncio.to_thread(checks.restart)
        deadline = asyncio.get_running_loop().time() + checks.RECONNECT_LIMIT_S
        while True:
            try:
                equal(await ours.get(key("kept")), b"kept")
                return
            except redis.ConnectionError:
                if asyncio.get_running_loop().time() > deadline:
                    raise


async def main():
    report = checks.Report(CLIENT, redis.__version__)
    for check in connect, get_set, pipeline, transaction, blocking_pop, pubsub, scan, script, reconnect:
        await report.check_async(check.__name__, check)
    return report


asyncio.run(main()).end()
