"""What an ``s3://`` URL and its options say: checked words, and nothing else. No bucket is asked, and no credential is ever among them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import parse_qsl, quote, unquote, urlsplit

from snapferry.config.places import nearest
from snapferry.errors import ConfigurationError

_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,62}")
_SECRET = re.compile(r"access_?key|secret|token|password|credential", re.IGNORECASE)
_TRUE, _FALSE = ("true", "yes", "on", "1"), ("false", "no", "off", "0")


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
    given = dict(options)
    for key, value in parse_qsl(parts.query, keep_blank_values=True):
        if key in given:
            raise ConfigurationError(f"{where}: {key} is given twice, in the URL or among the options")
        given[key] = value
    for key in given:
        _check_known(key, where)
    checksum = _text(given, "checksum", where) or "auto"
    if checksum not in ("auto", "crc32", "md5"):
        raise ConfigurationError(
            f"{where}: checksum: {checksum!r} is unknown{nearest(checksum, ('auto', 'crc32', 'md5'))}; write auto, crc32 or md5"
        )
    return S3Place(
        bucket,
        prefix,
        _endpoint(_text(given, "endpoint", where), where),
        _text(given, "region", where),
        _truth(given, "path_style", where),
        _text(given, "ca_bundle", where),
        _text(given, "profile", where),
        _truth(given, "conditional_put", where),
        _truth(given, "consistent_list", where) is not False,
        checksum,
        _seconds(given, "first_byte_timeout", where),
        _seconds(given, "stall_timeout", where),
    )


def without_query(url: str) -> str:
    """``url`` up to its ``?``: what may be shown of one that was refused."""
    return url.split("?", 1)[0]


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


def _text(given: Mapping[str, object], key: str, where: str) -> str | None:
    value = given.get(key)
    if value is not None and (not isinstance(value, str) or not value):
        raise ConfigurationError(f"{where}: {key}: {value!r} must be text in quotes")
    return value


def _truth(given: Mapping[str, object], key: str, where: str) -> bool | None:
    value = given.get(key)
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str) and value.lower() in (*_TRUE, *_FALSE):
        return value.lower() in _TRUE
    raise ConfigurationError(f"{where}: {key}: {value!r} must be true or false")


def _seconds(given: Mapping[str, object], key: str, where: str) -> float:
    value = given.get(key, 30.0)
    try:
        seconds = float(value) if isinstance(value, (int, float, str)) and not isinstance(value, bool) else 0.0
    except ValueError:
        seconds = 0.0
    if not 0.1 <= seconds <= 3600:
        raise ConfigurationError(f"{where}: {key}: {value!r} must be seconds, from 0.1 to 3600")
    return seconds
