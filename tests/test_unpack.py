# SPDX-License-Identifier: Apache-2.0
"""`.ci/unpack`, which fetches Debian's programs that must not be installed."""

import subprocess
from pathlib import Path

UNPACK = Path(__file__).parents[1] / ".ci/unpack"


def unpacked(folder: Path, *packages: str) -> str:
    """What it says of its work."""
    done = subprocess.run(
        [UNPACK, folder, *packages], capture_output=True, text=True, check=True
    )
    return done.stderr


def test_a_package_is_fetched_once(tmp_path: Path) -> None:
    """Also one that has no program of its own name."""
    assert "unpacking: busybox-static" in unpacked(tmp_path, "busybox-static")
    assert list(tmp_path.glob("busybox-static/**/bin/busybox"))
    assert {path.name for path in tmp_path.iterdir()} == {"busybox-static"}
    assert unpacked(tmp_path, "busybox-static") == ""


def test_a_program_of_another_package_is_there(tmp_path: Path) -> None:
    program = tmp_path / "prometheus/usr/bin/promtool"
    program.parent.mkdir(parents=True)
    program.touch()
    assert unpacked(tmp_path, "promtool") == ""


def test_what_is_no_package_is_refused(tmp_path: Path) -> None:
    done = subprocess.run([UNPACK, tmp_path, "no-such-package"], check=False)
    assert done.returncode != 0
    assert list(tmp_path.iterdir()) == []
