#!/usr/bin/env python3
"""Lifecycles of sandboxes while everything around them is killed: containers, control plane, a node of the broker that leads, and
the Docker daemon, in turn. The broker has three nodes, and a pool of containers waits for sandboxes.

At the end what is wanted and what is must agree, nothing may run for nobody, and every message that was accepted must have been
handled. The Docker daemon is one of its own, so that nobody else's containers die with it; it takes root.

Usage: chaos_sandboxes.py FOLDER_OF_BINARIES [LIFECYCLES [SEED]]    (default: 50 and the time)
"""
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request

BIN = sys.argv[1]
LIFECYCLES = int(sys.argv[2]) if len(sys.argv) > 2 else 50
SEED = int(sys.argv[3]) if len(sys.argv) > 3 else int(time.time())
AT_ONCE = 6
PAUSE_S = 3.0
HOME = tempfile.mkdtemp(prefix="tandem-chaos-")
SOCKET = f"unix://{HOME}/docker.sock"
NODES = (1, 2, 3)
PEER_PORT, BROKER_PORT, REST_PORT = 18610, 18600, 18650
SERVER = f"http://127.0.0.1:{BROKER_PORT + 1}"
POOL = 2
WORKSPACE = "chaos"
ECHO = 'import json,sys; m=json.load(sys.stdin); print(json.dumps({"echo": m["content"]}))'
chance = random.Random(SEED)


def log(text):
    print(f"[{time.monotonic() - BEGAN:6.1f}] {text}", flush=True)


def docker(*arguments, check=True):
    done = subprocess.run(["docker", "-H", SOCKET, *arguments], capture_output=True, text=True)
    if check and done.returncode != 0:
        raise RuntimeError(f"docker {arguments[0]}: {done.stderr.strip()}")
    return done.stdout.strip()


class Process:
    """One that can be killed and started again."""

    def __init__(self, name, command, ready):
        self.name, self.command, self.ready, self.child = name, command, ready, None

    def begin(self):
        out = open(f"{HOME}/{self.name}.log", "a")
        self.child = subprocess.Popen(self.command, stdout=out, stderr=out, stdin=subprocess.DEVNULL, start_new_session=True)

    def wait(self):
        until(f"{self.name} answers", self.ready, 60)

    def start(self):
        self.begin()
        self.wait()

    def kill(self):
        self.child.send_signal(signal.SIGKILL)
        self.child.wait()

    def stop(self):
        if self.child and self.child.poll() is None:
            self.child.terminate()
            try:
                self.child.wait(20)
            except subprocess.TimeoutExpired:
                self.kill()


def until(what, holds, seconds):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            if holds():
                return
        except (OSError, RuntimeError, ValueError, subprocess.SubprocessError):
            pass
        time.sleep(0.1)
    raise RuntimeError(f"in {seconds} s it has not come true: {what}")


def ask(method, path, body=None, key=None):
    headers = {"Content-Type": "application/json", **({"Idempotency-Key": key} if key else {})}
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(f"http://127.0.0.1:{REST_PORT}/api/v1{path}", method=method, data=data, headers=headers)
    with urllib.request.urlopen(request, timeout=60) as answer:
        text = answer.read()
        return json.loads(text) if text else None


def insist(method, path, body=None, key=None, gone_is_good=False):
    """Asks again until there is an answer that does not say `later`."""
    for _ in range(400):
        try:
            return ask(method, path, body, key)
        except urllib.error.HTTPError as error:
            problem = json.loads(error.read() or b"{}")
            if gone_is_good and error.code == 404:
                return None
            later = error.code in (409, 429, 500, 502, 503, 504) and problem.get("code") != "NAME_TAKEN"
            if problem.get("code") == "NAME_TAKEN" and method == "POST":
                return None
            if not later:
                raise RuntimeError(f"{method} {path}: {problem}") from error
        except OSError:
            pass
        time.sleep(0.25)
    raise RuntimeError(f"{method} {path}: no answer")


def sandboxes():
    return {one["name"]: one for one in insist("GET", f"/sandboxes?workspace_id={WORKSPACE}&limit=500")["sandboxes"]}


