"""The checks of redis-py and of valkey-py, which has the same interface:
blocking.py CLIENT [protocol=N]. Without it, what the client does by itself."""
import sys
import threading
import time

import checks
from checks import equal, raises

CLIENT = sys.argv[1]
OPTIONS = {name: int(value) for name, value in (option.split("=") for option in sys.argv[2:])}
if CLIENT == "valkey-py":
    import valkey as library
    connect_to = library.Valkey
else:
    import redis as library
    connect_to = library.Redis

PREFIX = "py:%s:%s:" % (CLIENT, library.__version__)
KEYS = 200
LARGE_BYTES = 1 << 20


def client(**options):
    return connect_to(checks.HOST, checks.PORT, **OPTIONS, **options)


def key(name):
    return PREFIX + name


def connect():
    ours = client(client_name="checks", single_connection_client=True)
    equal(ours.ping(), True)
    equal(ours.client_getname() in ("checks", b"checks"), True)
    equal(ours.info("replication")["role"], "master")
    equal(ours.client_list(_type="normal") != [], True)
    if OPTIONS.get("protocol") == 3:
        equal(type(ours.hgetall("nothing")), dict)
    ours.close()


def get_set():
    ours = client()
    binary = bytes(range(256)) + b"\r\n"
    for number in range(KEYS):
        equal(ours.set(key("%d" % number), binary + b"%d" % number), True)
    for number in range(KEYS):
        equal(ours.get(key("%d" % number)), binary + b"%d" % number)
    checks.spread_over_shards(PREFIX + "*")
    names = [key("%d" % number) for number in range(KEYS)]
    equal(ours.mget(names), [binary + b"%d" % number for number in range(KEYS)])
    equal(ours.mset({name: "new" for name in names}), True)
    equal(ours.exists(*names), KEYS)
    equal(ours.delete(*names), KEYS)
    equal(ours.get(names[0]), None)
    large = b"x" * LARGE_BYTES
    equal(ours.set(key("large"), large, ex=60), True)
    equal(ours.get(key("large")), large)


def pipeline():
    ours = client().pipeline(transaction=False)
    for number in range(KEYS):
        ours.set(key("p%d" % number), number).incr(key("p%d" % number)).get(key("p%d" % number))
    ours.hset(key("hash"), mapping={"a": 1, "b": 2}).hgetall(key("hash"))
    wanted = []
    for number in range(KEYS):
        wanted += [True, number + 1, b"%d" % (number + 1)]
    equal(ours.execute(), wanted + [2, {b"a": b"1", b"b": b"2"}])
    # An error stands where its command stood.
    mixed = ours.set(key("p"), "word").incr(key("p")).get(key("p")).execute(raise_on_error=False)
    equal([mixed[0], type(mixed[1]), mixed[2]], [True, library.ResponseError, b"word"])


def transaction():
    ours, other = client(), client()
    account, log = key("{tx}account"), key("{tx}log")
    equal(ours.pipeline().set(account, 1).incr(account).rpush(log, "a").execute(), [True, 2, 1])

    def spend(pipe):
        balance = int(pipe.get(account))
        pipe.multi()
        pipe.set(account, balance - 1)
    equal(ours.transaction(spend, account), [True])

    with ours.pipeline() as pipe:
        pipe.watch(account)
        other.set(account, 100)
        pipe.multi()
        pipe.set(account, 0)
        raises(library.WatchError, pipe.execute)
    equal(ours.get(account), b"100")
    near, far = distant_keys(ours)
    raises(library.ResponseError, ours.pipeline().set(near, 1).set(far, 1).execute)


def blocking_pop():
    ours, other = client(), client()
    lists = [key("{list}1"), key("{list}2")]
    equal(ours.blpop(lists, timeout=1), None)
    got = []
    waiting = threading.Thread(target=lambda: got.append(ours.blpop(lists, timeout=10)))
    waiting.start()
    checks.wait_blocked()
    equal(other.rpush(lists[1], "late"), 1)
    waiting.join()
    got = [tuple(reply) for reply in got]
    equal(got, [(lists[1].encode(), b"late")])
    other.rpush(lists[0], "there")
    equal(ours.brpoplpush(lists[0], lists[1], timeout=5), b"there")
    other.zadd(key("z"), {"one": 1})
    equal([part for part in ours.bzpopmin(key("z"), timeout=5)], [key("z").encode(), b"one", 1.0])


