# SPDX-License-Identifier: Apache-2.0
"""What others say steers no terminal."""

import pytest

from agent.snapshot.plain import plain, plain_json


def test_text() -> None:
    assert plain("eth0, 日本, ü\n\tx") == "eth0, 日本, ü  x"
    assert plain("a\x1b]0;b\x07c") == "a\ufffd]0;b\ufffdc"
    assert plain("a\u202eb\x9bc\ud800") == "a\ufffdb\ufffdc\ufffd"


def test_json() -> None:
    found = plain_json('{"a\\u001b": ["\\u009b1", 1, null, {"b": "\\u202e"}]}')
    assert found == {"a\ufffd": ["\ufffd1", 1, None, {"b": "\ufffd"}]}
    for text in ("NaN", "[Infinity]", "-Infinity", "{"):
        with pytest.raises(ValueError, match=r".+"):
            plain_json(text)