def live(number, wanted, sent):
    """One lifecycle: made, spoken to, perhaps stopped and started, perhaps deleted."""
    name = f"s{number}"
    spec = {
        "workspace_id": WORKSPACE, "name": name, "handler": {"command": ["python3", "-c", ECHO]},
        "resources": {"memory_mb": 64, "cpu_cores": 0.5, "disk_mb": 16, "tmp_mb": 4},
    }
    # What was begun and not answered is there, or it is not: look.
    while True:
        try:
            insist("POST", "/sandboxes", spec)
        except RuntimeError as error:
            # Killed before it was ready, and gone again.
            if "SANDBOX_ENDED" not in str(error):
                raise
        there = sandboxes().get(name)
        if there and there["state"] == "running":
            break
        time.sleep(0.5)
    path = f"/sandboxes/{there['id']}"
    deleted = number % 3 == 0
    for part in range(4):
        identity = f"{name}-{part}"
        message = {
            "workspace_id": WORKSPACE, "from_sandbox_id": "asker", "to": {"sandbox_id": name}, "type": "request",
            "requires_response": True, "correlation_id": identity, "message_id": identity, "content": {"n": part},
        }
        insist("POST", "/messages", message)
        if not deleted:
            sent.add(identity)
        if part == 1 and number % 2 == 0:
            insist("POST", f"{path}/stop", {})
        if part == 2 and number % 2 == 0:
            insist("POST", f"{path}/start", {})
    if deleted:
        insist("DELETE", path, gone_is_good=True)
        until(f"{name} is gone", lambda: name not in sandboxes(), 120)
        wanted[name] = None
    else:
        wanted[name] = "running"


def url(number):
    return f"http://127.0.0.1:{BROKER_PORT + number}"


def tandem(server, *arguments):
    return subprocess.run([f"{BIN}/tandem", "--server", server, "--json", *arguments], capture_output=True, text=True, timeout=20)


def node(number):
    members = ",".join(f"n{one}=127.0.0.1:{PEER_PORT + one}" for one in NODES)
    command = [f"{BIN}/tandem-broker", "--node-id", str(number), "--cluster", members, "--cluster-secret-file", f"{HOME}/secret",
               "--config", f"{HOME}/broker.toml", "--listen", f"127.0.0.1:{BROKER_PORT + number}",
               "--metrics-listen", f"127.0.0.1:{BROKER_PORT + 20 + number}", "--data-dir", f"{HOME}/broker-{number}"]
    return Process(f"broker-{number}", command, lambda: tandem(url(number), "info").returncode == 0)


def leading(nodes):
    """A node that leads a shard."""
    for _ in range(100):
        for number in NODES:
            status = tandem(url(number), "cluster", "status")
            leaders = [int(one) for one in re.findall(r'"leader_node_id": *(\d+)', status.stdout) if one != "0"]
            if status.returncode == 0 and leaders:
                return nodes[chance.choice(leaders) - 1]
        time.sleep(0.1)
    sys.exit("no node says who leads: " + status.stdout[:500] + status.stderr[:500])


def kill_container():
    running = docker("ps", "-q", "--filter", "label=aintandem.sandbox").split()
    if running:
        docker("kill", chance.choice(running), check=False)


def main():
    # As systemd has them: one dies without the other.
    containerd = Process("containerd", ["containerd", "--address", f"{HOME}/containerd.sock", "--root", f"{HOME}/containerd",
                                        "--state", f"{HOME}/containerd-state"], lambda: os.path.exists(f"{HOME}/containerd.sock"))
    daemon_command = ["dockerd", "-H", SOCKET, "--containerd", f"{HOME}/containerd.sock", "--data-root", f"{HOME}/docker", "--exec-root", f"{HOME}/exec",
                      "--pidfile", f"{HOME}/docker.pid", "--bridge", "none"]
    daemon = Process("dockerd", daemon_command, lambda: docker("version"))
    with open(f"{HOME}/secret", "w") as file:
        file.write("the secret of this cluster")
    with open(f"{HOME}/broker.toml", "w") as file:
        file.write("[auth]\nopen = true\n")
    nodes = [node(number) for number in NODES]
    with open(f"{HOME}/config.toml", "w") as file:
        file.write(f'listen = "127.0.0.1:{REST_PORT}"\n[broker]\nendpoints = {json.dumps([url(number) for number in NODES])}\n'
                   f'[database]\nurl = "sqlite:{HOME}/control-plane.db"\n'
                   f'[sandboxes]\ndocker_host = "{SOCKET}"\nsubnets = "10.222.0.0/16"\n'
                   f'warm_pool = {{ "aintandem/sandbox:latest" = {POOL} }}\n')
    plane = Process("control-plane", [f"{BIN}/tandem-control-plane", "--config", f"{HOME}/config.toml"],
                    lambda: urllib.request.urlopen(f"http://127.0.0.1:{REST_PORT}/ready", timeout=2).status == 200)
    processes = [containerd, daemon, *nodes, plane]
    try:
        # Three make a cluster together: none answers before the others are there.
        for process in processes:
            process.begin()
        for process in processes:
            process.wait()
        save = subprocess.Popen(["docker", "save", "aintandem/sandbox:latest"], stdout=subprocess.PIPE)
        subprocess.run(["docker", "-H", SOCKET, "load", "-q"], stdin=save.stdout, check=True, stdout=subprocess.DEVNULL)
        run(daemon, nodes, plane)
    finally:
        for identity in docker("ps", "-aq", check=False).split():
            docker("rm", "-fv", identity, check=False)
        for network in docker("network", "ls", "--format", "{{.Name}}", "--filter", "label=aintandem.workspace", check=False).split():
            docker("network", "rm", network, check=False)
            subprocess.run(["nft", "delete", "table", "inet", network.replace("-", "_")], capture_output=True)
            # A daemon that was killed leaves its bridges, and another with the same addresses would answer there.
            subprocess.run(["ip", "link", "delete", network.replace("tandem", "tdm")], capture_output=True)
        for process in reversed(processes):
            process.stop()
    shutil.rmtree(HOME, ignore_errors=True)


