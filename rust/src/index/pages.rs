//! Files of the local cache of which only what is used is read, and nothing is believed unchecked.
//!
//! ```text
//! body
//! 8 bytes of BLAKE3 of each page of the body
//! 8 length of the body
//! 8 magic
//! ```
//!
//! To map one costs the same whatever its size. A page is checked when something in it is first used, once a process.

use std::fs::File;
use std::io::Write;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

use crate::bytes::{Reader, magic};
use crate::error::{Result, damaged};
use crate::outside::{Mapped, begin_writeback};

/// How many bytes are checked at once: little where something is read here and there, or as much as is hashed fastest.
#[derive(Clone, Copy, Debug)]
pub struct Page(pub usize);

/// Some 140 entries of a bundle.
pub const SMALL: Page = Page(4 << 10);
/// For what is read from end to end.
pub const LARGE: Page = Page(64 << 10);

const HASH: usize = 8;
const TRAILER: usize = 16;
/// Longer ranges are read ahead of being touched.
const LONG: usize = 64 << 10;
const BUFFER: usize = 4 << 20;
const SYNCED: u64 = 64 << 20;

fn trailer_magic() -> [u8; 8] {
    magic("snapferry cached pages, format 1")
}

fn page_hash(page: &[u8]) -> [u8; HASH] {
    let mut out = [0; HASH];
    out.copy_from_slice(&blake3::hash(page).as_bytes()[..HASH]);
    out
}

/// A mapped file of checked pages.
pub struct Pages {
    map: Mapped,
    page: usize,
    body: usize,
    good: Vec<AtomicU64>,
    bad: AtomicBool,
    path: PathBuf,
}

impl Pages {
    /// Maps a file and checks its lengths; no page is read.
    pub fn open(path: &Path, Page(page): Page) -> Result<Self> {
        let map = Mapped::open(path)?;
        let bytes = map.bytes();
        let Some(at) = bytes.len().checked_sub(TRAILER) else {
            return damaged(format!("{}: shorter than its trailer", path.display()));
        };
        let mut trailer = Reader::new(&bytes[at..]);
        let body = usize::try_from(trailer.u64()?).unwrap_or(usize::MAX);
        let hashes = body.div_ceil(page).saturating_mul(HASH);
        if trailer.array::<8>()? != trailer_magic() || body.checked_add(hashes) != Some(at) {
            return damaged(format!("{}: no whole file of pages that this program knows", path.display()));
        }
        let good =
            std::iter::repeat_with(AtomicU64::default).take(body.div_ceil(page).div_ceil(64)).collect();
        Ok(Self { path: path.to_owned(), map, page, body, good, bad: AtomicBool::new(false) })
    }

    /// Says how it will be read, which makes nothing but the speed another.
    pub fn expect(&self, tell: impl FnOnce(&Mapped)) {
        tell(&self.map);
    }

    /// The whole body as it is; whatever is in it may be wrong.
    pub fn unchecked(&self) -> &[u8] {
        &self.map.bytes()[..self.body]
    }

    /// A range of the body in good order; None past its end, and where a page is damaged: the file is removed then, so that
    /// what it held is fetched again by whoever opens the cache next.
    pub fn get(&self, at: usize, length: usize) -> Option<&[u8]> {
        let end = at.checked_add(length).filter(|end| *end <= self.body)?;
        if length > LONG {
            self.map.read_next(at, length);
        }
        for page in at / self.page..end.div_ceil(self.page) {
            let (word, bit) = (&self.good[page / 64], 1 << (page % 64));
            if word.load(Relaxed) & bit == 0 {
                if self.is_bad() || !self.is_whole(page) {
                    self.bad.store(true, Relaxed);
                    let _ = std::fs::remove_file(&self.path);
                    return None;
                }
                word.fetch_or(bit, Relaxed);
            }
        }
        Some(&self.map.bytes()[at..end])
    }

    fn is_whole(&self, page: usize) -> bool {
        let bytes = self.map.bytes();
        let hash = &bytes[self.body + page * HASH..][..HASH];
        page_hash(&bytes[page * self.page..((page + 1) * self.page).min(self.body)]) == hash
    }

    /// Whether a page was found damaged.
    pub fn is_bad(&self) -> bool {
        self.bad.load(Relaxed)
    }

    /// Checks every page.
    pub fn verify(&self) -> bool {
        (0..self.body).step_by(BUFFER).all(|at| self.get(at, BUFFER.min(self.body - at)).is_some())
    }
}

/// Writes such a file: whole under its name, or not at all.
pub struct PageWriter {
    file: File,
    page: usize,
    temporary: PathBuf,
    buffer: Vec<u8>,
    hashes: Vec<u8>,
    body: u64,
    named: bool,
}

