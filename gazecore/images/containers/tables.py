"""Tables with a column of images."""

from gazecore.images.containers import kind_of_container
from gazecore.images.containers.batches import Batches
from gazecore.images.containers.columns import Column

Table = Column | Batches


def open_table(uri: str, wanted: str | None = None) -> Table:
    """Open a Parquet or Arrow file, by its name.

    Args:
        uri: of the file.
        wanted: its column of images; None: it is guessed.

    Raises:
        StorageError: it is none that can be read.
        NotFound, AccessDenied, StorageUnavailable: as `fetch`.
    """
    is_arrow = kind_of_container(uri.partition("?")[0]) == "arrow"
    return Batches(uri, wanted) if is_arrow else Column(uri, wanted)
