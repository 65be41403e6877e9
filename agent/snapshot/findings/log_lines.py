# SPDX-License-Identifier: Apache-2.0
"""The line of Cilium's log that says why it ended. Pure."""

import re

MAX_LINE = 300  # characters
# Cilium logs as logfmt: logrus up to 1.17, slog from 1.18 on; both write level=.
_SEVERE = re.compile(r"\blevel=(fatal|panic|error)\b", re.IGNORECASE)
_VALUE = r'="((?:[^"\\]|\\.)*)"|=(\S+)'
_FIELDS = re.compile(rf"\b(msg|error)(?:{_VALUE})")


def last_error(message: str) -> str:
    """What the last severe line says, or the last line where none is severe: its msg
    and error, at most MAX_LINE characters, without control characters.
    """
    lines = [line.strip() for line in message.splitlines() if line.strip()]
    severe = [line for line in lines if _SEVERE.search(line)]
    if not lines:
        return ""
    line = (severe or lines)[-1]
    fields = {match[1]: match[2] or match[3] for match in _FIELDS.finditer(line)}
    text = ": ".join(fields[name] for name in ("msg", "error") if fields.get(name))
    text = "".join(c if c.isprintable() else " " for c in text or line)
    return text if len(text) <= MAX_LINE else text[: MAX_LINE - 1] + "…"
