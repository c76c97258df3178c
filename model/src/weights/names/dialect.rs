//! What a dialect is: how names of a file are read as names of an encoder.

use std::collections::BTreeMap;

use super::assemble::Component;

/// Names of an encoder's tensors with their shapes.
#[derive(Debug, Clone)]
pub struct Own {
    pub(super) shapes: BTreeMap<String, Vec<usize>>,
}

impl Own {
    /// Parameters and buffers alike.
    pub fn new(shapes: impl IntoIterator<Item = (String, Vec<usize>)>) -> Self {
        Self { shapes: shapes.into_iter().collect() }
    }

    /// The shape of the tensor of this name, if there is one.
    #[must_use]
    pub fn shape(&self, name: &str) -> Option<&[usize]> {
        self.shapes.get(name).map(Vec::as_slice)
    }
}

/// One way to name the tensors of a family.
pub(super) struct Dialect {
    /// What a name stands for; none for what is no component of the encoder.
    pub(super) read: fn(&str, &Own) -> Option<(String, Component)>,
    /// What is no component of the encoder and need not be.
    pub(super) passes_over: fn(&str, &Own) -> bool,
}

pub(super) const OWN: Dialect = Dialect {
    read: |name, own| own.shape(name).map(|_| (name.to_owned(), Component::Whole)),
    passes_over: |_, _| false,
};

/// The number that a name begins with, and what follows the dot behind it.
pub(super) fn numbered(name: &str) -> Option<(usize, &str)> {
    let (number, rest) = name.split_once('.')?;
    if number.is_empty() || !number.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    Some((number.parse::<u32>().ok()? as usize, rest))
}

/// The first of the names in a table that `name` is, or begins with before a dot, as the table's second.
pub(super) fn replaced(name: &str, table: &[(&str, &str)]) -> Option<String> {
    table.iter().find_map(|(foreign, own)| {
        let rest = name.strip_prefix(foreign)?;
        (rest.is_empty() || rest.starts_with('.')).then(|| format!("{own}{rest}"))
    })
}