def messages(listener, count):
    """The next ones that are no confirmations; also says when it has subscribed."""
    got = []
    while len(got) < count:
        message = listener.get_message(ignore_subscribe_messages=True, timeout=0.2)
        if message is not None:
            got.append((message["type"], message["channel"], message["data"]))
    return sorted(got)


def confirmed(listener, count):
    """Reads confirmations: what is published before one may be missed."""
    while count:
        message = listener.get_message(timeout=1)
        if message is not None:
            equal(message["type"] in ("subscribe", "psubscribe", "unsubscribe", "punsubscribe"), True)
            count -= 1


def pubsub():
    ours = client()
    listener = client().pubsub()
    names = [key("channel%d" % number) for number in range(5)]
    listener.subscribe(*names)
    listener.psubscribe(PREFIX + "pattern*")
    confirmed(listener, 6)
    for name in names:
        equal(ours.publish(name, "hello") >= 1, True)
    ours.publish(key("pattern1"), "hello")
    wanted = [("message", name.encode(), b"hello") for name in names]
    wanted.append(("pmessage", key("pattern1").encode(), b"hello"))
    equal(messages(listener, 6), sorted(wanted))
    listener.unsubscribe(*names)
    confirmed(listener, 5)
    ours.publish(names[0], "not heard")
    ours.publish(key("pattern1"), "still heard")
    equal(messages(listener, 1), [("pmessage", key("pattern1").encode(), b"still heard")])
    listener.close()


def scan():
    ours = client()
    names = {key("scan:%d" % number).encode() for number in range(KEYS)}
    ours.mset({name: 1 for name in names})
    seen = list(ours.scan_iter(match=PREFIX + "scan:*", count=50))
    equal((set(seen), len(seen)), (names, len(names)))
    equal(set(ours.keys(PREFIX + "scan:*")), names)
    equal(ours.dbsize() >= KEYS, True)
    ours.hset(key("hash"), mapping={"f%d" % number: number for number in range(KEYS)})
    equal(len(dict(ours.hscan_iter(key("hash")))), KEYS + 2)


def script():
    ours = client()
    equal(ours.eval("return {KEYS[1], ARGV[1], 7}", 1, key("s"), "x"), [key("s").encode(), b"x", 7])
    add = ours.register_script("redis.call('INCRBY', KEYS[1], ARGV[1]) return redis.call('GET', KEYS[2])")
    ours.set(key("{s}2"), "two")
    ours.script_flush()
    equal(add(keys=[key("{s}1"), key("{s}2")], args=[5]), b"two")
    equal(ours.get(key("{s}1")), b"5")
    equal(ours.script_exists(add.sha, "f" * 40), [True, False])
    raises(library.NoScriptError if hasattr(library, "NoScriptError") else library.ResponseError,
           ours.evalsha, "f" * 40, 1, key("s"))


def reconnect():
    ours = client()
    ours.set(key("kept"), "kept")
    listener = client().pubsub()
    listener.subscribe(key("again"))
    confirmed(listener, 1)
    checks.restart()
    # The first call may be told that the connection is lost; the next one finds back.
    equal(checks.until(lambda: ours.get(key("kept")), errors=(library.ConnectionError,)), b"kept")
    deadline = time.monotonic() + checks.RECONNECT_LIMIT_S
    heard = None
    while heard is None and time.monotonic() < deadline:
        ours.publish(key("again"), "back")
        try:
            heard = listener.get_message(ignore_subscribe_messages=True, timeout=0.1)
        except library.ConnectionError:
            continue  # it subscribes again by its next read
    equal(heard and heard["data"], b"back")


def errors():
    """A refused command leaves the connection as it was."""
    ours = client(single_connection_client=True)
    equal("unknown command" in str(raises(library.ResponseError, ours.execute_command, "NOSUCH", "a")), True)
    equal("not supported" in str(raises(library.ResponseError, ours.execute_command, "BGSAVE")), True)
    raises(library.ResponseError, ours.rename, *distant_keys(ours))
    equal(ours.ping(), True)


def distant_keys(ours):
    """Two keys on different shards: not all of many are on one."""
    first = key("0:distant")
    for number in range(1, 64):
        # What differs early in a key spreads more than what differs at its end.
        other = key("%d:distant" % number)
        ours.set(first, 1)
        try:
            ours.rename(first, other)
        except library.ResponseError:
            return first, other
    raise AssertionError("64 keys on one shard")


def main():
    report = checks.Report(CLIENT, library.__version__)
    for check in connect, get_set, pipeline, transaction, blocking_pop, pubsub, scan, script, reconnect, errors:
        report.check(check.__name__, check)
    report.end()


main()
