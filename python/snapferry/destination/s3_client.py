"""The S3 client: made once for a destination, without retries or redirects of its own.

The home of aiobotocore. Imported when the first ``s3://`` place is opened, since that takes longer than the rest of a start.
"""

from __future__ import annotations

import functools
import os
from contextlib import AsyncExitStack
from typing import Any, Protocol

import aiohttp
import botocore.exceptions as sdk
from aiobotocore.config import AioConfig
from aiobotocore.httpsession import AIOHTTPSession
from aiobotocore.session import AioSession
from botocore.loaders import Loader, create_loader
from botocore.parsers import ResponseParserError

from snapferry.config.s3_place import S3Place
from snapferry.destination.deadline import Stalled
from snapferry.destination.s3_errors import Refusal, refused
from snapferry.errors import ConfigurationError, DestinationDenied, DestinationError, DestinationUnreachable

CONNECTIONS = 16
"""So many requests at once; more wait for their turn before their time is counted."""

_CONNECT_SECONDS = 10.0

_NO_CREDENTIALS = (
    "no AWS credentials were found; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, name a profile (AWS_PROFILE, or the option profile), "
    "or run where a role is attached"
)

# What may end a request that is under way, but for a cancellation.
FAILURES = (sdk.BotoCoreError, sdk.ClientError, ResponseParserError, aiohttp.ClientError, Stalled, OSError)


class _Once:
    """An HTTP session that sends a request once.

    It hands redirects back: a signature is good for one host, and a region is to be set, not guessed. And it does not send again by itself
    what was lost with a connection that had been used before: a create that was carried out would come back as refused.
    """

    def __init__(self, session: aiohttp.ClientSession) -> None:
        self._session = session
        session._retry_connection = False  # noqa: SLF001 - there is no other way to say it; a test notices if it is lost

    async def request(self, method: str, **how: Any) -> aiohttp.ClientResponse:
        """As ``ClientSession.request``."""
        return await self._session.request(method, allow_redirects=False, **how)


class _Session(AIOHTTPSession):  # type: ignore[misc]
    async def _get_session(self, proxy_url: str | None) -> _Once:
        return _Once(await super()._get_session(proxy_url))


class Client(Protocol):
    """The calls of the SDK's client that are used; their arguments and answers are those of the S3 API."""

    async def put_object(self, **arguments: Any) -> dict[str, Any]: ...
    async def get_object(self, **arguments: Any) -> dict[str, Any]: ...
    async def head_object(self, **arguments: Any) -> dict[str, Any]: ...
    async def list_objects_v2(self, **arguments: Any) -> dict[str, Any]: ...
    async def delete_object(self, **arguments: Any) -> dict[str, Any]: ...


async def make_client(name: str, place: S3Place, stack: AsyncExitStack) -> Client:
    """A client for ``place``; ``stack`` closes it. No request is made to the bucket.

    Raises:
        DestinationDenied: there are no credentials. ConfigurationError: no such CA bundle. DestinationError: the SDK cannot be set up so.
    """
    if place.ca_bundle is not None and not os.access(place.ca_bundle, os.R_OK):
        raise ConfigurationError(f"destination {name}: ca_bundle: {place.ca_bundle} cannot be read")
    try:
        session = AioSession(profile=place.profile)
        session.register_component("data_loader", _descriptions())
        if await session.get_credentials() is None:
            raise DestinationDenied(f"s3://{place.bucket}: {_NO_CREDENTIALS}", name)
        endpoint = place.endpoint or _endpoint_of(session)
        style = {None: "path" if endpoint else "auto", True: "path", False: "virtual"}[place.path_style]
        config = AioConfig(
            signature_version="s3v4",
            connect_timeout=_CONNECT_SECONDS,
            read_timeout=None,  # the destination's own deadlines are told apart, and cover sending
            max_pool_connections=CONNECTIONS,
            retries={"total_max_attempts": 1, "mode": "standard"},
            # Bodies carry a checksum that the server verifies, and packs, segments and small objects are authenticated by themselves.
            s3={"addressing_style": style, "payload_signing_enabled": False},
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
            http_session_cls=_Session,
        )
        region = place.region or session.get_config_variable("region") or ("us-east-1" if endpoint else None)
        client = await stack.enter_async_context(
            session.create_client("s3", region_name=region, endpoint_url=place.endpoint, verify=place.ca_bundle, config=config)
        )
    except (*FAILURES, ValueError) as error:
        raise translated(error, place, name) from error
    client.meta.events.register_last("before-call.s3", _prepare)
    result: Client = client
    return result


