"""How numbers and names are said."""

import re

# Control characters, and those that reorder or hide text (Unicode's bidirectional controls).
_UNSEEN = re.compile("[\x00-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def printable(text: str, keep: str = "") -> str:
    """A text whose control characters are written out, `\\x1b`: names can hold what moves a cursor,
    changes colours or hides the rest of a line.

    Args:
        text: any.
        keep: control characters that stay.
    """

    def escaped(found: re.Match[str]) -> str:
        if found[0] in keep:
            return found[0]
        code = ord(found[0])
        return f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}"

    return _UNSEEN.sub(escaped, text)


def counted(count: int, things: str) -> str:
    """A number and what it counts: `1 shard`, `2 shards`, `1 file of fixations`.

    Args:
        count: how many.
        things: in the plural; its first word that ends with s is the noun, and a regular one.
    """
    if count != 1:
        return f"{count:,} {things}"
    words = things.split(" ")
    noun = next(i for i, word in enumerate(words) if word.endswith("s"))
    words[noun] = f"{w[:-3]}y" if (w := words[noun]).endswith("ies") else w[:-1]
    return f"1 {' '.join(words)}"
