//! Volumes whose size is known only at the end, and volumes of which only the changes are read: both make the trees that
//! reading everything of a volume of known size makes. Sparse ones, so that the trees are up to three levels high.

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use common::{BLOCK, Exported, Store};
use proptest::prelude::*;
use snapferry_core::block::ZERO;
use snapferry_core::codec::{Codec, Encoder};
use snapferry_core::index::Index;
use snapferry_core::keys::random;
use snapferry_core::manifest::{Manifest, ManifestWriter};
use snapferry_core::packer::{Check, Packer};

/// Blocks that are not zeros, by number; contents by a small number.
type Sparse = BTreeMap<u64, u8>;

struct Export {
    packer: Packer,
    writer: Arc<ManifestWriter>,
}

impl Export {
    fn begin(store: &Store, size: Option<u64>, parent: Option<Arc<Manifest>>) -> Self {
        let index = Arc::new(Index::default());
        index.declare_usable(store.packs.keys().copied().collect());
        let session = random().unwrap();
        let (keys, workers) = (store.keys.clone(), store.workers.clone());
        let writer =
            ManifestWriter::new(keys.clone(), workers.clone(), index.clone(), session, size, BLOCK, parent);
        let writer = Arc::new(writer.unwrap());
        let encoder = Encoder::new(Codec::Zstd, 1);
        let packer = Packer::new(keys, workers, index, writer.clone(), session, encoder, Check::Full, false);
        Self { packer, writer }
    }

    fn read(&self, store: &mut Store, number: u64, content: u8, size: u64) {
        let length = (size - number * BLOCK as u64).min(BLOCK as u64) as usize;
        while self.packer.room() < 2 * (BLOCK + 200) {
            self.packer.provide(1 << 20).unwrap();
        }
        let full = self.packer.process(number, &vec![content; length]).unwrap();
        keep(store, full);
    }

    fn end(self, store: &mut Store, size: u64) -> Exported {
        let last = self.packer.finish().unwrap();
        keep(store, last.into_iter().collect());
        let (roots, last) = self.writer.finish().unwrap();
        keep(store, last);
        Exported { roots, size, packs: self.writer.packs(), counts: self.packer.counts() }
    }
}

fn keep(store: &mut Store, packs: Vec<snapferry_core::pack::FinishedPack>) {
    for pack in packs {
        store.packs.insert(pack.id, pack.buffer[..pack.length].to_vec());
    }
}

fn blocks(size: u64) -> u64 {
    size.div_ceil(BLOCK as u64)
}

/// Everything is read, in order.
fn in_full(
    store: &mut Store,
    volume: &Sparse,
    size: u64,
    known: bool,
    parent: Option<&Exported>,
) -> Exported {
    let parent = parent.map(|it| {
        let manifest = store.manifest(it.roots, it.size);
        store.load(&manifest, 0, manifest.blocks);
        manifest
    });
    let export = Export::begin(store, known.then_some(size), parent);
    let last = blocks(size).saturating_sub(1);
    for (number, content) in volume.range(..last) {
        export.read(store, *number, *content, size);
        keep(store, export.writer.advance(*number).unwrap());
    }
    // A stream's end is known when its last, torn block is.
    if !known {
        export.writer.set_size(size).unwrap();
    }
    if let Some(content) = volume.get(&last) {
        export.read(store, last, *content, size);
    }
    export.end(store, size)
}

/// Only `reads` are read and `clears` (first, count) are noted as zeros; all else is the parent's.
fn changes_only(
    store: &mut Store,
    volume: &Sparse,
    size: u64,
    parent: &Exported,
    reads: &BTreeSet<u64>,
    clears: &[(u64, u64)],
) -> (Exported, usize) {
    let manifest = store.manifest(parent.roots, parent.size);
    let load = |store: &Store, first: u64, count: u64| {
        let mut fed = 0;
        loop {
            let fetches = manifest.missing_of(&[(first, count)], true);
            if fetches.is_empty() {
                return fed;
            }
            fed += fetches.len();
            store.feed(&manifest, fetches);
        }
    };
    let export = Export::begin(store, Some(size), Some(manifest.clone()));
    let mut fed = 0;
    if blocks(size) != manifest.blocks && size > 0 {
        fed += load(store, blocks(size) - 1, 1);
    }
    export.writer.inherit().unwrap();
    let steps: BTreeMap<u64, u64> =
        reads.iter().map(|block| (*block, 0)).chain(clears.iter().copied()).collect();
    for (first, zeros) in steps {
        if zeros > 0 {
            fed += load(store, first, 1) + load(store, first + zeros - 1, 1);
            export.writer.clear(first, zeros).unwrap();
        } else {
            fed += load(store, first, 1);
            export.read(store, first, volume.get(&first).copied().unwrap_or(0), size);
        }
        keep(store, export.writer.advance(first).unwrap());
    }
    (export.end(store, size), fed)
}

