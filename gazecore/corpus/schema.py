"""A corpus: images and the fixations that people made on them, as two Parquet files.

    CORPUS/images.parquet      image_id, uri, height, width
    CORPUS/fixations.parquet   image_id, subject, index, x, y, t, duration

x and y are pixels of the original image, 0-based; the fixated pixel is (floor(x), floor(y)).
t and duration are seconds, null where the source has none. `index` counts within a scanpath.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa

from gazecore.errors import CorpusError, InputError, one_line
from gazecore.storage import Location
from gazecore.tables import publish_table

IMAGES = pa.schema(
    [
        pa.field("image_id", pa.string(), nullable=False),
        pa.field("uri", pa.string(), nullable=False),
        pa.field("height", pa.int32(), nullable=False),
        pa.field("width", pa.int32(), nullable=False),
    ]
)

FIXATIONS = pa.schema(
    [
        pa.field("image_id", pa.string(), nullable=False),
        pa.field("subject", pa.string(), nullable=False),
        pa.field("index", pa.int32(), nullable=False),
        pa.field("x", pa.float64(), nullable=False),
        pa.field("y", pa.float64(), nullable=False),
        pa.field("t", pa.float64()),
        pa.field("duration", pa.float64()),
    ]
)


@dataclass(frozen=True)
class Corpus:
    """Images with their fixations.

    Attributes:
        images, fixations: tables of the schemas above.
        dropped: what the importer left out, reason to count.
        uri: where it was loaded from; empty: nowhere.
    """

    images: pa.Table
    fixations: pa.Table
    dropped: Mapping[str, int] = field(default_factory=dict)
    uri: str = field(default="", compare=False)

    @property
    def image_ids(self) -> list[str]:
        """The images, in the corpus's order."""
        ids: list[str] = self.images["image_id"].to_pylist()
        return ids

    @property
    def digest(self) -> str:
        """sha256 of the images' names: which corpus this is, wherever its files are."""
        return hashlib.sha256("\n".join(sorted(self.image_ids)).encode()).hexdigest()

    def points(self) -> dict[str, np.ndarray]:
        """Fixations of each image: image_id to float64 (n, 2), columns x and y, n may be 0."""
        points = np.column_stack([self.fixations[name].to_numpy() for name in ("x", "y")])
        return {image_id: points[rows] for image_id, rows in self.rows_by_image().items()}

    def rows_by_image(self) -> dict[str, np.ndarray]:
        """The rows of `fixations` of each image, int (n,), n may be 0, in their order there."""
        position = {image_id: i for i, image_id in enumerate(self.image_ids)}
        if not position:
            return {}
        image = np.array([position[i] for i in self.fixations["image_id"].to_pylist()], dtype=int)
        order = np.argsort(image, kind="stable")
        bounds = np.searchsorted(image[order], np.arange(1, len(position)))
        return dict(zip(position, np.split(order, bounds), strict=True))

    def save(self, location: Location) -> None:
        """Write both files; `images.parquet`, without which there is no corpus, comes last."""
        for name, table in (("fixations", self.fixations), ("images", self.images)):
            publish_table(location / f"{name}.parquet", table)


def load_corpus(uri: str) -> Corpus:
    """Read a corpus directory.

    Raises:
        CorpusError: there is none, it is damaged, two images have one id, or a fixation is on no
            image of it or outside its image.
    """
    location = Location(uri)
    tables = []
    for name, schema in (("images", IMAGES), ("fixations", FIXATIONS)):
        try:
            table = (location / f"{name}.parquet").read_table()
            tables.append(table.select(schema.names).cast(schema))
        except (OSError, KeyError, ValueError, pa.ArrowException, InputError) as error:
            raise CorpusError(
                f"{uri} is not a corpus, {name}.parquet: {one_line(error)}; "
                "`gazecore ingest` makes one"
            ) from error
    corpus = Corpus(tables[0], tables[1], uri=location.uri)
    problem = _problem(corpus)
    if problem:
        raise CorpusError(f"{uri}: {problem}; `gazecore ingest` makes a corpus without such")
    return corpus


def _problem(corpus: Corpus) -> str | None:
    """What is wrong with a corpus, if anything."""
    ids = corpus.image_ids
    sizes = {row["image_id"]: (row["width"], row["height"]) for row in corpus.images.to_pylist()}
    if len(sizes) < len(ids):
        twice = next(i for i in sizes if ids.count(i) > 1)
        return f"images.parquet has {twice!r} twice"
    names = corpus.fixations["image_id"].to_pylist()
    unknown = set(names) - set(sizes)
    if unknown:
        return f"fixations.parquet names {min(unknown)!r}, which images.parquet lacks"
    limits = np.array([sizes[name] for name in names]).reshape(-1, 2)
    points = np.column_stack([corpus.fixations[name].to_numpy() for name in ("x", "y")])
    inside = ((points >= 0) & (points < limits)).all(axis=1)  # NaN is not inside
    if not inside.all():
        row = int(np.argmin(inside))
        return (
            f"row {row} of fixations.parquet is at {points[row].tolist()}, outside {names[row]!r} "
            f"of {limits[row][0]}x{limits[row][1]} px"
        )
    return None
