"""Objects of Google Cloud Storage by obstore, with what gcsfs would find in the environment.

That is: application default credentials (GOOGLE_APPLICATION_CREDENTIALS, gcloud's own, the
machine's by its metadata server), nothing where there are none, and STORAGE_EMULATOR_HOST.
"""

import functools
import logging
import os
from datetime import UTC, datetime
from typing import Any

import fsspec.config
from obstore.store import GCSStore

from gazecore.errors import KeysRefused, one_line
from gazecore.images.objects import ONE_TRY, Bucket, Keys, Object, client, is_plain

_SCOPE = "https://www.googleapis.com/auth/devstorage.read_only"

_ONLY_GCSFS = ("GOOGLE_API_USE_CLIENT_CERTIFICATE", "GOOGLE_CLOUD_UNIVERSE_DOMAIN")
"""Variables that ask for what obstore cannot do."""

_ADVICE = "set GOOGLE_APPLICATION_CREDENTIALS, log in with gcloud, or give the machine an account"

_TOKEN_SECONDS = 10
"""That a server of tokens is waited for."""


def find(uri: str) -> Object | None:
    """The object of a `gs://` URI; None where only gcsfs can do what was asked of it."""
    name, _, key = uri.partition("://")[2].partition("/")
    conf = fsspec.config.conf
    asked = {**conf.get("gs", {}), **conf.get("gcs", {})}
    token, endpoint = asked.pop("token", None), asked.pop("endpoint_url", None)
    strange = asked or token not in (None, "anon") or any(map(os.environ.get, _ONLY_GCSFS))
    if strange or not name or not is_plain(key):
        return None
    endpoint = endpoint or os.environ.get("STORAGE_EMULATOR_HOST", "default")
    if endpoint in ("", "default"):
        endpoint = "https://storage.googleapis.com"
    elif "://" not in endpoint:
        endpoint = f"http://{endpoint}"
    return Object(uri, bucket(name, endpoint, token == "anon"), key)


@functools.lru_cache(maxsize=1000)
def bucket(name: str, endpoint: str, anonymous: bool) -> Bucket:
    """A bucket. Raises KeysRefused."""
    keys = None if anonymous else default_keys()

    def connect() -> GCSStore:
        return GCSStore(
            config={"bucket": name, "base_url": endpoint, "skip_signature": keys is None},
            client_options=client(),
            retry_config=ONE_TRY,
            credential_provider=keys,  # type: ignore[arg-type]
        )

    return Bucket(connect, keys, None if anonymous else _ADVICE)


@functools.cache
def default_keys() -> Keys | None:
    """The application default credentials; None where there are none. Raises KeysRefused."""
    import google.auth
    from google.auth.exceptions import GoogleAuthError, TransportError
    from google.auth.transport.requests import Request

    # Which warns that it knows no project; objects need none.
    logging.getLogger("google.auth._default").setLevel(logging.ERROR)
    credentials: Any
    try:
        credentials, _ = google.auth.default(scopes=[_SCOPE])
    except (GoogleAuthError, OSError, ValueError) as error:
        if not os.environ.get("GOOGLE_APPLICATION_CREDENTIALS"):
            return None
        raise KeysRefused(
            f"GOOGLE_APPLICATION_CREDENTIALS names no usable credentials: {one_line(error)}"
        ) from error
    request = functools.partial(Request(), timeout=_TOKEN_SECONDS)

    def renew() -> tuple[dict[str, Any], datetime | None]:
        try:
            credentials.refresh(request)
        except (GoogleAuthError, ValueError) as error:
            words = f"Google gives no token for the credentials: {one_line(error)}"
            passes = isinstance(error, TransportError) or isinstance(
                error.__cause__, TransportError
            )
            if passes or getattr(error, "retryable", False):
                raise OSError(words) from error
            raise KeysRefused(words) from error
        end = credentials.expiry
        return {"token": credentials.token}, end and end.replace(tzinfo=UTC)

    return Keys(renew)
