"""What goes wrong between here and a bucket: each with its class, its exit code, and a message that says what to do.

Real servers, with a proxy before them that fails as networks and servers do.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
import uvloop

from snapferry.destination import Destination, open_destination
from snapferry.errors import (
    DestinationDenied,
    DestinationError,
    DestinationFull,
    DestinationUnreachable,
    ObjectDamaged,
    ObjectNotFound,
)
from snapferry.testing.conformance import keys_of
from snapferry.testing.http_faults import (
    AltersBody,
    AltersUpload,
    Answers,
    Exchange,
    Fault,
    FaultProxy,
    HangsAfterAccept,
    HangsInBody,
    HangsWhileReceiving,
    LengthensBody,
    LosesReply,
    ResetsInBody,
    RewritesHead,
    ShortensBody,
    s3_error,
)
from snapferry.testing.http_wire import with_header
from snapferry.transport import RetryPolicy, with_retry
from tests.support import s3_servers
from tests.support.s3_servers import Server

PACK = os.urandom(3 << 20)
SOON = {"first_byte_timeout": 1.0, "stall_timeout": 1.0}

Call = Callable[[Destination], Awaitable[object]]
Open = Callable[..., Awaitable[Destination]]


@pytest.fixture
def server(moto_server: Server, monkeypatch: pytest.MonkeyPatch) -> Server:
    s3_servers.use(monkeypatch, moto_server)
    return moto_server


@pytest.fixture
def proxy(server: Server) -> Iterator[FaultProxy]:
    with FaultProxy(server.endpoint) as running:
        yield running


@pytest.fixture
async def opened(proxy: FaultProxy, server: Server) -> AsyncIterator[Open]:
    everything: list[Destination] = []
    prefix = f"faults/{os.urandom(4).hex()}"

    async def make(**options: object) -> Destination:
        how = {"endpoint": proxy.endpoint, "conditional_put": True, **SOON, **options}
        everything.append(await open_destination("cloud", server.url(prefix), how))
        return everything[-1]

    yield make
    for destination in everything:
        await destination.close()


@pytest.fixture
async def destination(opened: Open) -> Destination:
    """With one pack and one small object in it, and connections that were used before."""
    made = await opened()
    await made.create("packs/aa/one", PACK)
    await made.create("config", b"x" * 1000)
    return made


async def quickly(seconds: float) -> None:
    del seconds


def retried(destination: Destination) -> Destination:
    return with_retry(destination, RetryPolicy(sleep=quickly))


async def ranged(destination: Destination) -> object:
    buffer = bytearray(1 << 20)
    await destination.read_into("packs/aa/one", 100, memoryview(buffer))
    assert buffer == PACK[100 : 100 + len(buffer)]
    return None


async def whole(destination: Destination) -> object:
    return await destination.read("config", 1000)


async def put(destination: Destination) -> object:
    return await destination.create("packs/aa/new", PACK)


async def head(destination: Destination) -> object:
    return await destination.read_tail("config", 0)


async def listing(destination: Destination) -> object:
    return await keys_of(destination)


@pytest.mark.parametrize(
    ("fault", "call", "says"),
    [
        (ResetsInBody(5000, method="GET"), ranged, "broke the connection off"),
        (ShortensBody(5000, method="GET"), ranged, "broke the connection off"),
        (ShortensBody(10, method="GET"), whole, "broke the connection off"),
        (HangsInBody(5000, method="GET"), ranged, r"nothing came for 1 s after 5000 bytes \(stall_timeout\)"),
        (HangsAfterAccept(method="GET"), ranged, r"no answer within 1 s \(first_byte_timeout\)"),
        (HangsAfterAccept(method="HEAD"), head, r"no answer within 1 s"),
        (HangsAfterAccept(method="PUT"), put, r"no answer within 1 s"),
        (HangsWhileReceiving(method="PUT"), put, r"for 1 s|within 1 s"),
        (
            Answers(503, s3_error("SlowDown", "Please reduce your request rate."), method="PUT"),
            put,
            "busy or in trouble .*SlowDown: Please reduce",
        ),
        (Answers(500, b"<html>it broke", method="GET"), ranged, "busy or in trouble .* 500"),
        (Answers(400, s3_error("RequestTimeout"), method="PUT"), put, "busy or in trouble .*RequestTimeout"),
        (Answers(400, s3_error("BadDigest"), method="PUT"), put, "altered or cut on its way"),
        (Answers(200, b"<html>welcome", method="PUT"), put, "busy or in trouble|no sensible answer"),
        (Answers(200, method="PUT"), put, "says that it stored the object, and does not have it"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Fault) else getattr(value, "__name__", ""),
)
async def test_what_passes_is_retryable_and_the_next_attempt_succeeds(
    destination: Destination, proxy: FaultProxy, fault: Fault, call: Call, says: str
) -> None:
    fault.left, fault.met = 2, 0
    proxy.add(fault)
    with pytest.raises(DestinationUnreachable, match=f"^cloud: s3://backups: .*({says})") as caught:
        await call(destination)
    assert (caught.value.exit_code, caught.value.retryable) == (13, True)
    await call(retried(destination))
    assert fault.met == 2


async def test_a_busy_server_is_left_alone_for_as_long_as_it_asks(destination: Destination, proxy: FaultProxy) -> None:
    pauses: list[float] = []

    async def sleep(seconds: float) -> None:
        pauses.append(seconds)

    proxy.add(Answers(503, s3_error("SlowDown"), {"Retry-After": "7"}, method="GET"))
    when = format_datetime(datetime.now(UTC) + timedelta(seconds=20), usegmt=True)
    proxy.add(Answers(429, b"", {"Retry-After": when}, method="GET"))
    await ranged(with_retry(destination, RetryPolicy(sleep=sleep, uniform=lambda: 0.0)))
    assert pauses[0] == 7.0
    assert 15.0 < pauses[1] <= 20.0


async def test_a_server_that_hangs_is_given_up_within_a_bounded_time(destination: Destination, proxy: FaultProxy) -> None:
    fault = proxy.add(HangsAfterAccept(method="GET", times=99))
    begun = asyncio.get_running_loop().time()
    with pytest.raises(DestinationUnreachable, match="no answer within"):
        await ranged(with_retry(destination, RetryPolicy(total=2.5, first=0.01)))
    assert asyncio.get_running_loop().time() - begun < 10.0
    assert 2 <= fault.met <= 4


@pytest.mark.parametrize(
    ("fault", "call", "kind", "says"),
    [
        (LengthensBody(10, method="GET"), ranged, DestinationError, "another range than it was asked for"),
        (LengthensBody(10, method="GET"), whole, ObjectDamaged, "1010 bytes where at most 1000"),
        (AltersBody(10, method="GET"), whole, ObjectDamaged, "not what the server's CRC32 says"),
        (RewritesHead(lambda h: with_header(h, "Content-Range", "bytes 7-9/10"), method="GET"), ranged, ObjectDamaged, "ends at 10"),
        (RewritesHead(lambda h: with_header(h, "Content-Range", "bytes 7-9/*"), method="GET"), ranged, DestinationError, "another range"),
        (RewritesHead(lambda h: with_header(h, "Content-Range", None), method="GET"), ranged, ObjectDamaged, "ends at 1048576"),
        (Answers(404, s3_error("NoSuchKey")), ranged, ObjectNotFound, "packs/aa/one does not exist"),
        (Answers(404), head, ObjectNotFound, "config does not exist"),
        (Answers(507, s3_error("XMinioStorageFull")), put, DestinationFull, "no room"),
        (Answers(403, s3_error("InvalidObjectState"), method="GET"), ranged, DestinationError, "archive class"),
        (Answers(501, s3_error("NotImplemented"), method="GET"), listing, DestinationError, "does not offer what ListObjectsV2"),
        (Answers(418, s3_error("Teapot", "short and stout"), method="GET"), ranged, DestinationError, "418 Teapot: short and stout"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Fault) else getattr(value, "__name__", ""),
)  # fmt: skip
async def test_what_does_not_pass_is_final(
    destination: Destination, proxy: FaultProxy, fault: Fault, call: Call, kind: type[DestinationError], says: str
) -> None:
    fault.left, fault.met = 1, 0
    proxy.add(fault)
    with pytest.raises(kind, match=says) as caught:
        await call(retried(destination))
    assert type(caught.value) is kind
    assert fault.met == 1
    await ranged(destination)  # the connections are of use again


SKEWED = {"Date": "Wed, 25 Nov 2020 10:00:00 GMT"}


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (Answers(403, s3_error("InvalidAccessKeyId")), "does not know this access key; check AWS_ACCESS_KEY_ID"),
        (Answers(403, s3_error("SignatureDoesNotMatch")), "does not belong to the access key; check AWS_SECRET_ACCESS_KEY"),
        (Answers(400, s3_error("ExpiredToken")), "have expired; renew them"),
        (Answers(403, s3_error("AccessDenied", "Access Denied")), r"need s3:GetObject .*AccessDenied: Access Denied"),
        (Answers(403, s3_error("RequestTimeTooSkewed"), SKEWED), r"clock is \d+ min ahead of the server's; set it"),
        (Answers(403, s3_error("AccessDenied"), SKEWED), r"clock is \d+ min ahead of the server's; set it"),
        (Answers(403, s3_error("SignatureDoesNotMatch"), SKEWED), r"AWS_SECRET_ACCESS_KEY .*clock is \d+ min ahead"),
    ],
)
async def test_what_is_refused_says_what_to_do(destination: Destination, proxy: FaultProxy, answer: Answers, says: str) -> None:
    answer.left, answer.met = 1, 0
    proxy.add(answer)
    with pytest.raises(DestinationDenied, match=says) as caught:
        await ranged(retried(destination))
    assert (caught.value.exit_code, answer.met) == (12, 1)
    assert os.environ["AWS_SECRET_ACCESS_KEY"] not in str(caught.value)


@pytest.mark.parametrize(
    ("answer", "call", "says"),
    [
        (Answers(301, s3_error("PermanentRedirect"), {"x-amz-bucket-region": "eu-west-1"}), ranged, 'region = "eu-west-1"'),
        (Answers(301, b"", {"x-amz-bucket-region": "eu-west-1"}), head, "AWS_REGION=eu-west-1"),
        (Answers(400, b"", {"x-amz-bucket-region": "eu-west-1"}), head, "AWS_REGION=eu-west-1"),
        (Answers(400, s3_error("AuthorizationHeaderMalformed", Region="eu-central-1")), put, 'region = "eu-central-1"'),
        (Answers(307, b"", {"Location": "http://127.0.0.1:9/secret?signature=hush"}), ranged, "elsewhere to 'http://127.0.0.1:9/secret', which is not followed"),
        (Answers(404, s3_error("NoSuchBucket")), listing, r"no such bucket; make it \(`aws --endpoint-url http://\S+ s3 mb s3://backups`\)"),
    ],
)  # fmt: skip
async def test_a_bucket_that_is_elsewhere_or_nowhere(
    destination: Destination, proxy: FaultProxy, answer: Answers, call: Call, says: str
) -> None:
    answer.left, answer.met = 1, 0
    proxy.add(answer)
    with pytest.raises(DestinationUnreachable, match=says) as caught:
        await call(retried(destination))
    assert (caught.value.exit_code, caught.value.retryable, answer.met) == (13, False, 1)
    assert "hush" not in str(caught.value)


async def test_a_create_is_sent_once(destination: Destination, proxy: FaultProxy) -> None:
    """The HTTP library sends again by itself what was lost with a used connection; the object would be there, and we would say it was another's."""
    proxy.add(LosesReply(method="PUT"))
    with pytest.raises(DestinationUnreachable):
        await destination.create("sessions/ab/0", b"ours")
    assert len([target for method, target in proxy.requests if method == "PUT" and target.endswith("/sessions/ab/0")]) == 1
    assert await destination.read("sessions/ab/0", 100) == b"ours"


