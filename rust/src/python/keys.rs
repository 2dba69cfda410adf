//! Key slots, and the keyrings that they open to.

use std::sync::Arc;

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use crate::envelope::{self, Kind};
use crate::error::Error;
use crate::keys::{
    EpochTag, Holder, Keyring, Secret, Slot, SlotKey, SlotKind, SlotRole, Stretch, host_public,
};
use crate::outside::SharedBytes;
use crate::pack::Header;

/// A key slot, verified as far as it can be without its key.
#[pyclass(frozen, name = "Slot", module = "snapferry._core")]
pub struct PySlot(Slot);

#[pymethods]
impl PySlot {
    #[new]
    fn new(py: Python<'_>, data: &Bound<'_, PyAny>) -> PyResult<Self> {
        let data = SharedBytes::get(data)?;
        Ok(Self(py.detach(|| Slot::parse(data.bytes()))?))
    }

    #[getter]
    fn id<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, &self.0.id)
    }

    #[getter]
    fn kind(&self) -> &'static str {
        match self.0.kind {
            SlotKind::KeyFile => "key file",
            SlotKind::Passphrase => "passphrase",
            SlotKind::PublicKey => "public key",
        }
    }

    #[getter]
    fn role(&self) -> &'static str {
        match self.0.role {
            SlotRole::Full => "full",
            SlotRole::WriteOnly => "write-only",
            SlotRole::Removed => "removed",
        }
    }

    #[getter]
    fn label(&self) -> &str {
        &self.0.label
    }

    #[getter]
    fn created(&self) -> u64 {
        self.0.created
    }

    #[getter]
    fn repository_id<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, &self.0.repository)
    }

    #[getter]
    fn public_key<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, &self.0.public)
    }

    #[getter]
    fn epochs<'py>(&self, py: Python<'py>) -> Vec<Bound<'py, PyBytes>> {
        self.0.epochs.iter().map(|tag| PyBytes::new(py, &tag.to_bytes())).collect()
    }

    #[getter]
    fn epoch(&self) -> u32 {
        self.0.epochs.last().map_or(0, |tag| tag.number)
    }

    #[pyo3(signature = (*, key_file=None, passphrase=None))]
    fn unlock(
        &self,
        py: Python<'_>,
        key_file: Option<&Bound<'_, PyAny>>,
        passphrase: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Option<PySlotKey>> {
        let (key_file, passphrase) = (get(key_file)?, get(passphrase)?);
        let secret = secret(&key_file, &passphrase)?;
        match py.detach(|| self.0.unlock(secret)) {
            Ok(key) => Ok(Some(PySlotKey(key))),
            Err(Error::KeyMismatch(_)) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    #[getter]
    fn data<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, self.0.bytes())
    }
}

/// The private half of one slot's key.
#[pyclass(frozen, name = "SlotKey", module = "snapferry._core")]
pub struct PySlotKey(SlotKey);

/// The unwrapped keys of one repository.
#[pyclass(frozen, name = "Keyring", module = "snapferry._core")]
pub struct PyKeyring(pub Arc<Keyring>);

impl PyKeyring {
    fn wrap(keys: crate::error::Result<Keyring>) -> PyResult<Self> {
        Ok(Self(Arc::new(keys?)))
    }
}

#[pymethods]
impl PyKeyring {
    #[staticmethod]
    fn generate() -> PyResult<Self> {
        Self::wrap(Keyring::generate())
    }

    #[staticmethod]
    fn unlock(slot: &PySlot, key: &PySlotKey) -> PyResult<Self> {
        Self::wrap(Keyring::open(&slot.0, key.0.clone()))
    }

    fn adopt(&self, slot: &PySlot) -> PyResult<bool> {
        Ok(self.0.adopt(&slot.0)?)
    }

    fn snapshot(&self) -> PyResult<Self> {
        Self::wrap(self.0.snapshot())
    }

    fn with_new_epoch(&self) -> PyResult<Self> {
        Self::wrap(self.0.with_new_epoch())
    }

