"""How numbers are said."""


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
