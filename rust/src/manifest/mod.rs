//! A snapshot's two trees: ids, which are the truth, and places, which are a hint where to find it.
//!
//! Both are radix trees over block numbers with 256 children a page, of the least height that covers the volume; a taller
//! tree has a shorter one as its child 0. A node is named by its level (0: leaf) and its index within the level, so node
//! (l, i) covers the blocks from i · 256^(l+1) on. A child of zeros has no page.

pub mod audit;
pub mod claims;
pub mod diff;
mod filling;
pub mod inherit;
pub mod lookup;
pub mod page;
pub mod reader;
pub mod writer;

pub use claims::{Claims, Stored};
pub use diff::{diff, missing_for_diff};
pub use page::{Child, ids_page, parse_ids, parse_places, places_page};
pub use reader::Manifest;
pub use writer::ManifestWriter;

use crate::bytes::Id;
use crate::error::{Error, Result};
use crate::pack::Place;

/// Children of a page.
pub const FANOUT: usize = 256;
/// 256⁸ blocks are more than any volume has.
pub const MAX_HEIGHT: u8 = 7;

/// A root page: its id and where it lies.
pub type Root = (Id, Place);

/// Both trees as a commit names them; without pages where all is zeros.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Roots {
    /// Levels of the trees; 0 for a volume of no blocks.
    pub height: u8,
    /// The tree of ids.
    pub ids: Option<Root>,
    /// The tree of places.
    pub places: Option<Root>,
}

/// What is known of a block: its id, and its place if the tree of places has one.
pub type Found = (Id, Option<Place>);

/// A ranged read: pack, offset, length.
pub type Fetch = (Id, u32, u32);

/// How many blocks a node of that level covers.
pub fn span(level: u8) -> u64 {
    1u64 << (8 * (u32::from(level) + 1)).min(63)
}

/// How many blocks a volume has.
pub fn block_count(size: u64, block_size: u64) -> u64 {
    size.div_ceil(block_size)
}

/// The least height that covers so many blocks.
pub fn height_for(blocks: u64) -> u8 {
    match blocks {
        0 => 0,
        _ => (0..MAX_HEIGHT).find(|level| span(*level) >= blocks).unwrap_or(MAX_HEIGHT - 1) + 1,
    }
}

/// Refuses block sizes outside of the format.
pub fn check_block_size(block_size: usize) -> Result<()> {
    let bounds = crate::block::MIN_SIZE..=crate::block::MAX_SIZE;
    if bounds.contains(&block_size) && block_size.is_power_of_two() {
        return Ok(());
    }
    Err(Error::Usage(format!("a block size of {block_size}: a power of two from 64 KiB to 4 MiB is needed")))
}
