"""Scoring: the stage that makes densities of images, and what a run of it is begun with."""

import itertools
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np
import pyarrow as pa

from gazecore import courtesy
from gazecore.density.summary import Summary
from gazecore.errors import BundleError, InputError, one_line, redact
from gazecore.geometry import DEFAULT_FACTOR, DisplaySize
from gazecore.images.decode import NetworkInput
from gazecore.images.formats import Limits
from gazecore.images.listing import absolute_input, list_images
from gazecore.images.lists import Columns
from gazecore.model.backbone import SentWeights, weights_to_send
from gazecore.model.bundle import ModelBundle, parse_bundle, read_bundle
from gazecore.model.deepgaze import DeepGaze
from gazecore.model.spec import DEFAULT
from gazecore.prior import with_centerbias
from gazecore.results.continued import continued, given
from gazecore.results.estimate import Estimate, estimate
from gazecore.results.noticed import note_planned, note_rescan
from gazecore.results.retry import (
    Again,
    asked_images,
    failed_ids,
    failed_images,
    outdated_images,
    parts_again,
    read_names,
)
from gazecore.results.run import (
    ModelNote,
    Run,
    RunSettings,
    begin_run,
    begun_run,
    find_run,
)
from gazecore.results.settings import ScoringOptions
from gazecore.results.write import commit_shard, mend_shard
from gazecore.shards.plan import Shard, images_in, plan_parts
from gazecore.shards.planning import PlanSummary, choose_shard_size, update_plan
from gazecore.shards.stage import ReadingConfig, Row, kept
from gazecore.storage import Location


@dataclass(frozen=True)
class ScoringConfig:
    """What scores the images of a run, as a `StageConfig`.

    Attributes:
        where: URI of the run directory.
        settings: what its run.json says, so that nobody else needs to read it.
        bundle: the model bundle's bytes, so that every node has the same one.
        reading: how images are read.
        weights: the backbone's weights; None for those that its package on each node holds.
    """

    where: str
    settings: RunSettings
    bundle: bytes
    reading: ReadingConfig = field(default_factory=ReadingConfig)
    weights: SentWeights | None = None

    def build(self, threads: int | None = None, gpu: bool | None = None) -> "ScoringStage":
        """See `StageConfig.build`."""
        model = DeepGaze.load(
            parse_bundle(self.bundle, "the model bundle"),
            device="auto" if gpu is None else "cuda" if gpu else "cpu",
            backbone_source=self.weights,
            threads=threads,
            compiled=bool(gpu),
        )
        return ScoringStage(model, Run(Location(self.where), self.settings))


class ScoringStage:
    """A model on its device, and the run that its densities go to. A `Stage`."""

    def __init__(self, model: DeepGaze, run: Run) -> None:
        self.model = model
        self.run = run
        self._before: Summary | None = None

    def batch_size(self, height: int, width: int) -> int:
        """See `Stage.batch_size`."""
        return self.model.backbone.batch_size(height, width)

    def compute(self, pixels: np.ndarray) -> Summary:
        """See `Stage.compute`. On a GPU, the batch before is waited for, and this one is not."""
        found = self.model.summarise(pixels, self.run.settings.density_factor)
        before, self._before = self._before, found
        if before:
            before.wait()
        return found

    def finish(
        self, row: Row, image: NetworkInput, computed: Summary, position: int
    ) -> tuple[Row, Row]:
        """See `Stage.finish`: a row of SCORES and one of DENSITIES."""
        return score_rows(row, (image.height, image.width), computed, position)

    def commit(self, shard: int, outcomes: list[Row], results: list[Row]) -> None:
        """See `Stage.commit`."""
        commit_shard(self.run, shard, outcomes, results)

    def mend(self, shard: int, outcomes: list[Row], results: list[Row]) -> None:
        """See `Stage.mend`."""
        mend_shard(self.run, shard, outcomes, results)


def score_rows(row: Row, size: tuple[int, int], summary: Summary, position: int) -> tuple[Row, Row]:
    """The SCORES and DENSITIES rows of one image.

    Args:
        row: with its image_id and uri, and what it carries along.
        size: height and width of the original image.
        summary, position: what is known of its density, and where.

    Raises:
        NotFinite: see `Summary.of`.
    """
    numbers, steps, offset = summary.of(position, *size)
    sides = dict(zip(("height", "width"), size, strict=True))
    score = {
        "image_id": row["image_id"],
        "uri": row["uri"],
        "status": "ok",
        **sides,
        **numbers,
        **kept(row),
    }
    density = {
        "image_id": row["image_id"],
        **sides,
        "grid_height": steps.shape[0],
        "grid_width": steps.shape[1],
        "log_density": steps.ravel(),
        "log_offset": offset,
    }
    return score, density


