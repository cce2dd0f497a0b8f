"""Foreign text made fit to be quoted in a prompt: whatever it says, it stays data within its bounds.

Words of models, reviewers and candidates, source that a model wrote, output of trainings and notes all pass
here before a template sees them, so that they are harmless whatever a template, ours or a user's, does with
them. Three things are taken from them:

* what could end the fenced block around them: backticks and what looks like them, and rows of tildes;
* what a server's tokenizer could read as a turn of the conversation (`<|im_start|>`, `[INST]`, `</s>`): many
  turn such words into control tokens wherever they stand, so that they are broken by a space, which means
  nothing in prose and nothing to Python;
* characters that cannot be seen, or turn the direction of writing, and any length beyond a bound.
"""

from __future__ import annotations

import re

from cambrian.agents.wording import clean, one_line

_BACKTICKS = re.compile("[`\uff40\u02cb\u1fef\u2035\u02f4]")
_TILDES = re.compile("[~\uff5e\u223c\u301c\u02dc]{3,}")
_TAG = re.compile(r"<(?=[/|\uff5c<]?[A-Za-z_][\w|\uff5c\u2581 /-]{0,60}>)|<(?=[|\uff5c])")
"""The start of what may be a control token: `<|im_start|>`, `</s>`, `<start_of_turn>`, `<<SYS>>`."""
_BRACKET = re.compile(r"\[(?=/?[A-Z][A-Z_]{1,30}\])")
_CLOSING = re.compile("[|\uff5c](?=>)")


def quoted(text: str, limit: int = 300) -> str:
    """Foreign text on one line: bounded, visible, with nothing that ends a block or begins a turn."""
    text = text[: 4 * limit]
    # most texts hold nothing to take out, and the interpreter finds that out a hundred times as fast
    visible = " ".join(text.split()) if text.isprintable() else one_line(text, limit)
    text = disarmed(visible)
    return text if len(text) <= limit else text[: limit - 1].rstrip() + "…"


def quoted_block(text: str, limit: int) -> str:
    """The same for text of several lines, such as source; a cut is said in a last line.

    Indentation stays, as does the meaning of Python outside its strings and comments.
    """
    lines = [_visible(line) for line in text.expandtabs(4).splitlines()]
    whole = disarmed("\n".join(lines).strip("\n"))
    if len(whole) <= limit:
        return whole
    head = whole[:limit]
    end = head.rfind("\n")
    return head[: end if end > limit // 2 else limit].rstrip() + "\n(cut here for length)"


def disarmed(text: str) -> str:
    """`text` without backticks, rows of tildes and control tokens of chat templates."""
    return without_turns(_TILDES.sub(lambda found: "'" * len(found[0]), _BACKTICKS.sub("'", text)))


def without_turns(text: str) -> str:
    """`text` without control tokens of chat templates."""
    for mark in (_TAG, _BRACKET, _CLOSING):
        text = mark.sub(lambda found: found[0] + " ", text)
    return text


def _visible(line: str) -> str:
    """One line without what cannot be seen; `clean` alone would take its indentation."""
    bare = line.lstrip(" ")
    return " " * (len(line) - len(bare)) + clean(bare, max(len(bare), 1))
