# SPDX-License-Identifier: Apache-2.0
"""The base of the images is one that cannot change, and a command renews it."""

import contextlib
import hashlib
import json
import os
import re
import shutil
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
OF_ALL = "application/vnd.oci.image.index.v1+json"
OF_ONE = "application/vnd.oci.image.manifest.v1+json"
INDEX = json.dumps({"schemaVersion": 2, "mediaType": OF_ALL, "manifests": []}).encode()
MANIFEST = json.dumps(
    {"schemaVersion": 2, "mediaType": OF_ONE, "config": {}, "layers": []}
).encode()


@contextlib.contextmanager
def registry(folder: Path, answer: bytes, kind: str) -> Iterator[dict[str, str]]:
    """What asks docker.io for debian:trixie-slim, asks one that is ours: by the
    environment, which is given.
    """

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            there = {"/v2/": b"{}", "/v2/library/debian/manifests/trixie-slim": answer}
            body = there.get(self.path)
            self.send_response(404 if body is None else 200)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body or b"")))
            self.end_headers()
            self.wfile.write(body or b"")

        def log_message(self, *_: object) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        settings = folder / ".config/containers/registries.conf"
        settings.parent.mkdir(parents=True)
        settings.write_text(
            f'[[registry]]\nprefix = "docker.io"\ninsecure = true\n'
            f'location = "127.0.0.1:{server.server_port}"\n'
        )
        try:
            yield os.environ | {"HOME": str(folder)}
        finally:
            server.shutdown()
            thread.join()


def renew(file: Path, env: dict[str, str]) -> subprocess.CompletedProcess[str]:
    command = [str(ROOT / ".ci/renew-base"), str(file)]
    return subprocess.run(
        command, env=env, capture_output=True, text=True, check=False, timeout=300
    )


@pytest.fixture
def dockerfile(tmp_path: Path) -> Path:
    return Path(shutil.copy(ROOT / "Dockerfile", tmp_path))


def test_every_image_is_made_of_the_base(dockerfile: Path) -> None:
    text, stages = dockerfile.read_text(), set[str]()
    froms = re.findall(r"^FROM (\S+)(?: AS (\S+))?$", text, re.MULTILINE)
    assert len(froms) == text.count("\nFROM ")
    for source, name in froms:
        assert source == "${BASE}" or source in stages
        stages.add(name)
    (base,) = re.findall(r"^ARG BASE=(.*)$", text, re.MULTILINE)
    name, _, digest = base.partition("@")
    assert name == "docker.io/library/debian:trixie-slim"
    assert re.fullmatch(r"sha256:[0-9a-f]{64}", digest)


def test_it_is_renewed_by_a_command(tmp_path: Path, dockerfile: Path) -> None:
    before = dockerfile.read_text()
    digest = hashlib.sha256(INDEX).hexdigest()
    with registry(tmp_path, INDEX, OF_ALL) as env:
        done = renew(dockerfile, env)
        after = dockerfile.read_text()
        again = renew(dockerfile, env)
    assert done.returncode == again.returncode == 0, done.stderr + again.stderr
    assert f"is sha256:{digest} as before" in again.stderr
    assert after == dockerfile.read_text() != before
    ours, theirs = after.splitlines(), before.splitlines()
    (changed,) = (line for line, old in zip(ours, theirs, strict=True) if line != old)
    assert changed == f"ARG BASE=docker.io/library/debian:trixie-slim@sha256:{digest}"


@pytest.mark.parametrize(("answer", "kind"), [(MANIFEST, OF_ONE), (b"", OF_ALL)])
def test_what_is_no_index_changes_nothing(
    tmp_path: Path, dockerfile: Path, answer: bytes, kind: str
) -> None:
    before = dockerfile.read_text()
    with registry(tmp_path, answer, kind) as env:
        done = renew(dockerfile, env)
    assert done.returncode != 0
    assert "is no index of images" in done.stderr
    assert dockerfile.read_text() == before


def test_a_file_without_a_base(tmp_path: Path) -> None:
    file = tmp_path / "Dockerfile"
    file.write_text("FROM debian:trixie-slim\n")
    done = renew(file, dict(os.environ))
    assert done.returncode == 1
    assert "no line ARG BASE=NAME:TAG@sha256:DIGEST" in done.stderr
