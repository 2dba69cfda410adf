"""What an S3 server's refusals mean, and what to do about each: a table, as pure functions. Nothing here talks to a server.

Codes are those of the S3 API reference ("Error responses") and of the servers that imitate it. A message holds what the server said, never
what was signed and no credential.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from snapferry.config.s3_place import S3Place
from snapferry.destination.header_times import clock_skew, retry_after
from snapferry.errors import (
    DestinationDenied,
    DestinationError,
    DestinationFull,
    DestinationUnreachable,
    ObjectNotFound,
)

_SKEW = 300.0
"""Seconds of difference that servers put up with or not: AWS allows 15 minutes, some others 5."""

_MISSING = frozenset({"NoSuchKey", "NotFound", "404", "NoSuchVersion"})
_CLOCK = frozenset({"RequestTimeTooSkewed", "RequestExpired"})
_CREDENTIALS = {
    "InvalidAccessKeyId": "the server does not know this access key; check AWS_ACCESS_KEY_ID or the profile, and the endpoint",
    "SignatureDoesNotMatch": "the secret key does not belong to the access key; check AWS_SECRET_ACCESS_KEY or the profile",
    "ExpiredToken": "the credentials have expired; renew them (as with `aws sso login`)",
    "TokenRefreshRequired": "the credentials have expired; renew them (as with `aws sso login`)",
    "InvalidToken": "the session token is not valid; check AWS_SESSION_TOKEN, or unset it",
    "AccountProblem": "there is a problem with the account",
    "AllAccessDisabled": "all access to the bucket has been disabled",
    "NotSignedUp": "the account is not signed up for S3",
}
_DENIED = frozenset({"AccessDenied", "Forbidden", "403", "401", "Unauthorized", "MethodNotAllowed", "UnauthorizedAccess"})
_FULL = frozenset(
    {"QuotaExceeded", "QuotaExceededException", "InsufficientStorage", "InsufficientCapacity", "StorageFull", "XMinioStorageFull",
     "XMinioAdminBucketQuotaExceeded"}
)  # fmt: skip
_ELSEWHERE = frozenset(
    {"PermanentRedirect", "TemporaryRedirect", "Redirect", "AuthorizationHeaderMalformed", "IllegalLocationConstraintException"}
)
_PASSING = frozenset(
    {"SlowDown", "SlowDownRead", "SlowDownWrite", "ServiceUnavailable", "InternalError", "RequestTimeout", "Throttling",
     "ThrottlingException", "RequestThrottled", "TooManyRequests", "RequestLimitExceeded", "BandwidthLimitExceeded", "OperationAborted",
     "ServerBusy", "XMinioServerNotInitialized", "ConditionalRequestConflict"}
)  # fmt: skip
_ALTERED = frozenset(
    {"BadDigest", "InvalidDigest", "IncompleteBody", "XAmzContentSHA256Mismatch", "XAmzContentChecksumMismatch", "ChecksumMismatch",
     "InvalidChecksum"}
)  # fmt: skip
_LACKING = frozenset({"NotImplemented", "501"})


@dataclass(frozen=True, slots=True)
class Refusal:
    """What a server answered instead of doing what it was asked for.

    Attributes:
        operation: as the S3 API names it.
        status: of HTTP.
        code, message: of the body; the status where it has none (answers to HEAD).
        region: where the server says that the bucket is, or an empty text.
        headers: of the answer, names in lower case.
    """

    operation: str
    status: int
    code: str
    message: str = ""
    region: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def is_precondition(self) -> bool:
        """Whether a conditional put found the key taken."""
        return self.status == 412 or self.code == "PreconditionFailed"

    @property
    def is_conflict(self) -> bool:
        """Whether a conditional put met another one under way: nothing was stored, and nothing is decided."""
        return self.code == "ConditionalRequestConflict" or (self.status == 409 and self.code in ("409", "Conflict"))

    @property
    def is_past_the_end(self) -> bool:
        """Whether a range begins behind the object's end."""
        return self.status == 416 or self.code == "InvalidRange"

    @property
    def lacks_condition(self) -> bool:
        """Whether the server says that it has no conditional put."""
        return self.status == 501 or self.code in ("NotImplemented", "InvalidArgument", "InvalidRequest", "UnsupportedHeader")


