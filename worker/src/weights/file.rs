//! Reading tensors by name out of a file: safetensors, or what PyTorch's `torch.save` writes. Which of them it is, its first
//! bytes say, not its name.
//!
//! Whatever is in a file, the answer is tensors or an error: nothing in it is executed, and memory stays within a small
//! multiple of its length.

mod pickle;
mod torch;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Seek};
use std::path::Path;

use candle_core::{DType, Device, Tensor};
use safetensors::{Dtype, SafeTensors};

use super::WeightsError;

/// Tensors by the names that the file gives them.
#[derive(Debug, Clone, Default)]
pub struct Tensors {
    /// In f32, whatever the file's precision.
    pub floats: BTreeMap<String, Tensor>,
    /// The types of those whose elements are no floating-point numbers.
    pub others: BTreeMap<String, String>,
}

/// Reads a file; `name` is what messages call it.
///
/// # Errors
/// [`WeightsError::Unreadable`] for a file that is of another format, cut short or damaged.
pub fn read(path: &Path, name: &str) -> Result<Tensors, WeightsError> {
    read_file(path).map_err(|reason| WeightsError::Unreadable { file: name.to_owned(), reason })
}

fn read_file(path: &Path) -> Result<Tensors, String> {
    let failed = |error| io_reason(&error);
    let mut file = File::open(path).map_err(failed)?;
    let about = file.metadata().map_err(failed)?;
    if !about.is_file() {
        return Err("it is not a file; give the file with the tensors".to_owned());
    }
    let mut start = Vec::new();
    file.by_ref().take(64).read_to_end(&mut start).map_err(failed)?;
    file.rewind().map_err(failed)?;
    match start.as_slice() {
        [b'P', b'K', 3, 4, ..] => torch::read(file, about.len()),
        [_, _, _, _, _, _, _, _, b'{', ..] => {
            let mut bytes = Vec::with_capacity(about.len() as usize);
            file.read_to_end(&mut bytes).map_err(failed)?;
            safetensors(&bytes)
        }
        start => Err(other(start)),
    }
}

/// Why the file system refuses, and what to do.
pub(super) fn io_reason(error: &std::io::Error) -> String {
    match error.kind() {
        std::io::ErrorKind::NotFound => "there is no such file; correct the path".to_owned(),
        _ => error.to_string(),
    }
}

/// What a file is that is neither.
fn other(start: &[u8]) -> String {
    let what = match start {
        [] => "it is empty; fetch it again",
        [0x80, ..] => {
            "it is a plain Python pickle, which would have to be executed; load it in Python and save it anew, by torch.save or with safetensors"
        }
        _ if start.starts_with(b"version https://git-lfs") => {
            "it is a pointer of Git LFS and not the file itself; fetch it with `git lfs pull`"
        }
        [b'<', ..] => "it is a web page; give the address of the file itself",
        _ => "it is neither a safetensors file nor a PyTorch state dict; give one of these",
    };
    what.to_owned()
}

/// How many a shape has. None where the product overflows, be it behind a dimension of 0.
fn elements(shape: &[usize]) -> Option<usize> {
    let product = shape.iter().try_fold(1_usize, |product, dimension| product.checked_mul((*dimension).max(1)))?;
    Some(if shape.contains(&0) { 0 } else { product })
}

fn safetensors(bytes: &[u8]) -> Result<Tensors, String> {
    let file = SafeTensors::deserialize(bytes)
        .map_err(|error| format!("it is a safetensors file that is cut short or damaged ({error})"))?;
    let mut tensors = Tensors::default();
    for (name, view) in file.iter() {
        let number = match view.dtype() {
            Dtype::F32 => DType::F32,
            Dtype::F16 => DType::F16,
            Dtype::BF16 => DType::BF16,
            Dtype::F64 => DType::F64,
            other => {
                tensors.others.insert(name.to_owned(), format!("{other:?}"));
                continue;
            }
        };
        if elements(view.shape()).is_none() {
            return Err(format!("tensor `{name}` has impossible dimensions; the file is damaged"));
        }
        let tensor = Tensor::from_raw_buffer(view.data(), number, view.shape(), &Device::Cpu);
        let tensor = tensor.and_then(|tensor| tensor.to_dtype(DType::F32));
        let tensor = tensor.map_err(|error| format!("tensor `{name}` cannot be read ({error})"))?;
        tensors.floats.insert(name.to_owned(), tensor);
    }
    Ok(tensors)
}
