//! Key slots from a hostile store: raw bytes, and an honest slot with bytes replaced, its trailing hash mended.
#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use snapferry_core::keys::{Holder, Keyring, Secret, Slot, SlotRole, Stretch};

static HONEST: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let keys = Keyring::generate().expect("random numbers");
    let holder = Holder::Secret(Secret::KeyFile(&[1; 32]), Stretch::USUAL);
    keys.new_slot(&holder, SlotRole::Full, 5, "label").expect("a slot")
});

fn mended(mut slot: Vec<u8>) -> Vec<u8> {
    let body = slot.len() - 32;
    let hash = blake3::hash(&slot[..body]);
    slot[body..].copy_from_slice(hash.as_bytes());
    slot
}

fuzz_target!(|edits: Vec<(u16, u8)>| {
    let honest = &*HONEST;
    let mut slot = honest.clone();
    let length = slot.len();
    for (at, byte) in &edits {
        slot[usize::from(*at) % length] = *byte;
    }
    let changed = slot[..length - 32] != honest[..length - 32];
    assert_eq!(Slot::parse(&mended(slot)).is_err(), changed);
    let mut raw: Vec<u8> = honest[..16].to_vec();
    raw.extend(edits.iter().map(|(_, byte)| *byte));
    raw.extend_from_slice(&[0; 32]);
    if let Ok(slot) = Slot::parse(&mended(raw)) {
        panic!("a slot that nobody signed: {slot:?}");
    }
});
