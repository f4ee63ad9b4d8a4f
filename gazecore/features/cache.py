"""The feature cache: what the frozen backbone makes of a corpus, computed once.

    CACHE/cache.json              the backbone's spec, its key, the display size, the corpus
    CACHE/features-00000.parquet  one row (and row group) per image: image_id, height, width,
                                  grid_height, grid_width, features, thumbnail

`features` is the float16 array (channels, grid_height, grid_width) in C order, little endian.
"""

import io
import json
import threading
from collections.abc import Iterator
from dataclasses import asdict, dataclass

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from gazecore.corpus.schema import Corpus
from gazecore.corpus.splits import thumbnail
from gazecore.errors import CorpusError, RunFailed, one_line
from gazecore.images.decode import Limits, decode, to_network
from gazecore.model.backbone import Backbone, BackboneSpec
from gazecore.model.bundle import DisplaySize
from gazecore.storage import Location

IMAGES_PER_FILE = 16

SCHEMA = pa.schema(
    [
        pa.field("image_id", pa.string(), nullable=False),
        pa.field("height", pa.int32(), nullable=False),
        pa.field("width", pa.int32(), nullable=False),
        pa.field("grid_height", pa.int32(), nullable=False),
        pa.field("grid_width", pa.int32(), nullable=False),
        pa.field("features", pa.binary(), nullable=False),
        pa.field("thumbnail", pa.binary(), nullable=False),
    ]
)


@dataclass(frozen=True)
class CachedImage:
    """Features of one image.

    Attributes:
        image_id: as in the corpus.
        height, width: of the original image, pixels.
        features: float16 (channels, h, w).
        thumbnail: float32 (256,), by which duplicates are found.
    """

    image_id: str
    height: int
    width: int
    features: np.ndarray
    thumbnail: np.ndarray


def write_cache(
    corpus: Corpus, backbone: Backbone, display_size: DisplaySize, out: Location
) -> Iterator[int]:
    """Compute the features of a corpus; files that are there already are kept.

    Yields:
        How many images are done, after each file.

    Raises:
        CorpusError: an image cannot be read, or `out` holds the cache of something else.
        RunFailed: features are not finite in float16.
    """
    header = {
        "backbone": asdict(backbone.spec),
        "key": cache_key(backbone.spec, display_size),
        "display_size": display_size,
        "images": corpus.image_ids,
    }
    text = json.dumps(header, indent=1)
    marker = out / "cache.json"
    if marker.exists() and json.loads(marker.read_bytes()) != json.loads(text):
        raise CorpusError(f"{out.uri} holds the features of other images or of another backbone")
    marker.publish(text.encode())
    present = set(out.names())
    rows = corpus.images.to_pylist()
    for start in range(0, len(rows), IMAGES_PER_FILE):
        part = rows[start : start + IMAGES_PER_FILE]
        name = f"features-{start // IMAGES_PER_FILE:05d}.parquet"
        if name not in present:
            table = pa.Table.from_pylist(
                [_row(row["image_id"], row["uri"], backbone, display_size) for row in part], SCHEMA
            )
            buffer = io.BytesIO()
            pq.write_table(
                table, buffer, row_group_size=1, compression="none", use_dictionary=False
            )
            (out / name).publish(buffer.getvalue())
        yield start + len(part)


def cache_key(spec: BackboneSpec, display_size: DisplaySize) -> str:
    """What a cache and a model must agree on."""
    return f"{spec.key}-{display_size}"


class FeatureCache:
    """Random access to a cache that is complete."""

    def __init__(self, uri: str) -> None:
        """Open a cache. Raises CorpusError where there is none or files are missing."""
        location = Location(uri)
        self.uri = location.uri
        try:
            header = json.loads((location / "cache.json").read_bytes())
        except (OSError, ValueError) as error:
            raise CorpusError(
                f"{uri} is not a feature cache: {one_line(error)}; `gazecore features` makes one"
            ) from error
        self.backbone = BackboneSpec.from_json(header["backbone"])
        self.display_size: DisplaySize = header["display_size"]
        self.image_ids: list[str] = header["images"]
        count = -(-len(self.image_ids) // IMAGES_PER_FILE)
        self._lock = threading.Lock()
        self._files = []
        for i in range(count):
            path = location / f"features-{i:05d}.parquet"
            if not path.exists():
                raise CorpusError(f"{uri} is not complete: run `gazecore features` again")
            source = path.path if path.is_local else path.fs.open(path.path)
            self._files.append(pq.ParquetFile(source, memory_map=path.is_local))

    def __len__(self) -> int:
        return len(self.image_ids)

    def require(self, spec: BackboneSpec, display_size: DisplaySize, name: str) -> None:
        """Raise CorpusError where `name`, made for these features, does not fit this cache's."""
        if cache_key(spec, display_size) != cache_key(self.backbone, self.display_size):
            raise CorpusError(
                f"{name} is made for features of {spec.name} at display size {display_size}, the "
                f"cache holds others, of {self.backbone.name} at {self.display_size}"
            )

    def __getitem__(self, index: int) -> CachedImage:
        file, group = divmod(index, IMAGES_PER_FILE)
        with self._lock:  # a file has one position for all threads
            table = self._files[file].read_row_group(group, use_threads=False)
        row = {name: table[name][0] for name in table.column_names}
        # The arrays are views of Arrow's memory: no further copy of megabytes.
        features = np.frombuffer(row["features"].as_buffer(), dtype="<f2")
        return CachedImage(
            row["image_id"].as_py(),
            row["height"].as_py(),
            row["width"].as_py(),
            features.reshape(-1, row["grid_height"].as_py(), row["grid_width"].as_py()),
            np.frombuffer(row["thumbnail"].as_buffer(), dtype="<f4"),
        )

    def thumbnails(self) -> np.ndarray:
        """Miniatures of all images, float32 (n, 256)."""
        columns = [f.read(["thumbnail"])["thumbnail"].to_pylist() for f in self._files]
        return np.stack([np.frombuffer(t, dtype="<f4") for column in columns for t in column])


def _row(
    image_id: str, uri: str, backbone: Backbone, display_size: DisplaySize
) -> dict[str, object]:
    try:
        data = Location(uri).read_bytes()
        image = to_network(data, display_size)
    except Exception as error:
        raise CorpusError(f"{image_id} ({uri}): {one_line(error)}") from error
    features = backbone.features(image.pixels[None])[0].half().cpu().numpy()
    if not np.isfinite(features).all():
        raise RunFailed(f"{image_id} ({uri}): its features do not fit float16")
    return {
        "image_id": image_id,
        "height": image.height,
        "width": image.width,
        "grid_height": features.shape[1],
        "grid_width": features.shape[2],
        "features": features.astype("<f2").tobytes(),
        "thumbnail": thumbnail(decode(data, Limits())).astype("<f4").tobytes(),
    }
