//! Key slots and epochs: what was sealed to a holder opens for that holder, and whoever lacks a part of it stays without.

mod common;

use std::sync::Arc;

use common::{BLOCK, Store};
use proptest::prelude::*;
use snapferry_core::envelope::{Kind, open, seal};
use snapferry_core::error::Error;
use snapferry_core::keys::{
    Holder, Keyring, MAX_EPOCHS, Secret, Slot, SlotKind, SlotRole, Stretch, host_public, repository_id,
};
use snapferry_core::pack::{PackKey, PackKind, Tail, check_pack, read_tail};

const LEAST: Stretch = Stretch { memory: 8 << 10, passes: 1, lanes: 1 };
const SECRET: Secret<'_> = Secret::KeyFile(&[7; 32]);
const OTHER: Secret<'_> = Secret::KeyFile(&[8; 32]);

fn slot(keys: &Keyring, secret: Secret<'_>, role: SlotRole) -> Slot {
    Slot::parse(&keys.new_slot(&Holder::Secret(secret, LEAST), role, 1_700_000_000, "a label").unwrap())
        .unwrap()
}

fn mend(slot: &mut [u8]) {
    let body = slot.len() - 32;
    let hash = blake3::hash(&slot[..body]);
    slot[body..].copy_from_slice(hash.as_bytes());
}

fn same(a: &Keyring, b: &Keyring) -> bool {
    let object = seal(a, Kind::Commit, "x", b"y").unwrap();
    open(b, Kind::Commit, "x", &object).is_ok_and(|payload| payload == b"y") && a.epochs() == b.epochs()
}

#[test]
fn each_kind_opens_with_its_secret_only() {
    let keys = Keyring::generate().unwrap();
    let passphrase = Secret::Passphrase("Füße".as_bytes());
    let host = Holder::Public(host_public(&[7; 32]).unwrap());
    for role in [SlotRole::Full, SlotRole::WriteOnly] {
        let public = Slot::parse(&keys.new_slot(&host, role, 3, "").unwrap()).unwrap();
        let cases = [
            (slot(&keys, SECRET, role), SECRET, SlotKind::KeyFile),
            (slot(&keys, passphrase, role), passphrase, SlotKind::Passphrase),
            (public, SECRET, SlotKind::PublicKey),
        ];
        for (slot, secret, kind) in cases {
            assert_eq!((slot.kind, slot.role, slot.repository), (kind, role, keys.repository));
            let opened = Keyring::unlock(&slot, secret).unwrap();
            assert!(same(&keys, &opened));
            assert_eq!(opened.reads_data(), role == SlotRole::Full);
            assert_eq!(opened.slot(), Some(slot.id));
            for wrong in [OTHER, Secret::Passphrase(b"Fusse"), Secret::Passphrase(&[7; 32])] {
                assert!(matches!(Keyring::unlock(&slot, wrong), Err(Error::KeyMismatch(_))));
            }
        }
    }
}

#[test]
fn two_slots_of_one_secret_share_nothing() {
    let keys = Keyring::generate().unwrap();
    let (a, b) = (slot(&keys, SECRET, SlotRole::Full), slot(&keys, SECRET, SlotRole::Full));
    assert!(a.id != b.id && a.public != b.public);
    assert!(host_public(&[7; 32]).unwrap() != a.public);
}

/// Whoever stores the slots can change any byte and mend the hash.
#[test]
fn a_forger_who_mends_the_hash_is_refused_all_the_same() {
    let keys = Keyring::generate().unwrap();
    for role in [SlotRole::Full, SlotRole::WriteOnly] {
        let honest = slot(&keys, SECRET, role);
        for at in 0..honest.bytes().len() - 32 {
            let mut bad = honest.bytes().to_vec();
            bad[at] ^= 4;
            assert!(Slot::parse(&bad).is_err());
            mend(&mut bad);
            assert!(Slot::parse(&bad).is_err(), "byte {at}");
        }
        for length in 0..honest.bytes().len() {
            assert!(Slot::parse(&honest.bytes()[..length]).is_err());
        }
    }
}

