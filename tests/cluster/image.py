# SPDX-License-Identifier: Apache-2.0
"""Container images of a few programs of this machine: no base, no registry."""

import hashlib
import io
import json
import subprocess
import tarfile
from collections.abc import Iterable
from pathlib import Path

PODS = "localhost/netperf:1"
CILIUM = "localhost/cilium:1.20.2"


def write(
    archive: Path, name: str, programs: Iterable[Path], links: dict[str, str]
) -> None:
    """A docker archive, as `podman save` writes it and `ctr images import` reads it.

    `programs` go to /bin with the libraries that they want; `links` are symbolic.
    """
    layer = io.BytesIO()
    with tarfile.open(fileobj=layer, mode="w") as tar:
        for program in programs:
            tar.add(program.resolve(), f"bin/{program.name}")
        for library in sorted({path for p in programs for path in _libraries(p)}):
            tar.add(Path(library).resolve(), library.lstrip("/"))
        for link, target in links.items():
            entry = tarfile.TarInfo(link)
            entry.type, entry.linkname = tarfile.SYMTYPE, target
            tar.addfile(entry)
        folder = tarfile.TarInfo("tmp")  # where netserver writes
        folder.type, folder.mode = tarfile.DIRTYPE, 0o1777
        tar.addfile(folder)
    digest = hashlib.sha256(layer.getvalue()).hexdigest()
    config = {
        "architecture": "amd64",
        "os": "linux",
        "config": {"Env": ["PATH=/bin"], "Cmd": ["sleep", "infinity"]},
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest}"]},
    }
    manifest = [{"Config": "config.json", "RepoTags": [name], "Layers": ["layer.tar"]}]
    with tarfile.open(archive, "w") as tar:
        for member, data in (
            ("layer.tar", layer.getvalue()),
            ("config.json", json.dumps(config).encode()),
            ("manifest.json", json.dumps(manifest).encode()),
        ):
            entry = tarfile.TarInfo(member)
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))


def _libraries(program: Path) -> list[str]:
    """Paths as the program asks for them; a static one asks for none."""
    said = subprocess.run(
        ["ldd", str(program)], capture_output=True, text=True, check=False
    ).stdout
    words = [line.split() for line in said.splitlines() if "/" in line]
    return [next(word for word in line if word.startswith("/")) for line in words]
