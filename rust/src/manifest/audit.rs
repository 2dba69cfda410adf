//! Comparing blocks with what a manifest says of them, and asking for the pages of blocks that lie scattered.

use rayon::prelude::*;

use super::Fetch;
use super::reader::Manifest;
use crate::block::{self, UNREADABLE, ZERO};
use crate::error::{Error, Result};
use crate::stretches::Stretches;
use crate::workers::Workers;

impl Manifest {
    /// As `missing`, for many (first, count) runs of blocks at once.
    pub fn missing_of(&self, runs: &[(u64, u64)], places: bool) -> Vec<Fetch> {
        self.missing_in(runs.iter().map(|(first, count)| (*first, first.saturating_add(*count))), places)
    }

    /// (first, count) runs of the blocks in `data`, which begins with block `first`, that are not what this manifest says;
    /// an unreadable one never is. The last block may be cut. Their pages of ids must be loaded.
    pub fn differing(
        &self,
        workers: &Workers,
        first: u64,
        data: &[u8],
        block_size: usize,
    ) -> Result<Vec<(u64, u64)>> {
        let count = data.len().div_ceil(block_size) as u64;
        if first.checked_add(count).is_none_or(|end| end > self.blocks) {
            return Err(Error::Usage("blocks past the end of the manifest".into()));
        }
        let theirs = self.ids(first, first + count)?;
        let key = &self.keys().block_id;
        let ours: Vec<_> = workers.run(|| {
            let blocks = data.par_chunks(block_size).with_max_len(1);
            blocks.map(|it| if block::is_zero(it) { ZERO } else { block::id(key, it, block_size) }).collect()
        });
        let mut out = Stretches::default();
        for (block, (one, other)) in (first..).zip(ours.into_iter().zip(theirs)) {
            if one != other || other == UNREADABLE {
                out.add(block, 1);
            }
        }
        Ok(out.0)
    }
}
