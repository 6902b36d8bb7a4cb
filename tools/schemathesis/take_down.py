"""Deletes all workspaces of a control plane with what is in them, and waits until they are gone."""
import json
import sys
import time
import urllib.request

API = f"{sys.argv[1]}/api/v1"


def ask(method, path):
    with urllib.request.urlopen(urllib.request.Request(f"{API}{path}", method=method), timeout=30) as answer:
        text = answer.read()
        return json.loads(text) if text else None


for _ in range(60):
    left = ask("GET", "/workspaces?limit=100")["workspaces"]
    if not left:
        break
    for workspace in left:
        if workspace["state"] != "deleting":
            ask("DELETE", f"/workspaces/{workspace['id']}?force=true")
    time.sleep(0.5)
