"""Generates what is in no commit: the messages of `proto/`, and the synchronous half of the control plane's client.

Runs whenever a wheel is built or the package is installed, also with `pip install -e`. From a clone it reads the contract in
`../../proto`; a source distribution carries a copy.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

# The order counts: what is replaced by one pattern must not be seen by the next.
TO_SYNC = [
    (r"\basync (def|with|for)\b", r"\1"),
    (r"\bawait ", ""),
    (r"\bAsyncClient\b", "Client"),
    (r"\bAsyncIterator\b", "Iterator"),
    (r"\b__aenter__\b", "__enter__"),
    (r"\b__aexit__\b", "__exit__"),
    (r"\b__aiter__\b", "__iter__"),
    (r"\b__anext__\b", "__next__"),
    (r"\baiter_(\w+)", r"iter_\1"),
    (r"\baclose\b", "close"),
    (r"\baread\b", "read"),
    (r"\basyncio\.sleep\b", "time.sleep"),
    (r"\bimport asyncio\b", "import time"),
    (r"\baintandem\._async\b", "aintandem._sync"),
]


class GenerateCode(BuildHookInterface):  # type: ignore[type-arg]
    """The hook that hatchling calls."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:  # noqa: ARG002
        """Writes the generated packages below `src/`, or for a source distribution adds the contract to it."""
        root = Path(self.root)
        in_clone, in_sdist = root.parent.parent / "proto", root / "proto"
        contract = in_sdist if in_sdist.is_dir() else in_clone
        if not (contract / "aintandem").is_dir():
            raise FileNotFoundError(f"the contract is neither at {in_clone} nor at {in_sdist}")
        if self.target_name == "sdist":
            for folder in ("aintandem", "google"):
                build_data["force_include"][str(contract / folder)] = f"proto/{folder}"
            return
        generate_messages(contract, root / "src" / "aintandem_agent_sdk" / "_proto")
        generate_sync(root / "src" / "aintandem" / "_async", root / "src" / "aintandem" / "_sync")


def generate_messages(contract: Path, target: Path) -> None:
    """Compiles the contract into a private package: `aintandem.*` as the import name belongs to the control plane's client."""
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    protos = sorted(str(path.relative_to(contract)) for path in (contract / "aintandem").rglob("*.proto"))
    command = [
        sys.executable,
        "-m",
        "grpc_tools.protoc",
        f"-I{contract}",
        f"--python_out={target}",
        f"--pyi_out={target}",
    ]
    subprocess.run([*command, *protos], check=True)
    for path in [*target.rglob("*.py"), *target.rglob("*.pyi")]:
        text = path.read_text(encoding="utf-8")
        text = re.sub(r"^(from|import) aintandem\.", r"\1 aintandem_agent_sdk._proto.aintandem.", text, flags=re.MULTILINE)
        path.write_text(text, encoding="utf-8")
    for folder in [target, *(path for path in target.rglob("*") if path.is_dir())]:
        (folder / "__init__.py").write_text("", encoding="utf-8")


def generate_sync(source: Path, target: Path) -> None:
    """Writes the client without `async`, from the one with it, so that the two cannot differ."""
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    for path in sorted(source.glob("*.py")):
        text = path.read_text(encoding="utf-8")
        for pattern, replacement in TO_SYNC:
            text = re.sub(pattern, replacement, text)
        (target / path.name).write_text(f"# Generated from _async/{path.name} by hatch_build.py.\n{text}", encoding="utf-8")
