//! Pages of both trees, and that what is read is what is written again.
#![no_main]

use libfuzzer_sys::fuzz_target;
use snapferry_core::manifest::{parse_ids, parse_places, places_page};

fuzz_target!(|input: (u8, &[u8])| {
    let (level, page) = input;
    let _ = parse_ids(level, page);
    if let Ok(places) = parse_places(level, page, &[9; 32]) {
        let again = places_page(level, &places, None);
        assert_eq!(parse_places(level, &again, &[1; 32]).ok(), Some(places));
    }
});
