"""Whether two claims say the same: cosine of their TF-IDF vectors, and a few words that must agree.

The second line behind the model, which is asked to name the note that it repeats. Bags of words cannot tell
"wider stems help" from "wider stems do not help", so claims that differ in direction or in a number are never
taken for the same, however alike they read.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

ALIKE = 0.6
"""Cosine from which on two claims count as the same."""
_TOKEN = r"(?u)[\w.%+-]*\w|[+-]"
_DIRECTION = {
    "no not never cannot without neither nor hardly barely": "not",
    "more higher larger bigger wider deeper longer increase increases increasing raise raises up": "up",
    "less fewer lower smaller narrower shallower shorter decrease decreases decreasing reduce reduces "
    "reducing cut cuts drop drops down": "down",
    "better improve improves improving help helps gain gains benefit benefits good": "good",
    "worse worsen worsens hurt hurts harm harms loss bad degrade degrades degrading": "bad",
}
_WAYS = {word: way for words, way in _DIRECTION.items() for word in words.split()}


def saying_the_same(text: str, others: Sequence[str]) -> int | None:
    """Index of the one of `others` that says the same as `text`; None when none does."""
    mine = _fixed(text)
    places = [i for i, other in enumerate(others) if _fixed(other) == mine]
    if not places:
        return None
    exact = next((i for i in places if others[i].casefold() == text.casefold()), None)
    if exact is not None:
        return exact
    from sklearn.feature_extraction.text import TfidfVectorizer

    try:
        vectors = TfidfVectorizer(
            token_pattern=_TOKEN, sublinear_tf=True, stop_words="english"
        ).fit_transform([text, *(others[i] for i in places)])
    except ValueError:  # nothing but stop words
        return None
    alike = (vectors[1:] @ vectors[0].T).toarray().ravel()
    best = int(alike.argmax())
    return places[best] if alike[best] >= ALIKE else None


def _fixed(text: str) -> tuple[frozenset[str], tuple[str, ...]]:
    """Directions and numbers of a text."""
    words = re.findall(r"[\w.]*\w", text.casefold())
    ways = frozenset(_WAYS[word] for word in words if word in _WAYS)
    return ways, tuple(sorted(word for word in words if any(char.isdigit() for char in word)))
