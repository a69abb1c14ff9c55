"""The checks of redis-cli: redis_cli.py [-3]"""
import fcntl
import os
import pty
import re
import select
import struct
import subprocess
import sys
import tempfile
import termios
import time

import checks
import resp
from checks import equal

OPTIONS = sys.argv[1:]
CLI = ["redis-cli", "-h", checks.HOST, "-p", str(checks.PORT), *OPTIONS]
PREFIX = "cli:%s" % "".join(OPTIONS)
KEYS = 200
# How long what must come may take: it is there at once, unless the machine is busy.
ANSWER_LIMIT_S = 10
ENVIRONMENT = {**os.environ, "REDISCLI_HISTFILE": "/dev/null", "TERM": "xterm", "NO_COLOR": "1"}


def key(name):
    return PREFIX + ":" + name


def cli(*arguments, say=""):
    """What it prints, by lines."""
    return printed(arguments, say.encode()).decode().splitlines()


def printed(arguments, say):
    done = subprocess.run([*CLI, *arguments], input=say, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          check=False, env=ENVIRONMENT, timeout=checks.CHECK_LIMIT_S)
    if done.returncode != 0:
        raise AssertionError("%s ended with %d: %r" % (arguments, done.returncode, done.stdout))
    return done.stdout


class Talk:
    """One that goes on: it is told lines, and its lines are read."""

    def __init__(self, *arguments):
        self.arguments = arguments

    def __enter__(self):
        self.child = subprocess.Popen([*CLI, *self.arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                      stderr=subprocess.STDOUT, text=True, env=ENVIRONMENT)
        return self

    def __exit__(self, *_):
        self.child.kill()
        self.child.communicate()

    def say(self, line):
        self.child.stdin.write(line + "\n")
        self.child.stdin.flush()

    def line(self):
        return self.child.stdout.readline().rstrip("\n")

    def ask(self, line):
        self.say(line)
        return self.line()


def connect():
    equal(cli("PING"), ["PONG"])
    with Talk() as talk:
        equal(talk.ask("CLIENT SETNAME checks"), "OK")
        equal(talk.ask("CLIENT GETNAME"), "checks")
    told = dict(zip(*[iter(cli("HELLO"))] * 2)) if not OPTIONS else {"proto": "3"}
    equal(told.get("proto"), "3" if OPTIONS else "2")


def get_set():
    names = [key("%d" % number) for number in range(KEYS)]
    equal(cli("MSET", *[word for name in names for word in (name, name)]), ["OK"])
    checks.spread_over_shards(PREFIX + ":*")
    equal(cli("MGET", *names), names)
    equal(cli("-x", "SET", key("stdin"), say="from stdin"), ["OK"])
    equal(cli("GET", key("stdin")), ["from stdin"])
    equal(cli("-r", "3", "INCR", key("count")), ["1", "2", "3"])
    equal(cli("DEL", *names), [str(KEYS)])
    equal(cli("--no-raw", "GET", names[0]), ["(nil)"])


def pipeline():
    """--pipe takes RESP and inline commands, and asks by an ECHO whether all is done."""
    as_resp = b"".join(resp.encode("SET", key("r%d" % number), "x\r\ny") for number in range(KEYS))
    inline = "".join("SET %s %d\r\n" % (key("i%d" % number), number) for number in range(KEYS))
    for data in as_resp, inline.encode():
        told = printed(["--pipe"], data).decode()
        equal("errors: 0, replies: %d" % KEYS in told, True)
    equal(printed(["GET", key("r7")], b""), b"x\r\ny\n")
    equal(cli("MGET", key("i0"), key("i%d" % (KEYS - 1))), ["0", str(KEYS - 1)])


def transaction():
    one, two = key("{tx}a"), key("{tx}b")
    said = ["MULTI", "SET %s 1" % one, "INCR %s" % one, "RPUSH %s x" % two, "EXEC"]
    equal(cli(say="\n".join(said)), ["OK", "QUEUED", "QUEUED", "QUEUED", "OK", "2", "1"])
    with Talk() as talk:
        equal(talk.ask("WATCH " + one), "OK")
        equal(cli("SET", one, "100"), ["OK"])
        equal([talk.ask("MULTI"), talk.ask("SET %s 0" % one)], ["OK", "QUEUED"])
        equal(talk.ask("EXEC"), "")
    equal(cli("GET", one), ["100"])


def blocking_pop():
    with Talk("BLPOP", key("{l}1"), key("{l}2"), "10") as talk:
        checks.wait_blocked()
        equal(cli("RPUSH", key("{l}2"), "late"), ["1"])
        equal([talk.line(), talk.line()], [key("{l}2"), "late"])


def pubsub():
    names = [key("channel%d" % number) for number in range(5)]
    with Talk("SUBSCRIBE", *names) as talk:
        for number, name in enumerate(names, 1):
            equal([talk.line() for _ in range(3)], ["subscribe", name, str(number)])
        for name in names:
            cli("PUBLISH", name, "hello")
        got = [tuple(talk.line() for _ in range(3)) for _ in names]
        equal(sorted(got), sorted(("message", name, "hello") for name in names))


def scan():
    names = {key("scan:%d" % number) for number in range(KEYS)}
    cli("MSET", *[word for name in names for word in (name, "1")])
    seen = cli("--scan", "--pattern", PREFIX + ":scan:*")
    equal((set(seen), len(seen)), (names, KEYS))


def script():
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as file:
        file.write("return {redis.call('INCRBY', KEYS[1], ARGV[1]), KEYS[2]}")
        file.flush()
        equal(cli("--eval", file.name, key("{s}1"), key("{s}2"), ",", "5"), ["5", key("{s}2")])
    sha = cli("SCRIPT", "LOAD", "return ARGV[1]")[0]
    equal(cli("EVALSHA", sha, "1", key("s"), "told"), ["told"])


def reconnect():
    """The line by which it learns that its connection is lost may fail; the next finds back."""
    with Talk() as talk:
        equal(talk.ask("SET %s kept" % key("kept")), "OK")
        checks.restart()
        first = talk.ask("GET %s" % key("kept"))
        equal(first == "kept" or first.startswith("Error: "), True)
        equal(talk.ask("GET %s" % key("kept")), "kept")


def bigkeys():
    checks.flush()
    cli("SET", key("biggest"), "x" * 100_000)
    cli("RPUSH", key("list"), *["x"] * 500)
    for option, wanted in ("--bigkeys", "has 100000 bytes"), ("--memkeys", "bytes"):
        told = cli(option)
        for name in "biggest", "list":
            equal(any("Biggest" in line and key(name) in line for line in told), True)
        equal(any(wanted in line for line in told if key("biggest") in line), True)
        sampled = int(next(re.search(r"Sampled (\d+) keys", line) for line in told if "Sampled" in line)[1])
        equal(sampled, int(cli("DBSIZE")[0]))


def latency():
    # Without a terminal it prints one line after a while and ends.
    least, most, average, samples = map(float, cli("--latency", "-i", "1")[-1].split())
    equal(least <= average <= most and samples > 1, True)


def stat():
    """Lines of INFO's numbers, forever."""
    with Talk("--stat", "-i", "0.05") as talk:
        heads = [talk.line() for _ in range(2)]
        numbers = talk.line().split()
        equal("clients" in heads[1] and numbers[0].isdigit(), True)


class Terminal:
    """redis-cli at a prompt, as a person has it."""

    def __enter__(self):
        self.ours, theirs = pty.openpty()
        # Of a terminal without a size, it asks where the cursor is.
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 200, 0, 0))
        self.child = subprocess.Popen(CLI, stdin=theirs, stdout=theirs, stderr=theirs, env=ENVIRONMENT,
                                      start_new_session=True)
        os.close(theirs)
        self.seen = ""
        return self

    def __exit__(self, *_):
        self.child.kill()
        self.child.wait()
        os.close(self.ours)

    def type(self, text):
        self.seen = ""
        os.write(self.ours, text.encode())

    def wait_for(self, text):
        """Reads until it stands there; colours and moves of the cursor do not count."""
        deadline = time.monotonic() + ANSWER_LIMIT_S
        while text not in re.sub(r"\x1b\[[0-9;]*[a-zA-Z]", "", self.seen):
            ready, _, _ = select.select([self.ours], [], [], max(0, deadline - time.monotonic()))
            if not ready:
                raise AssertionError("no %r in %r" % (text, self.seen[-300:]))
            self.seen += os.read(self.ours, 65536).decode(errors="replace")


def interactive():
    """At its start it asks for COMMAND DOCS; hints and help are made of them."""
    with Terminal() as terminal:
        prompt = "%s:%d> " % (checks.HOST, checks.PORT)
        terminal.wait_for(prompt)
        terminal.type("getrange ")
        terminal.wait_for("key start end")
        terminal.type("%s 0 -1\r" % key("nothing"))
        # The next prompt: what is typed before it is thrown away.
        terminal.wait_for('""\r\n' + prompt)
        terminal.type("help getrange\r")
        terminal.wait_for("summary: ")
        terminal.wait_for("since: 2.4.0")


def main():
    version = subprocess.run(["redis-cli", "--version"], capture_output=True, text=True, check=True).stdout.split()[1]
    report = checks.Report("redis-cli" + ("/resp3" if OPTIONS else ""), version)
    for check in (connect, get_set, pipeline, transaction, blocking_pop, pubsub, scan, script, reconnect,
                  bigkeys, latency, stat, interactive):
        report.check(check.__name__, check)
    report.end()


main()
