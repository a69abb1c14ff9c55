"""From samples to markdown: costs, ratios and their goals, latency, memory."""
import dataclasses
import statistics

import processes
import subjects

TITLES = {"canned": "Canned clients and shards (the proxy is saturated)",
          "redis": "redis-benchmark and redis-server"}


# A proxy that used less of its processor was not saturated.
BUSY_WANTED = 0.9


class Results:
    """The good samples by cell. A cell that has none keeps all it has."""

    def __init__(self, samples, memory, arguments):
        # In the order in which they were started; the null mux comes last.
        self.columns = {}
        for sample in sorted(samples, key=lambda sample: sample["subject"] == subjects.NULL_MUX):
            names = self.columns.setdefault(sample["kind"], [])
            if sample["subject"] not in names:
                names.append(sample["subject"])
        self.samples = samples
        self.memory = memory
        self.arguments = arguments
        self.rows = arguments.rows
        self.kinds = list(memory)
        self.peers = [subjects.NUTCRACKER, subjects.NUTCRACKER + " -m 1024",
                      *(peer.name for peer in arguments.peers)]
        self.cells = {}
        self.doubtful = set()
        for sample in samples:
            cell = sample["kind"], sample["row"], sample["subject"]
            self.cells.setdefault(cell, []).append(sample)
        for cell, found in self.cells.items():
            good = [sample for sample in found if not sample["dropped"]]
            if not good:
                self.doubtful.add(cell)
            self.cells[cell] = good or found

    def names(self, kind):
        return self.columns[kind]

    def values(self, kind, row, name, what):
        return [sample[what] for sample in self.cells.get((kind, row.name, name), [])]

    def median(self, kind, row, name, what):
        values = self.values(kind, row, name, what)
        return statistics.median(values) if values else None

    def best_peer(self, kind, row, what="cpu_per_million"):
        """The peer that is lowest in this row, if there is any."""
        found = [(self.median(kind, row, name, what), name) for name in self.peers]
        return min((pair for pair in found if pair[0] is not None), default=(None, None))[1]

    def ratio(self, kind, row, over, under):
        """Median of the ratios of each round, lowest, highest."""
        rounds = {}
        for name in (over, under):
            for sample in self.cells.get((kind, row.name, name), []):
                rounds.setdefault(sample["round"], {})[name] = sample["cpu_per_million"]
        ratios = [pair[over] / pair[under] for pair in rounds.values() if len(pair) == 2]
        if not ratios:
            above, below = (self.median(kind, row, name, "cpu_per_million") for name in (over, under))
            ratios = [above / below] if above and below else []
        return ratios


def markdown(results):
    parts = [headline(results)]
    for kind in results.kinds:
        parts += ["## " + TITLES[kind], "CPU seconds of the proxy per million requests; median (lowest-highest)",
                  costs(results, kind)]
        if subjects.KEYFERRY in results.names(kind):
            parts += ["keyferry, 1 worker, beside the best peer of each row and the limit", ratios(results, kind)]
        parts += ["p99 in ms (of a whole batch at pipeline > 1) and requests per second", latencies(results, kind)]
        if kind == "canned":
            parts += [unsaturated(results)]
        else:
            parts += ["CPU seconds of both shards together per million requests", behind(results, kind)]
        calls = system_calls(results, kind)
        if calls:
            parts += ["System calls of keyferry per request", calls]
    parts += ["## Peak memory, MB", memory(results), dropped(results)]
    return "\n\n".join(parts) + "\n"


def headline(results):
    arguments = results.arguments
    text = ("50 clients (1000 in the last row), 64 byte values, random keys, 2 shards; %d rounds of some %g s; %s"
            % (arguments.rounds, 0.4 if arguments.quick else arguments.seconds, processes.machine()))
    if "canned" in results.kinds and arguments.proxy_cpus:
        text += "; canned: the proxy has processor %d for itself (2 workers: none)" % arguments.proxy_cpus[0]
    return text


def costs(results, kind):
    names = results.names(kind)
    rows = []
    for row in results.rows:
        cells = []
        for name in names:
            mark = " ?" if (kind, row.name, name) in results.doubtful else ""
            cells.append(processes.spread(results.values(kind, row, name, "cpu_per_million"), "%.2f") + mark)
        rows.append([row.title, *cells])
    return processes.table(["workload", *names], rows)


