//! Support for these tests: tensors that encode their origin, files with them, a small encoder, and golden messages.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use antiphon_core::digest::sha256;
use antiphon_core::spec::WeightsSpec;
use antiphon_data::BatchInput;
use antiphon_model::encoder::{Encoder, EncoderError, Forward, Mode, Pending};
use candle_core::{DType, Device, Tensor, Var};

pub(crate) type Shapes = BTreeMap<String, Vec<usize>>;
pub(crate) type Named = BTreeMap<String, Tensor>;

pub(crate) fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/model/weights")
}

/// Compares the message with the golden file.
pub(crate) fn check(name: &str, message: &str) {
    let file = folder().join("golden").join(format!("{name}.txt"));
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(&file, format!("{message}\n")).expect("the golden file can be written");
    }
    let expected = std::fs::read_to_string(&file).unwrap_or_default();
    assert_eq!(message, expected.trim_end(), "{name}: run with UPDATE=1 and look at the difference if this is meant");
}

pub(crate) fn shapes(list: &[(&str, &[usize])]) -> Shapes {
    list.iter().map(|(name, shape)| ((*name).to_owned(), shape.to_vec())).collect()
}

/// Numbers whose first is unique to the name.
pub(crate) fn tensor(name: &str, shape: &[usize]) -> Tensor {
    let hash = sha256(name.as_bytes()).0;
    // Twenty bits identify the name, and four vary from number to number: exact in f32.
    let first = u32::from_le_bytes([hash[0], hash[1], hash[2], 0]) & !15;
    let count: usize = shape.iter().product();
    let numbers: Vec<f32> = (0..count as u32).map(|i| (first + i % 13) as f32 / (1 << 18) as f32).collect();
    Tensor::from_vec(numbers, shape, &Device::Cpu).expect("as many as the shape has")
}

pub(crate) fn tensors(shapes: &Shapes) -> Named {
    shapes.iter().map(|(name, shape)| (name.clone(), tensor(name, shape))).collect()
}

pub(crate) fn flat(tensor: &Tensor) -> Vec<f32> {
    tensor.flatten_all().and_then(|flat| flat.to_dtype(DType::F32)?.to_vec1()).expect("numbers")
}

/// A safetensors file.
pub(crate) fn write(path: &Path, tensors: &Named) {
    candle_core::safetensors::save(&tensors.clone().into_iter().collect(), path).expect("the folder is writable");
}

pub(crate) fn from(path: &Path) -> WeightsSpec {
    WeightsSpec { from: path.display().to_string(), sha256: None, strict: true }
}

/// An encoder that has tensors but computes nothing.
pub(crate) struct Shelf {
    parameters: Vec<(String, Var)>,
    buffers: Named,
}

impl Shelf {
    /// All tensors are 0; running statistics are buffers.
    pub(crate) fn new(shapes: &Shapes) -> Self {
        let zeros = |shape: &[usize]| Tensor::zeros(shape, DType::F32, &Device::Cpu).expect("zeros");
        let (buffers, parameters): (Vec<_>, Vec<_>) = shapes.iter().partition(|(name, _)| name.contains("running_"));
        let variable = |shape: &[usize]| Var::from_tensor(&zeros(shape)).expect("a variable");
        Self {
            parameters: parameters.into_iter().map(|(name, shape)| (name.clone(), variable(shape))).collect(),
            buffers: buffers.into_iter().map(|(name, shape)| (name.clone(), zeros(shape))).collect(),
        }
    }

    pub(crate) fn values(&self) -> BTreeMap<String, Vec<f32>> {
        let parameters = self.parameters.iter().map(|(name, variable)| (name.clone(), flat(variable)));
        parameters.chain(self.buffers.iter().map(|(name, buffer)| (name.clone(), flat(buffer)))).collect()
    }
}

impl Encoder for Shelf {
    fn width(&self) -> usize {
        1
    }

    fn parameters(&self) -> &[(String, Var)] {
        &self.parameters
    }

    fn buffers(&self) -> Result<Vec<(String, Tensor)>, EncoderError> {
        Ok(self.buffers.clone().into_iter().collect())
    }

    fn load_buffers(&mut self, tensors: &BTreeMap<String, Tensor>) -> Result<(), EncoderError> {
        self.buffers = self.buffers.keys().map(|name| (name.clone(), tensors[name].clone())).collect();
        Ok(())
    }

    fn forward(&self, _: &BatchInput, _: &Mode) -> Result<Forward, EncoderError> {
        unreachable!("it computes nothing")
    }

    fn commit(&mut self, _: Pending) {}
}
