//! What an export holds in memory, and what it refuses rather than write it down wrong.

mod common;

use std::sync::Arc;

use common::{BLOCK, Store};
use snapferry_core::codec::{Codec, Encoder};
use snapferry_core::error::Error;
use snapferry_core::index::Index;
use snapferry_core::keys::random;
use snapferry_core::manifest::{Manifest, ManifestWriter};
use snapferry_core::pack::{MAX_PACK, PackKey};
use snapferry_core::packer::{Check, Packer};
use snapferry_core::plan::Plan;

/// An export whose calls a test makes itself.
struct Export {
    packer: Packer,
    writer: Arc<ManifestWriter>,
}

fn export(store: &Store, size: u64, parent: Option<Arc<Manifest>>, dry_run: bool) -> Export {
    let index = Arc::new(Index::default());
    index.declare_usable(store.packs.keys().copied().collect());
    let (keys, workers) = (store.keys.clone(), store.workers.clone());
    let session = random().unwrap();
    let writer =
        ManifestWriter::new(keys.clone(), workers.clone(), index.clone(), session, Some(size), BLOCK, parent);
    let writer = Arc::new(writer.unwrap());
    let encoder = Encoder::new(Codec::Zstd, 1);
    let packer = Packer::new(keys, workers, index, writer.clone(), session, encoder, Check::Full, dry_run);
    Export { packer, writer }
}

fn content(number: u64) -> Vec<u8> {
    let mut block = vec![7; BLOCK];
    block[..8].copy_from_slice(&number.to_le_bytes());
    block
}

/// 1200 blocks of which two at the start change: the pack they go to stays open to the end.
#[test]
fn leaves_do_not_wait_for_one_before_them() {
    let mut store = Store::new();
    let blocks = 1200;
    let mut data: Vec<u8> = (0..blocks).flat_map(|number| content(number % 5)).collect();
    let one = store.export(&data, None, 64, 4 << 20);
    data[..2 * BLOCK].copy_from_slice(&[content(1000), content(1001)].concat());
    let parent = store.manifest(one.roots, one.size);
    store.load(&parent, 0, blocks);
    let export = export(&store, one.size, Some(parent.clone()), false);
    export.packer.provide(16 << 20).unwrap();
    let mut most = 0;
    for first in (0..blocks).step_by(16) {
        let bytes = &data[first as usize * BLOCK..][..16 * BLOCK];
        assert!(export.packer.process(first, bytes).unwrap().is_empty());
        export.writer.advance(first + 16).unwrap();
        most = most.max(export.writer.leaves_held());
        if first > 512 {
            // What came and went of the parent is let go of too.
            assert!(parent.ids(256, 300).is_err());
        }
    }
    assert!(most <= 2, "{most} leaves held");
    let mut packs = vec![export.packer.finish().unwrap().unwrap()];
    let (roots, last) = export.writer.finish().unwrap();
    packs.extend(last);
    let ids = packs.iter().map(|pack| pack.id).collect();
    store.packs.extend(packs.into_iter().map(|pack| (pack.id, pack.buffer[..pack.length].to_vec())));
    let two = common::Exported { roots, size: one.size, packs: ids, counts: export.packer.counts() };
    assert_eq!(two.counts.1, 2);
    assert!(store.restore(&two, 100).unwrap() == data);
    // One leaf and the root of each tree are new; the other leaves are the parent's.
    assert_eq!(two.packs.len(), 2);
    assert!(store.packs[&two.packs[1]].len() < 40_000);
}

#[test]
fn a_dry_run_holds_no_leaves() {
    let store = Store::new();
    let export = export(&store, 4 * 256 * BLOCK as u64, None, true);
    for leaf in 0..4 {
        export.packer.process(leaf * 256, &content(leaf)).unwrap();
        assert!(export.writer.advance((leaf + 1) * 256).unwrap().is_empty());
    }
    assert_eq!(export.writer.leaves_held(), 0);
    assert_eq!(export.packer.counts().1, 4);
}

#[test]
fn a_block_that_comes_too_late_is_refused() {
    let store = Store::new();
    let export = export(&store, 600 * BLOCK as u64, None, false);
    export.packer.provide(4 << 20).unwrap();
    export.packer.process(1, &content(1)).unwrap();
    export.writer.advance(300).unwrap();
    assert!(matches!(export.packer.process(0, &content(2)), Err(Error::Usage(_))));
    assert!(matches!(export.writer.mark_unreadable(255, 1), Err(Error::Usage(_))));
    export.writer.mark_unreadable(300, 1).unwrap();
}

#[test]
fn a_volume_cut_short_is_refused() {
    let store = Store::new();
    let export = export(&store, 2 * BLOCK as u64 - 100, None, false);
    export.packer.provide(4 << 20).unwrap();
    let data = [content(1), content(2)].concat();
    for short in [BLOCK + 5, 2 * BLOCK - 101, 2 * BLOCK - 99] {
        assert!(matches!(export.packer.process(0, &data[..short]), Err(Error::Usage(_))), "{short}");
    }
    assert!(export.packer.process(u64::MAX, &data[..BLOCK]).is_err());
    export.packer.process(0, &data[..2 * BLOCK - 100]).unwrap();
}

#[test]
fn no_pack_is_made_that_no_reader_takes() {
    let store = Store::new();
    let export = export(&store, BLOCK as u64, None, false);
    assert!(export.packer.provide(MAX_PACK as usize + 1).is_err());
    export.packer.provide(MAX_PACK as usize).unwrap();
}

/// As many packs as the keyring remembers are met by others between a plan's headers and its extents.
#[test]
fn a_restore_keeps_the_keys_that_it_learned() {
    let mut store = Store::new();
    let data: Vec<u8> = (0..8).flat_map(content).collect();
    let one = store.export(&data, None, 8, 1 << 20);
    let any = PackKey::from_header(&store.keys, &store.packs[&one.packs[0]]).unwrap();
    let crowd = |from: u64| {
        for number in from..from + (1 << 16) + 1 {
            store.keys.remember_pack(*blake3::hash(&number.to_le_bytes()).as_bytes(), any.clone());
        }
    };
    let manifest = store.manifest(one.roots, one.size);
    crowd(0);
    store.feed(&manifest, manifest.missing(0, 8, true));
    let pages = manifest.missing(0, 8, true);
    crowd(100_000);
    for (pack, offset, length) in pages {
        let range = offset as usize..(offset + length) as usize;
        assert_eq!(manifest.feed(&pack, offset, &store.packs[&pack][range]), 0);
    }
    let (keys, workers) = (store.keys.clone(), store.workers.clone());
    let plan = Plan::new(keys, workers, &manifest, (0, 8), (one.size, BLOCK), 1 << 20).unwrap();
    for (pack, _, length) in plan.headers() {
        assert!(plan.learn(&pack, &store.packs[&pack][..length as usize]));
    }
    crowd(200_000);
    let mut out = vec![0; data.len()];
    for (number, (pack, offset, length)) in plan.extents() {
        let range = offset as usize..(offset + length) as usize;
        assert_eq!(plan.copy(number, &store.packs[&pack][range], &mut out, 0).unwrap(), 0);
    }
    assert!(out == data);
}
