//! The index, and the segments it is made of.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use super::keys::PyKeyring;
use super::{PyFetch, fetch, split_ids};
use crate::bytes::{Id, hex};
use crate::error::Error;
use crate::index::{Fold, IdSet, Index, IndexedPack, NewSegment, Shape};
use crate::outside::SharedBytes;
use crate::pack::{Tail, read_tail};
use crate::workers::lock;

/// A new index segment.
#[pyclass(frozen, name = "Segment", module = "snapferry._core")]
pub struct PySegment(pub NewSegment);

#[pymethods]
impl PySegment {
    #[getter]
    fn id(&self) -> String {
        hex(&self.0.id)
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

    fn open<'py>(
        &self,
        py: Python<'py>,
        directory: PathBuf,
        wanted: &Bound<'_, PyAny>,
        whole: bool,
    ) -> PyResult<Bound<'py, PyBytes>> {
        let wanted = id_set(wanted)?;
        let missing = py.detach(|| self.0.open(&directory, wanted, whole).concat());
        Ok(PyBytes::new(py, &missing))
    }

    #[getter]
    fn files(&self) -> Vec<String> {
        self.0.files()
    }

    #[getter]
    fn crowded(&self) -> bool {
        self.0.is_crowded()
    }

    fn verify(&self, py: Python<'_>, number: usize) -> PyResult<bool> {
        Ok(py.detach(|| self.0.verify(number))?)
    }

    fn add_segment(&self, py: Python<'_>, segment: Id, plain: &Bound<'_, PyAny>) -> PyResult<()> {
        let plain = SharedBytes::get(plain)?;
        Ok(py.detach(|| self.0.add_segment(segment, plain.bytes().to_vec()))?)
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
                self.0.add_pack(&IndexedPack { id: pack, size, entries })?;
                Ok(count)
            }
            Tail::Longer(needed) => Err(PyValueError::new_err(format!("the last {needed} bytes are needed"))),
        }
    }

    fn packs<'py>(&self, py: Python<'py>) -> Vec<(Bound<'py, PyBytes>, u64)> {
        py.detach(|| self.0.packs()).into_iter().map(|(id, size)| (PyBytes::new(py, &id), size)).collect()
    }

    fn packs_of<'py>(&self, py: Python<'py>, segments: &Bound<'_, PyAny>) -> PyResult<Bound<'py, PyBytes>> {
        let segments = id_set(segments)?;
        let named = py.detach(|| {
            let mut named = HashSet::new();
            self.0.each_pack(Some(&segments), |id, _| {
                named.insert(id);
            });
            named.into_iter().collect::<Vec<Id>>().concat()
        });
        Ok(PyBytes::new(py, &named))
    }

    fn segments_naming<'py>(
        &self,
        py: Python<'py>,
        packs: &Bound<'_, PyAny>,
    ) -> PyResult<Bound<'py, PyBytes>> {
        let packs = id_set(packs)?;
        Ok(PyBytes::new(py, &py.detach(|| self.0.segments_naming(&packs).concat())))
    }

    fn named<'py>(&self, py: Python<'py>, packs: &Bound<'_, PyAny>) -> PyResult<Bound<'py, PyBytes>> {
        let packs = SharedBytes::get(packs)?;
        let named =
            py.detach(|| Ok::<_, Error>(self.0.named(split_ids(packs.bytes())?.collect()).concat()))?;
        Ok(PyBytes::new(py, &named))
    }

    fn misfits<'py>(
        &self,
        py: Python<'py>,
        packs: &Bound<'_, PyAny>,
        sizes: Vec<u64>,
    ) -> PyResult<Vec<(Bound<'py, PyBytes>, u64)>> {
        let packs = SharedBytes::get(packs)?;
        let found = py.detach(|| self.0.misfits(split_ids(packs.bytes())?.zip(sizes).collect()));
        Ok(found?.into_iter().map(|(id, size)| (PyBytes::new(py, &id), size)).collect())
    }

    fn declare_usable(&self, py: Python<'_>, packs: &Bound<'_, PyAny>) -> PyResult<()> {
        let packs = id_set(packs)?;
        py.detach(|| self.0.declare_usable(packs));
        Ok(())
    }

    fn declare_groups(&self, py: Python<'_>, groups: Vec<Bound<'_, PyAny>>) -> PyResult<()> {
        let groups = groups.iter().map(id_set).collect::<PyResult<Vec<_>>>()?;
        py.detach(|| self.0.declare_groups(groups));
        Ok(())
    }

    #[pyo3(signature = (pack, group=0))]
    fn is_usable(&self, pack: Id, group: usize) -> bool {
        self.0.is_usable(group, &pack)
    }

    fn all_usable(&self, py: Python<'_>, packs: &Bound<'_, PyAny>) -> PyResult<bool> {
        let packs = SharedBytes::get(packs)?;
        Ok(py.detach(|| Ok::<_, Error>(self.0.all_usable(split_ids(packs.bytes())?)))?)
    }

    #[getter]
    fn added(&self) -> usize {
        self.0.added()
    }

    fn take_added(&self, py: Python<'_>, keyring: &PyKeyring) -> PyResult<Vec<PySegment>> {
        let segments = py.detach(|| self.0.take_added(&keyring.0))?;
        Ok(segments.into_iter().map(PySegment).collect())
    }

    fn find<'py>(&self, py: Python<'py>, block_id: Id) -> Option<PyFetch<'py>> {
        self.0.find(&block_id).map(|place| fetch(py, (place.pack, place.offset, place.length)))
    }

    fn __len__(&self) -> usize {
        self.0.len()
    }
}

/// A fold of the loose segments of an index.
#[pyclass(frozen, name = "Fold", module = "snapferry._core")]
pub struct PyFold(Mutex<Option<Fold>>);

#[pymethods]
impl PyFold {
    #[new]
    fn new(py: Python<'_>, index: &PyIndex, directory: PathBuf, last: bool) -> PyResult<Self> {
        let fold = py.detach(|| Fold::begin(&index.0, &directory, Shape::default(), last))?;
        Ok(Self(Mutex::new(fold)))
    }

    fn step(&self, py: Python<'_>) -> PyResult<bool> {
        py.detach(|| {
            let mut fold = lock(&self.0);
            let stepped = fold.as_mut().map_or(Ok(false), Fold::step);
            if !matches!(stepped, Ok(true)) {
                *fold = None;
            }
            Ok(stepped?)
        })
    }
}

/// A set of the ids that stand one after another in `ids`.
fn id_set(ids: &Bound<'_, PyAny>) -> PyResult<IdSet> {
    let bytes = SharedBytes::get(ids)?;
    Ok(ids.py().detach(|| Ok::<IdSet, Error>(split_ids(bytes.bytes())?.collect()))?)
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
    module.add_class::<PyFold>()?;
    module.add_function(wrap_pyfunction!(merge_segments, module)?)
}
