import pytest

from gazecore.wording import counted


@pytest.mark.parametrize(
    ("count", "things", "said"),
    [
        (0, "shards", "0 shards"),
        (1, "shards", "1 shard"),
        (1234567, "shards", "1,234,567 shards"),
        (1, "densities", "1 density"),
        (1, "more rows", "1 more row"),
        (1, "files of fixations without an image", "1 file of fixations without an image"),
        (1, "first fixations of a scanpath", "1 first fixation of a scanpath"),
        (2, "first fixations of a scanpath", "2 first fixations of a scanpath"),
    ],
)
def test_one_thing_is_singular_and_thousands_have_commas(
    count: int, things: str, said: str
) -> None:
    assert counted(count, things) == said
