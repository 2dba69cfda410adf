//! Marking, sweeping and repacking, against naive twins that hold everything in memory.

mod common;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use common::{BLOCK, Exported, Store};
use proptest::prelude::*;
use snapferry_core::block::{ZERO, id, is_zero};
use snapferry_core::collect::{Marker, Repacker, rescued, sweep};
use snapferry_core::index::{Index, IndexedPack, build};
use snapferry_core::manifest::Manifest;
use snapferry_core::pack::{HEADER, RecordKind, Tail, read_tail};

type Id = [u8; 32];

fn volume(blocks: &[u8]) -> Vec<u8> {
    // Block 0 is zeros; others are told apart by their number, and compress well.
    blocks.iter().flat_map(|number| vec![*number; BLOCK]).collect()
}

fn mark(store: &Store, snapshots: &[&Exported]) -> Marker {
    let marker = Arc::new(Marker::new(std::env::temp_dir(), false));
    for snapshot in snapshots {
        let manifest =
            Manifest::marking(store.keys.clone(), snapshot.roots, snapshot.size, BLOCK, marker.clone())
                .unwrap();
        loop {
            let fetches = manifest.missing(0, manifest.blocks, false);
            if fetches.is_empty() {
                break;
            }
            // Fed twice, as a loader does when another page of the same read failed.
            store.feed(&manifest, fetches.clone());
            store.feed(&manifest, fetches);
        }
        assert!(!manifest.any_lost());
    }
    Arc::into_inner(marker).unwrap()
}

fn indexed(store: &Store) -> Vec<IndexedPack> {
    store
        .packs
        .iter()
        .map(|(pack, bytes)| {
            let Tail::Table(entries) = read_tail(&store.keys, bytes.len() as u64, bytes).unwrap() else {
                panic!()
            };
            IndexedPack { id: *pack, size: bytes.len() as u64, entries }
        })
        .collect()
}

/// Two segments, the second of which repeats a pack of the first, as after a merge that was interrupted.
fn index_of(packs: &[IndexedPack]) -> Index {
    let index = Index::default();
    let middle = packs.len() / 2;
    for (number, part) in [(1, &packs[..(middle + 1).min(packs.len())]), (2, &packs[middle..])] {
        index.add_segment([number; 32], build(part, &[])).unwrap();
    }
    index.declare_usable(packs.iter().map(|pack| pack.id).collect());
    index
}

fn needed(store: &Store, volumes: &[&[u8]]) -> HashSet<Id> {
    let blocks = volumes.iter().flat_map(|data| data.chunks(BLOCK));
    blocks.filter(|block| !is_zero(block)).map(|block| id(&store.keys.block_id, block, BLOCK)).collect()
}

/// A repository in which each snapshot was exported knowing only the one before, so that blocks lie in several packs.
fn repository(volumes: &[Vec<u8>]) -> (Store, Vec<Exported>) {
    let mut store = Store::new();
    let mut exported: Vec<Exported> = Vec::new();
    for (number, data) in volumes.iter().enumerate() {
        let parent = if number % 3 == 2 { None } else { exported.last() };
        let made = store.export(data, parent, 4, 6 * BLOCK);
        exported.push(made);
    }
    (store, exported)
}

