# SPDX-License-Identifier: Apache-2.0
"""What is installed works without the checkout, and is the same wherever it is made."""

import hashlib
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

from agent.lab.netns import namespaces

ROOT = Path(__file__).parent.parent


def built(sources: Path, folder: Path, umask: int = -1) -> Path:
    """The wheel of these sources."""
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps"]
    # What builds it is installed, in the version that is asked for: no index is.
    build += ["--no-build-isolation", "--check-build-dependencies", "--no-index"]
    command = [*build, f"--wheel-dir={folder}", str(sources)]
    subprocess.run(command, check=True, umask=umask)
    (wheel,) = folder.glob("*.whl")
    return wheel


def copied(folder: Path, mode: int, dated: float) -> Path:
    """What the image is built of, with other modes and times than here."""
    folder.mkdir(parents=True)
    for name in ("agent", "bpf"):
        shutil.copytree(
            ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__")
        )
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder / name)
    for path in folder.rglob("*"):
        path.chmod(mode | 0o111 if path.is_dir() else mode)
        os.utime(path, (dated, dated))
    return folder


def test_a_wheel_is_the_same_wherever_it_is_built(tmp_path: Path) -> None:
    """Whoever builds it, when, and from what copy."""
    one = built(copied(tmp_path / "one", 0o644, 1e9), tmp_path / "a", 0o022)
    two = built(copied(tmp_path / "else/where", 0o600, 1.7e9), tmp_path / "b", 0o077)
    assert one.name == two.name
    same, other = (hashlib.sha256(each.read_bytes()).digest() for each in (one, two))
    assert same == other


def test_an_installed_wheel_finds_its_programs(tmp_path: Path) -> None:
    wheel = built(ROOT, tmp_path)
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
    assert "No problems found on this node" in done.stdout
