"""Which slots count, whatever destinations hold in whatever state: pure rules over real slot objects."""

from __future__ import annotations

import itertools
import secrets

import pytest

from snapferry import _core
from snapferry.destination.memory import MemoryDestination
from snapferry.errors import AccessDenied
from snapferry.repository.secret import Passphrase
from snapferry.repository.slot_keeping import sealed_again, tidy
from snapferry.repository.slots import MOST_STRETCHED, KeySet, SlotCopy, copy_of, fitting_slot, parse_slots, renew, unlock

KEYS = _core.Keyring.generate()
REPOSITORY = KEYS.repository_id.hex()
CHEAP = (8 << 10, 1, 1)
ONE, TWO, HOST = (secrets.token_bytes(32) for _ in range(3))


def _slot(secret: bytes | Passphrase, role: str = "full", created: int = 1, keys: _core.Keyring = KEYS) -> SlotCopy:
    if isinstance(secret, Passphrase):
        return copy_of(keys.new_slot(role, "", created, passphrase=secret.data, stretch=CHEAP))
    return copy_of(keys.new_slot(role, "", created, key_file=secret))


def _set(*copies: SlotCopy) -> KeySet:
    return KeySet().with_copies(copies, ["near"])


FIRST, SECOND, WRITER = _slot(ONE), _slot(TWO, created=2), _slot(HOST, "write-only", created=3)
NEXT = KEYS.with_new_epoch()
AGAIN = {copy.name: copy_of(NEXT.seal_again(copy.slot)) for copy in (FIRST, SECOND, WRITER)}


def _again(copy: SlotCopy) -> SlotCopy:
    return AGAIN[copy.name]


def test_a_copy_with_more_epochs_supersedes() -> None:
    keys = _set(FIRST, SECOND, _again(FIRST))
    assert keys.live() == [_again(FIRST), SECOND]
    assert keys.stale("near") == [FIRST.name]
    assert keys.missing("near") == []
    assert keys.missing("far") == [_again(FIRST), SECOND]


def test_epochs_that_two_hosts_began_at_once_both_stay_until_somebody_joins_them() -> None:
    other = copy_of(KEYS.with_new_epoch().seal_again(FIRST.slot))
    keys = _set(_again(FIRST), other, FIRST)
    assert {copy.name for copy in keys.live()} == {_again(FIRST).name, other.name}
    opened = unlock(keys, ONE, "near")
    assert len(opened.epochs) == 3
    joined = sealed_again(opened, keys)
    assert [copy.slot.id for copy in joined] == [FIRST.slot.id]
    assert keys.with_copies(joined).live() == joined


def test_of_equal_copies_one_stays() -> None:
    twins = [copy_of(KEYS.seal_again(FIRST.slot)) for _ in range(3)]
    assert _set(*twins).live() == [min(twins, key=lambda copy: copy.name)]


def test_a_removal_supersedes_every_copy_and_counts_everywhere() -> None:
    note = copy_of(KEYS.remove(FIRST.slot))
    for order in itertools.permutations([FIRST, _again(FIRST), SECOND, note]):
        keys = _set(*order)
        assert keys.live() == [SECOND]
        assert keys.wanted() == [SECOND, note]
        assert keys.stale("near") == sorted([FIRST.name, _again(FIRST).name])
    with pytest.raises(AccessDenied, match="this key file was removed") as caught:
        unlock(_set(FIRST, SECOND, note), ONE, "near")
    assert caught.value.exit_code == 12
    opened = unlock(_set(FIRST, SECOND), ONE, "near")
    with pytest.raises(AccessDenied, match="the key in use was removed"):
        renew(opened, _set(FIRST, SECOND, note))


def test_removals_that_would_leave_nobody_a_full_key_count_for_nothing() -> None:
    notes = [copy_of(KEYS.remove(copy.slot)) for copy in (FIRST, SECOND, WRITER)]
    keys = _set(FIRST, SECOND, WRITER, *notes)
    assert keys.live() == [FIRST, SECOND]
    assert keys.removed() == {WRITER.slot.id}
    assert unlock(keys, TWO, "near").reads_data


def test_what_every_full_key_reads_is_written_under() -> None:
    """A rotation that stopped after the first copy: the new epoch is known to one, and used by nobody."""
    halfway = _set(FIRST, SECOND, WRITER, _again(FIRST))
    opened = unlock(halfway, ONE, "near")
    assert len(opened.epochs) == 2
    assert opened.current_epoch == KEYS.current_epoch
    # Not even by a host whose only slot is of the new one, while the old copy is there too.
    later = _set(FIRST, SECOND, WRITER, _again(FIRST), _again(WRITER))
    assert unlock(later, HOST, "near").current_epoch == KEYS.current_epoch
    complete = _set(_again(FIRST), _again(SECOND), _again(WRITER), FIRST)
    for secret in (ONE, TWO, HOST):
        assert unlock(complete, secret, "near").current_epoch == NEXT.current_epoch


