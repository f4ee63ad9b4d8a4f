"""What a model bundle holds."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

from tyro.conf import Positional, arg

from gazecore.model.record import reached, said
from gazecore.model.spec import DEFAULT
from gazecore.wording import counted
from jobs.command import run_command
from jobs.console import LOADING, err, show_rows


@dataclass(frozen=True)
class ModelsOptions:
    """Print what a model bundle holds: backbone, readout, training and what it reached."""

    model: Positional[Annotated[str, arg(metavar="MODEL")]] = DEFAULT
    """A path, a URI, or one that the package ships: `default`, `paper` (the paper's readout)."""
    json: bool = False
    """Print the whole header of the bundle as JSON instead, with the names of all held-out images
    of each stage of its training."""


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command."""
    run_command("models", ModelsOptions, models, argv)


def models(options: ModelsOptions) -> int:
    """Load and print."""
    with err.status(LOADING):
        from gazecore.model.bundle import load_bundle

    bundle = load_bundle(options.model)
    if options.json:
        print(json.dumps({"fingerprint": bundle.fingerprint, **bundle.header()}, indent=2))
        return 0
    backbone, readout = bundle.backbone, bundle.readout
    config = readout.config
    layers = " -> ".join(map(str, (config.levels * config.channels, *config.widths)))
    rows = [
        ("model", options.model),
        ("fingerprint", bundle.fingerprint),
        ("backbone", f"{backbone.name}, weights {backbone.sha256[:16]}…"),
        ("taps", " ".join(backbone.taps)),
        ("pyramid", " ".join(f"{size:g}" for size in backbone.pyramid)),
        ("readout", f"{layers}, {config.activation}, {counted(config.members, 'members')}"),
        ("blur", ", ".join(f"{s:.2f}" for s in readout.log_blur.exp()) + " grid cells"),
        ("centre bias weight", ", ".join(f"{w:.2f}" for w in readout.centerbias_weight)),
        ("display size", bundle.display_size),
    ]
    for before, stage in enumerate(reversed(bundle.training.stages())):
        heading = ("training", "pretraining", f"pretraining {before}")[min(before, 2)]
        rows += [
            (f"{heading}: {key.replace('_', ' ')}", said(value))
            for key, value in stage.to_json().items()
            if key != "started_from"
        ]
    rows += [(f"reached: {what}", value) for what, value in reached(bundle.metrics)]
    show_rows(rows)
    return 0


if __name__ == "__main__":
    main()
