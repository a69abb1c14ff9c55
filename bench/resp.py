"""A RESP client that is just enough to fill servers and to ask how far they are."""
import random
import socket


class ErrorReply(SystemExit):
    """Ends the program with the server's words, unless somebody knows better."""


class Client:
    def __init__(self, port):
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=120)
        self.file = self.socket.makefile("rb")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.file.close()
        self.socket.close()

    def call(self, *args):
        self.socket.sendall(encode(*args))
        return self.reply()

    def reply(self):
        line = self.file.readline()
        kind, rest = line[:1], line[1:-2]
        if kind == b"$":
            return None if rest == b"-1" else self.file.read(int(rest) + 2)[:-2]
        if kind == b":":
            return int(rest)
        if kind == b"*":
            return [self.reply() for _ in range(int(rest))]
        if kind == b"+":
            return rest
        raise ErrorReply("unexpected reply: %r" % line)


def encode(*args):
    parts = [b"*%d\r\n" % len(args)]
    for arg in args:
        arg = arg if isinstance(arg, bytes) else str(arg).encode()
        parts.append(b"$%d\r\n%s\r\n" % (len(arg), arg))
    return b"".join(parts)


def fill(port, count, value_bytes, seed=1):
    """SETs `key:%012d` for 0..count, as redis-benchmark names keys, to random
    bytes: what cannot be compressed is copied at its full size."""
    pool = random.Random(seed).randbytes(1 << 20)
    with Client(port) as client:
        for start in range(0, count, 1000):
            batch = range(start, min(start + 1000, count))
            out = []
            for number in batch:
                at = number * 7919 % (len(pool) - value_bytes)
                out.append(encode("SET", b"key:%012d" % number, pool[at:at + value_bytes]))
            client.socket.sendall(b"".join(out))
            for _ in batch:
                client.reply()


def info(client, section):
    text = client.call("INFO", section).decode()
    return dict(line.split(":", 1) for line in text.splitlines() if ":" in line)