@pytest.mark.parametrize("exclusive", [True, False])
async def test_a_lost_reply_is_success(opened: Open, proxy: FaultProxy, exclusive: bool) -> None:
    destination = retried(await opened(conditional_put=exclusive))
    proxy.add(LosesReply(method="PUT"))
    assert await destination.create("sessions/ab/0", b"ours") is True
    assert await destination.create("sessions/ab/0", b"ours") is False
    assert await destination.read("sessions/ab/0", 100) == b"ours"


async def test_a_put_that_meets_another_is_made_again(destination: Destination, proxy: FaultProxy) -> None:
    proxy.add(Answers(409, s3_error("ConditionalRequestConflict"), method="PUT", times=2))
    assert await destination.create("sessions/ab/0", b"ours") is True


async def test_a_page_that_fails_is_asked_for_again(destination: Destination, proxy: FaultProxy) -> None:
    keys = [f"index/{number:04}" for number in range(1100)]
    for begin in range(0, len(keys), 100):
        await asyncio.gather(*(destination.create(key, b"") for key in keys[begin : begin + 100]))
    fault = proxy.add(ResetsInBody(500, method="GET", touches="continuation-token"))
    assert sorted(await keys_of(destination, "index/")) == keys
    assert fault.met == 1


@pytest.mark.parametrize(
    "page",
    [b"<IsTruncated>true</IsTruncated>", b"<IsTruncated>true</IsTruncated><NextContinuationToken>again</NextContinuationToken>"],
    ids=["without-token", "the-same-token"],
)
async def test_a_listing_that_goes_nowhere_is_an_error(destination: Destination, proxy: FaultProxy, page: bytes) -> None:
    body = b'<?xml version="1.0"?><ListBucketResult><Name>b</Name>' + page + b"</ListBucketResult>"
    proxy.add(Answers(200, body, method="GET", times=5))
    with pytest.raises(DestinationError, match="without saying where it goes on"):
        await keys_of(destination)


