//! Volumes whose stretches go to different places: a pack holds blocks of one group, and a block counts as known only in packs of its own.

mod common;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use common::{BLOCK, Exported, Store};
use proptest::prelude::*;
use snapferry_core::codec::{Codec, Encoder};
use snapferry_core::index::Index;
use snapferry_core::keys::random;
use snapferry_core::manifest::ManifestWriter;
use snapferry_core::pack::FinishedPack;
use snapferry_core::packer::{Check, Packer};

type Id = [u8; 32];

/// The group of each pack; 0 for manifest packs.
type Groups = HashMap<Id, usize>;

fn naive(areas: &[(u64, usize)], block: u64) -> usize {
    areas.iter().rev().find(|(first, _)| *first <= block).map_or(0, |(_, group)| *group)
}

fn keep(
    store: &mut Store,
    groups: &mut Groups,
    group: impl Fn(&Id) -> usize,
    packs: Vec<FinishedPack>,
) -> Vec<Id> {
    let kept = packs.into_iter().map(|pack| {
        groups.insert(pack.id, group(&pack.id));
        store.packs.insert(pack.id, pack.buffer[..pack.length].to_vec());
        pack.id
    });
    kept.collect()
}

/// Exports, each segment as soon as there are packs; what is usable for a group are the packs of it, but for `lacking`.
fn export(
    store: &mut Store,
    data: &[u8],
    areas: &[(u64, usize)],
    parent: Option<&Exported>,
    groups: &mut Groups,
    segments: &mut Vec<(Id, Vec<u8>)>,
    lacking: &HashSet<Id>,
) -> Exported {
    let index = Arc::new(Index::default());
    for (id, plain) in segments.iter() {
        index.add_segment(*id, plain.clone()).unwrap();
    }
    let of = |number: usize| {
        let packs = groups.iter().filter(|(pack, group)| **group == number && !lacking.contains(*pack));
        packs.map(|(pack, _)| *pack).collect()
    };
    index.declare_groups((0..4).map(of).collect());
    let parent = parent.map(|it| {
        let manifest = store.manifest(it.roots, it.size);
        store.load(&manifest, 0, manifest.blocks);
        manifest
    });
    let (keys, workers, session) = (store.keys.clone(), store.workers.clone(), random().unwrap());
    let size = Some(data.len() as u64);
    let writer =
        ManifestWriter::new(keys.clone(), workers.clone(), index.clone(), session, size, BLOCK, parent);
    let writer = Arc::new(writer.unwrap().with_areas(areas.to_vec()).unwrap());
    let encoder = Encoder::new(Codec::Zstd, 1);
    let packer = Packer::new(keys, workers, index, writer.clone(), session, encoder, Check::Full, false);
    let mut packs = Vec::new();
    let batch = 3;
    for (number, bytes) in data.chunks(batch * BLOCK).enumerate() {
        for _ in 0..=batch {
            packer.provide(1 << 19).unwrap();
        }
        let first = (number * batch) as u64;
        let full = packer.process(first, bytes).unwrap();
        let new = keep(store, groups, |id| packer.group_of(id).unwrap(), full);
        if let Some(segment) = packer.segment(&new).unwrap() {
            segments.push((segment.id, segment.plain));
        }
        packs.extend(new);
        let full = writer.advance(first + bytes.len().div_ceil(BLOCK) as u64).unwrap();
        packs.extend(keep(store, groups, |_| 0, full));
    }
    let last = packer.finish().unwrap().into_iter().collect();
    let new = keep(store, groups, |id| packer.group_of(id).unwrap(), last);
    let (roots, last) = writer.finish().unwrap();
    let pages = keep(store, groups, |_| 0, last);
    if let Some(segment) = packer.segment(&new).unwrap() {
        segments.push((segment.id, segment.plain));
    }
    packs.extend(new.into_iter().chain(pages));
    Exported { roots, size: data.len() as u64, packs, counts: packer.counts() }
}

