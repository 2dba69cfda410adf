"""``repair``: each thing that ``verify`` finds is healed where anything is left to heal it with, and told where not."""

from __future__ import annotations

import asyncio
import contextlib
import itertools

import pytest

from snapferry.destination.memory import MemoryDestination
from snapferry.errors import DestinationUnreachable, SnapferryError
from snapferry.lifecycle.retention import RetentionPolicy
from snapferry.pipeline.putting_back import put_back
from snapferry.repository import names
from snapferry.testing.faults import FailsNth, FullAfter, StopsAfter
from snapferry.testing.sources import MemorySource
from snapferry.types import RepairResult
from tests.support.lab import BLOCK, FailsNthThroughAll, Lab, MakeLab, changed, volume

DATA = [volume(1, blocks=20)]
for _number in range(2):
    DATA.append(changed(DATA[-1], _number, range(_number, 20, 4)))


@pytest.fixture
async def lab(make_lab: MakeLab) -> Lab:
    lab = await make_lab()
    async with lab.repository() as repository:
        for data in DATA:
            lab.id = (await repository.export(MemorySource(data), volume="v", block_size=BLOCK)).id
    return lab


async def _expected(lab: Lab) -> dict[str, bytes]:
    async with lab.repository() as repository:
        return {item.snapshot.id: data for item, data in zip(await repository.list(), DATA, strict=True)}


async def _repair(lab: Lab, **how: object) -> RepairResult:
    async with lab.repository() as repository:
        return await repository.repair(**how)  # type: ignore[arg-type]


async def _clean(lab: Lab) -> None:
    async with lab.repository() as repository:
        found = await repository.verify(read_data=100)
        assert (found.damage, found.unverified) == ((), {})
        for item in await repository.list():
            assert all(not replica.damage for replica in (await repository.show(item.snapshot.id)).replicas)


