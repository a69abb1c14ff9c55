"""The checks of valkey-glide, whose core is Rust: with_glide.py CLIENT."""
import asyncio
import importlib.metadata
import sys

import checks
import glide
from checks import equal

CLIENT = sys.argv[1]
PREFIX = "py:glide:"
KEYS = 200
# Its default is 250 ms, which is short for a busy machine.
REQUEST_MS_MAX = 5000


async def client(subscriptions=None, protocol=glide.ProtocolVersion.RESP3):
    return await glide.GlideClient.create(glide.GlideClientConfiguration(
        [glide.NodeAddress(checks.HOST, checks.PORT)], request_timeout=REQUEST_MS_MAX, client_name="checks",
        pubsub_subscriptions=subscriptions, protocol=protocol))


def key(name):
    return PREFIX + name


async def connect():
    for protocol in glide.ProtocolVersion.RESP3, glide.ProtocolVersion.RESP2:
        async with await client(protocol=protocol) as ours:
            equal(await ours.ping(), b"PONG")
            equal(await ours.client_getname(), b"checks")
            equal(type(await ours.client_id()), int)


async def get_set():
    async with await client() as ours:
        names = [key("%d" % number) for number in range(KEYS)]
        equal(await asyncio.gather(*(ours.set(name, name) for name in names)), ["OK"] * KEYS)
        checks.spread_over_shards(PREFIX + "*")
        equal(await asyncio.gather(*map(ours.get, names)), [name.encode() for name in names])
        equal(await ours.mget(names), [name.encode() for name in names])
        equal(await ours.delete(names), KEYS)


async def pipeline():
    async with await client() as ours:
        batch = glide.Batch(is_atomic=False)
        for number in range(KEYS):
            batch.set(key("p%d" % number), str(number)).incr(key("p%d" % number))
        wanted = [reply for number in range(KEYS) for reply in ("OK", number + 1)]
        equal(await ours.exec(batch, raise_on_error=True), wanted)


async def transaction():
    async with await client() as ours, await client() as other:
        batch = glide.Batch(is_atomic=True).set(key("{tx}a"), "1").incr(key("{tx}a")).rpush(key("{tx}b"), ["x"])
        equal(await ours.exec(batch, raise_on_error=True), ["OK", 2, 1])
        await ours.watch([key("{tx}a")])
        await other.set(key("{tx}a"), "100")
        changed = glide.Batch(is_atomic=True).set(key("{tx}a"), "0")
        equal(await ours.exec(changed, raise_on_error=True), None)
        equal(await ours.get(key("{tx}a")), b"100")


async def blocking_pop():
    async with await client() as ours, await client() as other:
        waiting = asyncio.ensure_future(ours.blpop([key("{l}1"), key("{l}2")], 10))
        await asyncio.to_thread(checks.wait_blocked)
        await other.rpush(key("{l}2"), ["late"])
        equal(await waiting, [key("{l}2").encode(), b"late"])


async def pubsub():
    names = {key("channel%d" % number) for number in range(5)}
    async with await client(subscriptions(names)) as listener, await client() as ours:
        await subscribed(listener, names)
        for name in names:
            await ours.publish("hello", name)
        got = [await listener.get_pubsub_message() for _ in names]
        equal(sorted((each.channel, each.message) for each in got), sorted((name.encode(), b"hello") for name in names))


def subscriptions(names):
    modes = glide.GlideClientConfiguration.PubSubChannelModes
    return glide.GlideClientConfiguration.PubSubSubscriptions({modes.Exact: names}, callback=None, context=None)


async def subscribed(listener, names):
    """It subscribes by and by."""
    modes = glide.GlideClientConfiguration.PubSubChannelModes
    wanted = {name.encode() for name in names}
    while True:
        actual = (await listener.get_subscriptions()).actual_subscriptions.get(modes.Exact, set())
        if {name if isinstance(name, bytes) else name.encode() for name in actual} == wanted:
            return
        await asyncio.sleep(0.02)


async def scan():
    async with await client() as ours:
        names = {key("scan:%d" % number).encode() for number in range(KEYS)}
        await ours.mset({name: "1" for name in names})
        seen, cursor = [], b"0"
        while True:
            cursor, found = await ours.scan(cursor, match=PREFIX + "scan:*", count=50)
            seen += found
            if cursor == b"0":
                break
        equal((set(seen), len(seen)), (names, KEYS))


async def script():
    async with await client() as ours:
        double = glide.Script("return redis.call('INCRBY', KEYS[1], 2 * ARGV[1])")
        await ours.script_flush()
        equal(await ours.invoke_script(double, keys=[key("s")], args=["4"]), 8)
        equal(await ours.script_exists([double.get_hash()]), [True])


async def reconnect():
    names = {key("again")}
    async with await client() as ours, await client(subscriptions(names)) as listener:
        await ours.set(key("kept"), "kept")
        await asyncio.to_thread(checks.restart)
        equal(await until_back(ours), b"kept")
        heard = asyncio.ensure_future(listener.get_pubsub_message())
        while not heard.done():
            await ours.publish("back", key("again"))
            await asyncio.wait([heard], timeout=0.1)
        equal(heard.result().message, b"back")


async def until_back(ours):
    deadline = asyncio.get_running_loop().time() + checks.RECONNECT_LIMIT_S
    while True:
        try:
            return await ours.get(key("kept"))
        except glide.RequestError:  # also what its ConnectionError and TimeoutError are
            if asyncio.get_running_loop().time() > deadline:
                raise


async def main():
    report = checks.Report(CLIENT, importlib.metadata.version("valkey-glide"))
    for check in connect, get_set, pipeline, transaction, blocking_pop, pubsub, scan, script, reconnect:
        await report.check_async(check.__name__, check)
    return report


asyncio.run(main()).end()