fn volume(contents: &[u8]) -> Vec<u8> {
    contents.iter().flat_map(|content| vec![*content; BLOCK]).collect()
}

/// Every block's place names a pack of its own group, and every page lies in a manifest pack.
fn assert_places(store: &Store, exported: &Exported, areas: &[(u64, usize)], groups: &Groups) {
    let manifest = store.manifest(exported.roots, exported.size);
    store.load(&manifest, 0, manifest.blocks);
    for (block, found) in (0..).zip(manifest.range(0, manifest.blocks).unwrap()) {
        if let Some((_, Some(place))) = found {
            assert_eq!(groups[&place.pack], naive(areas, block), "block {block}");
        }
    }
    assert!(manifest.pages(0, manifest.blocks).iter().all(|pack| groups[pack] == 0));
}

fn areas() -> impl Strategy<Value = Vec<(u64, usize)>> {
    let cuts = prop::collection::btree_map(1u64..20, 1usize..4, 0..4);
    (1usize..4, cuts).prop_map(|(first, cuts)| std::iter::once((0, first)).chain(cuts).collect())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn each_block_lies_where_its_group_goes(
        areas in areas(),
        other in areas(),
        contents in prop::collection::vec(0u8..9, 1..24),
        later in prop::collection::vec(0u8..12, 1..24),
        gone in prop::collection::vec(any::<prop::sample::Index>(), 0..3),
    ) {
        let (mut store, mut groups, mut segments) = (Store::new(), Groups::new(), Vec::new());
        let (data, changed) = (volume(&contents), volume(&later));
        let first = export(&mut store, &data, &areas, None, &mut groups, &mut segments, &HashSet::new());
        assert_places(&store, &first, &areas, &groups);
        // Once for each group that has it, and no more often.
        let mut stored: HashSet<(usize, u8)> = (0..).zip(&contents).map(|(at, it)| (naive(&areas, at), *it)).collect();
        stored.retain(|(_, content)| *content != 0);
        prop_assert_eq!(first.counts.1 as usize, stored.len());
        prop_assert_eq!(store.restore(&first, 256).unwrap(), data.clone());

        // Placed by other rules, and some packs are not where they should be.
        let all: Vec<Id> = first.packs.clone();
        let lacking: HashSet<Id> = gone.iter().map(|index| all[index.index(all.len())]).collect();
        let second = export(&mut store, &changed, &other, Some(&first), &mut groups, &mut segments, &lacking);
        assert_places(&store, &second, &other, &groups);
        // Where everything is in place, what is there for a group is not stored for it again.
        if lacking.is_empty() {
            let wanted: HashSet<(usize, u8)> = (0..).zip(&later).map(|(at, it)| (naive(&other, at), *it)).collect();
            prop_assert_eq!(second.counts.1 as usize, wanted.iter().filter(|it| it.1 != 0 && !stored.contains(*it)).count());
        }
        store.packs.retain(|pack, _| !lacking.contains(pack));
        prop_assert_eq!(store.restore(&second, 256).unwrap(), changed);
    }
}

#[test]
fn areas_begin_at_the_first_block_and_come_in_order() {
    let store = Store::new();
    let writer = || {
        let (keys, workers) = (store.keys.clone(), store.workers.clone());
        ManifestWriter::new(keys, workers, Arc::default(), [0; 16], None, BLOCK, None).unwrap()
    };
    assert!(writer().with_areas(vec![(1, 1)]).is_err());
    assert!(writer().with_areas(vec![(0, 1), (5, 2), (5, 1)]).is_err());
    let grouped = writer().with_areas(vec![(0, 1), (5, 2), (9, 1)]).unwrap();
    assert_eq!([0, 4, 5, 8, 9, u64::MAX].map(|block| grouped.group_of(block)), [1, 1, 2, 2, 1, 1]);
}
