"""Out-of-fold densities as a run directory, which is evaluated, queried and exported as any."""

import numpy as np
import pyarrow as pa
import torch

from gazecore.density.summary import summarise
from gazecore.images.formats import Limits
from gazecore.images.listing import listing_of
from gazecore.model.centerbias import on_grid
from gazecore.model.readout import mix
from gazecore.results.run import ModelNote, Run, RunSettings, begin_run
from gazecore.results.write import commit_shard
from gazecore.scoring import score_rows
from gazecore.shards.plan import shards
from gazecore.shards.planning import update_plan
from gazecore.storage import Location
from gazecore.training.examples import TrainingSet, make_example
from gazecore.training.folds import FittedFold

_SHARD_SIZE = 64


def write_out_of_fold(
    location: Location,
    data: TrainingSet,
    folds: list[FittedFold],
    model: str,
    note: ModelNote,
) -> Run:
    """Predict every image by the fold that has not seen it; shards that are done are kept.

    Args:
        location: of the run directory.
        data: features.
        folds: of all images that have fixations.
        model: fingerprint of the bundle that all folds make together.
        note: what the run calls it.

    Raises:
        RunMismatch: there is another model's run.
    """
    uris = {row["image_id"]: row["uri"] for row in data.corpus.images.to_pylist()}
    settings = RunSettings(
        input=data.caches[0].uri,
        model=f"out of fold: {model}",
        display_size=data.display_size,
        shard_size=_SHARD_SIZE,
        density_factor=1,
        limits=Limits(),
    )
    run = begin_run(location, settings, note)
    ids = [data.image_ids[i] for i in data.images]
    listed = pa.table({"image_id": ids, "uri": [uris[i] for i in ids]})
    update_plan(run, listing_of(listed))
    position = {data.image_ids[i]: i for i in data.images}
    fitted = {i: one for one in folds for i in one.fold.test}
    done = run.shards_done()
    for shard in shards(run, lambda number: number not in done):
        rows = shard.images.select(["image_id", "uri"]).to_pylist()
        pairs = [
            _predict(row, data, position[row["image_id"]], fitted[position[row["image_id"]]])
            for row in rows
        ]
        commit_shard(run, shard.number, [s for s, _ in pairs], [d for _, d in pairs])
    return run


@torch.inference_mode()
def _predict(
    row: dict[str, str], data: TrainingSet, image: int, fitted: FittedFold
) -> tuple[dict[str, object], dict[str, object]]:
    found = data.features(image)
    example = make_example(found, np.empty((0, 2)))
    centerbias = on_grid(torch.from_numpy(fitted.fold.centerbias.log_density), *example.grid)
    members = fitted.readout(example.levels(), centerbias)
    summary = summarise(mix(members), members, centerbias, factor=1)
    return score_rows(row, (found.height, found.width), summary, 0)
