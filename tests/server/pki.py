# SPDX-License-Identifier: Apache-2.0
"""Certificates as a user makes them, with openssl."""

import subprocess
from pathlib import Path


def authority(folder: Path, name: str = "ca") -> Path:
    """A new one: NAME.crt, NAME.key."""
    _openssl(
        *("req", "-x509", "-subj", f"/CN={name}", "-keyout", f"{folder}/{name}.key"),
        # Python 3.13 trusts no authority without it.
        *("-addext", "keyUsage=critical,keyCertSign,cRLSign"),
        *("-out", f"{folder}/{name}.crt"),
    )
    return folder / f"{name}.crt"


def certificate(folder: Path, name: str, ca: str = "ca") -> None:
    """NAME.crt, NAME.key for localhost, signed by an authority of this folder."""
    _openssl(
        *("req", "-x509", "-subj", f"/CN={name}", "-keyout", f"{folder}/{name}.key"),
        *("-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"),
        *("-addext", "basicConstraints=critical,CA:FALSE"),
        *("-CA", f"{folder}/{ca}.crt", "-CAkey", f"{folder}/{ca}.key"),
        *("-out", f"{folder}/{name}.crt"),
    )


def _openssl(*argv: str) -> None:
    key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")
    subprocess.run(
        ["openssl", *argv, *key, "-days", "2"], check=True, capture_output=True
    )
