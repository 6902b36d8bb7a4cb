"""docs/guides/python.md, followed: its programs run as they stand there, but for the addresses of this test's broker."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.brokers import Broker, start_one, tandem

_GUIDE = Path(__file__).parents[3] / "docs/guides/python.md"


def _programs(broker: Broker) -> list[str]:
    text = (
        _GUIDE.read_text(encoding="utf-8").replace("http://127.0.0.1:8001", broker.urls[0]).replace("http://127.0.0.1:8000", broker.rest)
    )
    return re.findall(r"```python\n(.*?)```", text, re.DOTALL)


def _run(program: str) -> str:
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True).stdout


@pytest.mark.parametrize("seconds", [30])
def test_the_tutorial_says_what_happens(seconds: int) -> None:
    broker = start_one(http=True)
    try:
        reviewer, author, many, plane = _programs(broker)
        process = subprocess.Popen([sys.executable, "-c", reviewer], env={**os.environ})
        try:
            deadline = time.monotonic() + seconds
            while not json.loads(tandem("--json", "agents", "--role", "reviewer", server=broker.urls[0]) or "{}"):
                assert time.monotonic() < deadline
                time.sleep(0.2)
            shown = re.findall(r"\$ python author.py\n(.*?)```", _GUIDE.read_text(encoding="utf-8"), re.DOTALL)
            assert [_run(author)] == shown
        finally:
            process.terminate()
            assert process.wait(20) == 0
        assert _run(many) == "True\n"
        assert _run(plane) == "True\n"
    finally:
        broker.stop()


def test_the_program_of_the_readme_is_one() -> None:
    text = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
    for program in re.findall(r"```python\n(.*?)```", text, re.DOTALL):
        compile(program, "README.md", "exec")
