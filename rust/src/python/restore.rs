//! The way back: manifests, plans, and writing to a target.

use std::collections::HashSet;
use std::sync::Arc;

use pyo3::prelude::*;
use pyo3::types::PyBytes;

use super::collect::PyPackSet;
use super::identity::PyWorkers;
use super::index::PyIndex;
use super::keys::PyKeyring;
use super::{PyFetch, RootsArgument, fetches, numbered, roots_in, split_ids};
use crate::bytes::Id;
use crate::manifest::Manifest;
use crate::outside::{SharedBytes, WritableBytes, descriptor};
use crate::plan::Plan;
use crate::stretches::Stretch;

/// (packs, missing packs, lost runs).
type PyResolved<'py> = (Bound<'py, PyBytes>, Bound<'py, PyBytes>, Vec<(u64, u64)>);

/// One snapshot's trees.
#[pyclass(frozen, name = "Manifest", module = "snapferry._core")]
pub struct PyManifest(pub Arc<Manifest>, u64, usize);

impl PyManifest {
    /// Wraps a manifest of a volume of that size and block size.
    pub fn new_from(manifest: Manifest, size: u64, block_size: usize) -> Self {
        Self(Arc::new(manifest), size, block_size)
    }
}

#[pymethods]
impl PyManifest {
    #[new]
    fn new(keyring: &PyKeyring, roots: RootsArgument, size: u64, block_size: usize) -> PyResult<Self> {
        let manifest = Manifest::new(keyring.0.clone(), roots_in(roots)?, size, block_size)?;
        Ok(Self::new_from(manifest, size, block_size))
    }

    #[getter]
    fn blocks(&self) -> u64 {
        self.0.blocks
    }

    #[pyo3(signature = (first, end, places=true))]
    fn missing<'py>(&self, py: Python<'py>, first: u64, end: u64, places: bool) -> Vec<PyFetch<'py>> {
        fetches(py, py.detach(|| self.0.missing(first, end, places)))
    }

    #[pyo3(signature = (runs, places=true))]
    fn missing_of<'py>(&self, py: Python<'py>, runs: Vec<(u64, u64)>, places: bool) -> Vec<PyFetch<'py>> {
        fetches(py, py.detach(|| self.0.missing_of(&runs, places)))
    }

    fn differing(
        &self,
        py: Python<'_>,
        workers: &PyWorkers,
        first: u64,
        data: &Bound<'_, PyAny>,
    ) -> PyResult<Vec<(u64, u64)>> {
        let data = SharedBytes::get(data)?;
        Ok(py.detach(|| self.0.differing(&workers.0, first, data.bytes(), self.2))?)
    }

    fn feed(&self, py: Python<'_>, pack: Id, offset: u32, data: &Bound<'_, PyAny>) -> PyResult<usize> {
        let data = SharedBytes::get(data)?;
        Ok(py.detach(|| self.0.feed(&pack, offset, data.bytes())))
    }

    fn give_up(&self, py: Python<'_>, pack: Id, offset: u32, length: u32) {
        py.detach(|| self.0.give_up(&pack, offset, length));
    }

    fn lost(&self, py: Python<'_>, first: u64, end: u64) -> Vec<(u64, u64)> {
        py.detach(|| self.0.lost(first, end))
    }

    fn evict(&self, py: Python<'_>, until: u64) {
        py.detach(|| self.0.evict(until));
    }

    fn next_data(&self, py: Python<'_>, first: u64) -> u64 {
        py.detach(|| self.0.next_data(first))
    }

    fn ids<'py>(&self, py: Python<'py>, first: u64, end: u64) -> PyResult<Bound<'py, PyBytes>> {
        Ok(PyBytes::new(py, py.detach(|| self.0.ids(first, end))?.as_flattened()))
    }

    fn packs<'py>(&self, py: Python<'py>, first: u64, end: u64) -> Bound<'py, PyBytes> {
        PyBytes::new(py, py.detach(|| self.0.packs(first, end)).as_flattened())
    }

    fn page_packs<'py>(&self, py: Python<'py>, first: u64, end: u64) -> Bound<'py, PyBytes> {
        let pages = py.detach(|| self.0.pages(first, end).into_iter().collect::<Vec<_>>());
        PyBytes::new(py, pages.as_flattened())
    }

    fn any_lost(&self, py: Python<'_>) -> bool {
        py.detach(|| self.0.any_lost())
    }

    fn resolve<'py>(
        &self,
        py: Python<'py>,
        index: &PyIndex,
        present: &PyPackSet,
        first: u64,
        end: u64,
    ) -> PyResult<PyResolved<'py>> {
        let found = py.detach(|| self.0.resolve(&index.0, &present.0, first, end))?;
        let flat = |ids: HashSet<Id>| PyBytes::new(py, ids.into_iter().collect::<Vec<_>>().as_flattened());
        Ok((flat(found.packs), flat(found.missing), found.lost))
    }
}

