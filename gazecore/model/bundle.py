"""Model bundles: everything but the backbone's weights, in one `.safetensors` file.

Tensors: `readout.*` (the state of `Readout`) and `centerbias` (a log density in normalised
coordinates). The file's metadata holds one entry, `gazecore`, the header as JSON.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from importlib import resources
from typing import Any, get_args

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load, save

from gazecore.errors import BundleError, one_line
from gazecore.geometry import DisplaySize
from gazecore.model.readout import Readout, ReadoutConfig
from gazecore.model.record import TrainingRecord
from gazecore.model.spec import DEFAULT, SHIPPED, BackboneSpec
from gazecore.storage import Location

FORMAT_VERSION = 1
_MAX_HEADER = 2**24

MAX_EXCESS = 0.01
"""Largest logsumexp of a centre bias, which is normalised up to rounding."""


@dataclass(frozen=True)
class ModelBundle:
    """A trained model.

    Attributes:
        backbone: the features it reads.
        readout: its readout, in evaluation mode.
        centerbias: (rows, columns) log density in normalised coordinates.
        display_size: what it was trained at.
        training: corpus, split, command and settings of all its stages.
        metrics: what it reached on held-out images.
        fingerprint: sha256 of the file; empty before it is saved.
    """

    backbone: BackboneSpec
    readout: Readout
    centerbias: torch.Tensor
    display_size: DisplaySize = "1024"
    training: TrainingRecord = TrainingRecord()
    metrics: Mapping[str, Any] = field(default_factory=dict)
    fingerprint: str = ""

    def __post_init__(self) -> None:
        if self.display_size not in get_args(DisplaySize):
            raise BundleError(f"display_size {self.display_size!r} is not 1024 or native")
        if not isinstance(self.metrics, Mapping):
            raise BundleError(f"metrics is {type(self.metrics).__name__}, not an object")
        if self.centerbias.ndim != 2 or not self.centerbias.numel():
            raise BundleError(f"the centre bias has the shape {tuple(self.centerbias.shape)}")
        read = self.readout.config.levels, self.readout.config.channels
        given = len(self.backbone.pyramid), self.backbone.channels
        if read != given:
            raise BundleError(
                "the readout reads {} levels of {} channels, ".format(*read)
                + "the backbone {} gives {} of {}".format(self.backbone.name, *given)
            )

    def to_bytes(self) -> bytes:
        """The bundle as a file; the first layer's weights are rounded to float16."""
        tensors = {f"readout.{k}": v for k, v in self.readout.state_dict().items()}
        tensors["centerbias"] = self.centerbias
        # The first layer is nearly the whole file; rounding it moves a density by far less than
        # training on another fold does.
        first = "readout.weights.0"
        stored = {**tensors, first: tensors[first].half()}
        header = json.dumps(self.header(), sort_keys=True)
        return save(stored, metadata={"gazecore": header})

    def header(self) -> dict[str, Any]:
        """All but the tensors, as JSON holds it."""
        readout = asdict(self.readout.config)
        if self.readout.config.levels == 1:
            del readout["levels"]  # which went without saying before there were others
        return {
            "format_version": FORMAT_VERSION,
            "backbone": self.backbone.to_json(),
            "readout": readout,
            "display_size": self.display_size,
            "training": self.training.to_json(),
            "metrics": dict(self.metrics),
        }


def load_bundle(uri: str = DEFAULT) -> ModelBundle:
    """Load a bundle.

    Args:
        uri: a path or URI, or one of SHIPPED.

    Raises:
        BundleError: there is none, it is damaged, or it has another format version.
    """
    return parse_bundle(read_bundle(uri), uri)


def is_bundle(location: Location) -> bool:
    """Whether a file is a bundle, of whatever version."""
    try:
        with location.fs.open(location.path, "rb") as file:
            length = int.from_bytes(file.read(8), "little")
            metadata = json.loads(file.read(min(length, _MAX_HEADER)))["__metadata__"]
        return "gazecore" in metadata
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return False


def read_bundle(uri: str = DEFAULT) -> bytes:
    """A bundle's file, unread; see `load_bundle`."""
    try:
        if uri in SHIPPED:
            return (resources.files("gazecore.model") / f"{uri}.safetensors").read_bytes()
        return Location(uri).read_bytes()
    except OSError as error:
        raise BundleError(f"cannot read model bundle {uri}: {one_line(error)}") from error


def parse_bundle(data: bytes, name: str) -> ModelBundle:
    """The bundle that `data` holds; `name` is what errors call it. Raises BundleError."""
    try:
        tensors = {key: value.float() for key, value in load(data).items()}
        # The metadata, which `load` does not give, stands in the header that it has just checked.
        length = int.from_bytes(data[:8], "little")
        metadata = json.loads(data[8 : 8 + length]).get("__metadata__", {})
    except (SafetensorError, ValueError, AttributeError, RecursionError) as error:
        raise BundleError(
            f"{name} is not a safetensors file or is damaged: {one_line(error)}"
        ) from error
    if "gazecore" not in metadata:
        raise BundleError(f"{name} is a safetensors file, but not a gazecore model bundle")
    try:
        header = json.loads(metadata["gazecore"])
        version = header["format_version"]
        if version != FORMAT_VERSION:
            raise BundleError(
                f"{name} has bundle format {version}, this gazecore reads {FORMAT_VERSION}: "
                "install the version that made it, or train it again"
            )
        config = header["readout"]
        readout = Readout(ReadoutConfig(**{**config, "widths": tuple(config["widths"])}))
        readout.load_state_dict(
            {k.removeprefix("readout."): v for k, v in tensors.items() if k.startswith("readout.")}
        )
        bundle = ModelBundle(
            backbone=BackboneSpec.from_json(header["backbone"]),
            readout=readout.eval().requires_grad_(False),
            centerbias=tensors["centerbias"],
            display_size=header["display_size"],
            training=TrainingRecord.from_json(header["training"]),
            metrics=header["metrics"],
            fingerprint=hashlib.sha256(data).hexdigest(),
        )
    except (KeyError, TypeError, ValueError, AttributeError, RuntimeError, RecursionError) as error:
        raise BundleError(
            f"{name} does not hold what its header says: {one_line(error)}"
        ) from error
    if not all(np.isfinite(value.numpy()).all() for value in tensors.values()):
        raise BundleError(f"{name} holds values that are not finite")
    total = float(torch.logsumexp(bundle.centerbias.double().flatten(), 0))
    if abs(total) > MAX_EXCESS:
        raise BundleError(
            f"{name}: its centre bias is no log density: logsumexp {total:.6g}, not 0"
        )
    return bundle
