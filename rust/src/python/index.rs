//! The index, and the segments it is made of.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use super::keys::PyKeyring;
use super::{PyFetch, fetch, split_ids};
use crate::bytes::Id;
use crate::error::Error;
use crate::index::{Index, IndexedPack, NewSegment};
use crate::outside::SharedBytes;
use crate::pack::{Tail, read_tail};
use crate::packer::seal_segments;

/// A new index segment.
#[pyclass(frozen, name = "Segment", module = "snapferry._core")]
pub struct PySegment(pub NewSegment);

#[pymethods]
impl PySegment {
    #[getter]
    fn id(&self) -> &str {
        &self.0.id
    }

    #[getter]
    fn data<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, &self.0.data)
    }

    #[getter]
    fn plain<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, &self.0.plain)
    }
}

/// Block id prefix -> place.
#[pyclass(frozen, name = "Index", module = "snapferry._core")]
pub struct PyIndex(pub Arc<Index>);

#[pymethods]
impl PyIndex {
    #[new]
    fn new() -> Self {
        Self(Arc::default())
    }

    fn add_segment(&self, py: Python<'_>, path: PathBuf) -> PyResult<()> {
        Ok(py.detach(|| self.0.map_segment(&path))?)
    }

    fn add_pack(
        &self,
        py: Python<'_>,
        keyring: &PyKeyring,
        pack: Id,
        size: u64,
        tail: &Bound<'_, PyAny>,
    ) -> PyResult<usize> {
        let tail = SharedBytes::get(tail)?;
        match py.detach(|| read_tail(&keyring.0, size, tail.bytes()))? {
            Tail::Table(entries) => {
                let count = entries.len();
                self.0.add_pack(IndexedPack { id: pack, size, entries });
                Ok(count)
            }
            Tail::Longer(needed) => Err(PyValueError::new_err(format!("the last {needed} bytes are needed"))),
        }
    }

    fn packs<'py>(&self, py: Python<'py>) -> Vec<(Bound<'py, PyBytes>, u64)> {
        py.detach(|| self.0.packs()).into_iter().map(|(id, size)| (PyBytes::new(py, &id), size)).collect()
    }

    fn declare_usable(&self, py: Python<'_>, packs: &Bound<'_, PyAny>) -> PyResult<()> {
        let packs = SharedBytes::get(packs)?;
        Ok(py.detach(|| {
            let ids: HashSet<Id> = split_ids(packs.bytes())?.collect();
            self.0.declare_usable(ids);
            Ok::<_, Error>(())
        })?)
    }

    fn is_usable(&self, pack: Id) -> bool {
        self.0.is_usable(&pack)
    }

    fn all_usable(&self, py: Python<'_>, packs: &Bound<'_, PyAny>) -> PyResult<bool> {
        let packs = SharedBytes::get(packs)?;
        Ok(py.detach(|| Ok::<_, Error>(self.0.all_usable(split_ids(packs.bytes())?)))?)
    }

    fn added(&self, py: Python<'_>, keyring: &PyKeyring) -> PyResult<Vec<PySegment>> {
        let segments = py.detach(|| seal_segments(&keyring.0, &self.0.added()))?;
        Ok(segments.into_iter().map(PySegment).collect())
    }

    fn find<'py>(&self, py: Python<'py>, block_id: Id) -> Option<PyFetch<'py>> {
        self.0.find(&block_id).map(|place| fetch(py, (place.pack, place.offset, place.length)))
    }

    fn __len__(&self) -> usize {
        self.0.len()
    }
}

#[pyfunction]
fn merge_segments(
    py: Python<'_>,
    keyring: &PyKeyring,
    paths: Vec<PathBuf>,
    drop_packs: &Bound<'_, PyAny>,
) -> PyResult<Vec<PySegment>> {
    let drop_packs = SharedBytes::get(drop_packs)?;
    let segments = py.detach(|| {
        let paths: Vec<&Path> = paths.iter().map(PathBuf::as_path).collect();
        let drop_packs: HashSet<Id> = split_ids(drop_packs.bytes())?.collect();
        crate::index::merge_segments(&keyring.0, &paths, &drop_packs)
    })?;
    Ok(segments.into_iter().map(PySegment).collect())
}

pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<PySegment>()?;
    module.add_class::<PyIndex>()?;
    module.add_function(wrap_pyfunction!(merge_segments, module)?)
}
