//! Loads tensors into an encoder.

use std::collections::BTreeMap;

use candle_core::{DType, Tensor};

use super::WeightsError;
use super::names::Own;
use crate::encoder::Encoder;

impl Own {
    /// Names and shapes of an encoder's parameters and buffers.
    ///
    /// # Errors
    /// If candle fails.
    pub fn of(encoder: &dyn Encoder) -> Result<Self, WeightsError> {
        let parameters = encoder.parameters().iter().map(|(name, var)| (name.clone(), var.dims().to_vec()));
        let buffers = encoder.buffers()?.into_iter().map(|(name, tensor)| (name, tensor.dims().to_vec()));
        Ok(Self::new(parameters.chain(buffers)))
    }
}

/// Sets parameters and buffers to these tensors, under the encoder's names. Others stay unchanged. All tensors are
/// checked before the first one is loaded.
///
/// # Errors
/// [`WeightsError::WrongTensor`] if the encoder has no such tensor or another shape, and [`WeightsError::NotFinite`].
pub fn load(encoder: &mut dyn Encoder, tensors: &BTreeMap<String, Tensor>) -> Result<(), WeightsError> {
    let own = Own::of(encoder)?;
    for (name, tensor) in tensors {
        check(&own, name, tensor)?;
    }
    let mut buffers = BTreeMap::new();
    for (name, buffer) in encoder.buffers()? {
        let given = tensors.get(&name).map(|tensor| tensor.to_dtype(DType::F32)).transpose()?;
        buffers.insert(name, given.unwrap_or(buffer));
    }
    for (name, variable) in encoder.parameters() {
        if let Some(tensor) = tensors.get(name) {
            variable.set(&tensor.to_dtype(variable.dtype())?.to_device(variable.device())?.contiguous()?)?;
        }
    }
    Ok(encoder.load_buffers(&buffers)?)
}

fn check(own: &Own, name: &str, tensor: &Tensor) -> Result<(), WeightsError> {
    let wrong = |problem| WeightsError::WrongTensor { name: name.to_owned(), problem };
    let shape = own.shape(name).ok_or_else(|| wrong("is not a tensor of the encoder; remove it".to_owned()))?;
    if shape != tensor.dims() {
        return Err(wrong(format!("has shape {:?}, not {shape:?}", tensor.dims())));
    }
    let values: Vec<f32> = tensor.to_dtype(DType::F32)?.flatten_all()?.to_vec1()?;
    match values.into_iter().find(|value| !value.is_finite()) {
        None => Ok(()),
        Some(value) => Err(WeightsError::NotFinite { name: name.to_owned(), value }),
    }
}
