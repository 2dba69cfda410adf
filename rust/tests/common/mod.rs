//! A volume exported and brought back with everything in memory: what a repository does, without any destination.

#![allow(dead_code)] // Each file of tests uses its own part of it.

use std::collections::HashMap;
use std::sync::Arc;

use snapferry_core::codec::{Codec, Encoder};
use snapferry_core::index::Index;
use snapferry_core::keys::{Keyring, random};
use snapferry_core::manifest::{Fetch, Manifest, ManifestWriter, Roots};
use snapferry_core::pack::FinishedPack;
use snapferry_core::packer::{Check, Packer};
use snapferry_core::plan::Plan;
use snapferry_core::workers::Workers;

pub const BLOCK: usize = 64 << 10;

/// Packs by id, and what an exporter and a restorer hold.
pub struct Store {
    pub keys: Arc<Keyring>,
    pub workers: Arc<Workers>,
    pub packs: HashMap<[u8; 32], Vec<u8>>,
}

/// What an export came to.
pub struct Exported {
    pub roots: Roots,
    pub size: u64,
    pub packs: Vec<[u8; 32]>,
    pub counts: (u64, u64, u64, u64),
}

impl Store {
    pub fn new() -> Self {
        let keys = Arc::new(Keyring::generate().unwrap());
        Self { keys, workers: Arc::new(Workers::new(2).unwrap()), packs: HashMap::new() }
    }

    fn keep(&mut self, packs: Vec<FinishedPack>) -> Vec<[u8; 32]> {
        packs
            .into_iter()
            .map(|pack| {
                self.packs.insert(pack.id, pack.buffer[..pack.length].to_vec());
                self.workers.recycle(pack.buffer);
                pack.id
            })
            .collect()
    }

    pub fn manifest(&self, roots: Roots, size: u64) -> Arc<Manifest> {
        Arc::new(Manifest::new(self.keys.clone(), roots, size, BLOCK).unwrap())
    }

    /// Feeds a manifest until nothing of the range is missing.
    pub fn load(&self, manifest: &Manifest, first: u64, end: u64) {
        loop {
            let fetches = manifest.missing(first, end, true);
            if fetches.is_empty() {
                return;
            }
            self.feed(manifest, fetches);
        }
    }

    pub fn feed(&self, manifest: &Manifest, fetches: Vec<Fetch>) {
        for (pack, offset, length) in fetches {
            let range = offset as usize..(offset + length) as usize;
            let bytes = self.packs.get(&pack).and_then(|pack| pack.get(range));
            if bytes.is_none_or(|bytes| manifest.feed(&pack, offset, bytes) > 0) {
                manifest.give_up(&pack, offset, length);
            }
        }
    }

    /// Exports `data`, `batch` blocks a call, with packs of `capacity` bytes.
    pub fn export(
        &mut self,
        data: &[u8],
        parent: Option<&Exported>,
        batch: usize,
        capacity: usize,
    ) -> Exported {
        let index = Arc::new(Index::default());
        index.declare_usable(self.packs.keys().copied().collect());
        let parent = parent.map(|it| {
            let manifest = self.manifest(it.roots, it.size);
            self.load(&manifest, 0, manifest.blocks);
            manifest
        });
        let session = random().unwrap();
        let (keys, workers) = (self.keys.clone(), self.workers.clone());
        let writer = ManifestWriter::new(
            keys.clone(),
            workers.clone(),
            index.clone(),
            session,
            Some(data.len() as u64),
            BLOCK,
            parent,
        );
        let writer = Arc::new(writer.unwrap());
        let encoder = Encoder::new(Codec::Zstd, 1);
        let packer = Packer::new(keys, workers, index, writer.clone(), session, encoder, Check::Full, false);
        let mut packs = Vec::new();
        for (number, bytes) in data.chunks(batch * BLOCK).enumerate() {
            while packer.room() < (batch + 1) * (BLOCK + 200) {
                packer.provide(capacity).unwrap();
            }
            let first = (number * batch) as u64;
            packs.extend(self.keep(packer.process(first, bytes).unwrap()));
            packs.extend(self.keep(writer.advance(first + bytes.len().div_ceil(BLOCK) as u64).unwrap()));
        }
        packs.extend(self.keep(packer.finish().unwrap().into_iter().collect()));
        let (roots, last) = writer.finish().unwrap();
        packs.extend(self.keep(last));
        Exported { roots, size: data.len() as u64, packs, counts: packer.counts() }
    }

    /// Brings a snapshot back; `Err` holds what is lost.
    pub fn restore(&self, exported: &Exported, window: u64) -> Result<Vec<u8>, Vec<(u64, u64)>> {
        let manifest = self.manifest(exported.roots, exported.size);
        let mut out = vec![0xAA; exported.size as usize];
        let mut lost = Vec::new();
        for first in (0..manifest.blocks).step_by(window as usize) {
            let end = (first + window).min(manifest.blocks);
            self.load(&manifest, first, end);
            let shape = (exported.size, BLOCK);
            let plan =
                Plan::new(self.keys.clone(), self.workers.clone(), &manifest, (first, end), shape, 1 << 20)
                    .unwrap();
            for (pack, _, length) in plan.headers() {
                if let Some(bytes) = self.packs.get(&pack).and_then(|pack| pack.get(..length as usize)) {
                    plan.learn(&pack, bytes);
                }
            }
            for (number, (pack, offset, length)) in plan.extents() {
                let range = offset as usize..(offset + length) as usize;
                if let Some(bytes) = self.packs.get(&pack).and_then(|pack| pack.get(range)) {
                    plan.copy(number, bytes, &mut out, 0).unwrap();
                }
            }
            for (offset, length) in plan.zeros() {
                out[*offset as usize..(offset + length) as usize].fill(0);
            }
            lost.extend(plan.lost());
        }
        if lost.is_empty() { Ok(out) } else { Err(lost) }
    }
}
