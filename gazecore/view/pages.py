"""What the pages that people read have in common: HTML that needs nothing from elsewhere.

A page says in its Content-Security-Policy that only its own script runs, told by its digest, and
that pictures come from the page itself or from the folder beside it.
"""

import base64
import hashlib
from datetime import UTC, datetime
from importlib.resources import files
from typing import Any

import jinja2
from markupsafe import Markup

import gazecore
from gazecore.storage import Location
from gazecore.view.layers import KINDS

GENERATOR = '<meta name="generator" content="gazecore {kind} '
_HEAD = 4096


def render(template: str, kind: str, *, scripts: tuple[str, ...] = (), **values: Any) -> str:
    """A page as HTML; all text from outside is escaped.

    Args:
        template: its file in this folder, which extends `page.html`.
        kind: what the page is, by which `is_our_page` knows it.
        scripts: files in this folder that it needs besides `page.js`.
        values: what it speaks of; a name that it lacks is an error.
    """
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("gazecore.view", ""),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters["data_uri"] = data_uri
    environment.filters["name_of"] = name_of
    environment.filters["short"] = short
    environment.filters["utc"] = lambda seconds: _utc(datetime.fromtimestamp(seconds, UTC))
    own = [_own(name) for name in ("page.js", *scripts)]
    style = _own("page.css")
    beside = " 'self' file:" if values.get("folder") else ""
    policy = (
        f"default-src 'none'; img-src data:{beside}; style-src {_digest(style)}; "
        f"script-src {' '.join(map(_digest, own))}; base-uri 'none'; form-action 'none'"
    )
    return environment.get_template(template).render(
        kind=kind,
        policy=policy,
        style=Markup(style),
        scripts=[Markup(script) for script in own],
        layers=KINDS,
        made=_utc(datetime.now(UTC)),
        version=gazecore.__version__,
        **values,
    )


def is_our_page(kind: str) -> Any:
    """What says whether a file is a page of that kind that `render` made."""

    def is_ours(location: Location) -> bool:
        with location.fs.open(location.path, "rb") as file:
            return GENERATOR.format(kind=kind).encode() in file.read(_HEAD)

    return is_ours


def data_uri(picture: bytes, kind: str) -> str:
    """A picture as a page can hold it."""
    return f"data:image/{kind};base64,{base64.b64encode(picture).decode()}"


def name_of(uri: str) -> str:
    """What people call a folder or a file: the last part of its path."""
    return uri.rstrip("/").rpartition("/")[2] or uri


def short(fingerprint: str) -> str:
    """The begin of a digest, after whatever words stand before it (`out of fold: `)."""
    words, space, digest = fingerprint.rpartition(" ")
    return f"{words}{space}{digest[:16]}"


def _own(name: str) -> str:
    return (files("gazecore.view") / name).read_text()


def _digest(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _utc(when: datetime) -> str:
    return f"{when:%Y-%m-%d %H:%M} UTC"
