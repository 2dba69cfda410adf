//! The only unsafe code: memory and descriptors that somebody outside of Rust owns. Each block says why it is sound.

#![allow(unsafe_code)]

use std::fs::File;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::path::Path;

use crate::error::{Error, Result};

/// A file of the local cache, mapped for reading.
pub struct Mapped(memmap2::Mmap);

impl Mapped {
    /// Maps the whole file.
    pub fn open(path: &Path) -> Result<Self> {
        let file = File::open(path)?;
        // SAFETY: cache files are written once under another name, renamed into place and never changed; they are only
        // ever unlinked, which leaves the mapping whole. Whoever truncates one behind our back gets SIGBUS, as with any mapping.
        let map = unsafe { memmap2::Mmap::map(&file)? };
        Ok(Self(map))
    }

    /// The file's bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// A hint that little is read here and there: each time only what is touched.
    pub fn read_scattered(&self) {
        let _ = self.0.advise(memmap2::Advice::Random);
    }

    /// A hint that all of it is read again and again, here and there: in large pages, which take fewer of the processor's own entries.
    pub fn read_hot(&self) {
        #[cfg(target_os = "linux")]
        let _ = self.0.advise(memmap2::Advice::HugePage);
    }

    /// A hint that this range is read next.
    pub fn read_next(&self, at: usize, length: usize) {
        let _ = self.0.advise_range(memmap2::Advice::WillNeed, at, length);
    }
}

/// A hint that this memory is read and written here and there: in large pages it takes fewer of the processor's own entries.
/// For what was just allocated and not touched yet.
pub fn prefer_large_pages(memory: &mut [u64]) {
    #[cfg(target_os = "linux")]
    {
        const PAGE: usize = 4096;
        let (start, length) = (memory.as_mut_ptr().addr(), std::mem::size_of_val(memory));
        let skipped = start.next_multiple_of(PAGE) - start;
        let whole = length.saturating_sub(skipped) / PAGE * PAGE;
        // SAFETY: the range lies within `memory`, which is borrowed for writing. The advice changes how it is backed, not what is in it.
        unsafe {
            libc::madvise(
                memory.as_mut_ptr().byte_add(skipped.min(length)).cast(),
                whole,
                libc::MADV_HUGEPAGE,
            );
        }
    }
}

/// Borrows a descriptor that the Python caller holds open for the length of the call.
pub fn descriptor(fd: i32) -> Result<BorrowedFd<'static>> {
    if fd < 0 {
        return Err(Error::Usage(format!("{fd} is no file descriptor")));
    }
    // SAFETY: `fd` is not -1. The caller keeps the file open until the call returns; if it does not, the system answers
    // EBADF or another file is read or written, as it would be for Python's own os.pwrite.
    Ok(unsafe { BorrowedFd::borrow_raw(fd) })
}

/// Asks the system to begin writing that range of a file out, without waiting for it. A hint: whether it could does not matter,
/// because what must be durable is synced anyway.
pub fn begin_writeback(fd: BorrowedFd<'_>, offset: u64, length: u64) {
    let (Ok(offset), Ok(length)) = (i64::try_from(offset), i64::try_from(length)) else { return };
    #[cfg(target_os = "linux")]
    // SAFETY: `fd` is open for the length of the borrow, and no memory is passed.
    unsafe {
        libc::sync_file_range(fd.as_raw_fd(), offset, length, libc::SYNC_FILE_RANGE_WRITE);
    }
}

#[cfg(feature = "python")]
pub use python::{SharedBytes, WritableBytes, export};

#[cfg(feature = "python")]
mod python {
    use std::ffi::c_int;

    use pyo3::buffer::PyBuffer;
    use pyo3::exceptions::{PyBufferError, PyValueError};
    use pyo3::ffi;
    use pyo3::prelude::*;

    /// Bytes of a Python object that are read while the GIL is released.
    pub struct SharedBytes(PyBuffer<u8>);

