"""The same images in containers of all kinds, and a storage in memory that counts its requests."""

import io
import tarfile
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import pyarrow as pa
import pyarrow.parquet as pq
from fsspec import AbstractFileSystem

from tests.conftest import make_photo


def jpegs(count: int, folder: str = "a") -> dict[str, bytes]:
    """Small JPEGs by their names."""
    found = {}
    for seed in range(count):
        buffer = io.BytesIO()
        make_photo(seed).save(buffer, "JPEG")
        found[f"{folder}/{seed:04d}.jpg"] = buffer.getvalue()
    return found


def write_folder(path: Path, images: Mapping[str, bytes]) -> None:
    for name, data in images.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(data)


def write_tar(path: Path, images: Mapping[str, bytes], **options: Any) -> None:
    mode: Any = "w:gz" if path.suffix in (".gz", ".tgz") else "w"
    with tarfile.open(path, mode, **options) as archive:
        for name, data in images.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))


def write_zip(
    path: Path, images: Mapping[str, bytes], compression: int = zipfile.ZIP_DEFLATED
) -> None:
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, data in images.items():
            archive.writestr(name, data)


def write_parquet(path: Path, images: Mapping[str, bytes], rows: int = 7, hf: bool = False) -> None:
    """A column of bytes, or Hugging Face's structs of bytes and path, between other columns."""
    values = [{"bytes": data, "path": name} for name, data in images.items()] if hf else [
        *images.values()
    ]  # fmt: skip
    table = pa.table({"label": list(range(len(images))), "image": values, "note": [*images]})
    pq.write_table(table, path, row_group_size=rows)


def write_arrow(path: Path, images: Mapping[str, bytes], rows: int = 7) -> None:
    """A stream, as Hugging Face's `save_to_disk` writes; beside a column with a dictionary."""
    images_ = pa.array([{"bytes": data, "path": name} for name, data in images.items()])
    kinds = pa.array(["cat"] * len(images)).dictionary_encode()
    table = pa.table({"kind": kinds, "image": images_, "label": list(range(len(images)))})
    with pa.ipc.new_stream(path, table.schema) as writer:
        writer.write_table(table, max_chunksize=rows)


TABLES = ("parquet", "arrow")
KINDS = ("tar", "tar.gz", "zip", *TABLES)


def write_container(path: Path, images: Mapping[str, bytes]) -> None:
    """By its suffix."""
    if path.suffix == ".zip":
        write_zip(path, images)
    elif path.suffix == ".parquet":
        write_parquet(path, images)
    elif path.suffix == ".arrow":
        write_arrow(path, images)
    else:
        write_tar(path, images)


class Counted(AbstractFileSystem):
    """A storage in memory, which keeps what is asked for, and raises what it is told."""

    protocol = "counted"
    cachable = False
    objects: ClassVar[dict[str, bytes]] = {}
    asked: ClassVar[list[tuple[str, int, int]]] = []
    errors: ClassVar[list[Exception]] = []
    cuts: ClassVar[int] = 0

    def cat_file(
        self, path: str, start: int | None = None, end: int | None = None, **kwargs: Any
    ) -> bytes:
        path = self._strip_protocol(path)
        if path not in Counted.objects:
            raise FileNotFoundError(path)
        if Counted.errors:
            raise Counted.errors.pop(0)
        data = Counted.objects[path][start:end]
        Counted.asked.append((path, start or 0, (start or 0) + len(data)))
        if Counted.cuts:
            Counted.cuts -= 1
            return data[: len(data) // 2]
        return data

    def info(self, path: str, **kwargs: Any) -> dict[str, Any]:
        path = self._strip_protocol(path)
        if path not in Counted.objects:
            raise FileNotFoundError(path)
        return {"name": path, "size": len(Counted.objects[path]), "type": "file", "ETag": "e"}

    def clear(self) -> None:
        Counted.objects, Counted.asked, Counted.errors, Counted.cuts = {}, [], [], 0
