"""Figures that are committed and may not grow unnoticed.

`bench/NAME` measures, `bench/NAME.tsv` has a line for each figure, and the tools
they were measured with:

    # ... what they are, and how a growth is accepted
    tools<TAB>rustc 1.95.0; glibc 2.36
    get-1<TAB>712.3

With other tools figures differ although nothing of ours changed. They are then
held against a wider bound, and the run says that the file is stale.
"""
import os

import processes

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
GROWTH_MAX = 0.03
GROWTH_WITH_OTHER_TOOLS_MAX = 0.10
TOOLS = "tools"


class Baseline:
    """The figures that `command` (bench/NAME) measures. `unit` says what each
    of them is, `form` how many digits of it count."""

    def __init__(self, command, unit, form, tools=""):
        self.command = command
        self.file = command + ".tsv"
        self.unit = unit
        self.form = form
        self.tools = tools
        self.known = {}
        self.known_tools = ""
        self.path = os.path.join(ROOT, self.file)
        if os.path.exists(self.path):
            self.read()

    def read(self):
        with open(self.path) as file:
            for line in file:
                name, tab, text = line.rstrip("\n").partition("\t")
                if name == TOOLS:
                    self.known_tools = text
                elif tab and not name.startswith("#"):
                    self.known[name] = float(text)

    def accept(self, figures):
        lines = [
            "# %s: what `%s` holds its figures against." % (self.unit, self.command),
            "# It fails, and so does CI, when one is more than %.0f %% above. If that is worth it,"
            % (GROWTH_MAX * 100),
            "# `%s --accept` writes this file anew: commit it, and say in the message why." % self.command,
        ]
        if self.tools:
            lines.append("%s\t%s" % (TOOLS, self.tools))
        lines += ["%s\t%s" % (name, self.form % value) for name, value in figures.items()]
        processes.write_lines(self.path, lines)
        print("%s is written: commit it, and say in the message why its figures changed" % self.file)

    def faults(self, figures):
        """Prints figures and growth; what is wrong with them, as sentences."""
        stale = self.known_tools != self.tools
        growth_max = GROWTH_WITH_OTHER_TOOLS_MAX if stale else GROWTH_MAX
        rows, faults = [], []
        for name, value in figures.items():
            before = self.known.get(name)
            if before is None:
                rows.append([name, "-", self.form % value, "-"])
                faults.append("%s: no figure of it is in %s" % (name, self.file))
                continue
            growth = round(value / before - 1, 6) + 0.0  # no "-0.0 %"
            rows.append([name, self.form % before, self.form % value, "%+.1f %%" % (growth * 100)])
            if growth > growth_max:
                faults.append("%s: %s %s, %.1f %% more than the %s of %s; at most %.0f %%" % (
                    name, self.form % value, self.unit, growth * 100, self.form % before, self.file, growth_max * 100))
        faults += ["%s: %s has a figure of it, but it is not measured any more" % (name, self.file)
                   for name in self.known if name not in figures]
        print(processes.table([self.unit, "committed", "now", "growth"], rows))
        if stale:
            print("NOTE: %s was measured with other tools, so the bound is %.0f %% instead of %.0f %%.\n"
                  "    then: %s\n    now:  %s\n  Accept it anew: %s --accept"
                  % (self.file, GROWTH_WITH_OTHER_TOOLS_MAX * 100, GROWTH_MAX * 100,
                     self.known_tools or "unknown", self.tools, self.command))
        if faults:
            faults.append("If that is worth it: %s --accept, and commit %s with the reason." % (self.command, self.file))
        return faults
