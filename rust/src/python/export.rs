//! The way out: packer, manifest writer, and the packs they yield.

use std::ffi::c_int;
use std::sync::Arc;

use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use super::identity::PyWorkers;
use super::index::{PyIndex, PySegment};
use super::keys::PyKeyring;
use super::restore::PyManifest;
use super::{PyRoots, roots_out};
use crate::bytes::Id;
use crate::codec::{Codec, Encoder};
use crate::manifest::ManifestWriter;
use crate::outside::{SharedBytes, export};
use crate::pack::FinishedPack;
use crate::packer::{Check, Packer};
use crate::workers::Workers;

/// A finished pack; its buffer goes back to the workers when the last reference is dropped.
#[pyclass(frozen, name = "Pack", module = "snapferry._core")]
pub struct PyPack {
    buffer: Vec<u8>,
    length: usize,
    id: Id,
    group: usize,
    workers: Arc<Workers>,
}

impl PyPack {
    fn new(pack: FinishedPack, group: usize, workers: &Arc<Workers>) -> Self {
        Self { buffer: pack.buffer, length: pack.length, id: pack.id, group, workers: workers.clone() }
    }

    /// All of them, whose buffers go back to `workers`.
    pub fn all(packs: Vec<FinishedPack>, workers: &Arc<Workers>) -> Vec<Self> {
        packs.into_iter().map(|pack| Self::new(pack, 0, workers)).collect()
    }
}

impl Drop for PyPack {
    fn drop(&mut self) {
        self.workers.recycle(std::mem::take(&mut self.buffer));
    }
}

#[pymethods]
impl PyPack {
    #[getter]
    fn id<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, &self.id)
    }

    #[getter]
    fn group(&self) -> usize {
        self.group
    }

    #[getter]
    fn capacity(&self) -> usize {
        self.buffer.len()
    }

    fn __len__(&self) -> usize {
        self.length
    }

    #[allow(unsafe_code)] // The interpreter's calling convention; the argument is in `outside`.
    unsafe fn __getbuffer__(slf: Bound<'_, Self>, view: *mut ffi::Py_buffer, flags: c_int) -> PyResult<()> {
        let this = slf.get();
        // SAFETY: `view` comes from the interpreter; the class is frozen, so the buffer never changes while it lives.
        unsafe { export(slf.clone().into_any(), &this.buffer[..this.length], view, flags) }
    }
}

/// Builds a snapshot's trees.
#[pyclass(frozen, name = "ManifestWriter", module = "snapferry._core")]
pub struct PyManifestWriter {
    writer: Arc<ManifestWriter>,
    workers: Arc<Workers>,
}

#[pymethods]
impl PyManifestWriter {
    #[new]
    #[pyo3(signature = (keyring, workers, index, *, session, size, block_size, parent, check, areas=Vec::new()))]
    #[allow(clippy::too_many_arguments)] // Keyword arguments of Python.
    fn new(
        keyring: &PyKeyring,
        workers: &PyWorkers,
        index: &PyIndex,
        session: [u8; 16],
        size: Option<u64>,
        block_size: usize,
        parent: Option<&PyManifest>,
        check: &str,
        areas: Vec<(u64, usize)>,
    ) -> PyResult<Self> {
        // Pages are few: they are all checked, whatever part of the blocks is.
        Check::from_name(check)?;
        let parent = parent.map(|parent| parent.0.clone());
        let (keys, pool) = (keyring.0.clone(), workers.0.clone());
        let writer = ManifestWriter::new(keys, pool, index.0.clone(), session, size, block_size, parent)?;
        Ok(Self { writer: Arc::new(writer.with_areas(areas)?), workers: workers.0.clone() })
    }

    fn set_size(&self, py: Python<'_>, size: u64) -> PyResult<()> {
        Ok(py.detach(|| self.writer.set_size(size))?)
    }

    fn inherit(&self, py: Python<'_>) -> PyResult<()> {
        Ok(py.detach(|| self.writer.inherit())?)
    }