/// Every block's id as the trees say, with a place in a pack that is there.
fn ids(store: &Store, exported: &Exported, around: &BTreeSet<u64>) -> Vec<[u8; 32]> {
    let manifest = store.manifest(exported.roots, exported.size);
    let mut out = Vec::new();
    for block in around.iter().filter(|block| **block < manifest.blocks) {
        store.load(&manifest, *block, block + 1);
        let (id, place) = manifest.range(*block, block + 1).unwrap()[0].unwrap();
        assert_eq!(id == ZERO, place.is_none());
        if let Some(place) = place {
            assert!(store.packs[&place.pack].len() as u64 >= u64::from(place.offset + place.length));
        }
        out.push(id);
    }
    out
}

const SIZES: [u64; 12] = [0, 1, 255, 256, 257, 511, 512, 65_535, 65_536, 65_537, 66_000, 140_000];

fn number() -> impl Strategy<Value = u64> {
    let near = |at: u64| (at.saturating_sub(3)..at + 3).boxed();
    prop_oneof![near(3), near(256), near(512), near(65_536), near(65_792), near(131_072), 0u64..140_000]
}

/// What the last block lacks.
fn cut() -> impl Strategy<Value = u64> {
    prop_oneof![Just(0), 1..BLOCK as u64]
}

