"""The page of a run: what was scored, what failed, how it is distributed, and all of it to see.

DIR/report.html     the page
DIR/pictures/       its pictures, where the run has more than EMBEDDED images
"""

import json
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any

from markupsafe import Markup

from gazecore.density.peaks import Peak
from gazecore.errors import ImageError, InputError, StorageUnavailable
from gazecore.images.decode import to_network
from gazecore.images.formats import Limits
from gazecore.images.read import read
from gazecore.ownership import MADE_BY, refuse_foreign
from gazecore.results.overview import (
    EXTREMES,
    Distribution,
    Overview,
    Shown,
    densities_of,
    overview,
)
from gazecore.results.rate import begin_time
from gazecore.results.run import Run
from gazecore.results.stream import StoredDensity, of_each
from gazecore.results.times import read_times
from gazecore.shards.clock import PHASES, verdict
from gazecore.steps import Steps, told, uncounted
from gazecore.storage import Location
from gazecore.view.charts import Series, bins_for, chart
from gazecore.view.layers import KINDS, Layers, jpeg, layers_of
from gazecore.view.pages import data_uri, is_our_page, name_of, render, short

EMBEDDED = 200
"""Images of which the page holds the pictures itself."""

MOST = 50_000
"""Images that a page can hold."""

FOLDER = "pictures"
_MARK = "gazecore.json"
_PICTURE = re.compile(r"\d{6}\.(jpg|webp|svg)")
_SUFFIXES = {"image": "jpg", "density": "webp", "contours": "svg"}
_SILENT = 8


@dataclass(frozen=True)
class Statistic:
    """A statistic as a page names it: its title, unit, and whether it is a share, or whole."""

    name: str
    title: str
    says: str
    unit: str = ""
    share: bool = False
    whole: bool = False


TITLES = (
    Statistic("information_bits", "Information", "how far the image itself, not its centre, "
              "decides where people look", "bit"),
    Statistic("concentration_bits", "Concentration", "how far from looking everywhere alike",
              "bit"),
    Statistic("area_50", "Area of half", "of the image, that holds half of the fixations",
              share=True),
    Statistic("area_90", "Area of 90 %", "of the image, that holds 90 % of the fixations",
              share=True),
    Statistic("center_mass", "In the centre", "of the fixations, in the central half by width and "
              "height", share=True),
    Statistic("n_peaks", "Peaks", "places that stand out", whole=True),
    Statistic("disagreement_bits", "Disagreement", "of the model's members: high where it is "
              "unsure", "bit"),
)  # fmt: skip

_EXTREME_TITLES = (
    "Most surprising", "Least surprising", "Looked at in one spot", "Looked at all over",
    "Most central", "Least central", "Most places that stand out", "The model least sure",
)  # fmt: skip


@dataclass(frozen=True)
class Reported:
    """What was written.

    Attributes:
        page: where the page is.
        images: of the run that are on it.
        unread: of them, scored ones whose image could not be read, or was not to be.
    """

    page: Location
    images: int
    unread: int


def write_report(
    run: Run,
    out: Location,
    shown: Shown = Shown(),
    *,
    densities_only: bool = False,
    command: str = "",
    steps: Steps = uncounted,
) -> Reported:
    """Write the page of a run.

    Images are read anew, each once; what cannot be read is shown by its density alone, and where
    the storage does not answer for several in a row, no more are asked for. In memory are a shard's
    densities, and the numbers (and of EMBEDDED images, the pictures) of the images that are shown.

    Args:
        run: finished or not, compacted or not.
        out: the folder; a page that is there is replaced if it is one of these, other files stay.
        shown: how many images.
        densities_only: read no image.
        command: that the page names.
        steps: how somebody is told.

    Raises:
        InputError: nothing is scored, the numbers of `shown` make no sense, the folder lies in the
            run, or a file of others would be written over.
    """
    if not 1 <= shown.images <= MOST:
        raise InputError(f"a page shows 1 to {MOST:,} images, not {shown.images:,}")
    if f"{out.uri}/".startswith(f"{run.location.uri}/"):
        raise InputError("--out lies in the run, which holds its own files only: name another")
    page, folder = out / "report.html", out / FOLDER
    refuse_foreign([page], is_our_page("report"))
    if folder.names() and not _is_ours(folder):
        raise InputError(f"{folder.uri} is there, and gazecore did not make it: name another --out")
    found = overview(run, shown, bins_for)
    is_embedded = len(found.rows) <= EMBEDDED
    if not is_embedded:
        page.remove()  # until its pictures are there
        (folder / _MARK).publish(json.dumps({"made_by": MADE_BY}).encode())
    number = {row["image_id"]: i for i, row in enumerate(found.rows)}
    seen = [0] * len(found.rows)
    pictures: list[dict[str, str] | None] = [None] * len(found.rows)
    with steps("pictures", sum(row["status"] == "ok" for row in found.rows)) as on_picture:
        for image_id, layers in told(_layers(run, found, densities_only), on_picture):
            i = number[image_id]
            seen[i] = 1 + ("image" in layers.pictures)
            found.rows[i]["peaks"] = layers.peaks
            if is_embedded:
                pictures[i] = {k: data_uri(v, KINDS[k]) for k, v in layers.pictures.items()}
            else:
                for kind, data in layers.pictures.items():
                    (folder / _file(i, kind)).publish(data)
    text = render(
        "run.html",
        "report",
        scripts=("run.js",),
        command=command,
        folder="" if is_embedded else FOLDER,
        data=_data(found, seen),
        pictures=pictures if is_embedded else None,
        **_facts(run, found, shown),
    )
    page.publish(text.encode())
    _remove_others(folder, set() if is_embedded else {
        _file(i, kind) for i, how in enumerate(seen) for kind in list(_SUFFIXES)[2 - how :] if how
    })  # fmt: skip
    return Reported(page, len(found.rows), sum(how == 1 for how in seen))