/// A stranger knows the holder's public key, for it stands in the slot, and makes a repository of his own.
#[test]
fn nobody_can_pass_off_a_repository_to_the_holder_of_a_secret() {
    let (keys, stranger) = (Keyring::generate().unwrap(), Keyring::generate().unwrap());
    let honest = slot(&keys, SECRET, SlotRole::Full);
    // Sealed to the right public key, signed by the stranger's authority, with an id that the honest one's salt made.
    let made = stranger.new_slot(&Holder::Public(honest.public), SlotRole::Full, 5, "a label").unwrap();
    let forged = Slot::parse(&made).unwrap();
    assert!(forged.repository != keys.repository);
    assert!(Keyring::unlock(&forged, SECRET).is_err());
    // Under the honest repository's id no authority but its own is believed.
    let mut claimed = made.clone();
    claimed[16..32].copy_from_slice(&keys.repository);
    mend(&mut claimed);
    assert!(Slot::parse(&claimed).is_err());
    assert_eq!(repository_id(&honest.authority), keys.repository);
    // And nobody seals another's slot anew, or notes it as removed.
    assert!(matches!(stranger.seal_again(&honest), Err(Error::KeyMismatch(_))));
    assert!(matches!(stranger.remove(&honest), Err(Error::KeyMismatch(_))));
}

#[test]
fn a_write_only_key_manages_nothing() {
    let keys = Keyring::generate().unwrap();
    let honest = slot(&keys, SECRET, SlotRole::WriteOnly);
    let opened = Keyring::unlock(&honest, SECRET).unwrap();
    assert!(matches!(opened.seal_again(&honest), Err(Error::WriteOnly(_))));
    assert!(matches!(opened.remove(&honest), Err(Error::WriteOnly(_))));
    assert!(matches!(opened.with_new_epoch(), Err(Error::WriteOnly(_))));
    let holder = Holder::Secret(OTHER, LEAST);
    assert!(matches!(opened.new_slot(&holder, SlotRole::Full, 1, ""), Err(Error::WriteOnly(_))));
}

/// On a store that lets it add and nothing else, a note is all it could take something away with.
#[test]
fn a_write_only_key_takes_nothing_away() {
    let keys = Keyring::generate().unwrap();
    let opened = Keyring::unlock(&slot(&keys, SECRET, SlotRole::WriteOnly), SECRET).unwrap();
    assert!(matches!(seal(&opened, Kind::Forgotten, "x", b"y"), Err(Error::WriteOnly(_))));
    let note = seal(&keys, Kind::Forgotten, "x", b"y").unwrap();
    assert_eq!(open(&opened, Kind::Forgotten, "x", &note).unwrap(), b"y");
    for kind in [Kind::Session, Kind::End, Kind::Commit] {
        let made = seal(&opened, kind, "x", b"y").unwrap();
        assert_eq!(open(&keys, kind, "x", &made).unwrap(), b"y");
    }
}

#[test]
fn a_slot_sealed_anew_opens_as_before_and_to_every_epoch() {
    let mut keys = Keyring::generate().unwrap();
    let passphrase = Secret::Passphrase(b"words");
    let host = Holder::Public(host_public(&[9; 32]).unwrap());
    let host = Slot::parse(&keys.new_slot(&host, SlotRole::WriteOnly, 3, "").unwrap()).unwrap();
    let mut slots = [
        (slot(&keys, SECRET, SlotRole::Full), SECRET),
        (slot(&keys, passphrase, SlotRole::Full), passphrase),
        (host, Secret::KeyFile(&[9; 32])),
    ];
    let opened: Vec<Keyring> =
        slots.iter().map(|(slot, secret)| Keyring::unlock(slot, *secret).unwrap()).collect();
    for number in 1..4 {
        keys = keys.with_new_epoch().unwrap();
        assert_eq!(keys.epochs().last().unwrap().number, number);
        for (slot, secret) in &mut slots {
            let again = Slot::parse(&keys.seal_again(slot).unwrap()).unwrap();
            let all =
                |slot: &Slot| (slot.id, slot.public, slot.kind, slot.role, slot.created, slot.label.clone());
            assert_eq!(all(&again), all(slot));
            assert!(same(&keys, &Keyring::unlock(&again, *secret).unwrap()));
            assert!(again.bytes() != slot.bytes());
            *slot = again;
        }
    }
    for (keyring, (slot, _)) in opened.iter().zip(&slots) {
        assert!(keyring.adopt(slot).unwrap());
        // New packs are of an epoch that somebody chose, who knows that all can read it.
        assert_eq!(keyring.current_epoch().unwrap().number, 0);
        assert!(!keyring.choose_epoch(&[]));
        let chosen = [*keys.epochs().first().unwrap(), *keys.epochs().last().unwrap()];
        assert!(keyring.choose_epoch(&chosen));
        assert_eq!(keyring.current_epoch().unwrap().number, 3);
        assert!(!keyring.adopt(slot).unwrap());
        assert!(same(&keys, keyring));
    }
    assert!(opened[0].adopt(&slots[1].0).is_err());
}