    #[pyo3(signature = (role, label, created, *, key_file=None, passphrase=None, public_key=None, stretch=None))]
    #[allow(clippy::too_many_arguments)] // Keyword arguments of Python.
    fn new_slot<'py>(
        &self,
        py: Python<'py>,
        role: &str,
        label: &str,
        created: u64,
        key_file: Option<&Bound<'py, PyAny>>,
        passphrase: Option<&Bound<'py, PyAny>>,
        public_key: Option<[u8; 32]>,
        stretch: Option<(u32, u32, u32)>,
    ) -> PyResult<Bound<'py, PyBytes>> {
        let role = match role {
            "full" => SlotRole::Full,
            "write-only" => SlotRole::WriteOnly,
            other => {
                return Err(PyValueError::new_err(format!("a role is full or write-only, not {other:?}")));
            }
        };
        let stretch =
            stretch.map_or(Stretch::USUAL, |(memory, passes, lanes)| Stretch { memory, passes, lanes });
        let (key_file, passphrase) = (get(key_file)?, get(passphrase)?);
        let holder = match public_key {
            Some(public) => Holder::Public(public),
            None => Holder::Secret(secret(&key_file, &passphrase)?, stretch),
        };
        let slot = py.detach(|| self.0.new_slot(&holder, role, created, label))?;
        Ok(PyBytes::new(py, &slot))
    }

    fn seal_again<'py>(&self, py: Python<'py>, slot: &PySlot) -> PyResult<Bound<'py, PyBytes>> {
        Ok(PyBytes::new(py, &self.0.seal_again(&slot.0)?))
    }

    fn remove<'py>(&self, py: Python<'py>, slot: &PySlot) -> PyResult<Bound<'py, PyBytes>> {
        Ok(PyBytes::new(py, &self.0.remove(&slot.0)?))
    }

    #[getter]
    fn repository_id<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, &self.0.repository)
    }

    #[getter]
    fn reads_data(&self) -> bool {
        self.0.reads_data()
    }

    #[getter]
    fn slot_id<'py>(&self, py: Python<'py>) -> Option<Bound<'py, PyBytes>> {
        self.0.slot().map(|id| PyBytes::new(py, &id))
    }

    #[getter]
    fn epochs<'py>(&self, py: Python<'py>) -> Vec<Bound<'py, PyBytes>> {
        self.0.epochs().iter().map(|tag| PyBytes::new(py, &tag.to_bytes())).collect()
    }

    #[getter]
    fn current_epoch<'py>(&self, py: Python<'py>) -> Option<Bound<'py, PyBytes>> {
        self.0.current_epoch().map(|tag| PyBytes::new(py, &tag.to_bytes()))
    }

    fn choose_epoch(&self, allowed: Vec<[u8; 16]>) -> bool {
        let allowed: Vec<EpochTag> = allowed.iter().map(EpochTag::from_bytes).collect();
        self.0.choose_epoch(&allowed)
    }

    fn lacks_epoch_of(&self, header: &Bound<'_, PyAny>) -> PyResult<bool> {
        let header = SharedBytes::get(header)?;
        Ok(Header::parse(&self.0, header.bytes()).is_ok_and(|header| !header.is_held(&self.0)))
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

#[pyfunction]
fn host_public_key<'py>(py: Python<'py>, key_file: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyBytes>> {
    let secret = SharedBytes::get(key_file)?;
    Ok(PyBytes::new(py, &host_public(secret.bytes())?))
}

fn get(value: Option<&Bound<'_, PyAny>>) -> PyResult<Option<SharedBytes>> {
    value.map(SharedBytes::get).transpose()
}

fn secret<'a>(
    key_file: &'a Option<SharedBytes>,
    passphrase: &'a Option<SharedBytes>,
) -> PyResult<Secret<'a>> {
    match (key_file, passphrase) {
        (Some(secret), None) => Ok(Secret::KeyFile(secret.bytes())),
        (None, Some(secret)) => Ok(Secret::Passphrase(secret.bytes())),
        _ => Err(PyValueError::new_err("either key_file or passphrase must be given")),
    }
}

pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<PySlot>()?;
    module.add_class::<PySlotKey>()?;
    module.add_class::<PyKeyring>()?;
    module.add_function(wrap_pyfunction!(host_public_key, module)?)
}
