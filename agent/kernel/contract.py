# SPDX-License-Identifier: Apache-2.0
"""The contract with the BPF program, read from bpf/skb_length.h itself."""

import re
from dataclasses import dataclass
from pathlib import Path

_ENTRY = re.compile(r"X\((\d+), (\w+)\)")


def bpf_directory() -> Path:
    """Where the C stands: beside the package in a checkout, inside it in a wheel."""
    package = Path(__file__).resolve().parent.parent
    for place in (package / "bpf", package.parent / "bpf"):
        if (place / "skb_length.c").is_file():
            return place
    msg = f"no bpf/skb_length.c in or beside {package}"
    raise FileNotFoundError(msg)


@dataclass(frozen=True, slots=True)
class Contract:
    """Lists of skb_length.h; what has a number is keyed by it.

    `edges` are upper edges in bytes, inclusive; one more slot than edges
    takes what is longer than all of them. `pseudo_hooks` are no tracepoints.
    """

    edges: tuple[int, ...]
    hooks: dict[int, str]
    pseudo_hooks: dict[int, str]
    families: dict[int, str]
    reasons: dict[int, str]

    @classmethod
    def read(cls, directory: Path) -> "Contract":
        """Read the X-macro lists of `directory`/skb_length.h."""
        header = (directory / "skb_length.h").read_text()

        def entries(name: str) -> dict[int, str]:
            body = re.search(rf"#define {name}\(X\)((?:.*\\\n)*.*\n)", header)
            if body is None:
                msg = f"skb_length.h has no list {name}"
                raise ValueError(msg)
            return {int(n): value for n, value in _ENTRY.findall(body.group(1))}

        return cls(
            edges=tuple(int(edge) for edge in entries("SKB_LENGTH_EDGES").values()),
            hooks=entries("SKB_LENGTH_HOOKS"),
            pseudo_hooks=entries("SKB_LENGTH_PSEUDO_HOOKS"),
            families=entries("SKB_LENGTH_FAMILIES"),
            reasons=entries("SKB_LENGTH_REASONS"),
        )
