//! A modality's files of a checkpoint.
//!
//! `encoder-<modality>.safetensors` holds what predictions need: parameters and running statistics under their own
//! names, the preprocessor's tensors under `input.`, and the preprocessor's settings in the note.
//! `encoder-<modality>.state.safetensors` holds what only training needs: the optimizer's moments and the number of
//! steps, which determines every random stream.

use std::collections::BTreeMap;

use antiphon_core::ids::ModalityName;
use antiphon_core::spec::{JobSpec, ModalitySpec};
use antiphon_data::{Preprocessor, PreprocessorSettings, PreprocessorState};
use antiphon_model::encoder;
use antiphon_model::optimizer::Optimizer;
use antiphon_model::weights::Rates;
use antiphon_store::tensors::{self, Array, Arrays};
use bytes::Bytes;
use candle_core::{DType, Device, Tensor};
use serde::{Deserialize, Serialize};

use super::error::Within as _;
use super::{Machine, Model, TrainError, Trainer};

const MEAN: &str = "input.mean";
const DEVIATION: &str = "input.deviation";

/// The file of a modality's encoder.
#[must_use]
pub fn encoder_file(modality: &ModalityName) -> String {
    antiphon_core::files::encoder(modality)
}

/// The file of what only training needs.
#[must_use]
pub fn state_file(modality: &ModalityName) -> String {
    antiphon_core::files::encoder_state(modality)
}

/// The note of an encoder's file.
#[derive(Debug, Serialize, Deserialize)]
struct EncoderNote {
    modality: ModalityName,
    width: u32,
    input: PreprocessorSettings,
    /// The `tokenizer.json`, if one is used, so that a checkpoint needs no other file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    tokenizer: Option<String>,
}

/// The note of the state file.
#[derive(Debug, Serialize, Deserialize)]
struct StateNote {
    modality: ModalityName,
    steps_done: u64,
    /// Steps of the optimizer.
    optimizer_steps: u64,
}

impl Model {
    /// The bytes of [`encoder_file`].
    ///
    /// # Errors
    /// A failure of the device.
    pub fn to_file(&self, modality: &ModalityName) -> Result<Bytes, TrainError> {
        let mut arrays = arrays(&encoder::state(self.encoder.as_ref())?)?;
        let input = self.preprocessor.state();
        if !input.mean.is_empty() {
            let vector = |data: Vec<f32>| Array { shape: vec![data.len()], data };
            arrays.insert(MEAN.to_owned(), vector(input.mean));
            arrays.insert(DEVIATION.to_owned(), vector(input.deviation));
        }
        let tokenizer = input.tokenizer.map(|bytes| String::from_utf8(bytes.to_vec())).transpose()?;
        let width = self.encoder.width() as u32;
        let note = EncoderNote { modality: modality.clone(), width, input: input.settings, tokenizer };
        Ok(tensors::encode(&encoder_file(modality), &arrays, &note)?)
    }

    /// A model from the bytes of [`encoder_file`].
    ///
    /// # Errors
    /// If the file is damaged, or belongs to another modality or encoder than the job's.
    pub fn from_file(
        job: &JobSpec,
        modality: &ModalitySpec,
        bytes: &[u8],
        machine: &Machine,
    ) -> Result<Self, TrainError> {
        let name = encoder_file(&modality.name);
        let (mut arrays, note): (Arrays, EncoderNote) = tensors::decode(&name, bytes)?;
        check_modality(&modality.name, &name, note.modality)?;
        let mut vector = |name: &str| arrays.remove(name).map(|array| array.data).unwrap_or_default();
        let state = PreprocessorState {
            settings: note.input,
            mean: vector(MEAN),
            deviation: vector(DEVIATION),
            tokenizer: note.tokenizer.map(Bytes::from),
        };
        let preprocessor = Preprocessor::from_state(state).within(|| format!("the input settings of `{name}`"))?;
        let mut model = Self::build(job, modality, preprocessor, machine)?;
        encoder::restore(model.encoder.as_mut(), &tensors_of(&arrays)?).within(|| format!("`{name}`"))?;
        Ok(model)
    }
}

/// Checks that the bytes of [`state_file`] fit this modality and its model, as in [`Trainer::restore`]. Returns the
/// number of steps that the encoder has taken.
///
/// # Errors
/// If the file is damaged, or belongs to another modality, encoder or optimizer.
pub fn check_state(modality: &ModalitySpec, model: &Model, bytes: &[u8]) -> Result<u64, TrainError> {
    let parameters = model.encoder.parameters();
    let rates = Rates::new(&modality.transfer, parameters)?;
    let mut optimizer = Optimizer::with_rates(&modality.optimizer, parameters, &rates)?;
    restore_optimizer(&mut optimizer, &modality.name, bytes)
}

/// Restores the moments from the bytes of [`state_file`]. Returns the number of steps that the encoder has taken.
fn restore_optimizer(optimizer: &mut Optimizer, modality: &ModalityName, bytes: &[u8]) -> Result<u64, TrainError> {
    let name = state_file(modality);
    let (moments, note): (Arrays, StateNote) = tensors::decode(&name, bytes)?;
    check_modality(modality, &name, note.modality)?;
    optimizer.restore(&tensors_of(&moments)?, note.optimizer_steps).within(|| format!("`{name}`"))?;
    Ok(note.steps_done)
}

fn check_modality(expected: &ModalityName, file: &str, noted: ModalityName) -> Result<(), TrainError> {
    if noted == *expected { Ok(()) } else { Err(TrainError::OtherModality { file: file.to_owned(), modality: noted }) }
}

impl Trainer {
    /// Names and bytes of this modality's files.
    ///
    /// # Errors
    /// A failure of the device.
    pub fn files(&self) -> Result<Vec<(String, Bytes)>, TrainError> {
        let modality = &self.spec.name;
        let state = state_file(modality);
        let note = StateNote {
            modality: modality.clone(),
            steps_done: self.steps_done,
            optimizer_steps: self.optimizer.steps(),
        };
        let moments = tensors::encode(&state, &arrays(&self.optimizer.state()?)?, &note)?;
        Ok(vec![(encoder_file(modality), self.model.to_file(modality)?), (state, moments)])
    }

    /// Resumes from the bytes of the two files. Drops a forward pass that was computed ahead.
    ///
    /// # Errors
    /// If a file is damaged, or belongs to another modality, encoder or optimizer.
    pub fn restore(&mut self, job: &JobSpec, encoder: &[u8], state: &[u8]) -> Result<(), TrainError> {
        self.model = Model::from_file(job, &self.spec, encoder, &self.options.machine)?;
        let steps_done = restore_optimizer(&mut self.optimizer, &self.spec.name, state)?;
        self.rewind_to(steps_done);
        Ok(())
    }
}

fn arrays(tensors: &[(String, Tensor)]) -> candle_core::Result<Arrays> {
    let array = |tensor: &Tensor| {
        let data = tensor.to_dtype(DType::F32)?.flatten_all()?.to_vec1()?;
        Ok::<_, candle_core::Error>(Array { shape: tensor.dims().to_vec(), data })
    };
    tensors.iter().map(|(name, tensor)| Ok((name.clone(), array(tensor)?))).collect()
}

fn tensors_of(arrays: &Arrays) -> candle_core::Result<BTreeMap<String, Tensor>> {
    let tensor = |array: &Array| Tensor::from_slice(&array.data, array.shape.as_slice(), &Device::Cpu);
    arrays.iter().map(|(name, array)| Ok((name.clone(), tensor(array)?))).collect()
}
