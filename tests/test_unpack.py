# SPDX-License-Identifier: Apache-2.0
"""`.ci/unpack`, which fetches Debian's programs that must not be installed."""

import os
import subprocess
from pathlib import Path

import pytest

UNPACK = Path(__file__).parents[1] / ".ci/unpack"
CONTROL = (
    "Package: x-static\nVersion: 1\nArchitecture: all\nMaintainer: x\nDescription: x\n"
)


@pytest.fixture
def mirror(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """apt with one package, x-static, in which there is /bin/x; what it was asked."""
    tree, asked = tmp_path / "tree", tmp_path / "asked"
    for path, text in (("DEBIAN/control", CONTROL), ("bin/x", "")):
        (tree / path).parent.mkdir(parents=True)
        (tree / path).write_text(text)
    (tree / "DEBIAN").chmod(0o755)  # dpkg-deb wants no less and no more
    deb = tmp_path / "x.deb"
    subprocess.run(["dpkg-deb", "--build", tree, deb], check=True, capture_output=True)
    get = f"""echo "$@" >>{asked}
case "$*" in
  *update) ;;
  *download*x-static) cp {deb} . ;;
  *) exit 100 ;;
esac"""
    policy = """version="(none)"
[ "$2" != x-static ] || version=1
echo "  Candidate: $version"
"""
    for name, script in (("apt-get", get), ("apt-cache", policy)):
        program = tmp_path / "bin" / name
        program.parent.mkdir(exist_ok=True)
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:{os.environ['PATH']}")
    return asked


def unpack(folder: Path, package: str) -> tuple[int, str]:
    """Exit code, and what it says of its work."""
    argv: list[str | Path] = [UNPACK, folder, package]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    return done.returncode, done.stderr


@pytest.mark.usefixtures("mirror")
def test_a_package_is_fetched_once(tmp_path: Path) -> None:
    """Also one that has no program of its own name."""
    folder = tmp_path / "unpacked"
    assert unpack(folder, "x-static") == (0, "unpacking: x-static\n")
    assert [path.name for path in folder.iterdir()] == ["x-static"]
    assert (folder / "x-static/bin/x").exists()
    assert unpack(folder, "x-static") == (0, "")


def test_a_program_of_another_package_is_there(tmp_path: Path, mirror: Path) -> None:
    program = tmp_path / "unpacked/prometheus/usr/bin/promtool"
    program.parent.mkdir(parents=True)
    program.touch()
    assert unpack(tmp_path / "unpacked", "promtool") == (0, "")
    assert not mirror.exists()


def test_what_is_no_package_leaves_nothing(tmp_path: Path, mirror: Path) -> None:
    """The lists may only be old."""
    code, _ = unpack(tmp_path / "unpacked", "no-such-package")
    assert code != 0
    assert "update" in mirror.read_text()
    assert list((tmp_path / "unpacked").iterdir()) == []
