"""How what came is compared to what a scenario expects."""

from __future__ import annotations

import re
from typing import Any


def difference(expected: Any, found: Any, where: str = "") -> str:
    """What does not fit, in words; empty where all does."""
    if isinstance(expected, dict):
        special = _special(expected, found)
        if special is not None:
            return "" if special else f"{where or 'it'} is {found!r}, expected {expected!r}"
        if not isinstance(found, dict):
            return f"{where} is {found!r}, expected a mapping"
        # What an application has written comes as it was written, and of all else scenarios name what they are about.
        if re.search(r"\.content\b", where) and len(expected) != len(found):
            return f"{where} is {found!r}, expected {expected!r}"
        for key, value in expected.items():
            if key not in found:
                return f"{where}.{key} is missing in {found!r}"
            if said := difference(value, found[key], f"{where}.{key}"):
                return said
        return ""
    if isinstance(expected, list) and isinstance(found, list) and len(expected) == len(found):
        for index, (one, other) in enumerate(zip(expected, found, strict=True)):
            if said := difference(one, other, f"{where}[{index}]"):
                return said
        return ""
    # True is not 1 here.
    is_same = type(expected) is type(found) and expected == found
    return "" if is_same else f"{where or 'it'} is {found!r}, expected {expected!r}"


def _special(expected: dict[str, Any], found: Any) -> bool | None:
    """Whether it fits; None where the mapping is to be taken literally."""
    if len(expected) != 1:
        return None
    (key, value), *_ = expected.items()
    if key == "any":
        return found not in (None, "", [], {})
    if key == "at_least":
        return isinstance(found, int) and not isinstance(found, bool) and found >= value
    if key == "contains":
        return isinstance(found, str) and value in found
    if key == "unordered":
        return isinstance(found, list) and sorted(map(repr, found)) == sorted(map(repr, value))
    return None
