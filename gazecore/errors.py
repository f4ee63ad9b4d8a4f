"""Every error that gazecore raises on purpose.

    GazecoreError
    ├── UserError            the caller can mend it; commands exit with 2
    │   ├── InputError       an input, list, option or path that cannot be used
    │   │   └── DamagedTable a Parquet file whose bytes make no sense
    │   ├── BundleError      a model bundle that is damaged or does not fit
    │   ├── CorpusError      recorded fixations that cannot be read
    │   └── RunMismatch      a run directory that belongs to other settings
    ├── RunFailed            the work itself failed; commands exit with 1
    ├── StorageUnavailable   the storage does not answer; says nothing of an image
    │   ├── KeysRefused      it refuses the keys, for whatever is asked; exit with 2
    │   └── AskedToWait      a server of the web asks for a pause
    └── ImageError           one image that cannot be scored; becomes a `failed` row
        ├── NotFound         not_found
        ├── AccessDenied     access_denied
        ├── Archived         archived
        ├── StorageError     storage_error
        ├── TooLarge         too_large
        ├── DecodeError      decode_error
        ├── NotFinite        not_finite
        ├── Crashed          crashed
        └── Gone             gone; becomes a `gone` row

Messages are one line: what is wrong, where, and what to do. Secrets are blacked out in them.
"""

import os
import re
from collections.abc import Iterable
from typing import ClassVar

from gazecore.wording import printable

_ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+")

_PASSWORD = re.compile(r"(://)[^/?#@\s'\"<>\\]*:[^/?#\s'\"<>\\]*@")
_QUERY = re.compile(r"\?[^\s'\"<>\\]+")
_KEY = re.compile(r"(?:sig|token|secret|passw|credential|key|auth)[^=&]{0,40}=", re.IGNORECASE)
_AWS_KEY_ID = re.compile(r"\b(?:AKIA|ASIA)[0-9A-Z]{16}\b")

_PART = re.compile(r"(?:AccountKey|SharedAccessSignature)=([^;]{8,})")
"""A secret within a connection string."""

_SECRET_VARIABLES = (
    "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "RAY_AUTH_TOKEN",
    "AZURE_STORAGE_ACCOUNT_KEY", "AZURE_STORAGE_CONNECTION_STRING", "AZURE_STORAGE_SAS_TOKEN",
    "AZURE_STORAGE_CLIENT_SECRET", "AZURE_CLIENT_SECRET",
    "HF_TOKEN", "GITHUB_TOKEN",
)  # fmt: skip


_hidden: set[str] = set()


def hide(secrets: Iterable[str]) -> None:
    """Have `redact` black out these, too, in this process; not those of less than 4 characters,
    which stand in other words."""
    _hidden.update(secret for secret in secrets if len(secret) >= 4)


def redact(text: str) -> str:
    """A text with `***` for the secrets in it.

    Those are passwords in URIs, the query of signed URLs, AWS key ids, the values of the
    environment variables that hold keys, and what `hide` was told.
    """
    text = _PASSWORD.sub(r"\1***@", text)
    text = _QUERY.sub(lambda query: "?***" if _KEY.search(query[0]) else query[0], text)
    text = _AWS_KEY_ID.sub("***", text)
    for name in _SECRET_VARIABLES:
        if len(value := os.environ.get(name, "")) >= 8:
            for secret in (value, *_PART.findall(value)):
                text = text.replace(secret, "***")
    for secret in sorted(_hidden, key=len, reverse=True):
        text = text.replace(secret, "***")
    return text


class GazecoreError(Exception):
    """Base of all errors here. `exit_code` is what a command ends with."""

    exit_code: ClassVar[int] = 1

    def __init__(self, message: str = "") -> None:
        super().__init__(redact(message))


class UserError(GazecoreError):
    """Something the caller can mend."""

    exit_code = 2


class InputError(UserError):
    """An input, list, option or path that cannot be used."""


class DamagedTable(InputError):
    """A Parquet file whose bytes make no sense, or whose checksums say so."""


class BundleError(UserError):
    """A model bundle that is damaged, of another version, or made for other weights."""


class CorpusError(UserError):
    """Recorded fixations that cannot be read."""


class RunMismatch(UserError):
    """A run directory that was begun with another model, input or settings."""


class RunFailed(GazecoreError):
    """The work could not be finished; nothing that was written is lost."""


class StorageUnavailable(GazecoreError):
    """The storage did not answer within the retries; nothing is known about the image itself.

    Attributes:
        answered: other images of the same shard that were answered for meanwhile.
    """

    answered: int = 0


class KeysRefused(StorageUnavailable):
    """The storage refuses the keys, or has none: so it will whatever is asked for next."""

    exit_code = 2


class AskedToWait(StorageUnavailable):
    """A server answers with 429 or 503 and a Retry-After.

    Attributes:
        host: that asks.
        seconds: for which.
    """

    host: str = ""
    seconds: float = 0.0


class ImageError(GazecoreError):
    """One image that cannot be scored. `code` is the `error` column of its row."""

    code: ClassVar[str] = "image_error"


class NotFound(ImageError):
    """There is no such object."""

    code = "not_found"


class AccessDenied(ImageError):
    """The object may not be read with these credentials."""

    code = "access_denied"


class Archived(ImageError):
    """The object is in an archive (S3 Glacier, Azure's archive tier): restore it first."""

    code = "archived"


class StorageError(ImageError):
    """What the URI names cannot be read as a file, now or later."""

    code = "storage_error"


class TooLarge(ImageError):
    """More bytes or pixels than the configured caps, or than there is memory for."""

    code = "too_large"


class DecodeError(ImageError):
    """The bytes are not an image that can be read."""

    code = "decode_error"


class NotFinite(ImageError):
    """What the model makes of the image is not a number, or too large for one."""

    code = "not_finite"


class Crashed(ImageError):
    """The process that scored this image died, each time it was tried."""

    code = "crashed"


class Gone(ImageError):
    """The image was planned, and is no longer in the input."""

    code = "gone"


class Interrupted(KeyboardInterrupt):
    """Ctrl-C or SIGTERM: no error, so it stands outside the tree. Its text says what is kept."""

    def __init__(self, number: int, kept: str = "") -> None:
        """Keep the signal's number, 0 where it is not known; commands exit with 128 more."""
        super().__init__(kept)
        self.number = number


def one_line(error: BaseException, limit: int = 300) -> str:
    """The message of an error on one line of at most `limit` characters.

    Addresses of objects are left out: the same failure reads the same each time. So are secrets.
    """
    text = printable(_ADDRESS.sub("", redact(" ".join(str(error).split()))))
    text = text or type(error).__name__
    return text if len(text) <= limit else text[: limit - 1] + "…"