@functools.cache
def _descriptions() -> Loader:
    """The SDK's files that describe its services, read once: 12 MiB and a tenth of a second for each client otherwise."""
    return create_loader()


def _endpoint_of(session: AioSession) -> str | None:
    """The endpoint of the environment or the profile, where the SDK will look for it."""
    found = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    profile = session.get_scoped_config()
    return found or profile.get("endpoint_url") or None


def _prepare(params: dict[str, Any], context: dict[str, Any], **_: object) -> None:
    """Does without ``100-continue``, which some servers never send, and without the SDK's following of buckets to other regions."""
    params["headers"].pop("Expect", None)
    context.setdefault("s3_redirect", {})["redirected"] = True


def refusal_of(error: sdk.ClientError) -> Refusal:
    """What the server answered."""
    answer = error.response
    metadata, said = answer.get("ResponseMetadata", {}), answer.get("Error", {})
    headers = {str(key).lower(): str(value) for key, value in metadata.get("HTTPHeaders", {}).items()}
    status = int(metadata.get("HTTPStatusCode") or 0)
    code = str(said.get("Code") or status)
    return Refusal(error.operation_name, status, code, str(said.get("Message") or ""), str(said.get("Region") or ""), headers)


def translated(error: Exception, place: S3Place, name: str, key: str = "") -> DestinationError:
    """Our error for one of ``FAILURES``."""
    where = f"s3://{place.bucket}" + (f": {key}" if key else "")
    at = place.endpoint or "the server"
    match error:
        case sdk.ClientError():
            return refused(refusal_of(error), place, name, key)
        case Stalled():
            return DestinationUnreachable(f"{where}: {at}: {error}", name)
        case sdk.NoCredentialsError() | sdk.PartialCredentialsError() | sdk.ProfileNotFound():
            return DestinationDenied(f"{where}: {_NO_CREDENTIALS} ({error})", name)
        case sdk.CredentialRetrievalError() | sdk.TokenRetrievalError() | sdk.SSOError() | sdk.UnauthorizedSSOTokenError():
            return DestinationDenied(f"{where}: the AWS credentials could not be had: {error}", name)
        case sdk.SSLError():
            advice = "the server's certificate was not accepted; set options = { ca_bundle = FILE } where it is one of your own"
            return DestinationUnreachable(f"{where}: {advice} ({error})", name, retryable=False)
        case sdk.ConnectionClosedError() | aiohttp.ClientPayloadError() | sdk.ResponseStreamingError():
            return DestinationUnreachable(f"{where}: {at} broke the connection off: {_reason(error)}", name)
        case sdk.HTTPClientError() | sdk.ConnectionError() | aiohttp.ClientError():
            return DestinationUnreachable(f"{where}: {at} does not answer: {_reason(error)}", name)
        case ResponseParserError() | OSError():
            return DestinationUnreachable(f"{where}: {at} gives no sensible answer: {_reason(error)}", name)
    return DestinationError(f"{where}: {_reason(error)}", name)


def _reason(error: Exception) -> str:
    """What went wrong beneath, where the SDK only says that something did."""
    inner = getattr(error, "kwargs", {}).get("error")
    text = " ".join(str(inner or error).split())[:300]
    return text or type(inner or error).__name__
