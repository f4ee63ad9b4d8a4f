"""Which model bundles there are, and what one holds."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from tyro.conf import Positional, arg

from gazecore.errors import InputError
from gazecore.model.record import reached, said
from gazecore.model.spec import SHIPPED
from gazecore.wording import counted
from jobs.command import run_command
from jobs.console import LOADING, err, show_rows

if TYPE_CHECKING:
    from gazecore.model.bundle import ModelBundle


@dataclass(frozen=True)
class ModelsOptions:
    """List the model bundles that the package ships, or print what one holds: backbone, readout,
    training and what it reached."""

    model: Positional[
        Annotated[str | None, arg(metavar="MODEL", help_behavior_hint="(optional)")]
    ] = None
    """A path, a URI, or one that the package ships."""
    json: bool = False
    """Print the whole header of MODEL as JSON instead, with the names of all held-out images of
    each stage of its training."""

    def __post_init__(self) -> None:
        if self.json and self.model is None:
            raise InputError("--json prints the header of one bundle: gazecore models NAME --json")


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command."""
    run_command("models", ModelsOptions, models, argv)


def models(options: ModelsOptions) -> int:
    """Load and print."""
    with err.status(LOADING):
        from gazecore.model.bundle import load_bundle, read_bundle

    if options.model is None:
        for name, purpose in SHIPPED.items():
            bundle = load_bundle(name)
            megabytes = len(read_bundle(name)) / 1e6
            show_rows(
                [
                    (name, purpose),
                    ("  readout", _readout(bundle)),
                    ("  trained on", bundle.training.trained_on()),
                    ("  size", f"{megabytes:.1f} MB"),
                ]
            )
        show_rows([("more", "gazecore models NAME")])
        return 0
    bundle = load_bundle(options.model)
    if options.json:
        print(json.dumps({"fingerprint": bundle.fingerprint, **bundle.header()}, indent=2))
        return 0
    backbone, readout = bundle.backbone, bundle.readout
    rows = [
        ("model", options.model),
        ("fingerprint", bundle.fingerprint),
        ("backbone", f"{backbone.name}, weights {backbone.sha256[:16]}…"),
        ("taps", " ".join(backbone.taps)),
        ("pyramid", " ".join(f"{size:g}" for size in backbone.pyramid)),
        ("readout", _readout(bundle)),
        ("blur", f"{_range(readout.log_blur.exp().tolist())} grid cells"),
        ("centre bias weight", _range(readout.centerbias_weight.tolist())),
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


def _readout(bundle: "ModelBundle") -> str:
    config = bundle.readout.config
    layers = " -> ".join(map(str, (config.levels * config.channels, *config.widths)))
    return f"{layers}, {config.activation}, {counted(config.members, 'members')}"


def _range(values: list[float]) -> str:
    low, high = f"{min(values):.2f}", f"{max(values):.2f}"
    return low if low == high else f"{low} to {high}"


if __name__ == "__main__":
    main()
