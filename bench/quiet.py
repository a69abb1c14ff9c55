"""Whether something else used the machine while we measured.

The sum of what /proc/stat counts as busy, less what our own processes used, is
what others used. Steal is time a hypervisor gave to other machines.
"""
import os

TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
# Below this an involuntary switch is the ordinary work of the scheduler.
SWITCHES_PER_S_USUAL = 50


def processor_seconds():
    """Busy, stolen, and all time of all processors since boot."""
    with open("/proc/stat") as stat:
        fields = [int(field) / TICKS_PER_SECOND for field in stat.readline().split()[1:9]]
    user, nice, system, idle, iowait, irq, softirq, steal = fields
    return user + nice + system + irq + softirq, steal, idle + iowait + user + nice + system + irq + softirq + steal


class Watch:
    """From its start to `stop`: how much of the machine was not ours."""

    def __init__(self, our_cpu_seconds):
        self.our_cpu_seconds = our_cpu_seconds
        self.start = processor_seconds(), our_cpu_seconds()

    def stop(self):
        """Shares of all processors' time: stolen, and used by others."""
        ours = self.our_cpu_seconds() - self.start[1]
        busy, steal, total = (now - then for now, then in zip(processor_seconds(), self.start[0]))
        return steal / total, max(0.0, busy - ours) / total


def reason(sample, arguments):
    """Why one measurement is dropped at once; None if it was quiet."""
    if sample["steal"] > arguments.steal_max:
        return "steal %.1f %%" % (100 * sample["steal"])
    if sample["others"] > arguments.others_max:
        return "others' CPU %.0f %%" % (100 * sample["others"])
    return None
