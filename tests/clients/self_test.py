"""Whether the runner tells a failure: suites that are wrong in every way it must
notice, run like real ones. Each says what must come of it."""
import os
import sys
import tempfile

import readme
import suites
from stage import Stage

LIMIT_S = 20
SHORT_LIMIT_S = 1

ALL_NINE = "\n".join("echo 'ok fake 1 %s'" % name for name in suites.NINE)
BUT_SCAN = "\n".join("echo 'ok fake 1 %s'" % name for name in suites.NINE if name != "scan")
# What it asks of the stage: the proxy answers after a restart, and forgets by a flush.
ORDERS = """
exec python3 - <<'END'
import os, socket, urllib.request
def order(path):
    urllib.request.urlopen(urllib.request.Request(os.environ["KEYFERRY_CONTROL"] + path, method="POST", data=b""))
def call(connection, request):
    connection.sendall(request)
    return connection.recv(100)
def connect():
    return socket.create_connection((os.environ["KEYFERRY_HOST"], int(os.environ["KEYFERRY_PORT"])), timeout=10)
before = connect()
assert call(before, b"SET fake:a 1\\r\\n") == b"+OK\\r\\n"
order("/restart")
assert call(before, b"") == b"", "the old proxy is still there"
after = connect()
assert call(after, b"GET fake:a\\r\\n") == b"$1\\r\\n1\\r\\n"
order("/flush")
assert call(after, b"GET fake:a\\r\\n") == b"$-1\\r\\n"
for name in %r: print("ok fake 1", name)
END
""" % suites.NINE

# Name, what it does at `install`, at `run`, and (passed, failed, skipped).
FAKES = [
    ("passes", "", ALL_NINE, (9, 0, 0)),
    ("orders", "", ORDERS, (9, 0, 0)),
    ("noise", "echo hello", "echo hello\n" + ALL_NINE, (9, 0, 0)),
    ("skips_one", "", BUT_SCAN + "\necho 'skipped fake 1 scan: it has none'", (8, 0, 1)),
    ("skips_all", "echo 'no toolchain'; exit 77", "exit 1", (0, 0, 1)),
    ("skips_without_reason", "exit 77", ALL_NINE, (0, 1, 0)),
    ("skips_one_without_reason", "", BUT_SCAN + "\necho 'skipped fake 1 scan'", (8, 1, 1)),
    ("fails", "", BUT_SCAN + "\necho 'failed fake 1 scan: wrong'; exit 1", (8, 1, 0)),
    ("fails_and_hides_it", "", BUT_SCAN + "\necho 'failed fake 1 scan: wrong'", (8, 2, 0)),
    ("misses_one", "", BUT_SCAN, (8, 1, 0)),
    ("misses_one_of_a_row", "", ALL_NINE + "\necho 'ok fake 2 connect'", (10, 1, 0)),
    ("silent", "", "", (0, 1, 0)),
    ("misspelt", "", ALL_NINE + "\necho 'ok fake extra'", (9, 1, 0)),
    ("crashes", "", ALL_NINE + "\nkill -SEGV $$", (9, 1, 0)),
    ("install_fails", "exit 3", ALL_NINE, (0, 1, 0)),
    ("hangs", "", ALL_NINE + "\nsleep 60", (9, 1, 0)),
    ("leaves_a_child", "", "sleep 60 &\n" + ALL_NINE, (9, 0, 0)),
]

README = """
| client | version | suite | exercised |
|---|---|---|---|
| fake, other | 1 | passes | all |
| fake | 1 | gone | all |

| fake | 1 | below the table | all |
"""


def main(keyferry):
    faults = []
    with tempfile.TemporaryDirectory() as directory, Stage(keyferry) as stage:
        for name, install, run, wanted in FAKES:
            faults += check_fake(directory, stage, name, install, run, wanted)
        faults += check_dead_proxy(stage)
    faults += check_readme()
    for fault in faults:
        print("failed: " + fault)
    print("self-test: %d fakes, %d faults" % (len(FAKES), len(faults)))
    return 1 if faults else 0


def check_fake(directory, stage, name, install, run, wanted):
    folder = os.path.join(directory, name)
    os.makedirs(folder)
    program = os.path.join(folder, "suite")
    with open(program, "w") as file:
        file.write("#!/bin/sh\nif [ $1 = install ]; then\n%s\nexit 0\nfi\n%s\n" % (install, run))
    os.chmod(program, 0o755)
    suite = suites.Suite(folder, os.path.join(directory, "cache"))
    result = suite.install(LIMIT_S)
    if not result.checks:
        suite.run(stage.environment(), result, SHORT_LIMIT_S if name == "hangs" else LIMIT_S)
    got = tuple(map(result.count, ("ok", "failed", "skipped")))
    return [] if got == wanted else ["%s: %r, not %r\n%s" % (name, got, wanted, result.stderr)]


def check_dead_proxy(stage):
    faults = ["it runs, and the stage says: %s" % stage.proxy_fault()] if stage.proxy_fault() else []
    stage.proxy.child.kill()
    stage.proxy.child.wait()
    if stage.proxy_fault() is None:
        faults.append("the proxy was killed, and the stage does not notice")
    return faults


def check_readme():
    table = readme.Table(README)
    result = suites.Result("passes", [suites.Check("ok", *row) for row in [
        ("fake", "1", "scan"), ("fake/variant", "1", "scan"), ("fake", "2", "scan")]])
    got = table.faults + table.of_suites(["passes", "untold"]) + table.of_result(result)
    wanted = ["the README has no row for the suite untold",
              "there is no suite gone, but the README has a row for it",
              "fake 2 ran and is not in the README's table",
              "other 1 is in the README's table and did not run"]
    faults = [] if got == wanted else ["README: %r" % got]
    if readme.Table("no table").faults == []:
        faults.append("a README without a table is taken")
    return faults


if __name__ == "__main__":
    sys.exit("run it by tests/clients/run --self-test")
