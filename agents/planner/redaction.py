"""Secrets are taken out of text before it is kept or shown, in whatever form they come back.

A server may echo a key as it got it, or escaped as in JSON, HTML or an address, or encoded in base64 or hex.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable

MASK = "[key]"
PLACEHOLDERS = frozenset(
    {"none", "empty", "ollama", "lm-studio", "not-needed", "no-key", "dummy", "test", "sk-no-key-required"}
)
"""What people write where a server wants some key and checks none: words that answers may hold."""
SPARE = 4000
"""Characters at the end of a text that was cut, among which half a secret may be."""
SHORTEST = 4
"""Shorter secrets are none: taking them out would only tear answers apart."""
_ENTITIES = {"<": "&lt;", ">": "&gt;", "&": "&amp;", '"': "&quot;", "'": "&apos;"}
_KEY_LIKE = re.compile(
    r"\b(?:sk|pk)-(?=[\w*.-]{0,40}[\d*])[\w*.-]{10,}|(?<=[Bb]earer )(?!\[key\])[^\s\"'<>,;]{6,}"
)


class Redactor:
    """Replaces secrets, and what looks like a key of anyone, by `[key]`.

    Args:
        secrets: the texts; empty ones, placeholders and very short ones are passed over.
    """

    def __init__(self, secrets: Iterable[str | None]) -> None:
        forms: dict[str, None] = {}
        for secret in secrets:
            if secret and len(secret) >= SHORTEST and secret.lower() not in PLACEHOLDERS:
                forms |= dict.fromkeys(_forms(secret))
        # the longest first: a form may be part of another one
        ordered = sorted(forms, key=len, reverse=True)
        self._known = re.compile("|".join(ordered)) if ordered else None

    def __call__(self, text: str) -> str:
        """`text` without them. Takes microseconds a character where somebody means ill: cut long texts."""
        if self._known is not None:
            text = self._known.sub(MASK, text)
        return _KEY_LIKE.sub(MASK, text)

    def start(self, text: str, most: int) -> str:
        """The first `most` characters of `text`, or some fewer, without them."""
        found = self(text[: most + SPARE])
        if len(text) <= most + SPARE:
            return found[:most]
        # a secret that the cut goes through is not found: what may be a part of one is dropped
        return found[: max(0, min(most, len(found) - SPARE))]


def _forms(secret: str) -> Iterable[str]:
    """Patterns of the secret itself, each character perhaps escaped, and of its encodings."""
    yield "".join(_escaped(char) for char in secret)
    raw = secret.encode()
    yield f"(?i:{raw.hex()})"
    for shift in range(3):
        # What surrounds the secret decides how its bytes fall into groups of three, of which base64 makes
        # four characters: groups that hold bytes of both are left out, they give away a few bits only.
        whole = raw[shift:][: (len(raw) - shift) // 3 * 3]
        if len(whole) >= 2 * SHORTEST:
            text = base64.b64encode(whole).decode()
            yield "".join(_escaped(char, {"+": "-", "/": "_"}.get(char)) for char in text)


def _escaped(char: str, instead: str | None = None) -> str:
    """A pattern of one character: plain, or escaped as in addresses, JSON, Python or HTML.

    All repeats are bounded: a server could send megabytes of what they match.
    """
    found = []
    for each in char if instead is None else char + instead:
        code = ord(each)
        found += [
            f"(?i:%(?:25){{0,4}}{code:02x}"
            rf"|\\{{1,8}}u{code:04x}|\\{{1,8}}x{code:02x}|&#x0{{0,6}}{code:x};)",
            f"&#0{{0,6}}{code};",
        ]
        if each in _ENTITIES:
            found.append(rf"\\{{0,8}}{_ENTITIES[each]}")
        found.append(rf"\\{{0,8}}{re.escape(each)}")  # text that was quoted twice has more than one
    return f"(?:{'|'.join(found)})"
