"""Real brokers for tests: one node, three nodes that can be killed, a closed one that wants tokens; each stopped by its own process."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

_TARGET = Path(
    os.environ.get("CARGO_TARGET_DIR") or Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "aintandem/target"
)
TANDEM = Path(os.environ.get("TANDEM_BIN") or _TARGET / "release/tandem")
# Beside the command unless told otherwise: only this one can be closed.
TANDEM_BROKER = Path(os.environ.get("TANDEM_BROKER_BIN") or TANDEM.parent / "tandem-broker")
# Only this one goes on without a broker.
TANDEM_CONTROL_PLANE = Path(os.environ.get("TANDEM_CONTROL_PLANE_BIN") or TANDEM.parent / "tandem-control-plane")
_READY_S = 60.0


def free_ports(count: int) -> list[int]:
    """Held together and then let go, so that none is given out twice."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def tandem(*arguments: str, server: str | None = None) -> str:
    """What the command prints. Raises where it fails."""
    where = ["--server", server] if server else []
    done = subprocess.run([str(TANDEM), *where, *arguments], capture_output=True, text=True, timeout=60, check=False)
    if done.returncode != 0:
        raise AssertionError(f"tandem {' '.join(arguments)}: {done.stdout}{done.stderr}")
    return done.stdout


@dataclass
class Node:
    """One process of a broker."""

    command: list[str]
    url: str
    log: Path
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with self.log.open("ab") as log:
            # It ends when its input does, so also when the tests are killed.
            self.process = subprocess.Popen(self.command, stdin=subprocess.PIPE, stdout=log, stderr=log)

    def signal(self, number: int) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    def kill(self) -> None:
        """SIGKILL, and no more."""
        assert self.process is not None
        self.process.kill()
        self._ended()

    def stop(self) -> None:
        if self.process is None or self.process.poll() is not None:
            return
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
        self._ended()

    def _ended(self) -> None:
        assert self.process is not None
        self.process.wait()
        if self.process.stdin is not None:
            self.process.stdin.close()

    @property
    def is_running(self) -> bool:
        return self.process is not None and self.process.poll() is None


@dataclass
class Broker:
    """Its nodes, by id from 1."""

    nodes: list[Node]
    folder: Path
    key_file: Path | None = None
    rest: str = ""
    tokens: dict[str, str] = field(default_factory=dict)

    @property
    def urls(self) -> list[str]:
        return [node.url for node in self.nodes]

    @property
    def is_cluster(self) -> bool:
        return len(self.nodes) > 1

    def restart_killed(self) -> None:
        """Starts again what does not run, and waits until it serves."""
        for node in self.nodes:
            if not node.is_running:
                node.start()
        self.wait_until_ready()

    def wait_until_ready(self) -> None:
        deadline = time.monotonic() + _READY_S
        for node in self.nodes:
            while not (self._serves(node) and self._has_settled(node)):
                if time.monotonic() > deadline or not node.is_running:
                    raise AssertionError(f"the broker did not come up:\n{node.log.read_text()[-2000:]}")
                time.sleep(0.1)

    def _serves(self, node: Node) -> bool:
        token = ["--token-file", self.tokens["admin"]] if "admin" in self.tokens else []
        asked = [str(TANDEM), "--server", node.url, "--json", *token, "workspace", "show", "default"]
        try:
            # A leader is needed for it, which info is not.
            return subprocess.run(asked, capture_output=True, timeout=10, check=False).returncode == 0
        except subprocess.TimeoutExpired:
            return False

    def _has_settled(self, node: Node) -> bool:
        """Whether each node leads what it should: leaders move no more by themselves, and leases end with their leader."""
        if not self.is_cluster:
            return True
        token = ["--token-file", self.tokens["admin"]] if "admin" in self.tokens else []
        shards = json.loads(tandem("--json", *token, "info", server=node.url))["shards"]
        return all(int(shard["leader_node_id"]) == int(shard["shard_id"]) % len(self.nodes) + 1 for shard in shards)

    def token(self, role: str, *, workspace: str = "", sandbox: str = "", expires_in_s: float = 3600) -> str:
        """A token signed with the key of this broker."""
        assert self.key_file is not None, "this broker is open"
        bound = [*(["--bind-workspace", workspace] if workspace else []), *(["--bind-sandbox", sandbox] if sandbox else [])]
        made = ["--key-file", str(self.key_file), "--key-id", "k1", "--subject", f"{role}-{sandbox or 'somebody'}", "--role", role]
        return tandem("token", "create", *made, *bound, "--expires-in", f"{max(1, round(expires_in_s))}s").strip()

    def stop(self) -> None:
        for node in self.nodes:
            node.stop()
        shutil.rmtree(self.folder, ignore_errors=True)


def _folder() -> Path:
    return Path(tempfile.mkdtemp(prefix="aintandem-python-"))