def refused(refusal: Refusal, place: S3Place, name: str, key: str, now: datetime | None = None) -> DestinationError:
    """The error for a refusal: its class gives the exit code, its message what to do."""
    what = f"s3://{place.bucket}: {key}" if key else f"s3://{place.bucket}"
    said = _said(refusal)
    code, status = refusal.code, refusal.status
    if code == "NoSuchBucket":
        return DestinationUnreachable(f"{what}: {_no_bucket(place)}", name, retryable=False)
    if code in _MISSING or status == 404:
        return ObjectNotFound(f"{key} does not exist" if key else f"{what}: {said}", name)
    if code in _ELSEWHERE or 300 <= status < 400 or (_region(refusal) and status == 400):
        return DestinationUnreachable(f"{what}: {_elsewhere(refusal, place)}", name, retryable=False)
    skew = clock_skew(refusal.headers, now)
    if code in _CLOCK or (status == 403 and code not in _CREDENTIALS and abs(skew) > 3 * _SKEW):
        return DestinationDenied(f"{what}: {_clock(skew)} ({said})", name)
    if code == "InvalidObjectState":
        advice = "the object is in an archive class; restore it in S3 first, and keep the repository out of lifecycle rules that archive"
        return DestinationError(f"{what}: {advice} ({said})", name)
    if code in _FULL or status == 507:
        return DestinationFull(f"{what}: the server has no room for it ({said})", name)
    if code in _CREDENTIALS or code.startswith("KMS.") or code in _DENIED or status in (401, 403, 405):
        advice = _CREDENTIALS.get(code) or _permission(refusal.operation)
        if code == "SignatureDoesNotMatch" and abs(skew) > _SKEW:
            advice += f"; also, {_clock(skew)}"
        return DestinationDenied(f"{what}: {advice} ({said})", name)
    if code in _ALTERED:
        return DestinationUnreachable(f"{what}: the object was altered or cut on its way, and the server refused it ({said})", name)
    if code in _LACKING or status == 501:
        return DestinationError(f"{what}: the server does not offer what {refusal.operation} asks for ({said})", name)
    if code in _PASSING or status in (408, 429) or status >= 500:
        wait = retry_after(refusal.headers, now)
        asked = f", and asks to be left alone for {wait:.0f} s" if wait else ""
        return DestinationUnreachable(f"{what}: the server is busy or in trouble{asked} ({said})", name, retry_after=wait)
    return DestinationError(f"{what}: {refusal.operation} was refused ({said})", name)


def _said(refusal: Refusal) -> str:
    message = " ".join("".join(c if c.isprintable() else " " for c in refusal.message[:300]).split())
    code = refusal.code if re.fullmatch(r"[\w.-]{1,80}", refusal.code) else "an unknown code"
    return f"{refusal.operation}: {refusal.status} {code}" + (f": {message}" if message and message != code else "")


def _no_bucket(place: S3Place) -> str:
    at = f" --endpoint-url {place.endpoint}" if place.endpoint else ""
    return (
        f"there is no such bucket; make it (`aws{at} s3 mb s3://{place.bucket}`) or correct the URL: buckets are never made by this program"
    )


def _region(refusal: Refusal) -> str:
    region = refusal.region or refusal.headers.get("x-amz-bucket-region", "")
    return region if re.fullmatch(r"[A-Za-z0-9-]{1,40}", region) else ""


def _elsewhere(refusal: Refusal, place: S3Place) -> str:
    region = _region(refusal)
    if region:
        used = f", not {place.region}" if place.region and place.region != region else ""
        return f'the bucket is in the region {region}{used}; set options = {{ region = "{region}" }}, or AWS_REGION={region} ({_said(refusal)})'
    where = refusal.headers.get("location", "")
    to = f" to {where.split('?', 1)[0][:200]!r}" if where.isprintable() and where else ""
    return f"the server sends us elsewhere{to}, which is not followed; set the right endpoint or region ({_said(refusal)})"


def _clock(skew: float) -> str:
    if abs(skew) < 1.0:
        return "this machine's clock is off, or the server's; set it (NTP)"
    way = "ahead of" if skew > 0 else "behind"
    return f"this machine's clock is {abs(skew) / 60:.0f} min {way} the server's; set it (NTP)"


def _permission(operation: str) -> str:
    needed = {
        "GetObject": "s3:GetObject (and s3:ListBucket, without which a missing object is refused instead of said to be missing)",
        "HeadObject": "s3:GetObject (and s3:ListBucket, without which a missing object is refused instead of said to be missing)",
        "PutObject": "s3:PutObject",
        "DeleteObject": "s3:DeleteObject",
        "ListObjectsV2": "s3:ListBucket on the bucket itself",
    }.get(operation)
    return "the server refuses it; the credentials need " + needed if needed else "the server refuses it"
