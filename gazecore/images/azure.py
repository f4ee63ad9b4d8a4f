"""Blobs of Azure by obstore, with what adlfs would find in the environment.

That is, the first of: AZURE_STORAGE_CONNECTION_STRING; the account of the URI, or
AZURE_STORAGE_ACCOUNT_NAME, with AZURE_STORAGE_ACCOUNT_KEY, AZURE_STORAGE_SAS_TOKEN, the service
principal of AZURE_STORAGE_CLIENT_ID, nothing if AZURE_STORAGE_ANON is set, or what
`azure.identity.DefaultAzureCredential` finds.
"""

import base64
import functools
import logging
import os
import re
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import fsspec.config
from obstore.store import AzureStore

from gazecore.errors import AccessDenied, KeysRefused, one_line
from gazecore.images.objects import ONE_TRY, Bucket, Keys, Object, client, is_plain

_SCOPE = "https://storage.azure.com/.default"
_ADVICE = (
    "set AZURE_STORAGE_ACCOUNT_KEY, AZURE_STORAGE_SAS_TOKEN or AZURE_STORAGE_CONNECTION_STRING, "
    "or give the machine an identity"
)
_HOST = re.compile(r"([a-z0-9]{3,24})\.(?:dfs|blob)\.core\.windows\.net")


def find(uri: str) -> Object | None:
    """The blob of an `az://` or `abfs://` URI; None where only adlfs can do what was asked of it.

    Raises:
        AccessDenied: the URI names another account than that whose key is in the environment.
        KeysRefused: no account is named, or what is to give its keys cannot be used.
    """
    container, _, key = uri.partition("://")[2].partition("/")
    container, _, host = container.partition("@")
    known = _HOST.fullmatch(host)
    strange = any(map(fsspec.config.conf.get, ("az", "abfs", "abfss"))) or "?versionid=" in key
    if strange or not container or "." in container or (host and not known) or not is_plain(key):
        return None
    return Object(uri, bucket(container, known[1] if known else None), key)


@functools.lru_cache(maxsize=1000)
def bucket(container: str, named: str | None) -> Bucket:
    """A container of the account that a URI named, or the environment. Raises as `find`."""
    account, endpoint, keys = find_account(named)

    def connect() -> AzureStore:
        return AzureStore(
            config={
                "container_name": container,
                "account_name": account,
                "endpoint": endpoint,
                "skip_signature": keys is None,
                "use_emulator": False,
                "use_fabric_endpoint": False,
            },
            client_options=client(),
            retry_config=ONE_TRY,
            credential_provider=keys,  # type: ignore[arg-type]
        )

    return Bucket(connect, keys, None)


@functools.lru_cache(maxsize=1000)
def find_account(named: str | None) -> tuple[str, str, Keys | None]:
    """An account's name, endpoint and keys. Raises as `find`."""
    if text := os.environ.get("AZURE_STORAGE_CONNECTION_STRING"):
        return parse_connection(text)
    ours = os.environ.get("AZURE_STORAGE_ACCOUNT_NAME")
    account = named or ours
    if not account:
        raise KeysRefused(
            "no account of Azure is named: set AZURE_STORAGE_ACCOUNT_NAME or "
            "AZURE_STORAGE_CONNECTION_STRING"
        )
    key, signature, principal, anonymous = (
        os.environ.get(f"AZURE_STORAGE_{name}")
        for name in ("ACCOUNT_KEY", "SAS_TOKEN", "CLIENT_ID", "ANON")
    )
    endpoint = f"https://{account}.blob.core.windows.net"
    if key or signature:
        if account != ours:
            raise AccessDenied(
                f"it is in the account {account}, and the key in the environment is for "
                f"{ours or 'none that AZURE_STORAGE_ACCOUNT_NAME names'}"
            )
        return account, endpoint, static_keys(key, signature)
    if principal is None and (anonymous or "false").lower() not in ("false", "0", "f"):
        return account, endpoint, None
    return account, endpoint, identity(principal)


def parse_connection(text: str) -> tuple[str, str, Keys | None]:
    """The same of a connection string. Raises KeysRefused."""
    parts = dict(part.partition("=")[::2] for part in text.strip().split(";"))
    account, endpoint = parts.get("AccountName"), parts.get("BlobEndpoint")
    if not endpoint and account:
        suffix = parts.get("EndpointSuffix", "core.windows.net")
        endpoint = f"{parts.get('DefaultEndpointsProtocol', 'https')}://{account}.blob.{suffix}"
    if not endpoint:
        raise KeysRefused("AZURE_STORAGE_CONNECTION_STRING names no AccountName or BlobEndpoint")
    key, signature = parts.get("AccountKey"), parts.get("SharedAccessSignature")
    keys = static_keys(key, signature) if key or signature else None
    account = account or endpoint.partition("://")[2].partition(".")[0]
    return account, endpoint.rstrip("/"), keys


def static_keys(key: str | None, signature: str | None) -> Keys:
    """An account's key, or else a shared access signature. Raises KeysRefused."""
    if not key:
        return Keys(lambda: ({"sas_token": signature}, None))
    try:
        base64.b64decode(key, validate=True)
    except ValueError:
        raise KeysRefused("the key of the Azure account in the environment is no base64") from None
    return Keys(lambda: ({"access_key": key}, None))


@functools.cache
def identity(principal: str | None) -> Keys:
    """Tokens of a service principal, or of whoever runs this. Raises KeysRefused."""
    try:
        from azure.core.exceptions import AzureError, ClientAuthenticationError
        from azure.identity import ClientSecretCredential, DefaultAzureCredential
    except ImportError:
        raise KeysRefused(
            f"there are no keys for Azure: {_ADVICE} and install gazecore[azure]"
        ) from None
    # Which logs what it tried, in ten lines, each time.
    logging.getLogger("azure.identity").setLevel(logging.ERROR)
    make: Callable[[], Any] = DefaultAzureCredential
    if principal:
        tenant, secret = (
            os.environ.get(f"AZURE_STORAGE_{name}", "") for name in ("TENANT_ID", "CLIENT_SECRET")
        )
        make = functools.partial(ClientSecretCredential, tenant, principal, secret)
    try:
        credential = make()
    except ValueError as error:
        raise KeysRefused(f"AZURE_STORAGE_CLIENT_ID is of no use: {one_line(error)}") from error

    def renew() -> tuple[dict[str, Any], datetime | None]:
        try:
            token = credential.get_token(_SCOPE)
        except ClientAuthenticationError as error:
            words = one_line(error, 150)
            raise KeysRefused(f"there are no keys for Azure: {_ADVICE} ({words})") from error
        except AzureError as error:
            raise OSError(f"Azure gives no token: {one_line(error)}") from error
        return {"token": token.token}, datetime.fromtimestamp(token.expires_on, UTC)

    return Keys(renew)
