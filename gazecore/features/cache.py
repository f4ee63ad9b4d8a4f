"""The feature cache: what the frozen backbone makes of a corpus, computed once.

    CACHE/cache.json                       the backbone, the display size, the limits
    CACHE/corpus/                          a copy of the corpus's two files
    CACHE/plan/part-00000.parquet          its images, cut into shards (schema `results.PLAN`)
    CACHE/features/shard-000012.parquet    FEATURES: a row, and row group, per `ok` image
    CACHE/images/shard-000012.parquet      OUTCOMES: a row per planned image; written last

`features` is the float16 array (channels, grid_height, grid_width) in C order, little endian; after
it come those of the smaller levels of the image pyramid, if the backbone sees it at several sizes.
"""

import itertools
import json
import math
import threading
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from gazecore.corpus.schema import Corpus, load_corpus
from gazecore.errors import CorpusError, RunMismatch, one_line
from gazecore.geometry import GRID_STRIDE, STRIDE, DisplaySize, level_sizes
from gazecore.images.formats import Limits
from gazecore.images.listing import listing_of
from gazecore.model.spec import BackboneSpec
from gazecore.shards.directory import ShardedDirectory, claim, require_shard_size, shard_name
from gazecore.shards.plan import plan_parts
from gazecore.shards.planning import PlanSummary, update_plan
from gazecore.storage import Location

MAX_SHARD_SIZE = 1024
"""A shard is held in memory, 4 MB an image."""

_READERS = 16
_OPEN_FILES = 64
"""Files that stay open; one of many images has a footer of tens of kilobytes."""
_AHEAD = 2**16
"""Bytes that a read from object storage takes beyond what was asked for: a row's small columns. By
default it would be 50 MB, a whole shard for each image, which each open file keeps."""

FEATURES = pa.schema(
    [
        pa.field("image_id", pa.string(), nullable=False),
        pa.field("height", pa.int32(), nullable=False),
        pa.field("width", pa.int32(), nullable=False),
        pa.field("grid_height", pa.int32(), nullable=False),
        pa.field("grid_width", pa.int32(), nullable=False),
        pa.field("features", pa.binary(), nullable=False),
    ]
)

OUTCOMES = pa.schema(
    [
        pa.field("image_id", pa.string(), nullable=False),
        pa.field("uri", pa.string(), nullable=False),
        pa.field("status", pa.string(), nullable=False),
        pa.field("error", pa.string()),
        pa.field("error_message", pa.string()),
        pa.field("height", pa.int32()),
        pa.field("width", pa.int32()),
        pa.field("thumbnail", pa.binary()),
    ]
)
"""thumbnail: 256 little-endian float32, see `corpus.splits.thumbnail`."""


def feature_key(spec: BackboneSpec, display_size: DisplaySize) -> str:
    """What features and a model must agree on."""
    return f"{spec.key}-{display_size}"


