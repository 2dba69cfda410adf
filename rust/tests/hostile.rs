//! Two replicas of which one lies: what the other holds in good order comes back.

mod common;

use std::collections::HashMap;

use common::{BLOCK, Exported, Store};
use snapferry_core::index::{Index, IndexedPack};
use snapferry_core::manifest::{Fetch, Manifest};
use snapferry_core::pack::{PackKind, Tail, read_tail};
use snapferry_core::plan::Plan;

type Packs = HashMap<[u8; 32], Vec<u8>>;

fn range<'a>(replica: &'a Packs, (pack, offset, length): &Fetch) -> Option<&'a [u8]> {
    replica.get(pack)?.get(*offset as usize..(offset + length) as usize)
}

/// Asks each replica in turn, as a reader does; the first that is believed ends it.
fn load(manifest: &Manifest, replicas: &[&Packs], first: u64, end: u64) {
    for _ in 0..50 {
        let fetches = manifest.missing(first, end, true);
        if fetches.is_empty() {
            return;
        }
        for fetch in fetches {
            let good = |replica: &&Packs| {
                range(replica, &fetch).is_some_and(|bytes| manifest.feed(&fetch.0, fetch.1, bytes) == 0)
            };
            if !replicas.iter().any(good) {
                manifest.give_up(&fetch.0, fetch.1, fetch.2);
            }
        }
    }
    panic!("a manifest that never has enough");
}

fn restore(store: &Store, one: &Exported, replicas: &[&Packs], index: &Index) -> Result<Vec<u8>, u64> {
    let manifest = store.manifest(one.roots, one.size);
    let mut out = vec![0; one.size as usize];
    let mut lost = 0;
    for first in (0..manifest.blocks).step_by(256) {
        let end = (first + 256).min(manifest.blocks);
        load(&manifest, replicas, first, end);
        let (keys, workers) = (store.keys.clone(), store.workers.clone());
        let plan = Plan::new(keys, workers, &manifest, (first, end), (one.size, BLOCK), 1 << 20).unwrap();
        let mut extents = plan.extents();
        for _ in 0..2 {
            for fetch in plan.headers() {
                let _ =
                    replicas.iter().any(|it| range(it, &fetch).is_some_and(|it| plan.learn(&fetch.0, it)));
            }
            for (number, fetch) in extents {
                let mut replicas = replicas.iter().filter_map(|replica| range(replica, &fetch));
                replicas.any(|bytes| plan.copy(number, bytes, &mut out, 0).unwrap() == 0);
            }
            extents = if plan.lost().is_empty() { Vec::new() } else { plan.relocate(index) };
        }
        lost += plan.lost().iter().map(|(_, length)| length).sum::<u64>();
    }
    if lost == 0 { Ok(out) } else { Err(lost) }
}

fn exported(contents: impl Iterator<Item = u32>) -> (Store, Exported, Vec<u8>) {
    let mut store = Store::new();
    let data: Vec<u8> = contents
        .flat_map(|number| {
            let mut block = vec![number as u8; BLOCK];
            block[..4].copy_from_slice(&number.to_le_bytes());
            block
        })
        .collect();
    let one = store.export(&data, None, 32, 1 << 20);
    (store, one, data)
}

fn kind(pack: &[u8]) -> u8 {
    pack[12]
}

/// A store hands out the header of another pack of the same kind, which is good in itself.
#[test]
fn the_header_of_another_pack_spoils_no_other_replica() {
    let (mut store, one, data) = exported(1..600);
    let (other, ..) = store.packs.iter().find(|(_, pack)| kind(pack) == PackKind::Data as u8).unwrap();
    let other_data = store.packs[other][..200].to_vec();
    store.export(&data[..BLOCK], None, 1, 1 << 20);
    let strange = store.packs.iter().filter(|(id, _)| !one.packs.contains(id));
    let other_manifest = strange.map(|(_, pack)| pack).find(|pack| kind(pack) == PackKind::Manifest as u8);
    let other_manifest = other_manifest.unwrap()[..200].to_vec();
    let mut liar = store.packs.clone();
    for pack in liar.values_mut() {
        let header = if kind(pack) == PackKind::Data as u8 { &other_data } else { &other_manifest };
        pack[..200].copy_from_slice(header);
        pack[300..].fill(0);
    }
    let honest = store.packs.clone();
    let index = Index::default();
    assert!(restore(&store, &one, &[&liar, &honest], &index).is_ok_and(|back| back == data));
    assert!(restore(&store, &one, &[&liar], &index).is_err());
    assert!(restore(&store, &one, &[&liar, &honest], &index).is_ok_and(|back| back == data));
}

/// One page that nobody has in good order takes nothing with it but the blocks below it.
#[test]
fn a_damaged_page_takes_no_other_page_of_its_pack_with_it() {
    let (store, one, _) = exported(1..1300);
    let pages = one.packs.last().unwrap();
    let pack = &store.packs[pages];
    let Tail::Table(entries) = read_tail(&store.keys, pack.len() as u64, pack).unwrap() else { panic!() };
    for entry in entries {
        let mut bad = store.packs.clone();
        bad.get_mut(pages).unwrap()[(entry.offset + entry.length - 1) as usize] ^= 1;
        let manifest = store.manifest(one.roots, one.size);
        let mut lost = 0;
        for first in (0..manifest.blocks).step_by(256) {
            load(&manifest, &[&bad, &bad], first, first + 256);
            lost += manifest.lost(first, first + 256).iter().map(|(_, count)| count).sum::<u64>();
        }
        let at_the_root = entry.offset >= one.roots.ids.unwrap().1.offset;
        assert!(if at_the_root { lost == manifest.blocks } else { (1..=256).contains(&lost) }, "{lost}");
    }
}

/// A leaf's page of places is only a hint: its blocks are found through the index.
#[test]
fn blocks_are_found_without_their_page_of_places() {
    let (store, one, data) = exported(1..600);
    let index = Index::default();
    for (id, pack) in store.packs.iter().filter(|(_, pack)| kind(pack) == PackKind::Data as u8) {
        let Tail::Table(entries) = read_tail(&store.keys, pack.len() as u64, pack).unwrap() else { panic!() };
        index.add_pack(&IndexedPack { id: *id, size: pack.len() as u64, entries }).unwrap();
    }
    index.declare_usable(store.packs.keys().copied().collect());
    let pages = one.packs.last().unwrap();
    let pack = &store.packs[pages];
    let Tail::Table(entries) = read_tail(&store.keys, pack.len() as u64, pack).unwrap() else { panic!() };
    let mut bad = store.packs.clone();
    let places = entries[1];
    bad.get_mut(pages).unwrap()[(places.offset + places.length - 1) as usize] ^= 1;
    assert!(restore(&store, &one, &[&bad], &index).is_ok_and(|back| back == data));
    assert_eq!(restore(&store, &one, &[&bad], &Index::default()), Err(256 * BLOCK as u64));
}