def start_one(*, http: bool = False, ports: list[int] | None = None, folder: Path | None = None) -> Broker:
    """`tandem dev`, with the control plane when asked for."""
    folder = folder or _folder()
    port, metrics, rest = ports or free_ports(3)
    plane = ["--http-port", str(rest)] if http else ["--no-control-plane"]
    command = [
        str(TANDEM),
        "--json",
        "dev",
        "--data-dir",
        str(folder / "data"),
        "--port",
        str(port),
        "--metrics-port",
        str(metrics),
        *plane,
    ]
    broker = Broker([Node(command, f"http://127.0.0.1:{port}", folder / "log")], folder, rest=f"http://127.0.0.1:{rest}" if http else "")
    broker.restart_killed()
    return broker


def start_three() -> Broker:
    """Three processes, each of which can be killed."""
    folder = _folder()
    ports = free_ports(9)
    cluster = ",".join(f"n{number + 1}=127.0.0.1:{ports[number]}" for number in range(3))
    nodes = []
    for number in range(3):
        port, metrics = ports[3 + number], ports[6 + number]
        command = [str(TANDEM), "--json", "--quiet", "dev", "--data-dir", str(folder / f"n{number + 1}"), "--cluster", cluster]
        command += ["--node-id", str(number + 1), "--port", str(port), "--metrics-port", str(metrics)]
        nodes.append(Node(command, f"http://127.0.0.1:{port}", folder / f"log{number + 1}"))
    broker = Broker(nodes, folder)
    for node in nodes:
        node.start()
    broker.wait_until_ready()
    return broker


def start_closed(*, count: int = 1) -> Broker:
    """One or three nodes that want tokens, and give them no time beyond their end."""
    folder = _folder()
    key, secret = folder / "key", folder / "secret"
    for path in (key, secret):
        path.write_text(os.urandom(32).hex())
        path.chmod(0o600)
    config = folder / "broker.toml"
    config.write_text(f'[auth]\nkeys = ["k1=HS256:{key}"]\nsigning_key = "k1=HS256:{key}"\nclock_skew_s = 0\n')
    ports = free_ports(3 * count)
    members = ",".join(f"n{number + 1}=127.0.0.1:{ports[number]}" for number in range(count))
    nodes = []
    for number in range(count):
        port, metrics = ports[count + number], ports[2 * count + number]
        command = [str(TANDEM_BROKER), "--config", str(config), "--data-dir", str(folder / f"n{number + 1}"), "--log", "error"]
        command += ["--listen", f"127.0.0.1:{port}", "--metrics-listen", f"127.0.0.1:{metrics}"]
        if count > 1:
            command += ["--node-id", str(number + 1), "--cluster", members, "--cluster-secret-file", str(secret)]
        nodes.append(Node(command, f"http://127.0.0.1:{port}", folder / f"log{number + 1}"))
    broker = Broker(nodes, folder, key_file=key)
    admin = folder / "admin"
    admin.write_text(broker.token("admin"))
    broker.tokens["admin"] = str(admin)
    for node in nodes:
        node.start()
    broker.wait_until_ready()
    return broker


def start_control_plane(broker: Broker) -> Node:
    """A process of its own in front of a closed broker, as whose admin it acts; it serves once this returns."""
    port = free_ports(1)[0]
    command = [str(TANDEM_CONTROL_PLANE), "--listen", f"127.0.0.1:{port}", "--broker", ",".join(broker.urls), "--log", "error"]
    command += ["--token-file", broker.tokens["admin"], "--database-url", f"sqlite:{broker.folder / 'control-plane.db'}"]
    node = Node(command, f"http://127.0.0.1:{port}", broker.folder / "control-plane.log")
    node.start()
    deadline = time.monotonic() + _READY_S
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1.0).close()
        except OSError:
            if time.monotonic() > deadline or not node.is_running:
                raise AssertionError(f"the control plane did not come up:\n{node.log.read_text()[-2000:]}") from None
            time.sleep(0.1)
        else:
            return node


def leader_of(broker: Broker, workspace: str) -> int | None:
    """Index of the node that leads the shard of a workspace; None where nobody does for half a minute."""
    deadline = time.monotonic() + 30
    while (found := _leader_now(broker, workspace)) is None and time.monotonic() < deadline:
        time.sleep(0.1)
    return found


def _leader_now(broker: Broker, workspace: str) -> int | None:
    token = ["--token-file", broker.tokens["admin"]] if "admin" in broker.tokens else []
    for node in broker.nodes:
        if not node.is_running:
            continue
        try:
            shard = json.loads(tandem("--json", *token, "workspace", "show", workspace, server=node.url))["shard_id"]
            shards = json.loads(tandem("--json", *token, "info", server=node.url))["shards"]
        except AssertionError:
            continue
        leader = int(shards[shard]["leader_node_id"])
        return leader - 1 if leader else None
    return None
