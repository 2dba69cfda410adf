//! The Python boundary: argument shapes, exceptions, and the GIL released around whatever touches more than a page.

mod collect;
mod export;
mod identity;
mod index;
mod keys;
mod restore;

use pyo3::create_exception;
use pyo3::exceptions::{PyException, PyOSError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use crate::bytes::Id;
use crate::error::Error;
use crate::manifest::{Fetch, Root, Roots};
use crate::pack::Place;

create_exception!(_core, CoreError, PyException, "The root of what this module raises on purpose.");
create_exception!(
    _core,
    DamagedError,
    CoreError,
    "Bytes that are torn, altered or not what their name promises."
);
create_exception!(_core, KeyMismatchError, CoreError, "The key does not fit what it is meant to open.");
create_exception!(_core, WriteOnlyError, CoreError, "The key may write, and not do this.");
create_exception!(
    _core,
    UnsupportedError,
    CoreError,
    "A version, suite or codec that this program does not know."
);
create_exception!(_core, BuiltWrongError, CoreError, "What was just built does not decode to what went in.");

impl From<Error> for PyErr {
    fn from(error: Error) -> Self {
        match error {
            Error::Damaged(text) => DamagedError::new_err(text),
            Error::KeyMismatch(text) => KeyMismatchError::new_err(text),
            Error::WriteOnly(text) => WriteOnlyError::new_err(text),
            Error::Unsupported(text) => UnsupportedError::new_err(text),
            Error::BuiltWrong(text) => BuiltWrongError::new_err(text),
            Error::Usage(text) => PyValueError::new_err(text),
            // With errno, so that Python raises PermissionError, or an OSError whose errno says ENOSPC.
            Error::Io(error) => match error.raw_os_error() {
                Some(number) => {
                    PyOSError::new_err((number, std::io::Error::from_raw_os_error(number).to_string()))
                }
                None => PyOSError::new_err(error.to_string()),
            },
        }
    }
}

type PyFetch<'py> = (Bound<'py, PyBytes>, u32, u32);
type PyRoot<'py> = (Bound<'py, PyBytes>, PyFetch<'py>);
type PyRoots<'py> = (u8, Option<PyRoot<'py>>, Option<PyRoot<'py>>);
type RootsArgument = (u8, Option<(Id, (Id, u32, u32))>, Option<(Id, (Id, u32, u32))>);

fn fetch(py: Python<'_>, (pack, offset, length): Fetch) -> PyFetch<'_> {
    (PyBytes::new(py, &pack), offset, length)
}

fn fetches(py: Python<'_>, all: Vec<Fetch>) -> Vec<PyFetch<'_>> {
    all.into_iter().map(|it| fetch(py, it)).collect()
}

fn numbered(py: Python<'_>, all: Vec<(usize, Fetch)>) -> Vec<(usize, PyFetch<'_>)> {
    all.into_iter().map(|(number, it)| (number, fetch(py, it))).collect()
}

fn roots_out(py: Python<'_>, roots: Roots) -> PyRoots<'_> {
    let root =
        |(id, place): Root| (PyBytes::new(py, &id), fetch(py, (place.pack, place.offset, place.length)));
    (roots.height, roots.ids.map(root), roots.places.map(root))
}

fn roots_in((height, ids, places): RootsArgument) -> Result<Roots, Error> {
    let root = |it: Option<(Id, (Id, u32, u32))>| -> Result<Option<Root>, Error> {
        it.map(|(id, (pack, offset, length))| Ok((id, Place::checked(pack, offset, length)?))).transpose()
    };
    Ok(Roots { height, ids: root(ids)?, places: root(places)? })
}

/// The ids that stand one after another in `bytes`.
fn split_ids(bytes: &[u8]) -> Result<impl Iterator<Item = Id> + '_, Error> {
    if bytes.len() % 32 != 0 {
        return Err(Error::Usage("ids are 32 bytes each".into()));
    }
    Ok(bytes.chunks_exact(32).map(|chunk| {
        let mut id = [0; 32];
        id.copy_from_slice(chunk);
        id
    }))
}

/// The extension module `snapferry._core`.
#[pymodule]
fn _core(module: &Bound<'_, PyModule>) -> PyResult<()> {
    let py = module.py();
    module.add("FORMAT_VERSION", 1)?;
    module.add("PACK_HEADER_LENGTH", crate::pack::HEADER)?;
    module.add("MAX_PACK_LENGTH", crate::pack::MAX_PACK)?;
    module.add("RECORD_OVERHEAD", crate::pack::OVERHEAD)?;
    module.add("MAX_LABEL_LENGTH", crate::keys::MAX_LABEL)?;
    module.add("CoreError", py.get_type::<CoreError>())?;
    module.add("DamagedError", py.get_type::<DamagedError>())?;
    module.add("KeyMismatchError", py.get_type::<KeyMismatchError>())?;
    module.add("WriteOnlyError", py.get_type::<WriteOnlyError>())?;
    module.add("UnsupportedError", py.get_type::<UnsupportedError>())?;
    module.add("BuiltWrongError", py.get_type::<BuiltWrongError>())?;
    identity::register(module)?;
    keys::register(module)?;
    index::register(module)?;
    collect::register(module)?;
    export::register(module)?;
    restore::register(module)
}
