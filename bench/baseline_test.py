"""python3 bench/baseline_test.py: the gate fails when it should, and only then."""
import contextlib
import io
import os
import sys
import tempfile
import unittest

sys.dont_write_bytecode = True
import baseline  # noqa: E402


class Gate(unittest.TestCase):
    def setUp(self):
        directory = tempfile.TemporaryDirectory(prefix="keyferry-bench-")
        self.addCleanup(directory.cleanup)
        self.command = os.path.join(directory.name, "calls")
        self.opened("rustc 1").accept({"get-1": 100.0, "get-16": 50.0})

    def opened(self, tools):
        return Quiet(baseline.Baseline(self.command, "calls per request", "%.1f", tools))

    def faults(self, get_1, get_16=50.0, tools="rustc 1"):
        return self.opened(tools).faults({"get-1": get_1, "get-16": get_16})

    def test_what_was_accepted_passes(self):
        self.assertEqual(self.faults(100.0), [])

    def test_what_fell_passes(self):
        self.assertEqual(self.faults(10.0), [])

    def test_a_growth_of_three_percent_passes_and_more_fails(self):
        self.assertEqual(self.faults(103.0), [])
        grown, hint = self.faults(103.1)
        self.assertIn("get-1: 103.1 calls per request, 3.1 % more than the 100.0", grown)
        self.assertIn("calls --accept", hint)

    def test_one_that_fell_does_not_make_up_for_another(self):
        self.assertEqual(len(self.faults(10.0, get_16=60.0)), 2)

    def test_other_tools_widen_the_bound_and_are_told_of(self):
        other = self.opened("rustc 2")
        self.assertEqual(other.faults({"get-1": 110.0, "get-16": 50.0}), [])
        self.assertIn("then: rustc 1\n", other.printed)
        self.assertIn("now:  rustc 2\n", other.printed)
        self.assertEqual(len(self.faults(110.1, tools="rustc 2")), 2)

    def test_a_figure_without_its_match_fails(self):
        same = self.opened("rustc 1")
        self.assertIn("get-2: no figure", same.faults({"get-1": 100.0, "get-16": 50.0, "get-2": 1.0})[0])
        self.assertIn("get-16: ", same.faults({"get-1": 100.0})[0])

    def test_without_a_file_all_fail(self):
        os.remove(self.command + ".tsv")
        self.assertEqual(len(self.faults(100.0)), 3)


class Quiet:
    """A baseline whose words are kept instead of printed."""

    def __init__(self, wrapped):
        self.wrapped = wrapped
        self.printed = ""

    def accept(self, figures):
        return self.quietly(lambda: self.wrapped.accept(figures))

    def faults(self, figures):
        return self.quietly(lambda: self.wrapped.faults(figures))

    def quietly(self, work):
        out = io.StringIO()
        with contextlib.redirect_stdout(out):
            result = work()
        self.printed += out.getvalue()
        return result


if __name__ == "__main__":
    unittest.main()
