//! Dialects: how names in a file are mapped to names of an encoder.

use std::collections::BTreeMap;

use super::assemble::Component;

/// Names of an encoder's tensors with their shapes.
#[derive(Debug, Clone)]
pub struct Own {
    pub(super) shapes: BTreeMap<String, Vec<usize>>,
}

impl Own {
    /// The names of parameters and buffers, with their shapes.
    pub fn new(shapes: impl IntoIterator<Item = (String, Vec<usize>)>) -> Self {
        Self { shapes: shapes.into_iter().collect() }
    }

    /// The shape of the tensor of this name, if there is one.
    #[must_use]
    pub fn shape(&self, name: &str) -> Option<&[usize]> {
        self.shapes.get(name).map(Vec::as_slice)
    }
}

/// One naming scheme for the tensors of a family.
pub(super) struct Dialect {
    /// The encoder's tensor and component for a name. None if the name is not of the encoder.
    pub(super) read: fn(&str, &Own) -> Option<(String, Component)>,
    /// Whether a name that is not of the encoder may be ignored.
    pub(super) passes_over: fn(&str, &Own) -> bool,
}

pub(super) const OWN: Dialect = Dialect {
    read: |name, own| own.shape(name).map(|_| (name.to_owned(), Component::Whole)),
    passes_over: |_, _| false,
};

/// The number at the beginning of a name, and the rest after the dot.
pub(super) fn numbered(name: &str) -> Option<(usize, &str)> {
    let (number, rest) = name.split_once('.')?;
    if number.is_empty() || !number.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    Some((number.parse::<u32>().ok()? as usize, rest))
}

/// Replaces `name`, or its prefix before a dot, by the second column of the first matching row of a table.
pub(super) fn replaced(name: &str, table: &[(&str, &str)]) -> Option<String> {
    table.iter().find_map(|(foreign, own)| {
        let rest = name.strip_prefix(foreign)?;
        (rest.is_empty() || rest.starts_with('.')).then(|| format!("{own}{rest}"))
    })
}
