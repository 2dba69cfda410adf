//! Many threads at once on one export: blocks claimed, packs named, segments made and pages written side by side.

mod common;

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex};

use common::{BLOCK, Exported, Store};
use snapferry_core::codec::{Codec, Encoder};
use snapferry_core::index::Index;
use snapferry_core::keys::random;
use snapferry_core::manifest::ManifestWriter;
use snapferry_core::packer::{Check, Packer};

/// Block `number` of generation `generation`: one in three repeats another, some are zeros.
fn block(number: u64, generation: u64) -> Vec<u8> {
    let content = match number % 6 {
        0 => return vec![0; BLOCK],
        1 | 2 => number / 40,
        _ if number % 31 == generation => number * 1000 + generation,
        _ => number * 1000,
    };
    let mut out = vec![content as u8; BLOCK];
    blake3::Hasher::new().update(&content.to_le_bytes()).finalize_xof().fill(&mut out[..BLOCK / 2]);
    out
}

fn export(store: &mut Store, blocks: u64, generation: u64, parent: Option<&Exported>) -> Exported {
    let size = blocks * BLOCK as u64;
    let index = Arc::new(Index::default());
    index.declare_usable(store.packs.keys().copied().collect());
    let parent = parent.map(|one| {
        let manifest = store.manifest(one.roots, one.size);
        store.load(&manifest, 0, blocks);
        manifest
    });
    let session = random().unwrap();
    let (keys, workers) = (store.keys.clone(), store.workers.clone());
    let writer =
        ManifestWriter::new(keys.clone(), workers.clone(), index.clone(), session, Some(size), BLOCK, parent);
    let writer = Arc::new(writer.unwrap());
    let encoder = Encoder::new(Codec::Zstd, 1);
    let packer = Packer::new(keys, workers, index, writer.clone(), session, encoder, Check::Full, false);
    for _ in 0..blocks / 8 + 4 {
        packer.provide(1 << 20).unwrap();
    }
    let batch = 3;
    let batches = blocks.div_ceil(batch);
    let (next, stop) = (AtomicU64::new(0), AtomicBool::new(false));
    let done = Mutex::new(vec![false; batches as usize]);
    let packs = Mutex::new(HashMap::new());
    let unnamed = Mutex::new(Vec::new());
    let keep = |made: Vec<snapferry_core::pack::FinishedPack>| {
        for pack in made {
            packs.lock().unwrap().insert(pack.id, pack.buffer[..pack.length].to_vec());
            unnamed.lock().unwrap().push(pack.id);
        }
    };
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..4)
            .map(|_| {
                scope.spawn(|| {
                    loop {
                        let number = next.fetch_add(1, SeqCst);
                        if number >= batches {
                            return;
                        }
                        let first = number * batch;
                        let data: Vec<u8> = (first..(first + batch).min(blocks))
                            .flat_map(|number| block(number, generation))
                            .collect();
                        keep(packer.process(first, &data).unwrap());
                        done.lock().unwrap()[number as usize] = true;
                    }
                })
            })
            .collect();
        scope.spawn(|| {
            while !stop.load(SeqCst) {
                let ready = done.lock().unwrap().iter().position(|done| !done).unwrap_or(batches as usize);
                keep(writer.advance((ready as u64 * batch).min(blocks)).unwrap());
            }
        });
        scope.spawn(|| {
            while !stop.load(SeqCst) {
                let named = std::mem::take(&mut *unnamed.lock().unwrap());
                packer.segment(&named).unwrap();
            }
        });
        for worker in workers {
            worker.join().unwrap();
        }
        stop.store(true, SeqCst);
    });
    keep(packer.finish().unwrap().into_iter().collect());
    keep(writer.advance(blocks).unwrap());
    let (roots, last) = writer.finish().unwrap();
    keep(last);
    assert_eq!(writer.leaves_held(), 0);
    let packs = packs.into_inner().unwrap();
    let ids = packs.keys().copied().collect();
    store.packs.extend(packs);
    Exported { roots, size, packs: ids, counts: packer.counts() }
}

#[test]
fn what_many_threads_export_comes_back() {
    let blocks = 1100;
    let mut store = Store::new();
    let mut parent: Option<Exported> = None;
    for generation in 0..6 {
        let one = export(&mut store, blocks, generation, parent.as_ref());
        let back = store.restore(&one, 256).unwrap();
        for (number, bytes) in (0..).zip(back.chunks(BLOCK)) {
            assert!(bytes == block(number, generation), "block {number} of {generation}");
        }
        parent = Some(one);
    }
}
