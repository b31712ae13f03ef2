//! Records of the journal as what a database's driver takes: parameters of rows, and of additions to the hours.

use pyo3::{
    exceptions::PyValueError,
    prelude::*,
    pybacked::PyBackedBytes,
    types::{PyByteArray, PyInt, PyNone, PyString, PyTuple},
};
use sluicegate_core::record::{
    fields::{Field, Fields, COUNT},
    sums::sums,
};

fn fields(payloads: &[PyBackedBytes]) -> PyResult<Vec<Fields<'_>>> {
    payloads.iter().map(|payload| Fields::read(payload).ok_or_else(unreadable)).collect()
}

fn unreadable() -> PyErr {
    PyValueError::new_err("not a record of the journal")
}

/// Of the types that Python's driver for SQLite takes as they are: for `bytes` and `bool` it asks around how to adapt them,
/// a microsecond each.
fn value<'py>(py: Python<'py>, field: Field<'_>) -> Bound<'py, PyAny> {
    match field {
        Field::Nil => PyNone::get(py).to_owned().into_any(),
        Field::Truth(value) => PyInt::new(py, u8::from(value)).into_any(),
        Field::Number(value) => PyInt::new(py, value).into_any(),
        Field::Text(text) => PyString::new(py, text).into_any(),
    }
}

/// The numbers of the columns in which all records have the same value, of those in which they differ (the id is one of
/// these; columns that no record fills are in neither), and the parameters of one statement after the other: what is
/// the same, and then the rest of `at_once` rows after each other; the last one has fewer.
#[pyfunction]
#[allow(clippy::type_complexity)]
pub fn record_rows<'py>(
    py: Python<'py>,
    records: Vec<PyBackedBytes>,
    at_once: usize,
) -> PyResult<(Vec<usize>, Vec<usize>, Vec<Bound<'py, PyTuple>>)> {
    let rows = py.detach(|| fields(&records))?;
    let mut same = Vec::new();
    let mut shared = Vec::new();
    let mut different = vec![0];
    for number in 1..COUNT {
        let first = rows.first().map_or(Field::Nil, |row| row.get(number));
        if rows.iter().any(|row| row.get(number) != first) {
            different.push(number);
        } else if first != Field::Nil {
            same.push(number);
            shared.push(value(py, first));
        }
    }
    // The last value of a column is often the next one, too: the same object again costs nothing.
    let mut last: Vec<(Field<'_>, Bound<'py, PyAny>)> =
        different.iter().map(|_| (Field::Nil, value(py, Field::Nil))).collect();
    let mut groups = Vec::with_capacity(rows.len().div_ceil(at_once.max(1)));
    for group in rows.chunks(at_once.max(1)) {
        let mut values = Vec::with_capacity(shared.len() + group.len() * different.len());
        values.extend(shared.iter().cloned());
        for row in group {
            for (number, (field, made)) in different.iter().zip(&mut last) {
                if *number == 0 {
                    values.push(PyByteArray::new(py, &row.id).into_any());
                    continue;
                }
                let now = row.get(*number);
                if now != *field {
                    (*field, *made) = (now, value(py, now));
                }
                values.push(made.clone());
            }
        }
        groups.push(PyTuple::new(py, values)?);
    }
    Ok((same, different, groups))
}

/// For each hour and each value of the fields `dimensions`: those, how many records, and the totals of `summed`.
#[pyfunction]
pub fn record_sums<'py>(
    py: Python<'py>,
    records: Vec<PyBackedBytes>,
    dimensions: Vec<usize>,
    summed: Vec<usize>,
) -> PyResult<Vec<Bound<'py, PyTuple>>> {
    let found = py.detach(|| fields(&records).map(|read| sums(read, &dimensions, &summed)))?;
    let rows = found.into_iter().map(|sum| {
        let hour = PyInt::new(py, sum.hour).into_any();
        let of = sum.of.iter().map(|field| value(py, *field));
        let totals = [sum.requests].into_iter().chain(sum.totals).map(|total| PyInt::new(py, total).into_any());
        let values: Vec<Bound<'py, PyAny>> = [hour].into_iter().chain(of).chain(totals).collect();
        PyTuple::new(py, values)
    });
    rows.collect()
}