#[pyfunction]
fn missing_for_diff<'py>(
    py: Python<'py>,
    a: &PyManifest,
    b: &PyManifest,
    first: u64,
    end: u64,
) -> (Vec<PyFetch<'py>>, Vec<PyFetch<'py>>) {
    let (of_a, of_b) = py.detach(|| crate::manifest::missing_for_diff(&a.0, &b.0, first, end));
    (fetches(py, of_a), fetches(py, of_b))
}

#[pyfunction]
fn diff(py: Python<'_>, a: &PyManifest, b: &PyManifest, first: u64, end: u64) -> PyResult<Vec<(u64, u64)>> {
    Ok(py.detach(|| crate::manifest::diff(&a.0, &b.0, first, end))?)
}

/// How to bring a window of blocks back.
#[pyclass(frozen, name = "Plan", module = "snapferry._core")]
pub struct PyPlan(Plan);

#[pymethods]
impl PyPlan {
    #[new]
    fn new(
        py: Python<'_>,
        keyring: &PyKeyring,
        workers: &PyWorkers,
        manifest: &PyManifest,
        first: u64,
        end: u64,
        max_extent: u32,
    ) -> PyResult<Self> {
        let (keys, pool) = (keyring.0.clone(), workers.0.clone());
        let shape = (manifest.1, manifest.2);
        Ok(Self(py.detach(|| Plan::new(keys, pool, &manifest.0, (first, end), shape, max_extent))?))
    }

    fn headers<'py>(&self, py: Python<'py>) -> Vec<PyFetch<'py>> {
        fetches(py, self.0.headers())
    }

    fn learn(&self, pack: Id, header: &Bound<'_, PyAny>) -> PyResult<bool> {
        Ok(self.0.learn(&pack, SharedBytes::get(header)?.bytes()))
    }

    fn extents<'py>(&self, py: Python<'py>) -> Vec<(usize, PyFetch<'py>)> {
        numbered(py, self.0.extents())
    }

    fn zeros(&self) -> Vec<Stretch> {
        self.0.zeros().to_vec()
    }

    fn unreadable(&self) -> Vec<Stretch> {
        self.0.unreadable().to_vec()
    }

    fn lost(&self) -> Vec<Stretch> {
        self.0.lost()
    }

    fn extents_in(&self, packs: &Bound<'_, PyAny>) -> PyResult<Vec<Stretch>> {
        let packs = SharedBytes::get(packs)?;
        Ok(self.0.extents_in(&split_ids(packs.bytes())?.collect()))
    }

    fn compare(&self, py: Python<'_>, fd: i32) -> PyResult<u64> {
        let target = descriptor(fd)?;
        Ok(py.detach(|| self.0.compare(target))?)
    }

    fn write(
        &self,
        py: Python<'_>,
        extent: usize,
        data: &Bound<'_, PyAny>,
        fd: i32,
    ) -> PyResult<(u64, usize)> {
        let (data, target) = (SharedBytes::get(data)?, descriptor(fd)?);
        Ok(py.detach(|| self.0.write(extent, data.bytes(), target))?)
    }

    fn copy(
        &self,
        py: Python<'_>,
        extent: usize,
        data: &Bound<'_, PyAny>,
        out: &Bound<'_, PyAny>,
        out_offset: u64,
    ) -> PyResult<usize> {
        let (data, out) = (SharedBytes::get(data)?, WritableBytes::get(out)?);
        let window = (out_offset, out.size());
        Ok(py.detach(|| self.0.copy_to(extent, data.bytes(), window, |at, bytes| out.put(at, bytes)))?)
    }

    fn relocate<'py>(&self, py: Python<'py>, index: &PyIndex) -> Vec<(usize, PyFetch<'py>)> {
        numbered(py, self.0.relocate(&index.0))
    }
}

#[pyfunction]
fn zero_range(py: Python<'_>, fd: i32, offset: u64, length: u64, block_device: bool) -> PyResult<u64> {
    let target = descriptor(fd)?;
    Ok(py.detach(|| crate::target::zero_range(target, offset, length, block_device))?)
}

pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<PyManifest>()?;
    module.add_class::<PyPlan>()?;
    module.add_function(wrap_pyfunction!(missing_for_diff, module)?)?;
    module.add_function(wrap_pyfunction!(diff, module)?)?;
    module.add_function(wrap_pyfunction!(zero_range, module)?)
}