@dataclass(frozen=True)
class ImageFeatures:
    """Features of one image.

    Attributes:
        image_id: as in the corpus.
        height, width: of the original image, pixels.
        features: float16 (channels, h, w) of each level of the image pyramid.
    """

    image_id: str
    height: int
    width: int
    features: list[np.ndarray]

    @property
    def grid(self) -> tuple[int, int]:
        """Cells of the density's grid, (grid_height, grid_width)."""
        height, width = (side * STRIDE // GRID_STRIDE for side in self.features[0].shape[1:])
        return height, width


@dataclass(frozen=True)
class CacheSettings:
    """What decides the features. A cache goes on only with those that it was begun with.

    Attributes:
        backbone: which features.
        display_size: `1024` or `native`.
        shard_size: images per shard.
        limits: caps per image.
    """

    backbone: BackboneSpec
    display_size: DisplaySize
    shard_size: int = 16
    limits: Limits = field(default_factory=Limits)

    def __post_init__(self) -> None:
        require_shard_size(self.shard_size, MAX_SHARD_SIZE)


class CacheDirectory(ShardedDirectory):
    """Where a cache's files are."""

    def __init__(self, location: Location, shard_size: int) -> None:
        super().__init__(location, shard_size, outcomes="images", results="features")


def begun_shard_size(location: Location) -> int:
    """Images per shard of the cache that is there, or of a new one."""
    try:
        return int(json.loads((location / "cache.json").read_bytes())["shard_size"])
    except (OSError, KeyError, TypeError, ValueError):
        return CacheSettings.shard_size  # `begin_cache` says what is wrong, if something is


def begin_cache(
    location: Location, corpus: Corpus, settings: CacheSettings
) -> tuple[CacheDirectory, PlanSummary]:
    """Start the cache of a corpus, or go on with it; its images are planned.

    Fixations that changed since, of the same images, replace those in the cache.

    Raises:
        RunMismatch: it is the cache of other images, of another backbone or with other settings, or
            the directory holds something else.
        CorpusError: the corpus has no images.
    """
    if not corpus.images.num_rows:
        raise CorpusError("the corpus has no images")
    if not (location / "cache.json").exists():
        location.remove_temporaries()
        if location.names():
            raise RunMismatch(f"{location.uri} is not empty and holds no cache: use another --out")
    claim(
        location / "cache.json",
        {
            "key": feature_key(settings.backbone, settings.display_size),
            **asdict(settings),
            "backbone": settings.backbone.to_json(),
            "mirrored": False,  # which those of gazecore 0.1 could be
            "images": {"count": corpus.images.num_rows, "sha256": corpus.digest},
        },
    )
    cache = CacheDirectory(location, settings.shard_size)
    cache.remove_temporaries()
    corpus.save(location / "corpus")
    return cache, update_plan(cache, listing_of(corpus.images))


class FeatureCache:
    """Random access to a cache that is complete; any number of threads may read.

    Attributes:
        uri: where it is.
        backbone, display_size: which features these are.
        image_ids: the images that have features, in the plan's order.
        failed: image_id to error message of those that have none.
    """

    def __init__(self, uri: str) -> None:
        """Open a cache. Raises CorpusError where there is none or shards are missing."""
        location = Location(uri)
        self.uri = location.uri
        try:
            header = json.loads((location / "cache.json").read_bytes())
            self.backbone = BackboneSpec.from_json(header["backbone"])
            self.display_size: DisplaySize = header["display_size"]
            if header["mirrored"]:
                raise ValueError("its images are mirrored, which no training takes")
            self._directory = CacheDirectory(location, header["shard_size"])
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            raise CorpusError(
                f"{uri} is not a feature cache: {one_line(error)}; `gazecore features` makes one"
            ) from error
        planned = sum(part.shards for part in plan_parts(self._directory))
        self._shards = sorted(self._directory.shards_done())
        if not planned or self._shards != list(range(planned)):
            raise CorpusError(f"{uri} is not complete: run `gazecore features` again")
        self.image_ids: list[str] = []
        self.failed: dict[str, str] = {}
        self._where: list[tuple[int, int]] = []
        self._sizes: list[tuple[int, int]] = []
        columns = ["image_id", "status", "error_message", "height", "width"]
        for shard, table in self._outcomes(columns):
            groups = itertools.count()
            for row in table.to_pylist():
                if row["status"] == "ok":
                    self.image_ids.append(row["image_id"])
                    self._sizes.append((row["height"], row["width"]))
                    self._where.append((shard, next(groups)))
                else:
                    self.failed[row["image_id"]] = row["error_message"]
        self._lock = threading.Lock()
        self._files: OrderedDict[int, _File] = OrderedDict()

    def __len__(self) -> int:
        return len(self.image_ids)

    def corpus(self) -> Corpus:
        """The corpus that this is the cache of."""
        return load_corpus((self._directory.location / "corpus").uri)

    def __getitem__(self, index: int) -> ImageFeatures:
        shard, group = self._where[index]
        table = self._open(shard).read(group)
        row = {name: table[name][0] for name in table.column_names}
        # The arrays are views of Arrow's memory: no further copy of megabytes.
        values = np.frombuffer(row["features"].as_buffer(), dtype="<f2")
        height, width = (row[side].as_py() * STRIDE for side in ("grid_height", "grid_width"))
        shapes = [
            (self.backbone.channels, h // STRIDE, w // STRIDE)
            for h, w in level_sizes(height, width, self.backbone.pyramid)
        ]
        ends = np.cumsum([math.prod(shape) for shape in shapes])
        levels = np.split(values, ends[:-1])
        return ImageFeatures(
            row["image_id"].as_py(),
            row["height"].as_py(),
            row["width"].as_py(),
            [level.reshape(shape) for level, shape in zip(levels, shapes, strict=True)],
        )

    def thumbnails(self) -> np.ndarray:
        """Miniatures of all images, float32 (n, 256)."""
        found = [
            np.frombuffer(thumbnail, dtype="<f4")
            for _, table in self._outcomes(["thumbnail"])
            for thumbnail in table["thumbnail"].drop_null().to_pylist()
        ]
        return np.stack(found) if found else np.empty((0, 256), np.float32)

    def sizes(self) -> list[tuple[int, int]]:
        """(height, width) of all images, as they were decoded."""
        return self._sizes

    def _outcomes(self, columns: Sequence[str]) -> Iterator[tuple[int, pa.Table]]:
        """Columns of OUTCOMES, shard by shard; many are fetched at a time."""

        def read(shard: int) -> pa.Table:
            return (self._directory.outcomes / shard_name(shard)).read_table(list(columns))

        with ThreadPoolExecutor(_READERS) as readers:
            yield from zip(self._shards, readers.map(read, self._shards), strict=True)

    def _open(self, shard: int) -> "_File":
        with self._lock:
            if shard not in self._files:
                self._files[shard] = _File(self._directory.results / shard_name(shard))
                while len(self._files) > _OPEN_FILES:
                    self._files.popitem(last=False)  # closed when its last reader lets go
            self._files.move_to_end(shard)
            return self._files[shard]


class _File:
    """An open shard, read by one thread at a time."""

    def __init__(self, location: Location) -> None:
        self._lock = threading.Lock()
        remote = None if location.is_local else location.fs.open(location.path, block_size=_AHEAD)
        source = remote or location.path
        self._file = pq.ParquetFile(source, page_checksum_verification=True)

    def read(self, group: int) -> pa.Table:
        with self._lock:  # a file has one position for all threads
            return self._file.read_row_group(group, use_threads=False)
