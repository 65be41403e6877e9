# SPDX-License-Identifier: Apache-2.0
"""What is installed works without the checkout."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

from agent.lab.netns import namespaces

ROOT = Path(__file__).parent.parent


def test_an_installed_wheel_finds_its_programs(tmp_path: Path) -> None:
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps"]
    # What builds it is installed, in the version that is asked for: no index is.
    build += ["--no-build-isolation", "--check-build-dependencies", "--no-index"]
    subprocess.run([*build, f"--wheel-dir={tmp_path}", str(ROOT)], check=True)
    (wheel,) = tmp_path.glob("*.whl")
    installed = tmp_path / "installed"
    zipfile.ZipFile(wheel).extractall(installed)
    script = (
        "import agent, agent.kernel.contract as c; print(agent.__file__);"
        "print(c.bpf_directory())"
    )
    env = os.environ | {"PYTHONPATH": str(installed)}
    python = [sys.executable, "-P"]
    said = subprocess.check_output(
        [*python, "-c", script], text=True, cwd=tmp_path, env=env
    )
    assert said.split() == [
        str(installed / "agent/__init__.py"),
        str(installed / "agent/bpf"),
    ]
    check = [*python, "-m", "agent", "check", "--seconds", "0.2"]
    with namespaces("empty") as (namespace,):  # where no other agent answers
        done = subprocess.run(
            namespace.command(*check),
            capture_output=True,
            text=True,
            check=False,
            cwd=tmp_path,
            env=env,
        )
    assert done.returncode == 0, done.stderr
    assert "nothing is wrong" in done.stdout
