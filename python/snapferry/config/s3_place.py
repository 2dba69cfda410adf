"""What an ``s3://`` URL and its options say: checked words, and nothing else. No bucket is asked, and no credential is ever among them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import quote, unquote, urlsplit

from snapferry.config.option_values import seconds_of, text_of, truth_of, with_query, without_query
from snapferry.config.places import nearest
from snapferry.errors import ConfigurationError

_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,62}")
_SECRET = re.compile(r"access_?key|secret|token|password|credential", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class S3Place:
    """A place in a bucket, and how to get there.

    Attributes:
        prefix: of every key, without slashes at its ends; may be empty.
        endpoint: the server's URL; None leaves it to ``AWS_ENDPOINT_URL_S3``, ``AWS_ENDPOINT_URL``, the profile, and then AWS.
        region: None leaves it to the environment and the profile.
        path_style: whether the bucket's name is in the path; None: yes where there is an endpoint, since few servers resolve bucket names.
        ca_bundle: a file of certificates to trust instead of the system's.
        profile: of the AWS configuration files.
        conditional_put: whether the server honours ``If-None-Match: *``; None: not known yet, to be tried out.
        consistent_list: whether a listing shows what was just written.
        checksum: ``auto`` sends CRC32, and MD5 too until the server shows that it knows CRC32; else ``crc32`` or ``md5`` alone.
        first_byte_timeout: seconds for a server to begin its answer, once it has all of the request.
        stall_timeout: seconds in which at least some bytes must move while a body is under way, either way.
    """

    bucket: str
    prefix: str = ""
    endpoint: str | None = None
    region: str | None = None
    path_style: bool | None = None
    ca_bundle: str | None = None
    profile: str | None = None
    conditional_put: bool | None = None
    consistent_list: bool = True
    checksum: str = "auto"
    first_byte_timeout: float = 30.0
    stall_timeout: float = 30.0

    @property
    def url(self) -> str:
        """Bucket, prefix, and the endpoint where one is given: what names the place."""
        path = f"/{quote(self.prefix)}" if self.prefix else ""
        return f"s3://{self.bucket}{path}" + (f"?endpoint={self.endpoint}" if self.endpoint else "")


OPTIONS = (
    "endpoint", "region", "path_style", "ca_bundle", "profile", "conditional_put", "consistent_list", "checksum", "first_byte_timeout",
    "stall_timeout",
)  # fmt: skip


def parse_s3(url: str, options: Mapping[str, object], where: str) -> S3Place:
    """The place that ``url`` and ``options`` name together. Any option may stand in the URL's query instead, as ``?endpoint=…&region=…``.

    Raises:
        ConfigurationError: naming ``where``: no bucket, an unknown option (and the nearest known), one of the wrong type, or a secret.
    """
    parts = urlsplit(url)
    if "@" in parts.netloc:
        raise ConfigurationError(f"{where}: credentials do not belong in a URL; {_CHAIN}")
    bucket, prefix = parts.netloc, unquote(parts.path).strip("/")
    if not _BUCKET.fullmatch(bucket):
        raise ConfigurationError(f"{where}: url {without_query(url)!r} should read s3://BUCKET or s3://BUCKET/PREFIX")
    if parts.fragment or (prefix and any(part in ("", ".", "..") for part in prefix.split("/"))) or not prefix.isprintable():
        raise ConfigurationError(
            f"{where}: url {without_query(url)!r} has a prefix that no key may have (an empty, '.' or '..' part, or '#')"
        )
    given = with_query(url, options, where)
    for key in given:
        _check_known(key, where)
    checksum = text_of(given, "checksum", where) or "auto"
    if checksum not in ("auto", "crc32", "md5"):
        raise ConfigurationError(
            f"{where}: checksum: {checksum!r} is unknown{nearest(checksum, ('auto', 'crc32', 'md5'))}; write auto, crc32 or md5"
        )
    return S3Place(
        bucket,
        prefix,
        _endpoint(text_of(given, "endpoint", where), where),
        text_of(given, "region", where),
        truth_of(given, "path_style", where),
        text_of(given, "ca_bundle", where),
        text_of(given, "profile", where),
        truth_of(given, "conditional_put", where),
        truth_of(given, "consistent_list", where) is not False,
        checksum,
        seconds_of(given, "first_byte_timeout", where),
        seconds_of(given, "stall_timeout", where),
    )


_CHAIN = "give them the way every AWS program takes them: AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, a profile, or an instance's role"


def _check_known(key: str, where: str) -> None:
    if key in OPTIONS:
        return
    if _SECRET.search(key):
        raise ConfigurationError(f"{where}: {key} does not belong in the configuration; {_CHAIN}")
    raise ConfigurationError(f"{where}: s3 has no option {key!r}{nearest(key, OPTIONS)}; known are {', '.join(OPTIONS)}")


def _endpoint(text: str | None, where: str) -> str | None:
    if text is None:
        return None
    parts = urlsplit(text)
    if "@" in parts.netloc:
        raise ConfigurationError(f"{where}: endpoint: credentials do not belong in a URL; {_CHAIN}")
    try:
        good = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        good = False
    if not good or parts.query or parts.fragment or not text.isprintable() or " " in text:
        raise ConfigurationError(f"{where}: endpoint: {without_query(text)!r} should read https://HOST or http://HOST:PORT")
    return f"{parts.scheme}://{parts.netloc.lower()}{parts.path.rstrip('/')}"
