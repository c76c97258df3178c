//! Reads tensors by name from a file in safetensors format or in the format of PyTorch's `torch.save`. The first bytes
//! determine the format, not the name.
//!
//! Every file gives tensors or an error: nothing in it is executed, and memory stays within a small multiple of its
//! length.

mod pickle;
mod tensors;
mod torch;

use std::fs::File;
use std::io::{Read, Seek};
use std::path::Path;

use candle_core::{DType, Device, Tensor};
use safetensors::{Dtype, SafeTensors};

use self::tensors::elements;
use super::WeightsError;

pub use self::tensors::Tensors;

/// Reads a file, called `name` in messages.
///
/// # Errors
/// [`WeightsError::Unreadable`] if the file has another format, or is truncated or damaged.
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

/// An error of the file system, and what to do.
pub(super) fn io_reason(error: &std::io::Error) -> String {
    match error.kind() {
        std::io::ErrorKind::NotFound => "there is no such file; correct the path".to_owned(),
        _ => error.to_string(),
    }
}

/// What a file in another format is, and what to do.
fn other(start: &[u8]) -> String {
    let what = match start {
        [] => "it is empty; fetch it again",
        [0x80, ..] => {
            "it is a plain Python pickle, which would have to be executed; load it in Python and save it again with \
             torch.save or safetensors"
        }
        _ if start.starts_with(b"version https://git-lfs") => {
            "it is a Git LFS pointer, not the file itself; fetch it with `git lfs pull`"
        }
        [b'<', ..] => "it is a web page; give the address of the file itself",
        _ => "it is neither a safetensors file nor a PyTorch state dict; give one of these",
    };
    what.to_owned()
}

fn safetensors(bytes: &[u8]) -> Result<Tensors, String> {
    let file = SafeTensors::deserialize(bytes)
        .map_err(|error| format!("it is a safetensors file that is truncated or damaged ({error})"))?;
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