def _torn(data: bytes) -> bytes:
    return data[: len(data) // 2]


def _flipped(data: bytes) -> bytes:
    return data[: len(data) // 2] + bytes([data[len(data) // 2] ^ 1]) + data[len(data) // 2 + 1 :]


@pytest.mark.parametrize("how", ["missing", "torn", "flipped"])
async def test_every_object_of_a_place_heals_from_the_other(lab: Lab, how: str) -> None:
    expected = await _expected(lab)
    whole = lab.saved()
    for key in sorted(lab.stores["near"]):
        lab.go_back(whole)
        lab.config = lab.machine()
        good = lab.stores["near"].pop(key)
        if how != "missing":
            lab.stores["near"][key] = _torn(good) if how == "torn" else _flipped(good)
        async with lab.repository() as repository:
            told = await repository.repair(read_data=100, dry_run=True)
            assert lab.stores["near"].get(key) != good
            assert {item.object for item in told.healed} >= {key} or how == "missing", key
            result = await repository.repair(read_data=100)
            assert (result.left, result.unverified, result.exit_code) == ((), {}, 0), key
            assert {item.destination for item in result.healed} == {"near"}, key
            again = await repository.repair(read_data=100)
            assert (again.healed, again.left, again.bytes_copied) == ((), (), 0), key
        # What has one name has the same bytes everywhere; what is each place's own is there again.
        assert lab.stores["near"][key] == good or key.startswith(("sessions/", "destination")), key
        assert lab.stores["far"] == whole["far"], key
        await _clean(lab)
    await lab.assert_restores_alone(expected)


async def test_much_at_once_on_both_sides(lab: Lab) -> None:
    expected = await _expected(lab)
    near, far = lab.packs("near"), lab.packs("far")
    for name, packs in (("near", near[::2]), ("far", far[1::2])):
        for number, key in enumerate(packs):
            if number % 2:
                lab.stores[name][key] = _flipped(lab.stores[name][key])
            else:
                del lab.stores[name][key]
    for key in [key for key in lab.stores["far"] if key.startswith("index/")]:
        del lab.stores["far"][key]
    result = await _repair(lab, read_data=100)
    assert (result.left, result.exit_code) == ((), 0)
    assert result.bytes_copied > 0
    await _clean(lab)
    await lab.assert_restores_alone(expected)


async def test_known_damage_is_healed_without_reading_all(lab: Lab) -> None:
    key = max(lab.packs("near"), key=lambda key: len(lab.stores["near"][key]))
    lab.stores["near"][key] = _flipped(lab.stores["near"][key])
    assert (await _repair(lab)).healed == ()  # Nobody knows yet.
    async with lab.repository() as repository:
        await repository.verify(read_data=100)
        (found, *_) = (await repository.verify()).damage  # Remembered, and read again.
        assert (found.object, found.whole_at) == (key, ("far",))
    result = await _repair(lab, destinations=["near"])
    assert {item.object for item in result.healed} == {key}
    assert lab.stores["near"][key] == lab.stores["far"][key]
    await _clean(lab)


async def test_what_nobody_has_is_left_with_its_extents_and_noted(lab: Lab) -> None:
    key = max(lab.packs("near"), key=lambda key: len(lab.stores["near"][key]))
    good = lab.stores["near"][key]
    for name in lab.names:
        lab.stores[name][key] = _flipped(good)
    result = await _repair(lab, read_data=100)
    assert result.exit_code == 4
    assert {(item.destination, item.object) for item in result.left} == {("near", key), ("far", key)}
    assert all("no destination has it in good order" in item.reason for item in result.left)
    assert any(item.extents for item in result.left)
    note = f"damaged/{key.rpartition('/')[2]}"
    assert all(note in lab.stores[name] for name in lab.names)
    keyring = await lab.keyring()
    assert key.rpartition("/")[2].encode() in keyring.open("damaged", note, lab.stores["near"][note])
    # Nothing is built on it: the next export stores what it needs of it again.
    lab.config = lab.machine()
    async with lab.repository() as repository:
        exported = await repository.export(MemorySource(DATA[-1]), volume="v")
        assert exported.blocks_new > 0
        assert await lab.contents(repository, exported.id) == DATA[-1]
    # It turns up again at one place: both are whole, and the notes go.
    lab.stores["far"][key] = good
    result = await _repair(lab)
    assert (result.left, result.exit_code) == ((), 0)
    assert not any(key.startswith("damaged/") for name in lab.names for key in lab.stores[name])
    assert lab.stores["near"][key] == good
    await _clean(lab)


async def test_blocks_that_lie_in_other_packs_are_no_loss(make_lab: MakeLab) -> None:
    lab = await make_lab("near")
    await lab.begin_with(DATA[0])
    old = set(lab.packs("near"))
    key = max(old, key=lambda key: len(lab.stores["near"][key]))
    good = lab.stores["near"].pop(key)
    async with lab.repository() as repository:
        assert (await repository.verify()).exit_code == 4
        await repository.export(MemorySource(DATA[0]), volume="w", block_size=BLOCK)  # Stores all of it again.
        result = await repository.repair()
        assert result.exit_code == 4
        assert any("nothing is lost" in item.reason for item in result.left)
        assert await lab.contents(repository, "v") == DATA[0]
    assert good


async def test_a_destination_that_is_away_and_one_without_config(lab: Lab) -> None:
    lab.missing.add("far")
    result = await _repair(lab)
    assert (result.exit_code, list(result.unverified)) == (3, ["far"])
    lab.missing.clear()
    # Neither config nor destination: nothing proves whose it is.
    config, own = (lab.stores["far"].pop(key) for key in ("config", "destination"))
    result = await _repair(lab)
    assert result.exit_code == 4
    assert "proves" in next(item.reason for item in result.left if item.object == "config")
    assert "config" not in lab.stores["far"]
    lab.stores["far"]["destination"] = own
    assert (await _repair(lab)).exit_code == 0
    assert lab.stores["far"]["config"] == config


async def test_a_snapshot_that_was_rolled_back_comes_again(lab: Lab) -> None:
    expected = await _expected(lab)
    saved = lab.saved()
    async with lab.repository() as repository:
        expected[(await repository.export(MemorySource(DATA[0]), volume="w")).id] = DATA[0]
    lab.stores["far"].clear()
    lab.stores["far"].update(saved["far"])
    result = await _repair(lab)
    assert (result.left, result.exit_code) == ((), 0)
    assert {item.object for item in result.healed} == {f"snapshots/{list(expected)[-1]}"}
    await _clean(lab)
    await lab.assert_restores_alone(expected)


async def test_a_full_destination_and_one_that_fails_half_way(lab: Lab) -> None:
    expected = await _expected(lab)
    for key in lab.packs("near"):
        lab.stores["near"][key] = _flipped(lab.stores["near"][key])
    lab.wrappers["near"] = lambda inner: FullAfter(inner, 50_000)
    result = await _repair(lab, read_data=100)
    assert result.exit_code == 4
    assert "no space" in result.unverified["near"]
    assert all(item.destination == "near" for item in result.left)
    lab.wrappers["near"] = lambda inner: FailsNth(inner, "create", 4, lambda: DestinationUnreachable("gone", "near"), times=10**6)
    assert (await _repair(lab)).exit_code == 4
    lab.wrappers.clear()
    await lab.assert_restores_alone(expected, "far")
    assert (await _repair(lab, read_data=100)).exit_code == 0
    await _clean(lab)
    await lab.assert_restores_alone(expected)


async def test_what_a_prune_has_deleted_is_not_put_back(lab: Lab) -> None:
    before = set(lab.packs("near"))
    async with lab.repository() as repository:
        await repository.forget(policy=RetentionPolicy(keep_last=1), destinations=["near"])
        await repository.prune(destinations=["near"], lease=0.0)
        gone = {pack for key in before - set(lab.packs("near")) if (pack := names.parse_pack(key))}
        assert gone
        membership, _ = repository._both
        places = {name: MemoryDestination(name, lab.stores[name]) for name in lab.names}
        done = await put_back(gone, places["near"], {"far": places["far"]}, membership.tools)
    assert done.failures.keys() == gone
    assert all("prune" in str(error) for error in done.failures.values())
    assert not gone & {names.parse_pack(key) for key in lab.packs("near")}
    # Its session has ended: nobody waits for it.
    assert all(
        key.removesuffix("/0") + "/end" in lab.stores["near"]
        for key in lab.stores["near"]
        if key.startswith("sessions/") and key.endswith("/0")
    )


async def test_every_operation_fails_once_and_every_await_is_cancelled_once(lab: Lab) -> None:
    """Whenever it ends, what was whole is whole; the next one heals the rest."""
    expected = await _expected(lab)
    for number, key in enumerate(lab.packs("near")):
        lab.stores["near"][key] = _flipped(lab.stores["near"][key]) if number % 2 else lab.stores["near"][key]
    del lab.stores["near"][lab.packs("near")[0]]
    for key in [key for key in lab.stores["near"] if key.startswith(("index/", "snapshots/", "keys/"))]:
        lab.stores["near"][key] = _torn(lab.stores["near"][key])
    broken = lab.saved()
    for operation in ("create", "delete", "list", "read", "read_into", "read_tail"):
        for nth in itertools.count(1, 3):
            lab.go_back(broken)
            lab.config = lab.machine()
            lab.wrappers["near"] = failing = FailsNthThroughAll(operation, nth, lambda: DestinationUnreachable("reset", "near"), times=3)
            with contextlib.suppress(SnapferryError):
                await _repair(lab, read_data=100)
            lab.wrappers.clear()
            fired = failing.fired
            assert {key: data for key, data in lab.stores["far"].items() if key in broken["far"]} == broken["far"]
            assert (await _repair(lab, read_data=100)).exit_code == 0, (operation, nth)
            assert lab.packs("near") == lab.packs("far")
            if not fired:
                break
    await _clean(lab)
    await lab.assert_restores_alone(expected)


async def test_cancelled_anywhere_the_next_one_finishes(lab: Lab) -> None:
    expected = await _expected(lab)
    for key in lab.packs("near")[::2]:
        lab.stores["near"][key] = _flipped(lab.stores["near"][key])
    broken = lab.saved()
    for after in itertools.count(1, 7):
        lab.go_back(broken)
        lab.config = lab.machine()
        left = [after]
        lab.wrappers["near"] = lambda inner, left=left: StopsAfter(inner, left, asyncio.CancelledError)  # type: ignore[misc]
        ended = False
        try:
            await _repair(lab, read_data=100)
            ended = left[0] > 0
        except (asyncio.CancelledError, SnapferryError):
            pass
        lab.wrappers.clear()
        assert (await _repair(lab, read_data=100)).exit_code == 0, after
        assert {key: lab.stores["near"][key] for key in lab.packs("near")} == {key: lab.stores["far"][key] for key in lab.packs("far")}
        if ended:
            break
    await _clean(lab)
    await lab.assert_restores_alone(expected)
