//! Volumes out and back, against the plainest of twins: the bytes themselves.

mod common;

use std::collections::HashSet;

use common::{BLOCK, Store};
use proptest::prelude::*;
use snapferry_core::manifest::{diff, missing_for_diff};
use snapferry_core::pack::check_pack;

/// One block's content, by a small number: 0 is zeros, odd ones do not compress, even ones do.
fn block(content: u8) -> Vec<u8> {
    let mut out = vec![0; BLOCK];
    match content {
        0 => {}
        odd if odd % 2 == 1 => blake3::Hasher::new().update(&[odd]).finalize_xof().fill(&mut out),
        even => out.iter_mut().enumerate().for_each(|(at, byte)| *byte = even.wrapping_add((at / 99) as u8)),
    }
    out
}

fn volume(contents: &[u8], cut: usize) -> Vec<u8> {
    let mut out: Vec<u8> = contents.iter().flat_map(|content| block(*content)).collect();
    out.truncate(out.len().saturating_sub(cut % BLOCK));
    out
}

fn naive_diff(a: &[u8], b: &[u8]) -> Vec<(u64, u64)> {
    let count = a.len().max(b.len()).div_ceil(BLOCK);
    let padded = |data: &[u8]| {
        let mut data = data.to_vec();
        data.resize(count * BLOCK, 0);
        data
    };
    let (a, b) = (padded(a), padded(b));
    let mut runs: Vec<(u64, u64)> = Vec::new();
    for number in 0..count {
        let range = number * BLOCK..(number + 1) * BLOCK;
        if a[range.clone()] != b[range] {
            match runs.last_mut() {
                Some((first, length)) if *first + *length == number as u64 => *length += 1,
                _ => runs.push((number as u64, 1)),
            }
        }
    }
    runs
}

fn tree_diff(store: &Store, a: &common::Exported, b: &common::Exported) -> (Vec<(u64, u64)>, u64) {
    let (one, other) = (store.manifest(a.roots, a.size), store.manifest(b.roots, b.size));
    let end = one.blocks.max(other.blocks);
    let mut read = 0;
    loop {
        let (of_one, of_other) = missing_for_diff(&one, &other, 0, end);
        if of_one.is_empty() && of_other.is_empty() {
            return (diff(&one, &other, 0, end).unwrap(), read);
        }
        read += of_one.iter().chain(&of_other).map(|(_, _, length)| u64::from(*length)).sum::<u64>();
        store.feed(&one, of_one);
        store.feed(&other, of_other);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Two snapshots of a volume that changes, grows or shrinks: both come back bit-exact, the second stores only what is
    /// new, and the tree diff is what comparing all bytes says.
    #[test]
    fn snapshots_come_back_and_share(
        first in prop::collection::vec(0u8..9, 0..40),
        changes in prop::collection::vec((0usize..40, 0u8..12), 0..6),
        length in 0usize..45,
        cut in 0usize..BLOCK,
        batch in 1usize..7,
    ) {
        let mut store = Store::new();
        let before = volume(&first, cut);
        let one = store.export(&before, None, batch, 1 << 20);
        let mut second = first.clone();
        second.resize(length, 3);
        for (at, content) in changes {
            if let Some(slot) = second.get_mut(at) { *slot = content; }
        }
        let after = volume(&second, cut / 2);
        let two = store.export(&after, Some(&one), batch, 1 << 20);
        prop_assert_eq!(store.restore(&one, 16).unwrap(), before.clone());
        prop_assert_eq!(store.restore(&two, 7).unwrap(), after.clone());
        prop_assert_eq!(tree_diff(&store, &one, &two).0, naive_diff(&before, &after));
        // Each different block that is not zeros is stored once, and not again if the parent has it at the same address.
        let blocks = |data: &[u8]| -> Vec<Vec<u8>> {
            data.chunks(BLOCK).map(|it| { let mut it = it.to_vec(); it.resize(BLOCK, 0); it }).collect()
        };
        let stored: HashSet<Vec<u8>> = blocks(&before).into_iter().filter(|it| it.iter().any(|byte| *byte != 0)).collect();
        prop_assert_eq!(one.counts.1, stored.len() as u64);
        let old = blocks(&before);
        let fresh: HashSet<Vec<u8>> = blocks(&after).into_iter().enumerate()
            .filter(|(number, it)| old.get(*number) != Some(it) && it.iter().any(|byte| *byte != 0))
            .map(|(_, it)| it).collect();
        prop_assert_eq!(two.counts.1, fresh.len() as u64);
        for (id, pack) in &store.packs {
            prop_assert_eq!(check_pack(&store.keys, id, pack), Vec::<String>::new());
        }
    }
}

#[test]
fn an_unchanged_volume_writes_no_pack_at_all() {
    let mut store = Store::new();
    let data = volume(&(0..700).map(|n| (n % 11) as u8).collect::<Vec<_>>(), 5);
    let one = store.export(&data, None, 16, 4 << 20);
    let two = store.export(&data, Some(&one), 16, 4 << 20);
    assert_eq!(two.roots, one.roots);
    assert!(two.packs.is_empty());
    let three = store.export(&data, Some(&two), 5, 4 << 20);
    assert_eq!(three.roots, one.roots);
    assert!(three.packs.is_empty());
}

#[test]
fn a_diff_reads_only_what_differs() {
    let mut store = Store::new();
    let mut contents: Vec<u8> = (0..1500).map(|n| (n % 7) as u8 + 1).collect();
    let one = store.export(&volume(&contents, 0), None, 64, 4 << 20);
    contents[700] = 99;
    let two = store.export(&volume(&contents, 0), Some(&one), 64, 4 << 20);
    let (runs, read) = tree_diff(&store, &one, &two);
    assert_eq!(runs, vec![(700, 1)]);
    // Of each side a header, the root and one leaf of 8 KiB; all six leaves of both would be 96 KiB.
    assert!(read < 30_000, "{read} bytes read");
}

#[test]
fn a_lost_pack_is_named_by_its_extents_and_the_rest_comes_back() {
    let mut store = Store::new();
    let contents: Vec<u8> = (0..64).map(|n| n as u8 * 2 + 1).collect();
    let data = volume(&contents, 0);
    let one = store.export(&data, None, 8, 1 << 20);
    let lost_pack = one.packs[1];
    let bytes = store.packs.remove(&lost_pack).unwrap();
    let lost = store.restore(&one, 64).unwrap_err();
    let total: u64 = lost.iter().map(|(_, length)| length).sum();
    assert!(total > 0 && total < data.len() as u64);
    store.packs.insert(lost_pack, bytes);
    assert_eq!(store.restore(&one, 64).unwrap(), data);
}

/// Any byte of any pack flipped: a restore never returns wrong bytes, and the pack check sees it.
#[test]
fn no_flipped_byte_goes_unseen() {
    let mut store = Store::new();
    let data = volume(&[2, 4, 0, 1], 100);
    let one = store.export(&data, None, 2, 1 << 20);
    for id in one.packs.clone() {
        let good = store.packs[&id].clone();
        // Every byte of what is not ciphertext, and one in 97 of the rest.
        let steps = (0..good.len()).filter(|at| *at < 400 || good.len() - at < 600 || at % 97 == 0);
        for at in steps {
            let mut bad = good.clone();
            bad[at] ^= 1;
            assert!(!check_pack(&store.keys, &id, &bad).is_empty(), "byte {at} of {}", bad.len());
            store.packs.insert(id, bad);
            if let Ok(back) = store.restore(&one, 4) {
                assert!(back == data, "byte {at}");
            }
        }
        store.packs.insert(id, good);
    }
}
