import io

import pytest

from gazecore.errors import one_line
from gazecore.wording import counted, printable
from jobs.console import out


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


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("plain ünï 日本.jpg", "plain ünï 日本.jpg"),
        ("\x1b[31mred\x1b[0m.jpg", "\\x1b[31mred\\x1b[0m.jpg"),
        ("two\nlines\r.jpg", "two\\x0alines\\x0d.jpg"),
        ("\u202egpj.exe", "\\u202egpj.exe"),
        ("\x9b31m", "\\x9b31m"),
        ("bell\x07", "bell\\x07"),
    ],
)
def test_names_move_no_cursor_and_hide_nothing(name: str, said: str) -> None:
    assert printable(name) == said
    assert one_line(ValueError(name)).isprintable()


def test_consoles_print_no_control_characters() -> None:
    stream = io.StringIO()
    console = type(out)(file=stream, highlight=False, markup=False)
    console.print("image  \x1b]0;title\x07.jpg")
    assert stream.getvalue() == "image  \\x1b]0;title\\x07.jpg\n"
