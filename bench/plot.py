#!/usr/bin/env python3
"""A bar chart of the CPU a request costs, as a ratio to the best peer's.

By itself, it draws what `bench/run --json` wrote:

    bench/plot.py RESULTS.json CHART.png

It needs matplotlib. Where Python has none, `draw` installs it into a virtual
environment below target/ and starts this file again there.
"""
import importlib.util
import json
import os
import subprocess
import sys

VENV = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "target", "bench-venv")
TICKS = (0.125, 0.25, 0.5, 0.75, 1, 1.5, 2, 3, 4, 6, 8)
SCALE = (0.1, 12)


def draw(json_path, png_path):
    """Makes the chart; says why not, if it cannot, and returns whether it did."""
    python = sys.executable
    if importlib.util.find_spec("matplotlib") is None:
        python = os.path.join(VENV, "bin", "python")
        for argv in ([sys.executable, "-m", "venv", VENV], [python, "-m", "pip", "install", "-q", "matplotlib"]):
            if has_matplotlib(python):
                break
            print("plot: %s" % " ".join(argv), file=sys.stderr)
            if subprocess.run(argv, stdout=sys.stderr, check=False).returncode != 0:
                print("plot: no chart: there is no matplotlib, and it could not be installed into %s; install the "
                      "Debian package python3-matplotlib, then: bench/plot.py %s %s"
                      % (VENV, json_path, png_path), file=sys.stderr)
                return False
    return subprocess.run([python, os.path.abspath(__file__), json_path, png_path], check=False).returncode == 0


def has_matplotlib(python):
    return os.access(python, os.X_OK) and subprocess.run(
        [python, "-c", "import matplotlib"], stderr=subprocess.DEVNULL, check=False).returncode == 0


def main(json_path, png_path):
    import matplotlib
    matplotlib.use("Agg")
    from matplotlib import pyplot
    with open(json_path) as file:
        results = json.load(file)
    kinds = results["kinds"]
    figure, panels = pyplot.subplots(len(kinds), 1, figsize=(14, 5.5 * len(kinds)), squeeze=False)
    names = list(dict.fromkeys(name for kind in kinds for name in kind["subjects"]))
    colors = {name: pyplot.get_cmap("tab10")(number % 10) for number, name in enumerate(names)}
    for panel, kind in zip(panels[:, 0], kinds):
        bars(panel, kind, results, colors)
    figure.suptitle("CPU of the proxy per request; the best peer of each workload is 1")
    figure.tight_layout()
    figure.savefig(png_path, dpi=110)


def bars(panel, kind, results, colors):
    names = kind["subjects"]
    width = 0.85 / len(names)
    for number, name in enumerate(names):
        places, heights, costs = [], [], []
        for at, row in enumerate(results["rows"]):
            cost = kind["cpu_per_million"][row["name"]].get(name)
            best = kind["best_peer"][row["name"]]
            if cost is None:
                continue
            scale = kind["cpu_per_million"][row["name"]][best] if best else cost
            places.append(at + (number - len(names) / 2 + 0.5) * width)
            heights.append(cost / scale)
            costs.append("%.2f" % cost)
        drawn = panel.bar(places, heights, width, label=name, color=colors[name])
        panel.bar_label(drawn, costs, fontsize=6, rotation=90, padding=2)
    for at, row in enumerate(results["rows"]):
        label = "goal for keyferry" if at == 0 else None
        panel.hlines(row["peer_goal"], at - 0.45, at + 0.45, colors="black", linestyles="dashed", linewidth=1,
                     label=label)
    panel.set_xticks(range(len(results["rows"])), [row["title"].replace(", ", ",\n") for row in results["rows"]],
                     fontsize=8)
    panel.set_ylabel("CPU, best peer = 1\n(on the bars: s per million)")
    panel.set_yscale("log", base=2)
    panel.set_ylim(*SCALE)
    panel.set_yticks(TICKS, ["%g" % tick for tick in TICKS])
    panel.grid(axis="y", linewidth=0.3)
    panel.set_axisbelow(True)
    panel.set_title(kind["title"])
    panel.legend(fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.12), ncols=8, frameon=False)


if __name__ == "__main__":
    if len(sys.argv) != 3:
        raise SystemExit(__doc__)
    if importlib.util.find_spec("matplotlib") is None:
        sys.exit(not draw(*sys.argv[1:]))
    main(*sys.argv[1:])
