"""What the engine is given: a stage, how it is made where it runs, and how its images are read."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, TypeVar

import numpy as np

from gazecore.courtesy import WebOptions
from gazecore.errors import Gone, ImageError, one_line
from gazecore.geometry import DisplaySize
from gazecore.images.decode import NetworkInput
from gazecore.images.formats import Limits
from gazecore.shards.plan import KEPT

Row = dict[str, Any]

Computed = TypeVar("Computed")


@dataclass(frozen=True)
class ReadingConfig:
    """How images are read.

    Attributes:
        display_size: `1024` or `native`.
        limits: caps per image.
        fetchers: images fetched at the same time; 0: 16, and beside a GPU 8 per core, up to 128, as
            an object storage takes its time for each.
        decoders: images decoded at the same time, each of which may take hundreds of megabytes; 0:
            one per core beside a GPU, and per two cores where the network is on them, too.
        decode: where JPEGs are decoded: on the `cpu`, or on the `gpu` if there is one.
        fail_unanswered: on a shard's last try, single images that the storage does not answer for
            become failed rows, so that they do not keep the others of their shard back for good.
            Without it no trouble of the storage becomes a failed image.
        web: how the web is asked.
    """

    display_size: DisplaySize = "1024"
    limits: Limits = field(default_factory=Limits)
    fetchers: int = 0
    decoders: int = 0
    decode: Literal["cpu", "gpu"] = "cpu"
    fail_unanswered: bool = False
    web: WebOptions = field(default_factory=WebOptions)


class Stage(Protocol[Computed]):
    """What is computed of images, and where the rows of a shard go."""

    def batch_size(self, height: int, width: int) -> int:
        """How many images of a size `compute` takes at most; a power of two."""
        ...

    def compute(self, pixels: np.ndarray) -> Computed:
        """Run the network; one call at a time.

        Args:
            pixels: uint8 RGB (n, h, w, 3).
        """
        ...

    def finish(
        self, row: Row, image: NetworkInput, computed: Computed, position: int
    ) -> tuple[Row, Row | None]:
        """An image's outcome, and its result if it has one; several at a time.

        Args:
            row: the image's row of the plan.
            image: as the network saw it.
            computed: of the batch that it was in.
            position: its place in the batch.

        Raises:
            ImageError: nothing can be made of it: it becomes a failed row.
        """
        ...

    def commit(self, shard: int, outcomes: list[Row], results: list[Row]) -> None:
        """Publish a shard: an outcome for every image, and the results, in the plan's order.

        Outcomes of images that were revised bear an `as_of` besides, see `shards.plan.as_of`.
        """
        ...

    def mend(self, shard: int, outcomes: list[Row], results: list[Row]) -> None:
        """Put these rows of images that were tried again in the place of their failed ones, of
        those `as_of` another version, or of any that were `asked` for.

        Raises:
            InputError: images of this stage are not tried again, or the shard is damaged.
        """
        ...


class StageConfig(Protocol):
    """What a stage is made from, in few bytes besides weights: it is sent to where images are."""

    @property
    def where(self) -> str:
        """URI of the run directory or feature cache."""
        ...

    @property
    def reading(self) -> ReadingConfig:
        """How images are read."""
        ...

    def build(self, threads: int | None = None, gpu: bool | None = None) -> Stage[Any]:
        """Load the network.

        Args:
            threads: CPU threads; None: one for each of the `cores`.
            gpu: compute on a GPU; None: if there is one.
        """
        ...


def failed_row(row: Mapping[str, Any], error: ImageError) -> Row:
    """The outcome of an image that cannot be processed."""
    return {
        "image_id": row["image_id"],
        "uri": row["uri"],
        "status": "gone" if isinstance(error, Gone) else "failed",
        "error": error.code,
        "error_message": one_line(error),
        **kept(row),
    }


def kept(row: Mapping[str, Any]) -> dict[str, str]:
    """What of the input's columns a row of the plan carries along."""
    return dict(row.get(KEPT.name) or ())
