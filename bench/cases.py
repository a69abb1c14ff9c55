"""The rows of the table: what the clients send, and what is to be reached."""
import dataclasses
from typing import Optional

import resp

KEYS = 100_000
# 16 KB values would be 1.6 GB on the shards with as many keys.
LARGE_KEYS = 2_000
MSET_KEYS = 10


@dataclasses.dataclass(frozen=True)
class Row:
    name: str
    title: str
    command: str
    pipeline: int
    requests: int  # of one redis-benchmark run: some two seconds
    peer_goal: float  # CPU of keyferry / CPU of the best peer, at most
    limit_goal: Optional[float] = None  # CPU of the null mux / CPU of keyferry, at least
    clients: int = 50
    value_bytes: int = 64

    @property
    def keys(self):
        return LARGE_KEYS if self.value_bytes > 1024 else KEYS

    def frames(self):
        """What the null mux must know: the length of a request and of its
        reply, and which byte of the request is the key's last digit."""
        key, value = b"key:%012d" % 0, b"x" * self.value_bytes
        if self.command == "get":
            request, reply = resp.encode("GET", key), resp.encode(value)[len(b"*1\r\n"):]
        elif self.command == "set":
            request, reply = resp.encode("SET", key, value), b"+OK\r\n"
        else:
            request, reply = resp.encode("MSET", *[key, value] * MSET_KEYS), b"+OK\r\n"
        return len(request), len(reply), request.index(key) + len(key) - 1


ROWS = [
    Row("set-p1", "SET, pipeline 1", "set", 1, 100_000, 0.85, 0.85),
    Row("get-p1", "GET, pipeline 1", "get", 1, 100_000, 0.85, 0.85),
    Row("set-p16", "SET, pipeline 16", "set", 16, 800_000, 0.6, 0.6),
    Row("get-p16", "GET, pipeline 16", "get", 16, 800_000, 0.6, 0.6),
    Row("get-p64", "GET, pipeline 64", "get", 64, 1_500_000, 0.5, 0.5),
    Row("mset", "MSET of 10 keys", "mset", 1, 50_000, 0.6),
    Row("set-16k", "SET of 16 KB, pipeline 1", "set", 1, 40_000, 0.7, value_bytes=16 * 1024),
    Row("get-1000", "GET, pipeline 1, 1000 clients", "get", 1, 100_000, 0.85, clients=1000),
]
