//! Stretches of a volume, collected from block to block.

/// A stretch of the volume: offset and length in bytes.
pub type Stretch = (u64, u64);

/// Stretches in ascending order, neighbours made one.
#[derive(Default)]
pub struct Stretches(pub Vec<Stretch>);

impl Stretches {
    /// Adds the next one.
    pub fn add(&mut self, offset: u64, length: u64) {
        match self.0.last_mut() {
            Some((start, count)) if *start + *count == offset => *count += length,
            _ => self.0.push((offset, length)),
        }
    }
}