class Request:
    """An input that is to be scored: what decides the results is settled, nothing is written yet.

    Attributes:
        location: of the run.
        settings: what decides the results.
        left_out: files that the listing leaves out, by reason; counted as the input is read.
        columns: of a list or table, those that are read; known once it is read.
    """

    def __init__(
        self, source: str | None, out: str, options: ScoringOptions = ScoringOptions()
    ) -> None:
        """Read the model and the begin of the listing.

        Args:
            source: folder, prefix, glob, image, container or list; see `list_images`. None: that of
                the run, which is there.
            out: the run directory to write or continue.
            options: how. What is left out is as the run has it.

        Raises:
            InputError: there is no such input, no such model, or no run that names them.
            BundleError: the model is none, or has other weights.
            RunMismatch: the run was begun with another way to list its input.
        """
        self.location = Location(out)
        self.left_out = Counter[str]()
        begun = begun_run(self.location)
        if begun is None and (source is None or options.only):
            raise InputError(f"{self.location.uri} holds no run yet: say what to score, INPUT")
        self._options = options = continued(options, begun)
        self._web = options.web()
        courtesy.use(self._web)
        self.columns = Columns(options.uri_column, options.id_column, options.kept())
        self._given = given(options)
        bundle = self._read_model(begun)
        self._backbone = bundle.backbone
        self._listing: Iterator[pa.RecordBatch] = iter([])
        size = options.shard_size
        if source is None:
            assert begun
            source = begun.settings.input
        if not options.only:
            listing = list_images(
                source, options.allow, options.include, self.left_out, options.exclude, self.columns
            )
            # An input that is none is refused before anything is written.
            self._listing = itertools.chain([next(listing)], listing)
        if size is None:
            size, self._listing = choose_shard_size(self._listing, options.limit)
        factor = DEFAULT_FACTOR if options.density_factor is None else options.density_factor
        self._display_size: DisplaySize = options.display_size or bundle.display_size
        self.settings = RunSettings(
            input=absolute_input(source),
            model=bundle.fingerprint,
            display_size=self._display_size,
            shard_size=size,
            density_factor=factor,
            limits=options.limits.over(Limits()),
            keep=options.kept(),
        )

    def _read_model(self, begun: Run | None) -> ModelBundle:
        """The bundle that scores, from where it was said to be, now or when the run was begun."""
        options = self._options
        source = options.model or DEFAULT
        try:
            self._bundle = read_bundle(source)
        except BundleError as error:
            if begun is None or begun.given is None or source != begun.given.model:
                raise
            raise BundleError(
                f"{self.location.uri} was begun with the model {source} ({begun.settings.model}), "
                f"which cannot be read ({one_line(error)}): say by --model where it is now"
            ) from error
        bundle = parse_bundle(self._bundle, source)
        name = redact(source)
        if options.centerbias is not None:
            bundle = with_centerbias(bundle, options.centerbias)
            self._bundle = bundle.to_bytes()
            name += f", centre bias {redact(options.centerbias)}"
        self._note = ModelNote(name, bundle.training.trained_on())
        return bundle

    def estimate(self) -> tuple[Estimate, dict[int, int]]:
        """What is to do, and the images of each shard that would be taken up again; nothing is
        written. Raises RunMismatch, see `begin_run`."""
        run = find_run(self.location, self.settings)
        found = estimate(run, self._listing, self._options.limit)
        return found, dict(self._again(run, self._failed(run)).counts())

    def _failed(self, run: Run) -> dict[int, int] | None:
        return failed_images(run) if self._options.retry_failed else None

    def _again(self, run: Run, failed: dict[int, int] | None) -> Again:
        options = self._options
        outdated = outdated_images(run, failed or {}) if options.rescan else None
        asked = {}
        if options.only:
            done = run.shards_done()
            named = asked_images(run, read_names(options.only))
            asked = {number: ids for number, ids in named.items() if number in done}
        return Again(failed, outdated, asked)

    def begin(self) -> "Scoring":
        """Begin the run, or go on with it, and plan. Raises RunMismatch, see `begin_run`."""
        run = begin_run(self.location, self.settings, self._note, self._given)
        options, failed = self._options, self._failed(run)
        if options.only:
            run.takes_missing = False
            parts = plan_parts(run)
            plan = PlanSummary(sum(p.images for p in parts), sum(p.shards for p in parts), 0)
        else:
            note = partial(note_rescan, run) if options.rescan else None
            retried = failed_ids(run, failed or ())
            plan = update_plan(run, self._listing, options.limit, note, retried=retried)
        before = run.shards_done()
        again = self._again(run, failed)
        if options.limit is None and not options.only:
            note_planned(run, plan, options.rescan)
        config = ScoringConfig(
            run.location.uri,
            self.settings,
            self._bundle,
            ReadingConfig(
                self._display_size,
                self.settings.limits,
                decode=options.decode,
                fail_unanswered=options.fail_unanswered,
                web=self._web,
            ),
        )
        scoring = Scoring(run, plan, config, before, images_in(run, before), again)
        if scoring.to_do:  # else no weights are needed
            weights = weights_to_send(self._backbone, options.backbone_weights)
            scoring = replace(scoring, config=replace(config, weights=weights))
        return scoring


@dataclass(frozen=True)
class Scoring:
    """A run that is planned, and what is to do of it.

    Attributes:
        run, plan: the run, and how much is planned.
        config: what scores it.
        before: shards that were done before.
        kept: images that had a row before.
        again: what of those is taken up again.
    """

    run: Run
    plan: PlanSummary
    config: ScoringConfig
    before: set[int]
    kept: int
    again: Again

    @property
    def done(self) -> int:
        """Images that nothing is done about."""
        return self.kept - self.again.total()

    @property
    def to_do(self) -> int:
        """Images to score."""
        missing = self.plan.images - self.kept if self.run.takes_missing else 0
        return missing + self.again.total()

    def parts_again(self) -> Iterator[Shard]:
        """The images that are taken up again; see `results.retry.parts_again`."""
        return parts_again(self.run, self.again)

    def end(self) -> None:
        """After all that could be done: a rescan of which nothing is left is over."""
        if self.again.outdated:
            note_planned(self.run, self.plan, is_rescan=True)