def ratios(results, kind):
    rows = []
    for row in results.rows:
        best = results.best_peer(kind, row)
        found = results.ratio(kind, row, subjects.KEYFERRY, best) if best else []
        cells = [row.title, best or "-", processes.spread(found, "%.2f"), "<= %.2f" % row.peer_goal,
                 verdict(found, lambda ratio: ratio <= row.peer_goal)]
        if subjects.NULL_MUX in results.names(kind):
            limit = results.ratio(kind, row, subjects.NULL_MUX, subjects.KEYFERRY)
            goal = row.limit_goal
            cells += [processes.spread(limit, "%.2f"), ">= %.2f" % goal if goal else "-",
                      verdict(limit, lambda ratio: ratio >= goal) if goal else "-"]
        rows.append(cells)
    header = ["workload", "best peer", "keyferry / it", "goal", ""]
    if subjects.NULL_MUX in results.names(kind):
        header += ["null mux / keyferry", "goal", ""]
    return processes.table(header, rows)


def verdict(ratios_found, is_met):
    if not ratios_found:
        return "-"
    return "met" if is_met(statistics.median(ratios_found)) else "NOT met"


def latencies(results, kind):
    names = results.names(kind)
    rows = []
    for row in results.rows:
        cells = []
        for name in names:
            p99, rps = (results.median(kind, row, name, what) for what in ("p99_ms", "rps"))
            cells.append("-" if p99 is None else "%.2f, %.0fk" % (p99, rps / 1e3))
        best = results.best_peer(kind, row, "p99_ms")
        own = results.median(kind, row, subjects.KEYFERRY, "p99_ms")
        if best and own is not None:
            other = results.median(kind, row, best, "p99_ms")
            cells.append("%s: %.2f, %s" % (best, own / other, "met" if own <= other else "NOT met"))
        else:
            cells.append("-")
        rows.append([row.title, *cells])
    return processes.table(["workload", *names, "keyferry's p99 / the best peer's (goal <= 1)"], rows)


def behind(results, kind):
    names = [name for name in results.names(kind) if name != subjects.NO_PROXY]
    return processes.table(["workload", *names], [
        [row.title, *("%.2f" % results.median(kind, row, name, "shards_cpu_per_million") for name in names)]
        for row in results.rows])


def unsaturated(results):
    """A proxy that waits for its clients gets smaller batches than it could."""
    lines = []
    for row in results.rows:
        busy = {name: results.median("canned", row, name, "busy") for name in results.names("canned")}
        found = ["%s %.0f" % (name, 100 * share) for name, share in busy.items()
                 if share < BUSY_WANTED and name != subjects.TWO_WORKERS]
        if found:
            lines.append("- %s: %s" % (row.title, ", ".join(found)))
    if not lines:
        return "Every proxy of one thread used its processor for at least %.0f %% of the time." % (100 * BUSY_WANTED)
    return "Used less than %.0f %% of a processor, in %%:\n\n%s" % (100 * BUSY_WANTED, "\n".join(lines))


def system_calls(results, kind):
    rows = []
    for row in results.rows:
        found = [sample["calls_per_request"] for sample in results.cells.get((kind, row.name, subjects.KEYFERRY), [])
                 if "calls_per_request" in sample]
        if found:
            ops = sorted(found[0])
            rows.append([row.title, *("%.3f" % statistics.median(calls[op] for calls in found) for op in ops)])
    return processes.table(["workload", *ops], rows) if rows else ""


def memory(results):
    names = sorted({name for peaks in results.memory.values() for name in peaks},
                   key=lambda name: [name for kind in results.kinds for name in results.memory[kind]].index(name))
    rows = []
    for kind in results.kinds:
        peaks = results.memory[kind]
        rows.append([TITLES[kind].split(" (")[0],
                     *("%.1f" % (peaks[name] / 1e6) if name in peaks else "-" for name in names)])
    return processes.table(["load", *names], rows)


def dropped(results):
    lost = [sample for sample in results.samples if sample["dropped"]]
    text = "%d of %d measurements were dropped as disturbed" % (len(lost), len(results.samples))
    for word in ("steal", "others", "switches"):
        count = sum(1 for sample in lost if word in sample["dropped"])
        text += "%s %d for %s" % (":" if word == "steal" else ",", count, word)
    if results.doubtful:
        text += ". Cells marked ? have no undisturbed measurement: take them as a hint only"
    return text + "."


def as_json(results):
    """Everything, for a later look and for the chart."""
    kinds = []
    for kind in results.kinds:
        kinds.append({
            "name": kind, "title": TITLES[kind], "subjects": results.names(kind),
            "cpu_per_million": {row.name: {name: results.median(kind, row, name, "cpu_per_million")
                                           for name in results.names(kind)} for row in results.rows},
            "best_peer": {row.name: results.best_peer(kind, row) for row in results.rows},
            "peak_memory_bytes": results.memory[kind],
        })
    return {"machine": processes.machine(), "rounds": results.arguments.rounds,
            "rows": [dataclasses.asdict(row) for row in results.rows], "kinds": kinds, "samples": results.samples}
