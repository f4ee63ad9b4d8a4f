"""Files of a BIDS dataset: names of entities, inherited metadata, tables with and without header.

Source: the Brain Imaging Data Structure's specification, "Common principles" (file names, the
inheritance principle, tabular files).
"""

import gzip
import json
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

from gazecore.errors import CorpusError, one_line
from gazecore.storage import Location

_NOT_RAW = ("derivatives", "sourcedata", "code")


@dataclass(frozen=True)
class BidsFile:
    """A file by its name, such as `sub-01/beh/sub-01_task-view_events.tsv`.

    Attributes:
        path: from the dataset's folder.
        suffix, extension: `events` and `.tsv`.
        entities: `{"sub": "01", "task": "view"}`.
    """

    path: str
    suffix: str = field(init=False)
    extension: str = field(init=False)
    entities: Mapping[str, str] = field(init=False)

    def __post_init__(self) -> None:
        name, dot, extension = self.path.rpartition("/")[2].partition(".")
        *pairs, suffix = name.split("_")
        entities = dict(pair.split("-", 1) for pair in pairs if "-" in pair)
        values = {"suffix": suffix, "extension": dot + extension, "entities": entities}
        for key, value in values.items():
            object.__setattr__(self, key, value)

    @property
    def folder(self) -> str:
        """Its folder, empty or ending with a slash."""
        return self.path[: len(self.path) - len(self.path.rpartition("/")[2])]


class BidsFiles:
    """The raw files of a dataset."""

    def __init__(self, root: Location) -> None:
        """List them: not those that others made of them, or that they were made of."""
        self.root = root
        paths = [p.removeprefix(root.path).lstrip("/") for p in sorted(root.fs.find(root.path))]
        self._of: dict[tuple[str, str], list[BidsFile]] = {}
        for path in paths:
            if path.split("/")[0] not in _NOT_RAW and not path.startswith("."):
                file = BidsFile(path)
                self._of.setdefault((file.suffix, file.extension), []).append(file)

    def of(self, suffix: str, extension: str) -> list[BidsFile]:
        """Those whose name ends so, in the order of their paths."""
        return self._of.get((suffix, extension), [])

    def applicable(self, to: BidsFile, suffix: str, extension: str) -> list[BidsFile]:
        """Files that apply to one by the inheritance principle, the most specific last."""
        found = [
            file
            for file in self.of(suffix, extension)
            if to.folder.startswith(file.folder) and file.entities.items() <= to.entities.items()
        ]
        return sorted(found, key=lambda file: (file.folder.count("/"), len(file.entities)))

    def metadata(self, to: BidsFile, suffix: str) -> dict[str, Any]:
        """What the JSON files that apply say, the most specific overriding.

        Raises:
            CorpusError: one is no JSON object.
        """
        merged: dict[str, Any] = {}
        for file in self.applicable(to, suffix, ".json"):
            location = self.root / file.path
            try:
                found = json.loads(location.read_bytes())
                if not isinstance(found, dict):
                    raise ValueError("it is no JSON object")
            except (OSError, ValueError, RecursionError) as error:
                raise CorpusError(f"{location.uri}: {one_line(error)}") from error
            merged |= found
        return merged

    def table(
        self, file: BidsFile, columns: list[str] | None, text: tuple[str, ...] = ()
    ) -> dict[str, Any]:
        """A table's columns: float64 (n,), NaN for `n/a`; those of `text` as lists of str or None.

        Args:
            file: a `.tsv`, or a `.tsv.gz`, which has no header.
            columns: their names; None: as the header says.
            text: columns that are no numbers. Others that hold text are left out.

        Raises:
            CorpusError: it is damaged, or its rows have more or fewer columns.
        """
        location = self.root / file.path
        try:
            data = location.read_bytes()
            if file.extension.endswith(".gz"):
                data = gzip.decompress(data)
            if columns is not None and not data.strip():
                return {name: [] if name in text else np.empty(0) for name in columns}
            table = pa.csv.read_csv(
                pa.BufferReader(data),
                read_options=pa.csv.ReadOptions(column_names=columns, use_threads=False),
                # Trackers' messages may hold a quote without its other half.
                parse_options=pa.csv.ParseOptions(delimiter="\t", quote_char=False),
                convert_options=pa.csv.ConvertOptions(
                    column_types=dict.fromkeys(text, pa.string()),
                    null_values=["n/a", "", "NaN", "nan"],
                    strings_can_be_null=True,
                ),
            )
        except (OSError, EOFError, zlib.error, pa.ArrowException) as error:
            raise CorpusError(f"{location.uri}: {one_line(error)}") from error
        found: dict[str, Any] = {}
        for name in table.column_names:
            column, kind = table[name], table[name].type
            if name in text:
                found[name] = column.to_pylist()
            elif pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_null(kind):
                found[name] = pc.fill_null(column.cast(pa.float64(), safe=False), np.nan).to_numpy()
        return found
