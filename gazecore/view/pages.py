"""What the pages that people read have in common: one HTML file each, with everything in it."""

import base64
import io
from typing import Any

import jinja2
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure


def render(template: str, **values: Any) -> str:
    """A page as HTML; all text from outside is escaped.

    Args:
        template: its file in this folder, which extends `page.html`.
        values: what it speaks of; a name that it lacks is an error.
    """
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("gazecore.view", ""),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters["data_uri"] = data_uri
    return environment.get_template(template).render(**values)


def data_uri(image: bytes, kind: str) -> str:
    """A picture as a page can hold it."""
    return f"data:image/{kind};base64,{base64.b64encode(image).decode()}"


def plot(height: float) -> tuple[Figure, Axes]:
    """A figure as wide as a page, of a height in inches, with an empty plot that counts images."""
    figure = Figure(figsize=(8, height), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.set_ylabel("images")
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def png(figure: Figure) -> bytes:
    """A figure as a file."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()
