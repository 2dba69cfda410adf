//! Decompression of hostile records, bounded by the length that was declared.
#![no_main]

use libfuzzer_sys::fuzz_target;
use snapferry_core::codec::{Codec, decode};
use snapferry_core::pack::RecordHeader;

fuzz_target!(|input: (u8, u32, &[u8])| {
    let (codec, declared, stored) = input;
    let mut out = vec![0; declared as usize % (4 << 20)];
    if let Ok(codec) = Codec::from_number(codec % 4) {
        let _ = decode(codec, stored, &mut out);
    }
    let _ = RecordHeader::parse(stored);
});