    fn clear(&self, py: Python<'_>, first: u64, count: u64) -> PyResult<()> {
        Ok(py.detach(|| self.writer.clear(first, count))?)
    }

    fn packs<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, py.detach(|| self.writer.packs()).as_flattened())
    }

    fn mark_unreadable(&self, py: Python<'_>, first: u64, count: u64) -> PyResult<()> {
        Ok(py.detach(|| self.writer.mark_unreadable(first, count))?)
    }

    fn advance(&self, py: Python<'_>, until: u64) -> PyResult<Vec<PyPack>> {
        let packs = py.detach(|| self.writer.advance(until))?;
        Ok(PyPack::all(packs, &self.workers))
    }

    fn finish<'py>(&self, py: Python<'py>) -> PyResult<(PyRoots<'py>, Vec<PyPack>)> {
        let (roots, packs) = py.detach(|| self.writer.finish())?;
        Ok((roots_out(py, roots), PyPack::all(packs, &self.workers)))
    }
}

/// Blocks in, packs out.
#[pyclass(frozen, name = "Packer", module = "snapferry._core")]
pub struct PyPacker {
    packer: Packer,
    workers: Arc<Workers>,
}

impl PyPacker {
    fn grouped(&self, packs: Vec<FinishedPack>) -> Vec<PyPack> {
        let group = |pack: &FinishedPack| self.packer.group_of(&pack.id).unwrap_or(0);
        packs
            .into_iter()
            .map(|pack| (group(&pack), pack))
            .map(|(it, pack)| PyPack::new(pack, it, &self.workers))
            .collect()
    }
}

#[pymethods]
impl PyPacker {
    #[new]
    #[pyo3(signature = (keyring, workers, index, manifest, *, session, codec, level, check, dry_run=false))]
    #[allow(clippy::too_many_arguments)] // Keyword arguments of Python.
    fn new(
        keyring: &PyKeyring,
        workers: &PyWorkers,
        index: &PyIndex,
        manifest: &PyManifestWriter,
        session: [u8; 16],
        codec: &str,
        level: i32,
        check: &str,
        dry_run: bool,
    ) -> PyResult<Self> {
        let packer = Packer::new(
            keyring.0.clone(),
            workers.0.clone(),
            index.0.clone(),
            manifest.writer.clone(),
            session,
            Encoder::new(Codec::from_name(codec)?, level),
            Check::from_name(check)?,
            dry_run,
        );
        Ok(Self { packer, workers: workers.0.clone() })
    }

    #[getter]
    fn room(&self, py: Python<'_>) -> usize {
        // A call that seals holds the lock for as long as it takes: nobody waits for it with the GIL.
        py.detach(|| self.packer.room())
    }

    fn provide(&self, py: Python<'_>, capacity: usize) -> PyResult<()> {
        Ok(py.detach(|| self.packer.provide(capacity))?)
    }

    fn process(&self, py: Python<'_>, first: u64, data: &Bound<'_, PyAny>) -> PyResult<Vec<PyPack>> {
        let data = SharedBytes::get(data)?;
        Ok(py.detach(|| self.packer.process(first, data.bytes()).map(|packs| self.grouped(packs)))?)
    }

    fn take_over(&self, py: Python<'_>, first: u64, count: u64) -> PyResult<Vec<(u64, u64)>> {
        Ok(py.detach(|| self.packer.take_over(first, count))?)
    }

    fn finish(&self, py: Python<'_>) -> PyResult<Vec<PyPack>> {
        Ok(py.detach(|| self.packer.finish().map(|pack| self.grouped(pack.into_iter().collect())))?)
    }

    fn segment(&self, py: Python<'_>, packs: Vec<Id>) -> PyResult<Option<PySegment>> {
        Ok(py.detach(|| self.packer.segment(&packs))?.map(PySegment))
    }

    fn counts(&self) -> (u64, u64, u64, u64) {
        self.packer.counts()
    }
}

pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<PyPack>()?;
    module.add_class::<PyManifestWriter>()?;
    module.add_class::<PyPacker>()
}
