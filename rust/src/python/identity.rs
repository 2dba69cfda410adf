//! Keys, threads, and functions on whole objects.

use std::sync::Arc;

use pyo3::prelude::*;
use pyo3::types::PyBytes;

use crate::bytes::Id;
use crate::envelope::{self, Kind};
use crate::keys::Keyring;
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
}

/// The unwrapped keys of one repository.
#[pyclass(frozen, name = "Keyring", module = "snapferry._core")]
pub struct PyKeyring(pub Arc<Keyring>);

#[pymethods]
impl PyKeyring {
    #[staticmethod]
    fn generate() -> PyResult<Self> {
        Ok(Self(Arc::new(Keyring::generate()?)))
    }

    #[staticmethod]
    fn unwrap(slot: &Bound<'_, PyAny>, secret: &Bound<'_, PyAny>) -> PyResult<Self> {
        let (slot, secret) = (SharedBytes::get(slot)?, SharedBytes::get(secret)?);
        Ok(Self(Arc::new(Keyring::unwrap(slot.bytes(), secret.bytes())?)))
    }

    fn wrap<'py>(&self, py: Python<'py>, secret: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyBytes>> {
        let secret = SharedBytes::get(secret)?;
        Ok(PyBytes::new(py, &self.0.wrap(secret.bytes())?))
    }

    #[getter]
    fn repository_id<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, &self.0.repository)
    }

    fn seal<'py>(
        &self,
        py: Python<'py>,
        kind: &str,
        name: &str,
        payload: &Bound<'py, PyAny>,
    ) -> PyResult<Bound<'py, PyBytes>> {
        let (kind, payload) = (Kind::from_name(kind)?, SharedBytes::get(payload)?);
        let sealed = py.detach(|| envelope::seal(&self.0, kind, name, payload.bytes()))?;
        Ok(PyBytes::new(py, &sealed))
    }

    fn open<'py>(
        &self,
        py: Python<'py>,
        kind: &str,
        name: &str,
        data: &Bound<'py, PyAny>,
    ) -> PyResult<Bound<'py, PyBytes>> {
        let (kind, data) = (Kind::from_name(kind)?, SharedBytes::get(data)?);
        let payload = py.detach(|| envelope::open(&self.0, kind, name, data.bytes()))?;
        Ok(PyBytes::new(py, &payload))
    }

    fn __repr__(&self) -> String {
        format!("{:?}", self.0)
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
    module.add_class::<PyKeyring>()?;
    module.add_function(wrap_pyfunction!(plain_hash, module)?)?;
    module.add_function(wrap_pyfunction!(check_object, module)?)?;
    module.add_function(wrap_pyfunction!(peek, module)?)?;
    module.add_function(wrap_pyfunction!(check_pack, module)?)
}
