//! Index segments, with the checksum mended so that what is behind it is reached.
#![no_main]

use libfuzzer_sys::fuzz_target;
use snapferry_core::index::Segment;

fuzz_target!(|data: &[u8]| {
    let mut plain = data.to_vec();
    plain.extend_from_slice(blake3::hash(data).as_bytes());
    if let Ok(segment) = Segment::parse(&plain) {
        let prefix = std::array::from_fn(|at| data.get(at + 32).copied().unwrap_or(0));
        for number in 0..segment.entries {
            segment.place_at(&plain, number, &prefix, |_| true);
        }
        segment.view(&plain).entries().for_each(drop);
        let _ = segment.rows(&plain, |_| true);
        segment.packs(&plain).for_each(drop);
    }
});
