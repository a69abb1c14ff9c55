"""A suite: how it is called, and what is made of what it prints.

    suite install DIR    0: installed   77: the line on stdout says why it must be skipped
    suite run DIR        a line for each check; 0 only if none failed

    ok CLIENT VERSION CHECK
    failed CLIENT VERSION CHECK: why
    skipped CLIENT VERSION CHECK: reason

Lines that begin with none of the three words are the client's own noise. What a
suite does not say is a failure, too: a check of NINE that is missing, no check at
all, a reason that is missing, an end other than 0 without a failed check, a limit
that is over.
"""
import dataclasses
import os
import re
import signal
import subprocess
import time

NINE = ["connect", "get_set", "pipeline", "transaction", "blocking_pop", "pubsub", "scan", "script", "reconnect"]
MUST_SKIP = 77
INSTALL_LIMIT_S = 420
RUN_LIMIT_S = 150
TAIL_LINES = 25

CHECK_LINE = re.compile(r"(ok|failed|skipped) (\S+) (\S+) ([a-z0-9_]+)(?:: (.+))?")
FIRST_WORD = re.compile(r"(ok|failed|skipped)\b")


@dataclasses.dataclass(frozen=True)
class Check:
    outcome: str
    client: str
    version: str
    name: str
    why: str = ""

    @property
    def row(self):
        return "%s %s" % (self.client, self.version)


@dataclasses.dataclass
class Result:
    """`stderr` is its tail, for the reader of a failure."""
    suite: str
    checks: list
    install_s: float = 0
    run_s: float = 0
    stderr: str = ""

    def count(self, outcome):
        return sum(check.outcome == outcome for check in self.checks)

    def ran(self):
        """Whether the suite got as far as to its checks."""
        return self.run_s > 0


class Suite:
    def __init__(self, folder, cache):
        self.name = os.path.basename(folder)
        self.program = os.path.join(folder, "suite")
        self.cache = os.path.join(cache, self.name)

    def of_itself(self, outcome, name, why):
        return Check(outcome, self.name, "-", name, why)

    def install(self, limit_s=INSTALL_LIMIT_S):
        os.makedirs(self.cache, exist_ok=True)
        call = Call([self.program, "install", self.cache], {}, limit_s, os.path.join(self.cache, "install"))
        result = Result(self.name, [], install_s=call.seconds, stderr=call.stderr)
        if call.status == MUST_SKIP and call.lines:
            result.checks.append(self.of_itself("skipped", "install", call.lines[-1]))
        elif call.status == MUST_SKIP:
            result.checks.append(self.of_itself("failed", "install", "it wants to be skipped and does not say why"))
        elif call.fault:
            result.checks.append(self.of_itself("failed", "install", call.fault))
        return result

    def run(self, environment, result, limit_s=RUN_LIMIT_S):
        """Adds what it prints to the result of its installation."""
        call = Call([self.program, "run", self.cache], environment, limit_s, os.path.join(self.cache, "run"))
        result.run_s, result.stderr = call.seconds, call.stderr
        found, faults = judge(call.lines)
        result.checks += found
        failed = any(check.outcome == "failed" for check in found)
        if call.fault and not (failed and call.status > 0):
            faults.append(call.fault)
        elif failed and call.status == 0:
            faults.append("a check failed, and it ended with 0")
        result.checks += [self.of_itself("failed", "run", fault) for fault in faults]


class Call:
    """A call of a suite that is over: its status, its lines, and what is wrong
    with it at once. Nothing of what it started is left. Outputs go to files, for
    a child that outlives the suite must not keep a pipe open."""

    def __init__(self, argv, environment, limit_s, output):
        start = time.monotonic()
        self.fault = None
        with open(output + ".stdout", "w") as stdout, open(output + ".stderr", "w") as stderr:
            try:
                child = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=stdout, stderr=stderr,
                                         env={**os.environ, **environment}, start_new_session=True)
            except OSError as error:
                self.status, self.fault = -1, "cannot be started: %s" % error
            else:
                self.status = self.wait(child, limit_s)
        self.lines = [line.rstrip("\n") for line in read(output + ".stdout") if line.strip()]
        self.stderr = "".join(read(output + ".stderr")[-TAIL_LINES:])
        self.seconds = time.monotonic() - start

    def wait(self, child, limit_s):
        try:
            child.wait(timeout=limit_s)
        except subprocess.TimeoutExpired:
            self.fault = "not done in %d s" % limit_s
        finally:
            # The session is its own: what is left of it is a worker, a subscriber..
            try:
                os.killpg(child.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
            child.wait()
        if child.returncode != 0 and self.fault is None:
            self.fault = "ended with %d" % child.returncode
        return child.returncode


def read(path):
    with open(path, errors="replace") as file:
        return file.readlines()


def judge(lines):
    """The checks that the lines tell, and what is wrong with the lines."""
    found, faults = [], []
    for line in lines:
        match = CHECK_LINE.fullmatch(line.rstrip())
        if match is None:
            if FIRST_WORD.match(line):
                faults.append("no line of a check: %s" % line)
            continue
        check = Check(*match.groups(default=""))
        found.append(check)
        if check.outcome != "ok" and not check.why:
            faults.append("%s %s: no reason is given" % (check.row, check.name))
    for row in dict.fromkeys(check.row for check in found):
        told = {check.name for check in found if check.row == row}
        missing = [name for name in NINE if name not in told]
        if missing:
            faults.append("%s: nothing is told of %s" % (row, ", ".join(missing)))
    if not found:
        faults.append("it told of no check")
    return found, faults


def find(folder, cache):
    """Every folder with a `suite` in it."""
    names = sorted(name for name in os.listdir(folder) if os.path.exists(os.path.join(folder, name, "suite")))
    return [Suite(os.path.join(folder, name), cache) for name in names]
