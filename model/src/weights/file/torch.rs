//! PyTorch's files: a zip archive with a pickle that describes the tensors and a file of numbers for each storage.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufReader, Read};

use candle_core::{DType, Device, Tensor};
use zip::ZipArchive;

use super::pickle::{Id, Node, Pickle, Storage, View};
use super::tensors::{Tensors, elements};

/// The largest description, in bytes. The largest models have a few hundred thousand.
const DESCRIPTION: u64 = 64 << 20;
/// The largest size of all tensors, as a multiple of the file's size: half precision doubles in f32, and tensors may
/// share numbers.
const LARGER: usize = 8;
/// The keys under which training checkpoints store parameters.
const KEYS: [&str; 8] = ["state_dict", "model_state_dict", "model", "module", "net", "network", "backbone", "encoder"];
/// The largest depth of nested keys.
const DEPTH: usize = 3;

type Archive = ZipArchive<BufReader<File>>;

/// Every tensor of the file's state dict, or what is wrong with the file.
pub(super) fn read(file: File, length: u64) -> Result<Tensors, String> {
    let damaged = |error: zip::result::ZipError| format!("it is a PyTorch file that is truncated or damaged ({error})");
    let mut archive = ZipArchive::new(BufReader::new(file)).map_err(damaged)?;
    let description =
        archive.file_names().filter_map(Result::ok).find(|name| *name == "data.pkl" || name.ends_with("/data.pkl"));
    let Some(description) = description.map(String::from) else {
        return Err(
            "it is a zip archive, but not one that PyTorch wrote; give a state dict or a safetensors file".to_owned()
        );
    };
    let folder = description.trim_end_matches("data.pkl").to_owned();
    let pickle = entry(&mut archive, &description, DESCRIPTION.min(length))?;
    if entry(&mut archive, &format!("{folder}byteorder"), 16).is_ok_and(|order| order == b"big") {
        return Err("its numbers are big-endian; write it on a little-endian machine".to_owned());
    }
    let pickle = Pickle::read(&pickle).map_err(|reason| {
        format!(
            "the description of its tensors is damaged: \
             {reason}"
        )
    })?;
    let views = state_dict(&pickle)?;
    load(&mut archive, &folder, views, length)
}

/// The content of one file of the archive.
fn entry(archive: &mut Archive, name: &str, most: u64) -> Result<Vec<u8>, String> {
    let failed =
        |reason: String| format!("its entry `{name}` cannot be read ({reason}); the file is truncated or damaged");
    let mut entry = archive.by_name(name).map_err(|error| failed(error.to_string()))?;
    if entry.size() > most {
        return Err(failed(format!("it has {} bytes, more than the limit of {most}", entry.size())));
    }
    let mut bytes = vec![0; entry.size() as usize];
    entry.read_exact(&mut bytes).map_err(|error| failed(error.to_string()))?;
    Ok(bytes)
}

/// Names and tensors, at the top level or under the first of the usual keys that has any.
fn state_dict(pickle: &Pickle) -> Result<BTreeMap<String, View>, String> {
    let mut table = pickle.root();
    for _ in 0..=DEPTH {
        let Node::Table(entries) = table else { break };
        let tensors = tensors(pickle, entries);
        if !tensors.is_empty() {
            return Ok(tensors);
        }
        let under = |wanted: &str| {
            entries.iter().find_map(|(key, value)| match (pickle.node(*key), pickle.node(*value)) {
                (Node::Text(key), inner @ Node::Table(_)) if key == wanted => Some(inner),
                _ => None,
            })
        };
        match KEYS.into_iter().find_map(under) {
            Some(inner) => table = inner,
            None => break,
        }
    }
    Err(match pickle.root() {
        Node::Table(entries) => format!(
            "it holds no named tensors, but {}; save a state dict, directly or under one of the keys {}",
            keys(pickle, entries),
            KEYS.join(", ")
        ),
        _ => "it holds something other than a state dict, perhaps a whole module; save \
              `module.state_dict()`"
            .to_owned(),
    })
}

fn tensors(pickle: &Pickle, entries: &[(Id, Id)]) -> BTreeMap<String, View> {
    let named = entries.iter().filter_map(|(key, value)| match (pickle.node(*key), pickle.node(*value)) {
        (Node::Text(name), Node::Tensor(view)) => Some((name.clone(), view.clone())),
        _ => None,
    });
    named.collect()
}

fn keys(pickle: &Pickle, entries: &[(Id, Id)]) -> String {
    let names = entries.iter().filter_map(|(key, _)| match pickle.node(*key) {
        Node::Text(text) => Some(format!("`{}`", text.chars().take(40).collect::<String>())),
        _ => None,
    });
    let names: Vec<String> = names.take(8).collect();
    if names.is_empty() { "no text keys".to_owned() } else { format!("the keys {}", names.join(", ")) }
}