impl PageWriter {
    /// Begins a file of that directory.
    pub fn create(directory: &Path, Page(page): Page) -> Result<Self> {
        let temporary = directory.join(format!(".{}", random_name()?));
        let file = File::create_new(&temporary)?;
        let buffer = Vec::with_capacity(BUFFER);
        Ok(Self { file, page, temporary, buffer, hashes: Vec::new(), body: 0, named: false })
    }

    /// Appends to the body.
    #[inline]
    pub fn write(&mut self, bytes: &[u8]) -> Result<()> {
        if self.buffer.len() + bytes.len() < BUFFER {
            self.buffer.extend_from_slice(bytes);
            return Ok(());
        }
        self.write_over(bytes)
    }

    fn write_over(&mut self, mut bytes: &[u8]) -> Result<()> {
        while !bytes.is_empty() {
            let (now, later) = bytes.split_at(bytes.len().min(BUFFER - self.buffer.len()));
            self.buffer.extend_from_slice(now);
            bytes = later;
            if self.buffer.len() == BUFFER {
                self.flush()?;
            }
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<()> {
        self.hashes.extend(self.buffer.chunks(self.page).flat_map(page_hash));
        self.file.write_all(&self.buffer)?;
        begin_writeback(self.file.as_fd(), self.body, self.buffer.len() as u64);
        self.body += self.buffer.len() as u64;
        self.buffer.clear();
        Ok(())
    }

    /// Gives the file its name, synced if it took long to make. Else it need not be: what a power loss took of it is seen and
    /// fetched again.
    pub fn finish(mut self, path: &Path) -> Result<()> {
        self.flush()?;
        self.file.write_all(&self.hashes)?;
        self.file.write_all(&self.body.to_le_bytes())?;
        self.file.write_all(&trailer_magic())?;
        if self.body >= SYNCED {
            self.file.sync_all()?;
        }
        std::fs::rename(&self.temporary, path)?;
        self.named = true;
        Ok(())
    }
}

impl Drop for PageWriter {
    fn drop(&mut self) {
        if !self.named {
            let _ = std::fs::remove_file(&self.temporary);
        }
    }
}

/// 32 digits that nobody else has drawn.
pub fn random_name() -> Result<String> {
    let bytes: [u8; 16] = crate::keys::random()?;
    Ok(crate::bytes::hex(&bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Error;
    use proptest::prelude::*;

    fn written(directory: &Path, page: Page, body: &[u8]) -> PathBuf {
        let mut writer = PageWriter::create(directory, page).unwrap();
        for part in body.chunks(7001) {
            writer.write(part).unwrap();
        }
        let path = directory.join("file");
        writer.finish(&path).unwrap();
        path
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]

        #[test]
        fn a_damaged_page_is_refused_and_the_others_are_not(length in 1usize..200_000, at: prop::sample::Index, bit in 0u8..8, large: bool) {
            let kind = if large { LARGE } else { SMALL };
            let Page(size) = kind;
            let directory = tempfile::tempdir().unwrap();
            let body: Vec<u8> = (0..length).map(|it| (it % 251) as u8).collect();
            let path = written(directory.path(), kind, &body);
            let good = Pages::open(&path, kind).unwrap();
            prop_assert_eq!(good.get(0, length).unwrap(), body.as_slice());
            prop_assert!(good.verify() && good.get(1, length).is_none());
            let mut bytes = std::fs::read(&path).unwrap();
            let at = at.index(bytes.len());
            bytes[at] ^= 1 << bit;
            std::fs::remove_file(&path).unwrap();
            std::fs::write(&path, &bytes).unwrap();
            match Pages::open(&path, kind) {
                Ok(pages) if at < length => {
                    let page = at / size;
                    let untouched = (page + 1) * size % (length.div_ceil(size) * size);
                    prop_assert!(untouched / size == page || pages.get(untouched, 1).is_some());
                    prop_assert!(pages.get(at, 1).is_none() && pages.is_bad() && !pages.verify());
                    prop_assert!(!path.exists());
                }
                Ok(pages) => prop_assert!(!pages.verify()),
                Err(error) => prop_assert!(at >= length && matches!(error, Error::Damaged(_)), "{}", error),
            }
        }
    }

    #[test]
    fn a_file_that_was_not_finished_leaves_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let mut writer = PageWriter::create(directory.path(), SMALL).unwrap();
        writer.write(&[1; 99_999]).unwrap();
        drop(writer);
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
    }

    #[test]
    fn hostile_files_are_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = written(directory.path(), LARGE, &[7; 40_000]);
        let bytes = std::fs::read(&path).unwrap();
        for length in [1, 15, 16, 100, bytes.len() - 1] {
            std::fs::remove_file(&path).unwrap();
            std::fs::write(&path, &bytes[..length]).unwrap();
            assert!(Pages::open(&path, LARGE).is_err());
        }
    }
}
