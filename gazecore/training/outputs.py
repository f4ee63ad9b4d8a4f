"""What a training leaves: the bundle, and beside it what it was judged by."""

import dataclasses
import posixpath
from collections.abc import Callable
from typing import Any

from gazecore.errors import ImageError, InputError, one_line
from gazecore.images.decode import to_network
from gazecore.images.read import read
from gazecore.model.bundle import ModelBundle, is_bundle, parse_bundle
from gazecore.model.deepgaze import DeepGaze
from gazecore.ownership import refuse_foreign
from gazecore.results.run import ModelNote
from gazecore.storage import Location
from gazecore.tables import publish_table
from gazecore.training.examples import TrainingSet
from gazecore.training.folds import FittedFold, averages, judge_folds
from gazecore.training.out_of_fold import write_out_of_fold
from gazecore.training.recipes import SplitConfig


class Outputs:
    """Where things go.

    Attributes:
        bundle: FOLDER/MODEL.safetensors.
        training: FOLDER/MODEL.training, progress, curves and checkpoints.
        pretrained: in it, the bundle that pretraining made.
        table: FOLDER/out_of_fold.parquet, the scores of all images.
        run: FOLDER/out_of_fold, the densities of all images, a run directory.
    """

    def __init__(self, uri: str) -> None:
        self.bundle = Location(uri)
        folder, name = posixpath.split(self.bundle.uri)
        self.training = Location(f"{folder}/{posixpath.splitext(name)[0]}.training")
        self.pretrained = self.training / "pretrained.safetensors"
        self.table = Location(f"{folder}/out_of_fold.parquet")
        self.run = Location(f"{folder}/out_of_fold")

    def refuse_foreign(self) -> None:
        """Raise InputError where another file than a bundle is at the bundle's place, or a table
        or a folder that no training wrote beside it."""
        refuse_foreign([self.bundle], is_bundle)
        if not self.training.exists():
            refuse_foreign([self.table, self.run], lambda _: self.bundle.exists())

    def write_cross_validated(
        self,
        bundle: ModelBundle,
        data: TrainingSet,
        folds: list[FittedFold],
        on_image: Callable[[], None],
    ) -> ModelBundle:
        """Judge all folds and write the bundle, which is returned as it was written."""
        table = judge_folds(data, folds, on_image)
        publish_table(self.table, table)
        bundle = dataclasses.replace(bundle, metrics=averages(table))
        # A bundle has its fingerprint from the file's bytes.
        fingerprint = parse_bundle(bundle.to_bytes(), self.bundle.uri).fingerprint
        note = ModelNote(self.bundle.uri, bundle.training.trained_on())
        write_out_of_fold(self.run, data, folds, fingerprint, note)
        return self._write(bundle)

    def write_held_out(
        self, bundle: ModelBundle, judge: Callable[[DeepGaze], dict[str, Any]]
    ) -> ModelBundle:
        """Judge the held-out images and write the bundle, which is returned as it was written.

        Args:
            bundle: as it was trained.
            judge: what a model reaches on them through their pixels, as every user will run it; the
                model is loaded from the file's own bytes.
        """
        model = DeepGaze.load(parse_bundle(bundle.to_bytes(), self.bundle.uri))
        metrics = {**bundle.metrics, "held_out": judge(model)}
        return self._write(dataclasses.replace(bundle, metrics=metrics))

    def rows(self, cross_validated: bool) -> list[tuple[str, str]]:
        """Where everything is, labelled."""
        rows = [("curves", (self.training / "curves.png").uri)]
        if cross_validated:
            rows.append(("scores", self.table.uri))
            rows.append(("judge", f"gazecore evaluate CORPUS --run {self.run.uri} --out DIR"))
        return [*rows, ("bundle", self.bundle.uri)]

    def _write(self, bundle: ModelBundle) -> ModelBundle:
        self.bundle.publish(bundle.to_bytes())
        return bundle


def require_readable(data: TrainingSet, split: SplitConfig) -> None:
    """Raise InputError where the images that will judge a bundle cannot be read; one is tried."""
    part = data.folds(split.parts, split.seed)
    image_id = next(data.image_ids[i] for i in data.images if part[i] == 0)
    uri = data.corpus.images["uri"][data.corpus.image_ids.index(image_id)].as_py()
    try:
        to_network(read(uri), data.display_size)
    except (OSError, ImageError) as error:
        raise InputError(
            f"the held-out image {image_id} cannot be read: {one_line(error)}; a bundle is judged "
            "by held-out images' pixels, unlike --folds, which reads the cache alone"
        ) from error
