#!/usr/bin/env python3
"""Sends orders to the team of docs/demo/shop.yaml, kills one container on the way, and counts what has become of them.

Usage: demo_team.py TANDEM ORDERS    with TANDEM_SERVER and TANDEM_CONTROL_PLANE set; the team must be up.
"""
import json
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

TANDEM, ORDERS = sys.argv[1], int(sys.argv[2])
VICTIM = "backend"


def tandem(*arguments, check=True):
    command = [TANDEM, "--json", "--workspace", "shop", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=180)
    if check and done.returncode != 0:
        sys.exit(f"demo: {' '.join(arguments[:2])}: {done.stderr.strip()}")
    return done


def order(number):
    began = time.monotonic()
    body = json.dumps({"order": f"order-{number}", "item": ["shoes", "a hat", "gloves"][number % 3]})
    done = tandem("request", "--from", "customer", "--to", "frontend", "--timeout", "120s", body, check=False)
    return done.returncode == 0, time.monotonic() - began, done.stderr


def sandboxes():
    return [json.loads(line) for line in tandem("sandbox", "ls").stdout.splitlines()]


def main():
    tandem("sandbox", "register", "customer")
    victim = next(one["id"] for one in sandboxes() if one["name"] == VICTIM)
    print(f"sending {ORDERS} orders; the container of {VICTIM} is killed after a third of them")
    answered, slowest, failures = 0, 0.0, []
    with ThreadPoolExecutor(4) as pool:
        results = pool.map(order, range(ORDERS))
        for number, (good, seconds, why) in enumerate(results):
            if number == ORDERS // 3:
                subprocess.run(["docker", "kill", f"tandem-{victim}"], check=True, stdout=subprocess.DEVNULL)
                print(f"  killed {VICTIM}")
            answered += good
            slowest = max(slowest, seconds)
            if not good:
                failures.append(why.strip())
    # What was told to QA may still be on its way.
    for _ in range(60):
        report = json.loads(tandem("request", "--from", "customer", "--to", "qa", "{}").stdout)["content"]
        report = json.loads(report) if isinstance(report, str) else report
        if report["orders"] >= answered:
            break
        time.sleep(0.5)
    print()
    print(f"{'SANDBOX':<12}{'STATE':<10}{'RESTARTS':>9}{'WAITING':>9}{'DEAD':>6}{'MEMORY':>10}")
    restarts = 0
    for one in sandboxes():
        stats = json.loads(tandem("sandbox", "stats", one["name"]).stdout)
        status = stats["status"]
        memory = f"{stats['stats']['memory_bytes'] / (1 << 20):.1f} MiB"
        restarts += status["restarts"]
        print(f"{one['name']:<12}{status['state']:<10}{status['restarts']:>9}{status.get('pending_messages', 0):>9}"
              f"{status.get('dead_letters', 0):>6}{memory:>10}")
    print()
    print(f"orders sent {ORDERS}, answered {answered}, in QA's ledger {report['orders']}, "
          f"lost {ORDERS - answered}, slowest {slowest:.1f} s, containers that came back {restarts}")
    for why in failures:
        print(f"  {why}")
    sys.exit(0 if answered == ORDERS == report["orders"] and restarts >= 1 else 1)


main()
