//! Small objects: what was sealed comes back, and nothing else does.

use proptest::prelude::*;
use snapferry_core::envelope::{Kind, check, open, peek, seal};
use snapferry_core::error::Error;
use snapferry_core::keys::Keyring;

#[test]
fn every_kind_comes_back_under_its_own_name_only() {
    let keys = Keyring::generate().unwrap();
    let other = Keyring::generate().unwrap();
    for (_, kind) in Kind::NAMES {
        let object = seal(&keys, kind, "a/name", b"payload").unwrap();
        check(&object).unwrap();
        assert_eq!(open(&keys, kind, "a/name", &object).unwrap(), b"payload");
        assert!(matches!(open(&keys, kind, "another", &object), Err(Error::KeyMismatch(_))));
        assert!(matches!(open(&other, kind, "a/name", &object), Err(Error::KeyMismatch(_))));
        for (_, wrong) in Kind::NAMES.iter().filter(|(_, it)| *it != kind) {
            assert!(open(&keys, *wrong, "a/name", &object).is_err());
        }
        for at in 0..object.len() {
            let mut bad = object.clone();
            bad[at] ^= 0x80;
            assert!(check(&bad).is_err());
            assert!(open(&keys, kind, "a/name", &bad).is_err());
        }
    }
}

#[test]
fn a_forger_who_mends_the_hash_is_refused_all_the_same() {
    let keys = Keyring::generate().unwrap();
    for (_, kind) in Kind::NAMES {
        let object = seal(&keys, kind, "a", b"payload").unwrap();
        for at in 0..object.len() - 32 {
            let mut bad = object.clone();
            bad[at] ^= 1;
            let body = bad.len() - 32;
            let hash = blake3::hash(&bad[..body]);
            bad[body..].copy_from_slice(hash.as_bytes());
            check(&bad).unwrap();
            assert!(open(&keys, kind, "a", &bad).is_err(), "{kind:?} byte {at}");
        }
    }
}

#[test]
fn plain_objects_can_be_peeked_at_and_sealed_ones_cannot() {
    let keys = Keyring::generate().unwrap();
    let config = seal(&keys, Kind::Config, "config", b"{}").unwrap();
    assert_eq!(peek(Kind::Config, &config).unwrap(), b"{}");
    assert!(peek(Kind::Destination, &config).is_err());
    assert!(peek(Kind::Commit, &config).is_err());
}

proptest! {
    #[test]
    fn hostile_objects_never_panic(mut bytes in prop::collection::vec(any::<u8>(), 0..300), mend: bool) {
        let keys = Keyring::generate().unwrap();
        if mend && bytes.len() > 72 {
            let honest = seal(&keys, Kind::Commit, "x", b"").unwrap();
            bytes[..20].copy_from_slice(&honest[..20]);
            let body = bytes.len() - 32;
            let hash = blake3::hash(&bytes[..body]);
            bytes[body..].copy_from_slice(hash.as_bytes());
        }
        prop_assert!(open(&keys, Kind::Commit, "x", &bytes).is_err());
        let _ = peek(Kind::Config, &bytes);
    }
}
