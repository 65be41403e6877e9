# SPDX-License-Identifier: Apache-2.0
"""The images of the Dockerfile, as `make image` has built them: what they say of
themselves, and what is in them.
"""

import fnmatch
import json
import re
import tarfile
from pathlib import PurePosixPath
from typing import Any, NamedTuple

import pytest

from agent import __version__, settings
from tests.cluster.cluster import CACHE

HOME = "opt/bigtcp-agent/"


# Of a .pyc: that the source's hash is in it, and need not be looked at (PEP 552).
UNCHECKED_HASH = 1


class Image(NamedTuple):
    config: dict[str, Any]
    files: set[str]  # what a container sees, without the first slash
    bytecode: dict[str, int]  # the flags of each .pyc


def read(target: str) -> Image:
    """A docker archive; a layer hides what it has a `.wh.` of."""
    built = CACHE.parent / f"image/{target}.tar"
    if not built.exists():
        pytest.fail(f"{built} is missing: make image")
    files: set[str] = set()
    bytecode: dict[str, int] = {}
    with tarfile.open(built) as archive:

        def part(name: str) -> Any:
            return archive.extractfile(name)

        (manifest,) = json.load(part("manifest.json"))
        config = json.load(part(manifest["Config"]))["config"]
        for layer in manifest["Layers"]:
            with tarfile.open(fileobj=part(layer)) as tar:
                paths = [PurePosixPath(name) for name in tar.getnames()]
                for member in tar:
                    if member.name.endswith(".pyc") and (
                        file := tar.extractfile(member)
                    ):
                        bytecode[member.name] = int.from_bytes(
                            file.read(8)[4:], "little"
                        )
            for path in paths:
                if path.name.startswith(".wh."):
                    gone = str(path.with_name(path.name.removeprefix(".wh.")))
                    files = {
                        each
                        for each in files
                        if each != gone and not each.startswith(f"{gone}/")
                    }
                else:
                    files.add(str(path))
    return Image(config, files, bytecode)


@pytest.fixture(scope="module")
def agent() -> Image:
    return read("agent")


@pytest.fixture(scope="module")
def netperf() -> Image:
    return read("netperf")


def found(image: Image, pattern: str) -> set[str]:
    return set(fnmatch.filter(image.files, pattern))


def test_labels(agent: Image, netperf: Image) -> None:
    for image in (agent, netperf):
        labels = image.config["Labels"]
        assert labels["org.opencontainers.image.version"] == __version__
        revision = labels["org.opencontainers.image.revision"]
        assert re.fullmatch("[0-9a-f]{40}", revision)
        assert all(labels.values())


def test_what_it_runs(agent: Image, netperf: Image) -> None:
    port = settings.Address.parse(settings.DEFAULT_LISTEN).port
    for image in (agent, netperf):
        assert image.config["Entrypoint"] == ["bigtcp-agent"]
        assert image.config["Cmd"] == ["run"]
        assert set(image.config["ExposedPorts"]) == {f"{port}/tcp"}
        kind, *command = image.config["Healthcheck"]["Test"]
        assert (kind, *command[:2]) == ("CMD", "python", "-c")
        assert f"http://127.0.0.1:{port}/readyz" in command[2]
        (path,) = (
            value.removeprefix("PATH=")
            for value in image.config["Env"]
            if value.startswith("PATH=")
        )
        first = path.split(":")[0].lstrip("/")
        assert {f"{first}/bigtcp-agent", f"{first}/python"} <= image.files


def test_all_that_is_ours_is_compiled(agent: Image) -> None:
    """The root is read-only: what is not, is compiled at every start."""
    (package,) = found(agent, f"{HOME}*/agent/__init__.py")
    sources = found(agent, f"{HOME}*.py")
    assert len(sources) > 500
    bytecode = {
        re.sub(r"__pycache__/(.*)\.cpython-\d+\.pyc", r"\1.py", name)
        for name in found(agent, f"{HOME}*.pyc")
    }
    assert sources <= bytecode
    assert package.replace("__init__.py", "bpf/skb_length.c") in agent.files


def test_no_bytecode_depends_on_the_time_of_its_source(agent: Image) -> None:
    """The build sets all times: bytecode that is not valid then is made anew."""
    flags = {
        name: agent.bytecode[name]
        for name in agent.files & set(agent.bytecode)
        if name.startswith(("usr/lib/python3", HOME))
    }
    assert len([name for name in flags if not name.startswith(HOME)]) > 500
    assert {name for name in flags if flags[name] != UNCHECKED_HASH} == set()


@pytest.mark.parametrize(
    "pattern",
    [
        *("usr/bin/pip*", f"{HOME}bin/pip*", f"{HOME}*/pip", "usr/bin/*gcc*"),
        *("usr/bin/cc", "usr/bin/clang*", "usr/bin/make", "usr/include/*"),
        *(f"{HOME}*/tests", "src/*", "var/lib/apt/lists/*", "usr/bin/net[ps]er*"),
    ],
)
def test_what_is_not_there(agent: Image, pattern: str) -> None:
    assert not found(agent, pattern)


def test_netperf_is_all_that_the_second_has_more(agent: Image, netperf: Image) -> None:
    more = netperf.files - agent.files
    assert {"usr/bin/netperf", "usr/bin/netserver"} <= more
    assert not {name for name in more if name.startswith(HOME)}
    assert agent.files <= netperf.files
