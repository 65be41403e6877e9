# SPDX-License-Identifier: Apache-2.0
"""The cgroups of the nodes: all that outlives their processes, so it is removed.

Works with cgroup v2 and, as some machines still have it, with v1, where every
controller is a tree of its own.
"""

import contextlib
import os
from pathlib import Path

from agent.lab.netns import wait_until

NAME = "bigtcp-cluster"
_ROOT = Path("/sys/fs/cgroup")


def make(node: str) -> str:
    """A node's cgroup, for kubelet's cgroupRoot."""
    for tree in _trees():
        for folder in (tree, tree / NAME):  # v2: a child has what its parent passes on
            with contextlib.suppress(FileNotFoundError, PermissionError):
                controllers = (folder / "cgroup.controllers").read_text().split()
                enable = " ".join(f"+{name}" for name in controllers)
                (folder / "cgroup.subtree_control").write_text(enable)
            (tree / NAME / node).parent.mkdir(exist_ok=True)
        (tree / NAME / node).mkdir(exist_ok=True)
    return f"/{NAME}/{node}"


def left() -> list[Path]:
    """Our cgroups, children before their parents."""
    return [
        Path(folder)
        for tree in _trees()
        for folder, _, _ in os.walk(tree / NAME, topdown=False)
    ]


def memory_of(pid: int) -> Path:
    """Where a process is in the memory controller's tree."""
    controller = "" if _trees() == [_ROOT] else "memory"
    lines = Path(f"/proc/{pid}/cgroup").read_text().splitlines()
    paths = {name: path for _, name, path in (line.split(":", 2) for line in lines)}
    return _ROOT / controller / paths[controller].lstrip("/")


def remove() -> None:
    """Remove all of them; waits for processes that are just dying."""

    def gone() -> bool:
        for folder in left():
            with contextlib.suppress(OSError):
                folder.rmdir()
        return not left()

    wait_until(gone, "the cgroups of the cluster to be empty")


def _trees() -> list[Path]:
    if (_ROOT / "cgroup.controllers").exists():
        return [_ROOT]
    return [tree for tree in _ROOT.iterdir() if tree.is_dir() and not tree.is_symlink()]