/// Reads storage by storage, so that a shared storage is read once.
fn load(archive: &mut Archive, folder: &str, views: BTreeMap<String, View>, length: u64) -> Result<Tensors, String> {
    let mut by_storage: BTreeMap<String, Vec<(String, View)>> = BTreeMap::new();
    let mut loaded = Tensors::default();
    let mut total: usize = 0;
    for (name, view) in views {
        if number_type(&view.storage).is_none() {
            loaded.others.insert(name, view.storage.class);
            continue;
        }
        let count = check(&view).map_err(|problem| format!("tensor `{name}` {problem}; the file is damaged"))?;
        total = total.saturating_add(count.saturating_mul(size_of::<f32>()));
        by_storage.entry(view.storage.key.clone()).or_default().push((name, view));
    }
    if total > (length as usize).saturating_mul(LARGER) {
        return Err(format!("its tensors would take {total} bytes, though it has {length}; the file is damaged"));
    }
    let mut budget = length.saturating_mul(LARGER as u64);
    for (key, views) in by_storage {
        let bytes = entry(archive, &format!("{folder}data/{key}"), length.min(budget))?;
        budget = budget.saturating_sub(bytes.len() as u64);
        for (name, view) in views {
            let tensor = tensor_of(&bytes, &view)
                .map_err(|problem| format!("tensor `{name}` {problem}; the file is damaged"))?;
            loaded.floats.insert(name, tensor);
        }
    }
    Ok(loaded)
}

/// The type of a storage of floating-point numbers. None for other storages.
fn number_type(storage: &Storage) -> Option<DType> {
    match storage.class.as_str() {
        "torch.FloatStorage" => Some(DType::F32),
        "torch.DoubleStorage" => Some(DType::F64),
        "torch.HalfStorage" => Some(DType::F16),
        "torch.BFloat16Storage" => Some(DType::BF16),
        _ => None,
    }
}

/// The number of elements of a view, all of which must be in its storage.
fn check(view: &View) -> Result<usize, String> {
    let beyond = || "exceeds its storage".to_owned();
    let count = elements(&view.shape).ok_or_else(beyond)?;
    if count == 0 {
        return Ok(0);
    }
    let mut last = view.offset;
    for (dimension, stride) in view.shape.iter().zip(&view.strides) {
        last = (dimension - 1).checked_mul(*stride).and_then(|step| last.checked_add(step)).ok_or_else(beyond)?;
    }
    if last >= view.storage.length || count > view.storage.length { Err(beyond()) } else { Ok(count) }
}

fn tensor_of(bytes: &[u8], view: &View) -> Result<Tensor, String> {
    let number = number_type(&view.storage).ok_or_else(|| "has no floating-point numbers".to_owned())?;
    let length = view.storage.length.checked_mul(number.size_in_bytes()).filter(|length| *length <= bytes.len());
    let length = length.ok_or_else(|| "has fewer numbers than it declares".to_owned())?;
    let failed = |error: candle_core::Error| format!("cannot be read ({error})");
    let storage = Tensor::from_raw_buffer(&bytes[..length], number, &[view.storage.length], &Device::Cpu);
    let storage = storage.and_then(|numbers| numbers.to_dtype(DType::F32)).map_err(failed)?;
    let numbers: Vec<f32> = storage.to_vec1().map_err(failed)?;
    Tensor::from_vec(gather(&numbers, view), view.shape.as_slice(), &Device::Cpu).map_err(failed)
}

/// The numbers of a view in row-major order; `check` has verified that they exist.
fn gather(numbers: &[f32], view: &View) -> Vec<f32> {
    let count = view.shape.iter().product();
    if count == 0 {
        return Vec::new();
    }
    if is_row_major(view) {
        return numbers[view.offset..][..count].to_vec();
    }
    let mut gathered = Vec::with_capacity(count);
    let mut index = vec![0; view.shape.len()];
    for _ in 0..count {
        let at: usize = index.iter().zip(&view.strides).map(|(i, stride)| i * stride).sum();
        gathered.push(numbers[view.offset + at]);
        for (i, dimension) in index.iter_mut().zip(&view.shape).rev() {
            *i += 1;
            if *i < *dimension {
                break;
            }
            *i = 0;
        }
    }
    gathered
}

fn is_row_major(view: &View) -> bool {
    let mut expected = 1;
    view.shape.iter().zip(&view.strides).rev().all(|(dimension, stride)| {
        let fits = *dimension == 1 || *stride == expected;
        expected *= dimension;
        fits
    })
}