def _layers(run: Run, found: Overview, densities_only: bool) -> Iterator[tuple[str, Layers]]:
    rows = {row["image_id"]: row for row in found.rows}
    silent = 0

    def work(density: StoredDensity) -> tuple[str, Layers]:
        nonlocal silent
        row, image = rows[density.image_id], None
        if not densities_only and silent < _SILENT:
            try:
                image = _image(row["uri"], run.settings.limits)
                silent = 0
            except ImageError:
                pass
            except StorageUnavailable:
                silent += 1
        peaks = [Peak(**peak) for peak in row.get("peaks") or ()]
        size = density.height, density.width
        return density.image_id, layers_of(density.grid, *size, image, peaks=peaks)

    return of_each(densities_of(run, found.rows), work)


def _image(uri: str, limits: Limits) -> bytes:
    """As the network sees it, by which a large JPEG is decoded at a part of its size."""
    from PIL import Image

    return jpeg(Image.fromarray(to_network(read(uri, limits), "1024", limits).pixels))


def _data(found: Overview, seen: list[int]) -> dict[str, Any]:
    """What the page's script knows, column by column; `seen` is 0 for no density, 1 for that alone,
    2 for the image, too."""
    rows = found.rows

    def values(name: str) -> list[float | None]:
        return [None if row[name] is None else float(f"{row[name]:.5g}") for row in rows]

    columns = [one for one in TITLES if one.name in found.distributions]
    return {
        "folder": FOLDER,
        "layers": list(_SUFFIXES),
        "suffixes": _SUFFIXES,
        "columns": [asdict(replace(one, says="")) for one in columns],
        "ids": [row["image_id"] for row in rows],
        "sizes": [[row["width"], row["height"]] for row in rows],
        "seen": seen,
        "errors": [
            None if row["status"] == "ok" else [row["error"] or "", row["error_message"] or ""]
            for row in rows
        ],
        "values": {one.name: values(one.name) for one in columns},
        "peaks": [
            [round(1000 * side) for place in row["peaks"] for side in place] if how else []
            for row, how in zip(rows, seen, strict=True)
        ],
    }


def _facts(run: Run, found: Overview, shown: Shown) -> dict[str, Any]:
    place = {row["image_id"]: i for i, row in enumerate(found.rows)}
    titles = {one.name: one for one in TITLES}
    by_row = {row["image_id"]: row for row in found.rows}

    def listed(ids: list[str], name: str) -> list[tuple[int, str, str]]:
        one = titles[name]
        known = [i for i in ids if by_row[i][name] is not None]
        return [(place[i], i, said(one, by_row[i][name])) for i in known]

    settings = {**asdict(run.settings), **asdict(run.settings.limits)}
    settings.pop("limits")
    given = asdict(run.given) if run.given else {}
    settings |= {k: v for k, v in given.items() if v and k != "model"}
    times = read_times(run)
    return {
        "name": name_of(run.settings.input),
        "model": run.model,
        "model_name": name_of(run.model.name) if run.model.name else short(run.settings.model),
        "status": found.status,
        "begun": begin_time(run),
        "failures": found.failures,
        "charts": [
            (one, d, _chart(one, d)) for one in TITLES if (d := found.distributions.get(one.name))
        ],
        "extremes": [
            (title, titles[name], listed(ids, name))
            for title, (name, _), ids in zip(_EXTREME_TITLES, EXTREMES, found.extremes, strict=True)
            if ids
        ],
        "sample": listed(found.sample, "information_bits"),
        "shown": shown,
        "settings": settings,
        "run": run.location.uri,
        "times": times,
        "phases": PHASES,
        "verdict": verdict(times) if times else "",
        "said": said,
    }


def _chart(one: Statistic, found: Distribution) -> Markup:
    series = Series(one.title, found.counts, found.mean)
    return chart([series], found.edges, one.title, share=one.share, whole=one.whole)


def said(one: Statistic, value: float) -> str:
    """A value with its unit."""
    if one.share:
        return f"{100 * value:.1f}\xa0%"
    return f"{value:,.0f}" if one.whole else f"{value:.3g}\xa0{one.unit}"


def _file(number: int, kind: str) -> str:
    return f"{number:06d}.{_SUFFIXES[kind]}"


def _is_ours(folder: Location) -> bool:
    try:
        return bool(json.loads((folder / _MARK).read_bytes()) == {"made_by": MADE_BY})
    except (OSError, ValueError, RecursionError):
        return False


def _remove_others(folder: Location, kept: set[str]) -> None:
    """Pictures of a page before this one that had more."""
    if not _is_ours(folder):
        return
    for name in folder.names():
        if name not in kept and (_PICTURE.fullmatch(name) or (not kept and name == _MARK)):
            (folder / name).remove()