/// Trees of two levels whose leaves are shared between snapshots, and met twice within one: each is walked once, none is left out.
#[test]
fn shared_subtrees_are_walked_once_and_none_is_passed_over() {
    let mut blocks = vec![0u8; 1100];
    for (at, number) in [(0, 1), (255, 2), (256, 3), (300, 4), (600, 5), (1099, 6)] {
        blocks[at] = number;
    }
    let first = volume(&blocks);
    blocks[600] = 7;
    let second = volume(&blocks);
    let mut store = Store::new();
    let one = store.export(&first, None, 64, 64 * BLOCK);
    let other = store.export(&second, Some(&one), 64, 64 * BLOCK);
    let packs = indexed(&store);
    let index = index_of(&packs);
    let present: HashSet<Id> = store.packs.keys().copied().collect();
    for (snapshots, volumes) in [
        (vec![&one], vec![first.as_slice()]),
        (vec![&other], vec![second.as_slice()]),
        (vec![&one, &other, &one], vec![first.as_slice(), second.as_slice()]),
    ] {
        let marker = mark(&store, &snapshots);
        let (_, records) = sweep(&marker, &index, &present, &HashSet::new(), &present).unwrap();
        let wanted = needed(&store, &volumes);
        assert_eq!(records.values().map(Vec::len).sum::<usize>(), wanted.len());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn what_is_dead_and_what_is_kept_is_what_naive_sets_say(
        volumes in prop::collection::vec(prop::collection::vec(0u8..40, 1..40), 1..6),
        kept in prop::collection::vec(any::<bool>(), 6),
    ) {
        let volumes: Vec<Vec<u8>> = volumes.iter().map(|blocks| volume(blocks)).collect();
        let (store, exported) = repository(&volumes);
        let keep: Vec<usize> = (0..volumes.len()).filter(|number| kept[*number]).collect();
        let marker = mark(&store, &keep.iter().map(|number| &exported[*number]).collect::<Vec<_>>());
        let packs = indexed(&store);
        let index = index_of(&packs);
        let present: HashSet<Id> = store.packs.keys().copied().collect();
        let wanted = needed(&store, &keep.iter().map(|number| volumes[*number].as_slice()).collect::<Vec<_>>());

        let mut naive_pages = HashSet::new();
        for number in &keep {
            let manifest = store.manifest(exported[*number].roots, exported[*number].size);
            store.load(&manifest, 0, manifest.blocks);
            for pack in manifest.packs(0, manifest.blocks) {
                let is_manifest = packs.iter().any(|it| it.id == pack && it.entries.iter().all(|entry| entry.kind != RecordKind::Block));
                if is_manifest { naive_pages.insert(pack); }
            }
        }
        prop_assert_eq!(marker.page_packs().into_iter().collect::<HashSet<_>>(), naive_pages.clone());

        let (found, _) = sweep(&marker, &index, &present, &HashSet::new(), &HashSet::new()).unwrap();
        let live: HashSet<Id> = found.packs.iter().filter(|it| it.live > 0).map(|it| it.pack).collect();
        let (_, records) = sweep(&marker, &index, &present, &HashSet::new(), &live).unwrap();
        // Every needed block is kept exactly once.
        let mut chosen: HashMap<Id, usize> = HashMap::new();
        for (pack, places) in &records {
            let table = packs.iter().find(|it| it.id == *pack).unwrap();
            for (offset, length) in places {
                let entry = table.entries.iter().find(|it| it.offset == *offset).unwrap();
                prop_assert_eq!(entry.length, *length);
                *chosen.entry(entry.id).or_default() += 1;
            }
            let sum: u64 = places.iter().map(|(_, length)| u64::from(*length)).sum();
            prop_assert_eq!(sum, found.packs.iter().find(|it| it.pack == *pack).unwrap().live);
        }
        prop_assert!(chosen.values().all(|count| *count == 1));
        prop_assert_eq!(chosen.keys().copied().collect::<HashSet<_>>(), wanted.clone());
        for usage in &found.packs {
            let table = packs.iter().find(|it| it.id == usage.pack).unwrap();
            let blocks = table.entries.iter().filter(|entry| entry.kind == RecordKind::Block);
            prop_assert_eq!(usage.total, blocks.map(|entry| u64::from(entry.length)).sum::<u64>());
        }

        // Whatever is condemned, what is rescued makes the rest whole again, and nothing that is needed nowhere is rescued.
        let condemned: HashSet<Id> = present.iter().filter(|pack| pack[0] % 2 == 0).copied().collect();
        let saved = rescued(&marker, &index, &present, &condemned).unwrap();
        prop_assert!(saved.is_subset(&condemned));
        let left: HashSet<Id> = present.iter().filter(|pack| !condemned.contains(*pack) || saved.contains(*pack)).copied().collect();
        prop_assert!(naive_pages.is_subset(&left));
        for block in &wanted {
            prop_assert!(packs.iter().any(|it| left.contains(&it.id) && it.entries.iter().any(|entry| entry.id == *block)));
        }
        for pack in saved.difference(&naive_pages) {
            let table = packs.iter().find(|it| it.id == *pack).unwrap();
            prop_assert!(table.entries.iter().any(|entry| wanted.contains(&entry.id)));
        }

        // A needed block whose packs are all gone is never passed over.
        if let Some(block) = wanted.iter().next() {
            let without: HashSet<Id> = packs.iter().filter(|it| it.entries.iter().all(|entry| entry.id != *block)).map(|it| it.id).collect();
            prop_assert!(sweep(&marker, &index, &without, &HashSet::new(), &HashSet::new()).is_err());
            prop_assert!(rescued(&marker, &index, &without, &HashSet::new()).is_err());
        }
    }

    #[test]
    fn what_is_repacked_restores_without_the_old_packs(
        volumes in prop::collection::vec(prop::collection::vec(0u8..40, 1..40), 1..5),
        kept in 0usize..5,
    ) {
        let volumes: Vec<Vec<u8>> = volumes.iter().map(|blocks| volume(blocks)).collect();
        let (mut store, exported) = repository(&volumes);
        let kept = kept % volumes.len();
        let marker = mark(&store, &[&exported[kept]]);
        let packs = indexed(&store);
        let index = index_of(&packs);
        let present: HashSet<Id> = store.packs.keys().copied().collect();
        let data: HashSet<Id> = packs.iter().filter(|it| it.entries.iter().any(|entry| entry.kind == RecordKind::Block)).map(|it| it.id).collect();
        let (_, records) = sweep(&marker, &index, &present, &HashSet::new(), &data).unwrap();
        let repacker = Repacker::new(store.keys.clone(), store.workers.clone(), [7; 16], 6 * BLOCK);
        let mut made = Vec::new();
        for (pack, places) in &records {
            let bytes = &store.packs[pack];
            // From the middle of the pack, as a ranged read gives it.
            let start = places[0].0;
            made.extend(repacker.take(&bytes[..HEADER], (start, &bytes[start as usize..]), places).unwrap());
            let mut altered = bytes.clone();
            let at = (places[0].0 + places[0].1 - 1) as usize;
            altered[at] ^= 1;
            prop_assert!(repacker.take(&altered[..HEADER], (0, &altered), places).is_err());
        }
        made.extend(repacker.finish().unwrap());
        store.packs.retain(|pack, _| !data.contains(pack));
        for pack in made {
            store.packs.insert(pack.id, pack.buffer[..pack.length].to_vec());
        }
        let index = index_of(&indexed(&store));
        let present: HashSet<Id> = store.packs.keys().copied().collect();
        let manifest = store.manifest(exported[kept].roots, exported[kept].size);
        store.load(&manifest, 0, manifest.blocks);
        let found = manifest.resolve(&index, &present, 0, manifest.blocks).unwrap();
        prop_assert!(found.lost.is_empty());
        prop_assert!(found.packs.is_subset(&present));
        let again = sweep(&mark(&store, &[&exported[kept]]), &index, &present, &HashSet::new(), &HashSet::new()).unwrap().0;
        for usage in again.packs.iter().filter(|it| it.total > 0) {
            prop_assert_eq!(usage.live, usage.total);
        }
        for (block, id) in (0..).zip(manifest.ids(0, manifest.blocks).unwrap()) {
            if id != ZERO {
                prop_assert!(index.find(&id).is_some(), "block {}", block);
            }
        }
    }
}
