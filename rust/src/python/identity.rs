//! Threads, and functions on whole objects.

use std::sync::Arc;

use pyo3::prelude::*;
use pyo3::types::PyBytes;

use super::keys::PyKeyring;
use crate::bytes::Id;
use crate::envelope::{self, Kind};
use crate::outside::SharedBytes;
use crate::workers::Workers;

/// A thread pool of the core's own.
#[pyclass(frozen, name = "Workers", module = "snapferry._core")]
pub struct PyWorkers(pub Arc<Workers>);

#[pymethods]
impl PyWorkers {
    #[new]
    fn new(threads: usize) -> PyResult<Self> {
        Ok(Self(Arc::new(Workers::new(threads)?)))
    }

    #[getter]
    fn threads(&self) -> usize {
        self.0.threads()
    }

    #[getter]
    fn allocated(&self) -> usize {
        self.0.allocated()
    }

    fn trim(&self, py: Python<'_>) {
        py.detach(|| self.0.trim());
    }
}

#[pyfunction(name = "blake3")]
fn plain_hash<'py>(py: Python<'py>, data: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyBytes>> {
    let data = SharedBytes::get(data)?;
    let hash = py.detach(|| blake3::hash(data.bytes()));
    Ok(PyBytes::new(py, hash.as_bytes()))
}

#[pyfunction]
fn check_object(py: Python<'_>, data: &Bound<'_, PyAny>) -> PyResult<()> {
    let data = SharedBytes::get(data)?;
    Ok(py.detach(|| envelope::check(data.bytes()))?)
}

#[pyfunction]
fn peek<'py>(py: Python<'py>, kind: &str, data: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyBytes>> {
    let data = SharedBytes::get(data)?;
    Ok(PyBytes::new(py, &envelope::peek(Kind::from_name(kind)?, data.bytes())?))
}

#[pyfunction]
fn check_pack(
    py: Python<'_>,
    keyring: &PyKeyring,
    workers: &PyWorkers,
    pack: Id,
    data: &Bound<'_, PyAny>,
) -> PyResult<Vec<String>> {
    let data = SharedBytes::get(data)?;
    Ok(py.detach(|| workers.0.run(|| crate::pack::check_pack(&keyring.0, &pack, data.bytes()))))
}

pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<PyWorkers>()?;
    module.add_function(wrap_pyfunction!(plain_hash, module)?)?;
    module.add_function(wrap_pyfunction!(check_object, module)?)?;
    module.add_function(wrap_pyfunction!(peek, module)?)?;
    module.add_function(wrap_pyfunction!(check_pack, module)?)
}