    impl SharedBytes {
        /// Asks the object for its bytes, contiguous.
        pub fn get(object: &Bound<'_, PyAny>) -> PyResult<Self> {
            let buffer = PyBuffer::get(object)?;
            if !buffer.is_c_contiguous() {
                return Err(PyValueError::new_err("the bytes must be contiguous"));
            }
            Ok(Self(buffer))
        }

        /// The bytes. Nobody may write to them until this value is dropped.
        pub fn bytes(&self) -> &[u8] {
            if self.0.len_bytes() == 0 {
                return &[];
            }
            // SAFETY: the exporter keeps the memory alive and in place while the buffer is held, which is as long as
            // `self` is. Immutable exporters (bytes, packs) cannot change. Writable ones (read buffers) belong to one
            // pipeline task that waits for this call before it fills them again: the rule stands in `_core.pyi`.
            unsafe { std::slice::from_raw_parts(self.0.buf_ptr().cast(), self.0.len_bytes()) }
        }
    }

    // SAFETY: the buffer is only read through `bytes`, and released on drop with the GIL held (pyo3 attaches for it).
    unsafe impl Sync for SharedBytes {}
    // SAFETY: as above; nothing in it is bound to the thread that made it.
    unsafe impl Send for SharedBytes {}

    /// Bytes of a Python object that are written while the GIL is released.
    pub struct WritableBytes(PyBuffer<u8>);

    impl WritableBytes {
        /// Asks the object for its bytes, contiguous and writable.
        pub fn get(object: &Bound<'_, PyAny>) -> PyResult<Self> {
            let buffer = PyBuffer::get(object)?;
            if buffer.readonly() || !buffer.is_c_contiguous() {
                return Err(PyValueError::new_err("the bytes must be contiguous and writable"));
            }
            Ok(Self(buffer))
        }

        /// How many bytes there are.
        pub fn size(&self) -> usize {
            self.0.len_bytes()
        }

        /// Copies `bytes` to the position `at`; nothing if they would reach past the end.
        pub fn put(&self, at: usize, bytes: &[u8]) {
            if at.checked_add(bytes.len()).is_none_or(|end| end > self.size()) {
                return;
            }
            // SAFETY: the range was just checked, and the memory is alive and in place as above. No reference to it is made,
            // since several calls fill one object side by side: each writes other blocks, or the same bytes to the same
            // place. `bytes` lies in memory of the core's own.
            unsafe {
                self.0.buf_ptr().cast::<u8>().add(at).copy_from_nonoverlapping(bytes.as_ptr(), bytes.len());
            }
        }
    }

    // SAFETY: as for SharedBytes; it is written only through `put`, whose writers keep apart.
    unsafe impl Sync for WritableBytes {}
    // SAFETY: as above.
    unsafe impl Send for WritableBytes {}

    /// Fills a Python buffer view with `bytes`, which live as long as `owner` and never change.
    ///
    /// # Safety
    /// `view` is a pointer that the interpreter passed to `__getbuffer__`; `bytes` is owned by `owner` and immutable.
    pub unsafe fn export(
        owner: Bound<'_, PyAny>,
        bytes: &[u8],
        view: *mut ffi::Py_buffer,
        flags: c_int,
    ) -> PyResult<()> {
        if view.is_null() {
            return Err(PyBufferError::new_err("no view to fill"));
        }
        // SAFETY: `view` is valid by this function's contract; PyBuffer_FillInfo takes its own reference to `owner`, so
        // the bytes outlive the view; it refuses writable requests because of the read-only flag.
        let failed = unsafe {
            ffi::PyBuffer_FillInfo(
                view,
                owner.as_ptr(),
                bytes.as_ptr().cast_mut().cast(),
                bytes.len() as ffi::Py_ssize_t,
                1,
                flags,
            )
        };
        if failed == -1 { Err(PyErr::fetch(owner.py())) } else { Ok(()) }
    }
}
