"""What `bench/copy` copies: keys of a kind, the same ones for every subject.

A data set is written through a proxy where there is one, so that each key lies
on the source that the layout gives it to; otherwise the keys are dealt out in
turn. Values are random bytes: what cannot be compressed is copied at its full size.
"""
import random

import resp

BATCH = 1000
POOL = random.Random(1).randbytes(1 << 20)
TEXT = POOL.hex().encode()


def piece(number, length, pool=POOL):
    at = number * 7919 % (len(pool) - length)
    return pool[at:at + length]


def strings(length):
    def commands(number):
        yield "SET", b"key:%012d" % number, piece(number, length)
    return commands


def mix(number):
    """A small hash, list, set or sorted set, in turn: 8 elements of 12 bytes."""
    words = [piece(number + at * 31, 12, TEXT) for at in range(8)]
    kind, key = number % 4, b"key:%012d" % number
    if kind == 0:
        yield "HSET", key, *[part for at, word in enumerate(words) for part in (b"field:%d" % at, word)]
    elif kind == 1:
        yield "RPUSH", key, *words
    elif kind == 2:
        yield "SADD", key, *words
    else:
        yield "ZADD", key, *[part for at, word in enumerate(words) for part in (number % 1000 + at, word)]


# Name -> commands of one key, and how many keys there are of it when the first has one million.
SETS = {
    "strings of 200 bytes": (strings(200), 1.0),
    "mix of small hashes, lists, sets, zsets": (mix, 1.0),
    "strings of 16 KB": (strings(16384), 0.1),
}


def fill(ports, count, commands):
    """Writes `count` keys to the servers at `ports`, a batch to each in turn.
    Returns the bytes of keys, fields, elements and scores written."""
    written = 0
    clients = [resp.Client(port) for port in ports]
    for turn, start in enumerate(range(0, count, BATCH)):
        client, out, replies = clients[turn % len(clients)], [], 0
        for number in range(start, min(start + BATCH, count)):
            for command in commands(number):
                out.append(resp.encode(*command))
                written += sum(len(part) if isinstance(part, bytes) else len(str(part)) for part in command[1:])
                replies += 1
        client.socket.sendall(b"".join(out))
        for _ in range(replies):
            client.reply()
    for client in clients:
        client.__exit__()
    return written
