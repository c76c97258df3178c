//! Maps the tensor names of libraries and papers to those of the encoders here.
//!
//! A family has dialects: its own names first, then those of other libraries. The dialect of a file is the one in which
//! most of its names become names of the encoder, after a prefix such as `module.`, `backbone.` or `bert.` is removed.
//! Names of other components of the model, such as a classifier or a decoder, are ignored.

mod assemble;
mod bert;
mod cav_mae;
mod dialect;
mod m3ae;
mod resnet;
mod vit;

use std::collections::BTreeMap;

use antiphon_core::spec::EncoderSpec;
use candle_core::Tensor;

use self::assemble::{Component, assemble};
use self::dialect::{Dialect, OWN};
use super::file::Tensors;
use super::freeze::ADAPTER;
use super::report::{Report, Unlike};

pub use self::dialect::Own;

/// Encoders whose tensors have the same names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// Names that no other library uses: `mlp`, `cnn`, `text`, and registered encoders.
    Own,
    /// torchvision's names.
    Resnet,
    /// timm's names.
    Vit,
    /// Hugging Face's names, with query, key and value in one tensor.
    Bert,
}

impl Family {
    /// The family of a kind of encoder.
    #[must_use]
    pub fn of(encoder: &EncoderSpec) -> Self {
        match encoder {
            EncoderSpec::Resnet { .. } => Self::Resnet,
            EncoderSpec::Vit { .. } => Self::Vit,
            EncoderSpec::Bert { .. } => Self::Bert,
            EncoderSpec::Auto
            | EncoderSpec::Mlp { .. }
            | EncoderSpec::Cnn { .. }
            | EncoderSpec::Text { .. }
            | EncoderSpec::Custom { .. } => Self::Own,
        }
    }

    fn dialects(self) -> &'static [Dialect] {
        match self {
            Self::Own => &[OWN],
            Self::Resnet => &[OWN, resnet::HUGGING_FACE],
            Self::Vit => &[OWN, vit::TORCHVISION, vit::HUGGING_FACE, cav_mae::CAV_MAE, m3ae::PYTORCH, m3ae::FLAX],
            Self::Bert => &[OWN, bert::HUGGING_FACE],
        }
    }

    /// Whether a name, in any dialect, belongs to a component after or beside an encoder.
    fn passes_over(self, name: &str) -> bool {
        let of_family = match self {
            Self::Own => false,
            Self::Resnet => resnet::passed_over(name),
            Self::Vit => vit::passed_over(name),
            Self::Bert => bert::passed_over(name),
        };
        // The preprocessing in a checkpoint of this project.
        of_family || name == "input.mean" || name == "input.deviation"
    }
}

/// A file's tensors that fit an encoder, under its names.
#[derive(Debug)]
pub struct Translated {
    /// The tensors that fit, in the encoder's shapes.
    pub tensors: BTreeMap<String, Tensor>,
    /// The comparison of all other tensors.
    pub report: Report,
}

/// Renames a file's tensors and compares them with the encoder's.
#[must_use]
pub fn translate(family: Family, own: &Own, file: Tensors) -> Translated {
    let names: Vec<String> = file.floats.keys().chain(file.others.keys()).cloned().collect();
    let (dialect, prefix) = spoken(family, own, &names);
    let mut components: BTreeMap<String, Vec<(Component, Tensor)>> = BTreeMap::new();
    let mut types: BTreeMap<String, String> = BTreeMap::new();
    let mut report = Report::default();
    let Tensors { mut floats, mut others } = file;
    for name in names {
        let plain = name.replace('/', ".");
        let read = plain.strip_prefix(&prefix).and_then(|rest| read(dialect, rest, own));
        match (read, floats.remove(&name), others.remove(&name)) {
            (Some((target, component)), Some(tensor), _) => {
                components.entry(target).or_default().push((component, tensor))
            }
            (Some((target, _)), _, Some(kind)) => drop(types.insert(target, kind)),
            _ if passes_over(family, dialect, own, &prefix, &plain) => {}
            _ => report.unexpected.push(name),
        }
    }
    report.unexpected.sort();
    let mut tensors = BTreeMap::new();
    for (name, components) in components {
        let wanted = own.shape(&name).unwrap_or_default();
        if let Some(tensor) = assemble(components, wanted) {
            tensors.insert(name, tensor);
        }
    }
    compare(own, tensors, &types, report)
}

/// The encoder's tensor and component for a name, if the encoder has it.
fn read(dialect: &Dialect, name: &str, own: &Own) -> Option<(String, Component)> {
    (dialect.read)(name, own).filter(|(target, _)| own.shape(target).is_some())
}

/// The dialect and the prefix with which most of a file's names become names of the encoder. Of equals, the shortest
/// prefix and the first dialect.
fn spoken(family: Family, own: &Own, names: &[String]) -> (&'static Dialect, String) {
    let mut best = (0, &family.dialects()[0], String::new());
    for dialect in family.dialects() {
        let mut known: BTreeMap<String, usize> = BTreeMap::new();
        for name in names {
            let plain = name.replace('/', ".");
            for start in std::iter::once(0).chain(plain.match_indices('.').map(|(dot, _)| dot + 1)) {
                if read(dialect, &plain[start..], own).is_some() {
                    *known.entry(plain[..start].to_owned()).or_default() += 1;
                }
            }
        }
        for (prefix, count) in known {
            let shorter = count == best.0 && std::ptr::eq(best.1, dialect) && prefix.len() < best.2.len();
            if count > best.0 || shorter {
                best = (count, dialect, prefix);
            }
        }
    }
    (best.1, best.2)
}

/// Whether a name is ignored, with any part of the prefix removed: a classifier may be beside the encoder.
fn passes_over(family: Family, dialect: &Dialect, own: &Own, prefix: &str, name: &str) -> bool {
    let ends = std::iter::once(0).chain(prefix.match_indices('.').map(|(dot, _)| dot + 1));
    ends.filter_map(|end| name.strip_prefix(&prefix[..end]))
        .any(|rest| family.passes_over(rest) || (dialect.passes_over)(rest, own))
}

fn compare(
    own: &Own,
    mut tensors: BTreeMap<String, Tensor>,
    types: &BTreeMap<String, String>,
    mut report: Report,
) -> Translated {
    let shown = |shape: &[usize]| format!("{shape:?}");
    for (name, shape) in &own.shapes {
        let given = match (tensors.get(name), types.get(name)) {
            (Some(tensor), _) if tensor.dims() == shape.as_slice() => continue,
            (Some(tensor), _) => Some(shown(tensor.dims())),
            (None, Some(kind)) => Some(kind.clone()),
            (None, None) => None,
        };
        tensors.remove(name);
        match given {
            // The adapter depends on the head's width, which is specific to the job.
            _ if name.starts_with(ADAPTER) => {}
            Some(given) => report.unlike.push(Unlike { name: name.clone(), given, wanted: shown(shape) }),
            None => report.missing.push(name.clone()),
        }
    }
    report.loaded = tensors.len();
    Translated { tensors, report }
}
