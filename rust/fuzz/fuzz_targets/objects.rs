//! Small objects from a hostile store, with the trailing hash mended so that the parsers behind it are reached.
#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use snapferry_core::envelope::{Kind, open, peek};
use snapferry_core::keys::Keyring;

static KEYS: LazyLock<Keyring> = LazyLock::new(|| Keyring::generate().expect("random numbers"));

fuzz_target!(|data: &[u8]| {
    let mut object = data.to_vec();
    object.extend_from_slice(blake3::hash(data).as_bytes());
    for (_, kind) in Kind::NAMES {
        assert!(open(&KEYS, kind, "name", &object).is_err());
        let _ = peek(kind, &object);
    }
    for kind in [Kind::Destination, Kind::Config] {
        let _ = peek(kind, &object);
    }
});
