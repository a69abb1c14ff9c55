"""What the suites talk to: three redis-servers, one keyferry before them, and a
small HTTP server by which a suite restarts the proxy or empties the shards.

    suite ──RESP──> keyferry ──> redis s1, s2, s3
      └──HTTP──> POST /restart   the proxy ends and listens again on the same port
                 POST /flush     every shard is emptied

All are on free loopback ports in a temporary directory and end with the stage.
"""
import http.server
import os
import signal
import subprocess
import sys
import threading

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.dont_write_bytecode = True
sys.path.append(os.path.join(ROOT, "bench"))
import processes  # noqa: E402
import resp  # noqa: E402

SHARDS = 3
WORKERS = 2
# A queue's programs use several keys in one command, so its keys must share a
# shard. The README tells which rule is whose.
ROUTE = {"celery:": "s1", "rq:": "s2", "bull:": "s3"}
# How long a proxy may answer what is in flight before it is asked a second time,
# which ends it at once: a client that waits in BLPOP is never done.
DRAIN_S = 2


class Stage:
    """A context: the servers run inside it."""

    def __init__(self, keyferry):
        self.binary = keyferry
        self.restarts = 0
        self.restarting = threading.Lock()

    def __enter__(self):
        self.workplace = processes.Workplace().__enter__()
        try:
            self.directory = self.workplace.directory
            self.shards = [self.workplace.keep(processes.redis_server(self.directory)) for _ in range(SHARDS)]
            self.port = processes.free_port()
            self.config = self.write_config()
            self.proxy = self.workplace.keep(self.start_proxy())
            self.control = Control(self)
            threading.Thread(target=self.control.serve_forever, daemon=True).start()
        except BaseException:
            self.workplace.__exit__()
            raise
        return self

    def __exit__(self, *_):
        self.control.shutdown()
        self.control.server_close()
        self.end_proxy()
        self.workplace.__exit__()

    def write_config(self):
        state = os.path.join(self.directory, "state")
        os.makedirs(state)
        rules = ", ".join('{ prefix = "%s", shard = "%s" }' % rule for rule in ROUTE.items())
        return processes.write_lines(os.path.join(self.directory, "keyferry.toml"), [
            "[server]", "workers = %d" % WORKERS, 'state_dir = "%s"' % state, "",
            "[log]", 'level = "warn"', "",
            "[admin]", 'http = "127.0.0.1:%d"' % processes.free_port(), "",
            "[pool.main]", 'listen = ["127.0.0.1:%d"]' % self.port, 'hash_tag = "{}"',
            "route = [%s]" % rules, "allow_flush = true",
            *processes.LAYOUT, *processes.shard_tables("pool.main.shard", self.shards),
        ])

    def start_proxy(self):
        name = "keyferry-%d" % self.restarts
        argv = [self.binary, "run", "-c", self.config]
        return processes.Process(name, argv, self.port, self.directory)

    def end_proxy(self):
        child = self.proxy.child
        for _ in range(2):
            if child.poll() is not None:
                return
            child.send_signal(signal.SIGTERM)
            try:
                child.wait(timeout=DRAIN_S)
            except subprocess.TimeoutExpired:
                continue
        self.proxy.stop()

    def restart(self):
        with self.restarting:
            self.end_proxy()
            self.workplace.drop(self.proxy)
            self.restarts += 1
            self.proxy = self.workplace.keep(self.start_proxy())

    def flush(self):
        for shard in self.shards:
            with resp.Client(shard.port) as client:
                client.call("FLUSHALL")

    def proxy_fault(self):
        """Why the proxy is not running, if so."""
        with self.restarting:
            status = self.proxy.child.poll()
            return None if status is None else "keyferry ended with %d:\n%s" % (status, self.proxy.log_tail())

    def environment(self):
        return {
            "KEYFERRY_HOST": "127.0.0.1",
            "KEYFERRY_PORT": str(self.port),
            "KEYFERRY_CONTROL": "http://127.0.0.1:%d" % self.control.server_port,
            "KEYFERRY_SHARDS": ",".join("127.0.0.1:%d" % shard.port for shard in self.shards),
        }


class Control(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, stage):
        super().__init__(("127.0.0.1", 0), ControlHandler)
        self.orders = {"/restart": stage.restart, "/flush": stage.flush}


class ControlHandler(http.server.BaseHTTPRequestHandler):
    def do_POST(self):  # noqa: N802, the name is the base class's
        order = self.server.orders.get(self.path)
        if order is None:
            return self.answer(404, "there are: " + " ".join(self.server.orders))
        try:
            order()
        except (OSError, SystemExit) as fault:
            return self.answer(500, str(fault))
        return self.answer(200, "done")

    def answer(self, status, text):
        body = (text + "\n").encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        try:
            self.end_headers()
            self.wfile.write(body)
        except ConnectionError:
            pass  # a suite that hangs up at the status line has what it asked for

    def log_message(self, *_):
        pass  # stderr is for what went wrong
