"""Times of a schedule in cron's five fields: minute hour day month weekday. Impossible ones are said, not scheduled."""

import re

FIELDS = {"minute": (0, 59), "hour": (0, 23), "day": (1, 31), "month": (1, 12), "weekday": (0, 7)}  # lowest, highest
MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
WEEKDAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
NAMES = {"month": {name: number for number, name in enumerate(MONTHS, 1)},
         "weekday": {name: number for number, name in enumerate(WEEKDAYS)}}  # fmt: skip
LONGEST = (31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)  # days of a month
PART = re.compile(r"(?:\*|(?P<first>\w+)(?:-(?P<last>\w+))?)(?:/(?P<step>\d+))?")


def why_not(cron: str) -> str | None:
    """Return why a text is no time of a schedule that ever comes, or None if it is one."""
    fields = cron.split()
    if len(fields) != len(FIELDS):
        return "expected minute hour day month weekday, such as '0 2 * * *'"
    numbers: dict[str, set[int]] = {}
    for field, (name, (low, high)) in zip(fields, FIELDS.items(), strict=True):
        found = [_numbers(part, name, low, high) for part in field.lower().split(",")]
        if any(one is None for one in found):
            return f"{name} is {field!r}; expected {low} to {high}, as in '0 2 * * *'"
        numbers[name] = set().union(*(one for one in found if one is not None))
    # a day counts beside a weekday: cron takes either
    if fields[4] == "*" and min(numbers["day"]) > max(LONGEST[month - 1] for month in numbers["month"]):
        return f"day is {fields[2]!r}, which no month {fields[3]!r} has"
    return None


def _numbers(part: str, name: str, low: int, high: int) -> range | None:
    """Return the numbers that a part of a field stands for; None if it is malformed or out of range."""
    match = PART.fullmatch(part)
    if match is None:
        return None
    named = NAMES.get(name, {})
    ends = [named.get(text, int(text) if text.isdecimal() else -1) for text in (match["first"], match["last"]) if text]
    first, last = (ends[0], ends[-1]) if ends else (low, high)
    if match["step"] and len(ends) == 1:
        last = high
    step = int(match["step"] or 1)
    return range(first, last + 1, step) if low <= first <= last <= high and 0 < step <= high else None
