//! Writing to the recipient of a restore: a file or a device, changed only where it differs.

use std::io;
use std::os::fd::BorrowedFd;

use rustix::fs::{FallocateFlags, SeekFrom, fallocate, seek};
use rustix::io::{Errno, pread, pwrite};

use crate::block::is_zero;
use crate::error::Result;

const CHUNK: usize = 1 << 20;

/// Writes all of `data` at `offset`.
pub fn write_all(fd: BorrowedFd<'_>, mut data: &[u8], mut offset: u64) -> Result<()> {
    while !data.is_empty() {
        match pwrite(fd, data, offset) {
            Ok(0) => return Err(io::Error::from(io::ErrorKind::WriteZero).into()),
            Ok(count) => {
                data = &data[count..];
                offset += count as u64;
            }
            Err(Errno::INTR) => {}
            Err(error) => return Err(io::Error::from(error).into()),
        }
    }
    Ok(())
}

/// Reads until `buffer` is full or the file ends; returns how much came.
pub fn read_full(fd: BorrowedFd<'_>, buffer: &mut [u8], offset: u64) -> Result<usize> {
    let mut done = 0;
    while done < buffer.len() {
        match pread(fd, &mut buffer[done..], offset + done as u64) {
            Ok(0) => break,
            Ok(count) => done += count,
            Err(Errno::INTR) => {}
            Err(error) => return Err(io::Error::from(error).into()),
        }
    }
    Ok(done)
}

/// Makes a range read as zeros and returns the bytes changed. Holes of files are skipped unread; what is not zero is
/// punched out where the file system or device can, else overwritten.
pub fn zero_range(fd: BorrowedFd<'_>, offset: u64, length: u64, block_device: bool) -> Result<u64> {
    let end = offset + length;
    let mut at = offset;
    let mut changed = 0;
    let mut buffer = vec![0; CHUNK.min(length as usize)];
    while at < end {
        if !block_device {
            match seek(fd, SeekFrom::Data(at)) {
                Ok(data) if data >= end => break,
                Ok(data) => at = at.max(data),
                Err(Errno::NXIO) => break,
                // A file system that knows no holes: everything is read.
                Err(Errno::INVAL) => {}
                Err(error) => return Err(io::Error::from(error).into()),
            }
        }
        let want = (end - at).min(CHUNK as u64) as usize;
        let count = read_full(fd, &mut buffer[..want], at)?;
        if count == 0 {
            break;
        }
        if !is_zero(&buffer[..count]) {
            let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
            match fallocate(fd, flags, at, count as u64) {
                Ok(()) => {}
                Err(Errno::OPNOTSUPP | Errno::INVAL | Errno::NOSYS | Errno::NODEV) => {
                    buffer[..count].fill(0);
                    write_all(fd, &buffer[..count], at)?;
                }
                Err(error) => return Err(io::Error::from(error).into()),
            }
            changed += count as u64;
        }
        at += count as u64;
    }
    Ok(changed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::io::{Read, Seek, Write};
    use std::os::fd::AsFd;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(40))]
        #[test]
        fn zeroed_range_reads_as_zeros_and_nothing_else_changes(
            runs in prop::collection::vec((any::<bool>(), 1usize..600_000), 1..6),
            from in 0usize..2_000_000,
            length in 1usize..2_000_000,
        ) {
            let mut content = Vec::new();
            for (data, count) in runs { content.extend(std::iter::repeat_n(u8::from(data) * 7, count)); }
            let mut file = tempfile::tempfile().unwrap();
            file.write_all(&content).unwrap();
            let from = from.min(content.len());
            let until = (from + length).min(content.len());
            zero_range(file.as_fd(), from as u64, (until - from) as u64, false).unwrap();
            content[from..until].fill(0);
            let mut back = Vec::new();
            file.rewind().unwrap();
            file.read_to_end(&mut back).unwrap();
            prop_assert!(back == content);
        }
    }
}
