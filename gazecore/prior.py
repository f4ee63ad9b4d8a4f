"""Another centre bias for a model: pages, posters and robots' frames do not share photographs'."""

import io
from dataclasses import replace

import numpy as np
import torch

from gazecore.corpus.schema import load_corpus
from gazecore.errors import InputError, one_line
from gazecore.model import centerbias
from gazecore.model.bundle import MAX_EXCESS, ModelBundle, parse_bundle
from gazecore.storage import Location

UNIFORM = "uniform"
_MOST = 4096


def with_centerbias(bundle: ModelBundle, source: str | None) -> ModelBundle:
    """A bundle with another centre bias.

    Its fingerprint is another, too: its densities, and `information_bits`, which are over the
    centre bias, are those of another model.

    Args:
        bundle: what it is changed in.
        source: `uniform`; a .npy file, (rows, columns) of a log density (natural logarithm) over
            the image stretched to them; a bundle (.safetensors), whose centre bias is taken; or a
            corpus, whose fixations it is fitted to. A path or URI. None: the bundle as it is.

    Raises:
        InputError: it is none of these.
    """
    if source is None:
        return bundle
    if source == UNIFORM:
        side = centerbias.RESOLUTION
        log_density = torch.full((side, side), -2 * float(np.log(side)))
    elif source.endswith(".npy"):
        log_density = _array(source)
    elif source.endswith(".safetensors"):
        try:
            log_density = parse_bundle(Location(source).read_bytes(), source).centerbias
        except OSError as error:
            raise InputError(f"cannot read the bundle {source}: {one_line(error)}") from error
    else:
        log_density = _fitted(source)
    changed = replace(bundle, centerbias=log_density)
    return parse_bundle(changed.to_bytes(), source)


def _array(source: str) -> torch.Tensor:
    try:
        data = Location(source).read_bytes()
        array = np.load(io.BytesIO(data), allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise InputError(f"cannot read the centre bias {source}: {one_line(error)}") from error
    if array.ndim != 2 or not array.size or max(array.shape) > _MOST:
        raise InputError(
            f"the centre bias {source} has the shape {array.shape}: it must be (rows, columns), at "
            f"most {_MOST:,} each"
        )
    if array.dtype.kind != "f" or not np.isfinite(array).all():
        raise InputError(f"the centre bias {source} must hold finite floating point numbers")
    log_density = torch.from_numpy(array.astype(np.float32))
    total = float(torch.logsumexp(log_density.double().flatten(), 0))
    if abs(total) > MAX_EXCESS:
        raise InputError(
            f"the centre bias {source} is no log density: the logsumexp of its values is "
            f"{total:.6g}, not 0; np.log(density / density.sum()) makes it one"
        )
    return log_density


def _fitted(source: str) -> torch.Tensor:
    corpus = load_corpus(source)
    sizes = {row["image_id"]: (row["width"], row["height"]) for row in corpus.images.to_pylist()}
    points = [
        found / np.array(sizes[image_id])
        for image_id, found in corpus.points().items()
        if len(found)
    ]
    if not points:
        raise InputError(f"the corpus {source} has no fixations to fit a centre bias to")
    return torch.from_numpy(centerbias.fit_images(points).log_density)
