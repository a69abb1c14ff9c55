"""The README's table of clients, held against what the suites print.

A row: `| client, client | version | suite | .. |`. A client may have variants,
`redis-py/asyncio`; the table names the part before the slash. The version
MACHINES stands for whatever version the machine has.
"""
import os
import re

from stage import ROOT

HEADER = re.compile(r"\|\s*client\s*\|\s*version\s*\|\s*suite\s*\|")
MACHINES = "the machine's"


class Table:
    def __init__(self, text):
        """`rows`: suite -> {(client, version)}; `faults`: what is wrong with it."""
        self.rows, self.faults = {}, []
        lines = iter(text.splitlines())
        if not any(HEADER.match(line) for line in lines):
            self.faults.append("the README has no table of clients")
            return
        next(lines, None)
        for line in lines:
            if not line.startswith("|"):
                break
            cells = [cell.strip() for cell in line.strip("|").split("|")]
            if len(cells) != 4 or not all(cells):
                self.faults.append("the README's row has an empty cell: %s" % line)
                continue
            clients, version, suite, _ = cells
            rows = self.rows.setdefault(suite, set())
            rows.update((client.strip(), version) for client in clients.split(","))

    def of_suites(self, names):
        """What is wrong between the table and the folders."""
        faults = ["the README has no row for the suite %s" % name for name in names if name not in self.rows]
        return faults + ["there is no suite %s, but the README has a row for it" % name
                         for name in self.rows if name not in names]

    def of_result(self, result):
        """What is wrong between the table and the rows of a suite that ran."""
        printed = {(check.client.split("/")[0], check.version) for check in result.checks if check.version != "-"}
        rows = self.rows.get(result.suite, set())
        free = {client for client, version in rows if version == MACHINES}
        told = {(client, MACHINES if client in free else version) for client, version in printed}
        return (["%s %s ran and is not in the README's table" % row for row in sorted(told - rows)]
                + ["%s %s is in the README's table and did not run" % row for row in sorted(rows - told)])


def of_project():
    with open(os.path.join(ROOT, "README.md")) as file:
        return Table(file.read())
