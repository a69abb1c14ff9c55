"""What the rq worker runs."""


def add(one, two):
    return one + two


def fail():
    raise ValueError("on purpose")
