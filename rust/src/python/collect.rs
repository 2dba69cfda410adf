//! What a collection needs: marking, sweeping, and copying live records.

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::Arc;

use pyo3::prelude::*;
use pyo3::types::PyBytes;

use super::export::PyPack;
use super::identity::PyWorkers;
use super::index::{PyIndex, PySegment};
use super::keys::PyKeyring;
use super::restore::PyManifest;
use super::{RootsArgument, roots_in, split_ids};
use crate::bytes::Id;
use crate::collect::{Marker, Repacker, rescued, sweep};
use crate::manifest::Manifest;
use crate::outside::SharedBytes;
use crate::workers::Workers;

/// (pack, live bytes, all bytes, holds pages).
type PyUsage<'py> = (Bound<'py, PyBytes>, u64, u64, bool);
/// (pack, its records).
type PyRecords<'py> = (Bound<'py, PyBytes>, Vec<(u32, u32)>);

/// A set of pack ids, handed over once.
#[pyclass(frozen, name = "PackSet", module = "snapferry._core")]
pub struct PyPackSet(pub HashSet<Id>);

#[pymethods]
impl PyPackSet {
    #[new]
    fn new(ids: &Bound<'_, PyAny>) -> PyResult<Self> {
        Ok(Self(split_ids(SharedBytes::get(ids)?.bytes())?.collect()))
    }

    fn __len__(&self) -> usize {
        self.0.len()
    }

    fn __contains__(&self, pack: Id) -> bool {
        self.0.contains(&pack)
    }
}

/// What is reached from snapshots.
#[pyclass(frozen, name = "Marker", module = "snapferry._core")]
pub struct PyMarker(Arc<Marker>);

#[pymethods]
impl PyMarker {
    #[new]
    #[pyo3(signature = (directory, in_parts=false))]
    fn new(directory: PathBuf, in_parts: bool) -> Self {
        Self(Arc::new(Marker::new(directory, in_parts)))
    }

    fn manifest(
        &self,
        keyring: &PyKeyring,
        roots: RootsArgument,
        size: u64,
        block_size: usize,
    ) -> PyResult<PyManifest> {
        let manifest =
            Manifest::marking(keyring.0.clone(), roots_in(roots)?, size, block_size, self.0.clone())?;
        Ok(PyManifest::new_from(manifest, size, block_size))
    }

    fn page_packs<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, py.detach(|| self.0.page_packs()).as_flattened())
    }

    fn sweep<'py>(
        &self,
        py: Python<'py>,
        index: &PyIndex,
        present: &PyPackSet,
        preferred: &PyPackSet,
    ) -> PyResult<Vec<PyUsage<'py>>> {
        let (found, _) = py.detach(|| sweep(&self.0, &index.0, &present.0, &preferred.0, &HashSet::new()))?;
        Ok(found.packs.iter().map(|it| (PyBytes::new(py, &it.pack), it.live, it.total, it.pages)).collect())
    }

    fn live_records<'py>(
        &self,
        py: Python<'py>,
        index: &PyIndex,
        present: &PyPackSet,
        preferred: &PyPackSet,
        of: &PyPackSet,
    ) -> PyResult<Vec<PyRecords<'py>>> {
        let (_, records) = py.detach(|| sweep(&self.0, &index.0, &present.0, &preferred.0, &of.0))?;
        Ok(records.into_iter().map(|(pack, records)| (PyBytes::new(py, &pack), records)).collect())
    }

    fn rescued<'py>(
        &self,
        py: Python<'py>,
        index: &PyIndex,
        present: &PyPackSet,
        condemned: &PyPackSet,
    ) -> PyResult<Bound<'py, PyBytes>> {
        let kept = py.detach(|| rescued(&self.0, &index.0, &present.0, &condemned.0))?;
        Ok(PyBytes::new(py, kept.into_iter().collect::<Vec<_>>().as_flattened()))
    }
}

/// Copies live records into new packs.
#[pyclass(frozen, name = "Repacker", module = "snapferry._core")]
pub struct PyRepacker {
    repacker: Repacker,
    workers: Arc<Workers>,
}

#[pymethods]
impl PyRepacker {
    #[new]
    #[pyo3(signature = (keyring, workers, *, session, capacity))]
    fn new(keyring: &PyKeyring, workers: &PyWorkers, session: [u8; 16], capacity: usize) -> Self {
        let repacker = Repacker::new(keyring.0.clone(), workers.0.clone(), session, capacity);
        Self { repacker, workers: workers.0.clone() }
    }

    fn take(
        &self,
        py: Python<'_>,
        header: &Bound<'_, PyAny>,
        start: u32,
        data: &Bound<'_, PyAny>,
        records: Vec<(u32, u32)>,
    ) -> PyResult<Vec<PyPack>> {
        let (header, data) = (SharedBytes::get(header)?, SharedBytes::get(data)?);
        let packs = py.detach(|| self.repacker.take(header.bytes(), (start, data.bytes()), &records))?;
        Ok(PyPack::all(packs, &self.workers))
    }

    fn finish(&self, py: Python<'_>) -> PyResult<Vec<PyPack>> {
        let pack = py.detach(|| self.repacker.finish())?;
        Ok(PyPack::all(pack.into_iter().collect(), &self.workers))
    }

    fn segments(&self, py: Python<'_>) -> PyResult<Vec<PySegment>> {
        Ok(py.detach(|| self.repacker.segments())?.into_iter().map(PySegment).collect())
    }
}

pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<PyPackSet>()?;
    module.add_class::<PyMarker>()?;
    module.add_class::<PyRepacker>()
}