def test_a_writer_without_an_epoch_that_all_read_takes_one_that_somebody_does() -> None:
    only_new = _set(_again(FIRST), SECOND, _again(WRITER))
    assert unlock(only_new, HOST, "near").current_epoch == NEXT.current_epoch
    with pytest.raises(AccessDenied, match="key rotate"):
        unlock(_set(SECOND, _again(WRITER)), HOST, "near")


def test_the_slot_in_use_is_sealed_first_and_then_the_full_ones() -> None:
    keys = _set(WRITER, FIRST, SECOND)
    opened = unlock(keys, TWO, "near").with_new_epoch()
    assert [copy.slot.id for copy in sealed_again(opened, keys)] == [SECOND.slot.id, FIRST.slot.id, WRITER.slot.id]
    assert sealed_again(unlock(keys, TWO, "near"), keys) == []


def test_what_is_broken_or_strange_is_told_and_passed_over() -> None:
    stranger = _core.Keyring.generate()
    strange = _slot(ONE, keys=stranger)
    torn = FIRST.slot.data[:-1] + b"?"
    found = {
        "near": {FIRST.name: torn, SECOND.name: SECOND.slot.data, strange.name: strange.slot.data},
        "far": {FIRST.name: FIRST.slot.data},
    }
    keys = parse_slots(found, REPOSITORY)
    assert keys.live() == [FIRST, SECOND]
    assert keys.held == {"near": {SECOND.name}, "far": {FIRST.name}}
    assert {(item.destination, item.object) for item in keys.damage} == {("near", f"keys/{FIRST.name}"), ("near", f"keys/{strange.name}")}
    assert unlock(keys, ONE, "near").repository_id == KEYS.repository_id


def test_a_slot_whose_name_is_its_hash_and_that_nobody_signed() -> None:
    data = bytearray(FIRST.slot.data)
    data[120] ^= 1
    data[-32:] = _core.blake3(bytes(data[:-32]))
    name = _core.blake3(bytes(data))[:16].hex()
    keys = parse_slots({"near": {name: bytes(data)}}, REPOSITORY)
    assert not keys.copies
    with pytest.raises(AccessDenied, match="no usable key slot"):
        unlock(keys, ONE, "near")


def test_passphrases_are_tried_on_passphrase_slots_and_on_so_many_only() -> None:
    assert unlock(_set(FIRST, _slot(Passphrase(b"words"))), Passphrase(b"words"), "near").reads_data
    with pytest.raises(AccessDenied, match="none of them is a passphrase's"):
        unlock(_set(FIRST, WRITER), Passphrase(b"words"), "near")
    with pytest.raises(AccessDenied, match="the passphrase is wrong.*1 tried"):
        unlock(_set(FIRST, _slot(Passphrase(b"words"))), Passphrase(b"Words"), "near")
    many = [_slot(Passphrase(b"other %d" % number), created=number) for number in range(MOST_STRETCHED)]
    with pytest.raises(AccessDenied, match=f"{MOST_STRETCHED} oldest of {MOST_STRETCHED + 1}"):
        unlock(_set(*many, _slot(Passphrase(b"words"), created=99)), Passphrase(b"words"), "near")
    assert unlock(_set(*many, _slot(Passphrase(b"words"), created=0)), Passphrase(b"words"), "near").reads_data
    # The bytes of a key file are no passphrase, nor the other way round.
    with pytest.raises(AccessDenied):
        unlock(_set(FIRST), Passphrase(ONE), "near")


def test_a_key_that_opens_already_is_found() -> None:
    keys = _set(FIRST, WRITER, _slot(Passphrase(b"words")))
    slot = fitting_slot(keys, HOST)
    assert slot is not None
    assert slot.id == WRITER.slot.id
    assert fitting_slot(keys, TWO) is None
    assert fitting_slot(keys, Passphrase(b"words")) is not None


def test_a_destination_looked_at_again_replaces_what_was_known_of_it() -> None:
    keys = KeySet().with_copies([FIRST, SECOND], ["near", "far"])
    again = keys.with_destinations(KeySet({SECOND.name: SECOND}, {"far": frozenset({SECOND.name})}))
    assert again.held == {"near": {FIRST.name, SECOND.name}, "far": {SECOND.name}}
    gone = again.with_destinations(KeySet({}, {"near": frozenset(), "far": frozenset()}))
    assert not gone.copies


async def test_nothing_goes_from_a_place_where_what_supersedes_it_is_not() -> None:
    near = MemoryDestination("near", {f"keys/{FIRST.name}": FIRST.slot.data})
    keys = _set(FIRST).with_copies([_again(FIRST)], ["far"])
    assert keys.stale("near") == [FIRST.name]
    assert await tidy(keys, {"near": near}) == {}
    assert set(near.store) == {f"keys/{FIRST.name}"}
    await tidy(keys.with_copies([_again(FIRST)], ["near"]), {"near": near})
    assert not near.store