/// Two hosts rotate at once, and know nothing of each other: neither's epoch is lost.
#[test]
fn copies_of_one_slot_with_different_epochs_add_up() {
    let keys = Keyring::generate().unwrap();
    let old = slot(&keys, SECRET, SlotRole::Full);
    let (a, b) = (keys.with_new_epoch().unwrap(), keys.with_new_epoch().unwrap());
    assert!(a.epochs() != b.epochs());
    let copies = [&a, &b].map(|keys| Slot::parse(&keys.seal_again(&old).unwrap()).unwrap());
    let opened = Keyring::unlock(&copies[0], SECRET).unwrap();
    assert!(opened.adopt(&copies[1]).unwrap());
    assert_eq!(opened.epochs().len(), 3);
    assert_eq!(opened.epochs().iter().map(|tag| tag.number).collect::<Vec<_>>(), [0, 1, 1]);
    let mut store = Store::new();
    for keys in [a, b] {
        store.keys = Arc::new(keys);
        let one = store.export(&vec![5; BLOCK], None, 1, 1 << 20);
        store.keys = Arc::new(Keyring::unlock(&copies[0], SECRET).unwrap());
        store.keys.adopt(&copies[1]).unwrap();
        assert_eq!(store.restore(&one, 4).unwrap(), vec![5; BLOCK]);
    }
}

#[test]
fn a_removed_slot_opens_no_more() {
    let keys = Keyring::generate().unwrap();
    let honest = slot(&keys, SECRET, SlotRole::Full);
    let note = Slot::parse(&keys.remove(&honest).unwrap()).unwrap();
    assert_eq!((note.role, note.id, note.label.as_str()), (SlotRole::Removed, honest.id, "a label"));
    assert!(
        matches!(Keyring::unlock(&note, SECRET), Err(Error::KeyMismatch(text)) if text.contains("removed"))
    );
}

#[test]
fn labels_and_epochs_have_bounds() {
    let mut keys = Keyring::generate().unwrap();
    let holder = Holder::Secret(SECRET, LEAST);
    assert!(keys.new_slot(&holder, SlotRole::Full, 1, &"x".repeat(129)).is_err());
    assert!(keys.new_slot(&holder, SlotRole::Full, 1, "bell \x07").is_err());
    let bad = Holder::Secret(Secret::Passphrase(b"x"), Stretch { memory: 1, ..LEAST });
    assert!(keys.new_slot(&bad, SlotRole::Full, 1, "").is_err());
    while keys.epochs().len() < MAX_EPOCHS {
        keys = keys.with_new_epoch().unwrap();
    }
    assert!(keys.with_new_epoch().is_err());
    let largest = slot(&keys, SECRET, SlotRole::Full);
    assert!(largest.bytes().len() < 64 << 10);
    assert!(same(&keys, &Keyring::unlock(&largest, SECRET).unwrap()));
}

fn blocks(contents: &[u8]) -> Vec<u8> {
    contents.iter().flat_map(|content| vec![*content; BLOCK]).collect()
}

