"""Text as trackers and spreadsheets of all countries write it: encodings, and tables."""

import codecs
from collections.abc import Mapping, Sequence
from typing import Literal

import pyarrow as pa
import pyarrow.csv

from gazecore.errors import CorpusError, InputError
from gazecore.images.lists import DELIMITERS, dialect_of
from gazecore.storage import Location

Decimal = Literal["point", "comma"]

_NOTHING = ["", ".", "-", "NA", "N/A", "n/a", "NaN", "nan", "null", "NULL", "None"]
_NAMED = {"tab": "\t", "space": " ", "comma": ",", "semicolon": ";"}
_MARKS = {"point": ".", "comma": ","}


def read_utf8(location: Location, encoding: str | None, option: str) -> bytes:
    """A text file in UTF-8, whatever it is written in.

    Args:
        location: the file.
        encoding: what it is written in; None: UTF-8, or UTF-16 if it begins with its mark.
        option: what says so, for the message.

    Raises:
        CorpusError: it is written in something else.
        InputError: there is no such encoding.
        OSError: it cannot be read.
    """
    data = location.read_bytes()
    if encoding is None:
        encoding = "utf-16" if data[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE) else "utf-8"
    try:
        return data.decode(encoding).encode()
    except LookupError as error:
        raise InputError(f"{option} {encoding}: there is no such encoding") from error
    except ValueError as error:
        raise CorpusError(
            f"{location.uri} is not {encoding.upper()} text, or cut: give {option} latin-1, or "
            "what it is written in"
        ) from error


def delimiter_of(text: str | None) -> str | None:
    """The character that an option names. Raises InputError if it is not one."""
    mark = _NAMED.get(text or "", text)
    if mark is not None and (len(mark) != 1 or not mark.isascii() or mark in '\r\n"'):
        raise InputError(f"--table.delimiter {text}: give one character, or `tab`")
    return mark


def parse_table(
    data: bytes,
    kinds: Mapping[str, pa.DataType],
    promised: str,
    delimiter: str | None = None,
    decimal: Decimal | None = None,
    missing: Sequence[str] = (),
) -> pa.Table:
    """A text table in UTF-8 with a header.

    Args:
        data: the text.
        kinds: types of the columns that are needed.
        promised: the delimiter that the file's name promises; by default another is taken where
            the header has more of the columns by that.
        delimiter: that and no other.
        decimal: what numbers have. By default a point, or else, where columns are not divided by
            it, a comma.
        missing: what stands for a missing number, besides nothing, `.`, `NA` and the like.

    Raises:
        pa.ArrowException: it is no such table.
    """
    others = () if delimiter else DELIMITERS
    dialect = dialect_of(data[: 2**16], delimiter or promised, set(kinds), others)

    def read(decimal: Decimal) -> pa.Table:
        return pa.csv.read_csv(
            pa.BufferReader(data),
            read_options=dialect.read_options(),
            parse_options=pa.csv.ParseOptions(delimiter=dialect.delimiter),
            convert_options=pa.csv.ConvertOptions(
                column_types={n: kind for n, kind in kinds.items() if n in dialect.names},
                decimal_point=_MARKS[decimal],
                null_values=[*_NOTHING, *missing],
            ),
        )

    if decimal:
        return read(decimal)
    try:
        return read("point")
    except pa.ArrowInvalid:
        if dialect.delimiter == ",":
            raise
        return read("comma")