async def test_what_was_altered_on_its_way_is_refused_and_sent_again(rclone_server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    s3_servers.use(monkeypatch, rclone_server)
    with FaultProxy(rclone_server.endpoint) as proxy:
        options = {"endpoint": proxy.endpoint, "conditional_put": False}
        destination = await open_destination("cloud", rclone_server.url(f"altered/{os.urandom(4).hex()}"), options)
        proxy.add(AltersUpload(1000, method="PUT"))
        with pytest.raises(DestinationUnreachable, match="altered or cut on its way, and the server refused it"):
            await destination.create("packs/aa/one", PACK)
        proxy.add(AltersUpload(1000, method="PUT"))
        assert await retried(destination).create("packs/aa/one", PACK) is True
        await ranged(destination)
        await destination.close()


async def test_a_server_that_is_not_there(server: Server) -> None:
    destination = await open_destination("cloud", server.url("x"), {"endpoint": "http://127.0.0.1:9", "conditional_put": True})
    with pytest.raises(DestinationUnreachable, match=r"http://127.0.0.1:9 does not answer: .*[Cc]onnect") as caught:
        await ranged(destination)
    assert caught.value.retryable
    await destination.close()


class TakesTheRestLater(Fault):
    """The request's body is taken when ``resume`` is set; ``taken`` is all that came, until the connection's end."""

    def __init__(self) -> None:
        super().__init__(method="PUT")
        self.resume = threading.Event()
        self.done = threading.Event()
        self.taken = b""

    async def serve(self, exchange: Exchange) -> bool:
        await asyncio.to_thread(self.resume.wait, 60)
        try:
            while piece := await exchange.reader.read(1 << 20):
                self.taken += piece
        except ConnectionResetError:
            pass
        self.done.set()
        return False


def test_a_cancelled_create_takes_nothing_from_the_buffer_any_more(server: Server) -> None:
    """What had not left when it was cancelled must not leave later: the memory is its owner's again. uvloop sends from where it lies."""

    async def work(proxy: FaultProxy, fault: TakesTheRestLater) -> None:
        destination = await open_destination("cloud", server.url("cancelled"), {"endpoint": proxy.endpoint, "conditional_put": True})
        data = bytearray(b"\xff" * (32 << 20))
        creating = asyncio.create_task(destination.create("packs/aa/one", data))
        while not fault.met:
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.1)  # until the connection is full
        creating.cancel()
        await asyncio.wait([creating])
        assert creating.cancelled()
        data[:] = bytes(len(data))
        fault.resume.set()
        await asyncio.to_thread(fault.done.wait, 60)
        assert fault.taken
        assert set(fault.taken) == {0xFF}
        await destination.close()

    with FaultProxy(server.endpoint) as proxy, asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        fault = TakesTheRestLater()
        proxy.add(fault)
        runner.run(work(proxy, fault))