#[test]
fn what_a_write_only_host_writes_only_full_keys_read() {
    let full = Arc::new(Keyring::generate().unwrap());
    let write_only = Keyring::unlock(&slot(&full, SECRET, SlotRole::WriteOnly), SECRET).unwrap();
    let write_only = Arc::new(write_only);
    let mut store = Store::new();
    let mut parent = None;
    let mut made = Vec::new();
    // A chain of which every second snapshot is a write-only host's.
    for number in 0..4u8 {
        store.keys = if number % 2 == 0 { write_only.clone() } else { full.clone() };
        let data = blocks(&[1, 2, number + 10, 0, number + 20, 1]);
        let one = store.export(&data, parent.as_ref(), 2, 1 << 20);
        assert_eq!(one.counts.1, if number == 0 { 4 } else { 2 }, "only what is new is stored");
        made.push((one, data));
        parent = made.last().map(|(one, _)| common::Exported { packs: one.packs.clone(), ..*one });
    }
    store.keys = full.clone();
    for (one, data) in &made {
        assert_eq!(store.restore(one, 8).unwrap(), *data);
    }
    store.keys = write_only.clone();
    for (one, _) in &made {
        let lost = store.restore(one, 8).unwrap_err();
        assert_eq!(
            lost.iter().map(|(_, length)| *length).sum::<u64>(),
            5 * BLOCK as u64,
            "all but the zeros"
        );
    }
    for (id, pack) in &store.packs {
        let data = pack[12] == PackKind::Data as u8;
        assert!(PackKey::from_header(&full, pack).is_ok());
        assert_eq!(matches!(PackKey::from_header(&write_only, pack), Err(Error::WriteOnly(_))), data);
        assert_eq!(check_pack(&full, id, pack), Vec::<String>::new());
        assert_eq!(check_pack(&write_only, id, pack), Vec::<String>::new());
        for keys in [&full, &write_only] {
            assert!(matches!(read_tail(keys, pack.len() as u64, pack), Ok(Tail::Table(_))));
        }
        for at in (0..pack.len()).filter(|at| *at < 400 || pack.len() - at < 600 || at % 97 == 0) {
            let mut bad = pack.clone();
            bad[at] ^= 1;
            assert!(!check_pack(&write_only, id, &bad).is_empty(), "byte {at}");
        }
    }
}

/// The header is proven by its commitment: no byte of it, the sealed key included, can be another.
#[test]
fn no_byte_of_a_sealed_header_can_change() {
    let full = Arc::new(Keyring::generate().unwrap());
    let mut store = Store::new();
    store.keys = Arc::new(Keyring::unlock(&slot(&full, SECRET, SlotRole::WriteOnly), SECRET).unwrap());
    let one = store.export(&blocks(&[3]), None, 1, 1 << 20);
    let pack =
        one.packs.iter().map(|id| &store.packs[id]).find(|pack| pack[12] == PackKind::Data as u8).unwrap();
    assert_eq!(pack[13], 1);
    assert!(PackKey::from_header(&full, pack).is_ok());
    for at in 0..200 {
        let mut bad = pack[..200].to_vec();
        bad[at] ^= 1;
        assert!(PackKey::from_header(&full, &bad).is_err(), "byte {at}");
    }
}

#[test]
fn packs_of_an_epoch_open_for_those_who_hold_it() {
    let old = Keyring::generate().unwrap();
    let new = Arc::new(old.with_new_epoch().unwrap());
    let mut store = Store::new();
    store.keys = new.clone();
    let one = store.export(&blocks(&[3, 4]), None, 1, 1 << 20);
    assert_eq!(store.restore(&one, 4).unwrap(), blocks(&[3, 4]));
    let pack =
        one.packs.iter().map(|id| &store.packs[id]).find(|pack| pack[12] == PackKind::Data as u8).unwrap();
    assert_eq!(pack[80..84], [1, 0, 0, 0]);
    assert!(
        matches!(PackKey::from_header(&old, pack), Err(Error::KeyMismatch(text)) if text.contains("epoch 1"))
    );
    // The table needs no data key: the pack is indexed all the same.
    assert!(matches!(read_tail(&old, pack.len() as u64, pack), Ok(Tail::Table(_))));
}

proptest! {
    #[test]
    fn hostile_slots_never_panic(mut bytes in prop::collection::vec(any::<u8>(), 0..600), head in 0usize..300) {
        let keys = Keyring::generate().unwrap();
        let honest = slot(&keys, SECRET, SlotRole::Full);
        let kept = head.min(bytes.len());
        bytes[..kept].copy_from_slice(&honest.bytes()[..kept]);
        prop_assert!(Slot::parse(&bytes).is_err());
        if bytes.len() >= 32 {
            mend(&mut bytes);
            prop_assert!(Slot::parse(&bytes).is_err());
        }
    }
}