fn sparse() -> impl Strategy<Value = (Sparse, u64)> {
    let volume = prop::collection::btree_map(number(), 1u8..9, 0..12);
    (volume, prop::sample::select(&SIZES[..]), cut()).prop_map(|(mut volume, count, cut)| {
        volume.retain(|number, _| *number < count);
        (volume, (count * BLOCK as u64).saturating_sub(cut))
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn a_size_that_is_known_at_the_end_makes_the_same_trees((one, one_size) in sparse(), (two, two_size) in sparse()) {
        let mut store = Store::new();
        let known = in_full(&mut store, &one, one_size, true, None);
        let stream = in_full(&mut store, &one, one_size, false, None);
        prop_assert_eq!((known.roots.height, known.roots.ids.map(|it| it.0)), (stream.roots.height, stream.roots.ids.map(|it| it.0)));
        // Against a parent of any size, and once more without a change: no page is new.
        let known = in_full(&mut store, &two, two_size, true, Some(&stream));
        let again = in_full(&mut store, &two, two_size, false, Some(&known));
        prop_assert_eq!(again.roots, known.roots);
        prop_assert_eq!(again.counts.1, 0);
    }

    #[test]
    fn what_changed_is_enough(
        (before, old_size) in sparse(),
        changes in prop::collection::btree_map(number(), 0u8..9, 0..10),
        clears in prop::collection::vec((number(), 1u64..70_000), 0..3),
        needless in prop::collection::btree_set(number(), 0..4),
        (count, cut) in (prop::sample::select(&SIZES[..]), cut()),
        same in any::<bool>(),
    ) {
        let size = if same { old_size } else { (count * BLOCK as u64).saturating_sub(cut) };
        let mut store = Store::new();
        let parent = in_full(&mut store, &before, old_size, true, None);
        let end = blocks(size);
        let mut after = before.clone();
        let mut zeros: Vec<(u64, u64)> = Vec::new();
        for (first, count) in clears {
            let count = count.min(end.saturating_sub(first));
            if count > 0 && zeros.iter().all(|(low, length)| first + count <= *low || low + length <= first) {
                after.retain(|number, _| !(first..first + count).contains(number));
                zeros.push((first, count));
            }
        }
        let outside = |number: &u64| *number < end && zeros.iter().all(|(low, length)| !(*low..low + length).contains(number));
        let mut reads: BTreeSet<u64> = changes.keys().copied().chain(needless).filter(outside).collect();
        for (number, content) in changes {
            if reads.contains(&number) {
                after.insert(number, content);
            }
        }
        if size != old_size {
            // What its caller reads then: blocks that one of the two ends cuts.
            let torn = [size, old_size].into_iter().filter(|size| size % BLOCK as u64 != 0);
            reads.extend(torn.map(|size| size / BLOCK as u64).filter(outside));
        }
        after.retain(|number, content| *number < end && *content != 0);
        let full = in_full(&mut store, &after, size, true, Some(&parent));
        let (quick, _) = changes_only(&mut store, &after, size, &parent, &reads, &zeros);
        prop_assert_eq!((quick.roots.height, quick.roots.ids.map(|it| it.0)), (full.roots.height, full.roots.ids.map(|it| it.0)));
        let around: BTreeSet<u64> = before.keys().chain(after.keys()).copied().collect();
        prop_assert_eq!(ids(&store, &quick, &around), ids(&store, &full, &around));
        // The packs that were told are all that a later export must find in place.
        let told: BTreeSet<_> = parent.packs.iter().chain(&quick.packs).copied().collect();
        let manifest = store.manifest(quick.roots, quick.size);
        store.load(&manifest, 0, manifest.blocks);
        prop_assert!(manifest.packs(0, manifest.blocks).iter().all(|pack| told.contains(pack)));
    }
}

#[test]
fn the_rest_of_a_large_volume_is_not_even_loaded() {
    let mut store = Store::new();
    let volume: Sparse = (0..140_000).step_by(97).map(|number| (number, (number % 200) as u8 + 1)).collect();
    let size = 140_000 * BLOCK as u64;
    let parent = in_full(&mut store, &volume, size, true, None);
    let mut after = volume.clone();
    after.insert(70_000, 3);
    let (quick, fed) = changes_only(&mut store, &after, size, &parent, &BTreeSet::from([70_000]), &[]);
    assert_eq!(
        quick.roots.ids.unwrap().0,
        in_full(&mut store, &after, size, true, None).roots.ids.unwrap().0
    );
    assert!(fed <= 8, "{fed} reads for a path of three pages in two trees");
    let (same, fed) = changes_only(&mut store, &volume, size, &parent, &BTreeSet::new(), &[]);
    assert_eq!((same.roots, fed), (parent.roots, 0));
}

#[test]
fn what_the_repository_lost_is_not_taken_over() {
    let mut store = Store::new();
    let volume: Sparse = (0..600).map(|number| (number, (number / 3 % 250) as u8 + 1)).collect();
    let size = 600 * BLOCK as u64;
    let parent = in_full(&mut store, &volume, size, true, None);
    let manifest = store.manifest(parent.roots, size);
    store.load(&manifest, 0, 600);
    let export = Export::begin(&store, Some(size), Some(manifest.clone()));
    assert_eq!(export.packer.take_over(0, 600).unwrap(), vec![]);
    let gone = manifest.range(5, 6).unwrap()[0].unwrap().1.unwrap().pack;
    let bytes = store.packs.remove(&gone).unwrap();
    let export = Export::begin(&store, Some(size), Some(manifest.clone()));
    let wanted = export.packer.take_over(0, 600).unwrap();
    let lost = (0..600)
        .filter(|block| manifest.range(*block, block + 1).unwrap()[0].unwrap().1.unwrap().pack == gone);
    let wanted: Vec<u64> = wanted.into_iter().flat_map(|(first, count)| first..first + count).collect();
    assert_eq!(wanted, lost.collect::<Vec<_>>());
    store.packs.insert(gone, bytes);
}

#[test]
fn blocks_that_differ_are_told() {
    let mut store = Store::new();
    let volume: Sparse = (0..300).filter(|number| number % 5 != 0).map(|number| (number, 7)).collect();
    let size = 300 * BLOCK as u64 - 100;
    let one = in_full(&mut store, &volume, size, true, None);
    let manifest = store.manifest(one.roots, size);
    store.load(&manifest, 0, 300);
    let mut data: Vec<u8> =
        (290..300).flat_map(|number| vec![volume.get(&number).copied().unwrap_or(0); BLOCK]).collect();
    data.truncate(10 * BLOCK - 100);
    assert_eq!(manifest.differing(&store.workers, 290, &data, BLOCK).unwrap(), vec![]);
    data[0] = 1;
    data[2 * BLOCK + 5] = 1;
    data[3 * BLOCK] = 1;
    *data.last_mut().unwrap() = 1;
    assert_eq!(
        manifest.differing(&store.workers, 290, &data, BLOCK).unwrap(),
        vec![(290, 1), (292, 2), (299, 1)]
    );
    assert!(manifest.differing(&store.workers, 291, &data, BLOCK).is_err());
}
