//! Pack headers, tails and whole packs from a hostile store: an honest pack with bytes replaced.
#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use snapferry_core::codec::Codec;
use snapferry_core::keys::Keyring;
use snapferry_core::pack::{NewRecord, PackBuilder, PackKind, RecordKind, check_pack, read_tail};

static HONEST: LazyLock<(Keyring, Vec<u8>)> = LazyLock::new(|| {
    let keys = Keyring::generate().expect("random numbers");
    let plain = vec![3u8; 5000];
    let id = *blake3::keyed_hash(&keys.block_id, &plain).as_bytes();
    let mut pack =
        PackBuilder::new(&keys, PackKind::Data, &[1; 16], 65536, vec![0; 1 << 16]).expect("a builder");
    let record = || NewRecord {
        kind: RecordKind::Block,
        id,
        codec: Codec::Raw,
        plain_length: 5000,
        stored: &plain,
        check: None,
    };
    pack.append(&[record(), record()]).expect("room");
    let pack = pack.finish(&keys).expect("a pack");
    (keys, pack.buffer[..pack.length].to_vec())
});

fuzz_target!(|edits: Vec<(u16, u8)>| {
    let (keys, honest) = &*HONEST;
    let mut pack = honest.clone();
    let length = pack.len();
    for (at, byte) in &edits {
        pack[length - 1 - usize::from(*at) % length] = *byte;
    }
    let _ = read_tail(keys, length as u64, &pack);
    let _ = read_tail(keys, length as u64, &pack[length - length.min(300)..]);
    if pack != *honest {
        assert!(!check_pack(keys, blake3::hash(honest).as_bytes(), &pack).is_empty());
    }
    let raw: Vec<u8> = edits.iter().map(|(_, byte)| *byte).collect();
    let _ = read_tail(keys, raw.len() as u64, &raw);
    let _ = check_pack(keys, &[0; 32], &raw);
});