def run(daemon, nodes, plane):
    insist("POST", "/workspaces", {"id": WORKSPACE, "name": WORKSPACE})
    until("the asker is registered", lambda: tandem(SERVER, "--workspace", WORKSPACE, "sandbox", "register", "asker").returncode == 0, 20)
    wanted, sent, failures, numbers = {}, set(), [], iter(range(LIFECYCLES))
    turn = threading.Lock()

    def work():
        while True:
            with turn:
                number = next(numbers, None)
            if number is None or failures:
                return
            try:
                live(number, wanted, sent)
            except Exception as error:  # whatever it is ends the run
                failures.append(f"s{number}: {error}")

    workers = [threading.Thread(target=work) for _ in range(AT_ONCE)]
    for worker in workers:
        worker.start()
    counts = dict.fromkeys(["container", "control plane", "leading node", "dockerd"], 0)
    faults = [("container", kill_container), ("control plane", plane), ("leading node", None), ("dockerd", daemon)]
    while any(worker.is_alive() for worker in workers):
        for name, fault in faults:
            time.sleep(PAUSE_S)
            if not any(worker.is_alive() for worker in workers):
                break
            log(f"kill -9: {name}; {len(wanted)} of {LIFECYCLES} lives lived")
            counts[name] += 1
            fault = fault or leading(nodes)
            if isinstance(fault, Process):
                fault.kill()
                fault.start()
            else:
                fault()
    if failures:
        raise RuntimeError("; ".join(failures))
    log(f"all lives are lived; killed: {counts}")
    until("all run that shall", lambda: all(one["state"] == "running" for one in sandboxes().values()), 180)
    there = sandboxes()
    assert set(there) == {name for name, state in wanted.items() if state}, (set(there), wanted)
    ids = {one["id"] for one in there.values()}

    def agrees():
        """As many as are wanted run, and beside them the pool does: in the waiting room alone."""
        shown = docker("ps", "-a", "--filter", "label=aintandem.sandbox", "--format", '{{.Label "aintandem.sandbox"}} {{.State}} {{.Networks}}')
        actual = [line.split() for line in shown.splitlines()]
        room = docker("network", "ls", "--filter", "label=aintandem.workspace=waiting room", "--format", "{{.Name}}").strip()
        waiting = {line[0] for line in actual if line[2:] == [room]}
        volumes = {volume.removeprefix("tandem-") for volume in docker("volume", "ls", "-q").split()}
        seen.update(actual=actual, volumes=volumes)
        return (all(line[1] == "running" for line in actual) and {line[0] for line in actual} - waiting == ids
                and len(waiting) == POOL and volumes == ids | waiting)

    seen = {}
    try:
        until("what is agrees with what is wanted", agrees, 60)
    except RuntimeError as error:
        raise RuntimeError(f"{error}: {seen}, wanted: {ids}") from None
    answered = set()

    def all_answered():
        page = ask("GET", f"/messages?workspace_id={WORKSPACE}&limit=500&type=response")
        answered.update(message["correlation_id"] for message in page["messages"])
        while page.get("next_cursor"):
            page = ask("GET", f"/messages?workspace_id={WORKSPACE}&limit=500&type=response&cursor={page['next_cursor']}")
            answered.update(message["correlation_id"] for message in page["messages"])
        return sent <= answered

    try:
        until("all is answered", all_answered, 120)
    except RuntimeError:
        letters = ask("GET", f"/dead-letters?workspace_id={WORKSPACE}&limit=100")
        raise RuntimeError(f"not answered: {sorted(sent - answered)}; dead letters: {json.dumps(letters)[:2000]}") from None
    log(f"{len(there)} run, {LIFECYCLES - len(there)} are gone, no container or volume of nobody, {len(sent)} messages handled")


BEGAN = time.monotonic()
print(f"seed {SEED}; logs in {HOME} while it runs")
main()
