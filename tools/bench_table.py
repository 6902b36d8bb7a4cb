#!/usr/bin/env python3
"""Joins the results of tools/bench.sh into one table and one JSON file.

Usage: bench_table.py FOLDER REPORT, where FOLDER holds NAME.json (what the run printed) and NAME.args (how it was called), or
NAME.1.json and so on when it was run several times.
"""

import json
import os
import platform
import statistics
import subprocess
import sys
from pathlib import Path

# name, what it is, path into the result, unit, goal, whether more is better. The goals are the project's figures for two cores.
# Of what was run several times (NAME.1.json and so on) it is the median.
FIGURES = [
    ("publish", "publish, 4 publishers, window 256", ("rate_per_s",), "acked/s", 150_000, True),
    ("restart", "restart with 1,000,000 retained messages", ("ready_ms",), "ms", 3_000, False),
    ("unary", "one unary publish at a time, p50", ("publish_ms", "p50"), "ms", 0.6, False),
    ("inbox_saturated", "100 inboxes, saturated", ("rate_per_s",), "delivered/s", 60_000, True),
    ("inbox_paced", "1,000 inboxes at 1,000/s, p99 end to end", ("e2e_ms", "p99"), "ms", 5, False),
    ("broadcast", "broadcast to 1,000 live followers", ("rate_per_s",), "delivered/s", 300_000, True),
    ("redrive", "redrive of 100,000 dead letters", ("rate_per_s",), "put back/s", 20_000, True),
    ("redrive", "the same, p99 of live traffic to the usual one", ("p99_ratio",), "times", 3, False),
]

# name, what it is compared to, what it is, goal: how much lower the rate may be, in percent of the other.
COSTS = [
    ("keys", "inbox_saturated", "10,000 ordering keys, to publish and deliver", 20),
    ("ids", "plain", "explicit message ids, to publish", 30),
    ("waiting_ttl", "plain", "1,000,000 waiting messages with ttl, to publish", 10),
    ("waiting_delay", "plain", "1,000,000 delayed messages, to publish", 10),
]


def conditions() -> dict:
    """What the numbers depend on."""
    cpu = "unknown"
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            cpu = line.split(":", 1)[1].strip()
            break
    commit = subprocess.run(["git", "describe", "--always", "--dirty"], capture_output=True, text=True, check=False)
    return {
        "cores": os.cpu_count(),
        "cpu": cpu,
        "kernel": platform.release(),
        "commit": commit.stdout.strip() or "unknown",
        "fsync": "before every acknowledgement",
        "nodes": 1,
    }


def runs(folder: Path, name: str) -> list[Path]:
    """The runs of one name, at least one."""
    return sorted(folder.glob(f"{name}.[0-9]*.json")) or [folder / f"{name}.json"]


def median(folder: Path, name: str, path: tuple[str, ...]) -> float:
    values = []
    for run in runs(folder, name):
        value = json.loads(run.read_text())
        for key in path:
            value = value[key]
        values.append(value)
    return statistics.median(values)


def row(folder: Path, name: str, what: str, value: float, unit: str, goal: float, more_is_better: bool) -> dict:
    of_name = runs(folder, name)
    return {
        "name": name,
        "what": what,
        "arguments": of_name[0].with_suffix(".args").read_text(),
        "value": value,
        "unit": unit,
        "goal": goal,
        "met": value >= goal if more_is_better else value <= goal,
        "results": [json.loads(run.read_text()) for run in of_name],
    }


def read(folder: Path) -> list[dict]:
    rows = []
    for name, what, path, unit, goal, more_is_better in FIGURES:
        rows.append(row(folder, name, what, median(folder, name, path), unit, goal, more_is_better))
    for name, other, what, goal in COSTS:
        ratio = median(folder, name, ("rate_per_s",)) / median(folder, other, ("rate_per_s",))
        rows.append(row(folder, name, what, 100 * (1 - ratio), "% fewer", goal, False))
    return rows


def shown(number: float) -> str:
    return f"{number:,.0f}" if abs(number) >= 100 else f"{number:.2f}"


def main() -> None:
    folder, report = Path(sys.argv[1]), Path(sys.argv[2])
    under, rows = conditions(), read(folder)
    report.write_text(json.dumps({"conditions": under, "figures": rows}, indent=2) + "\n")

    print(f"\n{under['cores']} cores ({under['cpu']}), one node, fsync {under['fsync']}, commit {under['commit']}\n")
    width = max(len(row["what"]) for row in rows)
    print(f"{'what':{width}}  {'measured':>12} {'goal':>12}  unit")
    for row in rows:
        verdict = "" if row["met"] else "  MISSED"
        print(f"{row['what']:{width}}  {shown(row['value']):>12} {shown(row['goal']):>12}  {row['unit']}{verdict}")
    print(f"\n{report}")


if __name__ == "__main__":
    main()
