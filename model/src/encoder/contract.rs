//! The interface of every encoder: a forward pass that changes nothing, and a backward pass.

use std::collections::BTreeMap;

use antiphon_core::linalg::Matrix;
use antiphon_data::BatchInput;
use candle_core::{DType, Device, Tensor, Var};

use super::error::EncoderError;
use crate::nn::batch_norm::ChannelStatistics;
use crate::nn::layer::{Frozen, Mode, Pass, Variables};
use crate::nn::value::{Node, Value, backward as backward_on_tape};

/// f_m with its parameters θ_m.
pub trait Encoder: Send {
    /// s, the width of the features.
    fn width(&self) -> usize;

    /// The trainable parameters, named in PyTorch's style, in a fixed order.
    fn parameters(&self) -> &[(String, Var)];

    /// The state beside the parameters (running statistics), in a fixed order, in f32.
    ///
    /// # Errors
    /// If candle fails.
    fn buffers(&self) -> Result<Vec<(String, Tensor)>, EncoderError> {
        Ok(Vec::new())
    }

    /// Loads buffers from [`Encoder::buffers`]. Use [`restore`], which checks them.
    ///
    /// # Errors
    /// If candle fails.
    fn load_buffers(&mut self, _tensors: &BTreeMap<String, Tensor>) -> Result<(), EncoderError> {
        Ok(())
    }

    /// H = f_m(X), a pure function of parameters, buffers, input and mode.
    ///
    /// # Errors
    /// [`EncoderError::WrongBatch`] if `input` does not have the shape that the encoder was built for.
    fn forward(&self, input: &BatchInput, mode: &Mode) -> Result<Forward, EncoderError>;

    /// Adds the running statistics of a batch whose turn was applied. They must be [`in_memory`](Pending::in_memory).
    fn commit(&mut self, _pending: Pending) {}
}

/// Running statistics of one batch. They must be committed in the order of the steps. Empty for encoders without
/// buffers.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Pending(pub(super) Vec<ChannelStatistics>);

impl Pending {
    /// The same statistics in main memory: those on a GPU are copied.
    ///
    /// # Errors
    /// If the GPU fails.
    pub fn in_memory(self) -> Result<Self, EncoderError> {
        #[cfg(feature = "cuda")]
        let this = Self(crate::nn::cuda::batch_norm::in_memory(self.0)?);
        #[cfg(not(feature = "cuda"))]
        let this = self;
        Ok(this)
    }
}

/// The result of a forward pass.
#[derive(Debug)]
pub struct Forward {
    /// H (B, s).
    pub features: Tensor,
    /// See [`Encoder::commit`].
    pub pending: Pending,
    /// The recording for the backward pass, in training only.
    trace: Option<Trace>,
}

/// What a backward pass needs from the forward pass.
#[derive(Debug)]
struct Trace {
    way: Way,
    frozen: Frozen,
}

#[derive(Debug)]
enum Way {
    /// Our own tape, and the features on it. None if everything that they depend on is frozen.
    Tape { node: Option<Node>, variables: Variables },
    /// candle's graph, to which these features belong.
    Candle(Tensor),
}

impl Forward {
    pub(super) fn new(features: &Value, pass: Pass<'_>) -> Result<Self, EncoderError> {
        let features = pass.leave(features)?;
        let frozen = pass.frozen().cloned();
        let (variables, statistics) = pass.finish();
        let way = Way::Tape { node: features.node().cloned(), variables };
        let trace = frozen.map(|frozen| Trace { way, frozen });
        Ok(Self { features: features.tensor().clone(), pending: Pending(statistics), trace })
    }

    /// The features of a network with candle's backward pass.
    pub(crate) fn of_candle(features: Tensor, mode: &Mode) -> Self {
        let detached = features.detach();
        let trace = match mode {
            Mode::Train(_, frozen) => Some(Trace { way: Way::Candle(features), frozen: frozen.clone() }),
            Mode::Evaluate => None,
        };
        Self { features: detached, pending: Pending::default(), trace }
    }

    /// The number of steps on the tape.
    #[cfg(test)]
    pub(super) fn steps(&self) -> usize {
        match self.trace.as_ref().map(|trace| &trace.way) {
            Some(Way::Tape { node: Some(node), .. }) => node.steps(),
            _ => 0,
        }
    }

    /// H as a matrix for the head.
    ///
    /// # Errors
    /// If candle fails.
    pub fn matrix(&self) -> Result<Matrix<f32>, EncoderError> {
        let (rows, columns) = self.features.dims2()?;
        let values = self.features.to_device(&Device::Cpu)?.to_dtype(DType::F32)?.flatten_all()?.to_vec1()?;
        Ok(Matrix::from_vec(rows, columns, values).expect("a tensor has as many values as its shape"))
    }
}

/// Gradients of an encoder's parameters, in the order of [`Encoder::parameters`].
#[derive(Debug, Clone)]
pub struct Gradients(Vec<Option<Tensor>>);

impl Gradients {
    /// Gradients that were computed in another way, in the order of the parameters.
    #[cfg(test)]
    pub(crate) fn new(tensors: Vec<Tensor>) -> Self {
        Self(tensors.into_iter().map(Some).collect())
    }

    /// The gradient of each parameter, in its shape. None for frozen parameters.
    pub fn tensors(&self) -> &[Option<Tensor>] {
        &self.0
    }
}

/// The gradient of θ_m from the gradient dH (B, s) of the features. It can be computed once per pass.
///
/// # Errors
/// If the shapes differ, the pass was not for training, or a parameter that is not frozen gets no gradient.
pub fn backward(
    encoder: &dyn Encoder,
    forward: &Forward,
    feature_gradient: &Matrix<f32>,
) -> Result<Gradients, EncoderError> {
    let shape = (feature_gradient.rows(), feature_gradient.cols());
    let upstream = Tensor::from_slice(feature_gradient.as_slice(), shape, &Device::Cpu)?;
    backward_tensor(encoder.parameters(), forward, &upstream)
}

/// As [`backward`], for dH as a tensor on any device.
///
/// # Errors
/// As [`backward`].
pub fn backward_tensor(
    parameters: &[(String, Var)],
    forward: &Forward,
    upstream: &Tensor,
) -> Result<Gradients, EncoderError> {
    let ((rows, columns), (samples, width)) = (upstream.dims2()?, forward.features.dims2()?);
    if (rows, columns) != (samples, width) {
        return Err(EncoderError::WrongGradient { rows, columns, samples, width });
    }
    let missing = |name: &String| EncoderError::NoGradient { name: name.clone() };
    let Some(Trace { way, frozen }) = &forward.trace else {
        return Err(parameters
            .first()
            .map_or(EncoderError::NoGradient { name: String::new() }, |(name, _)| missing(name)));
    };
    let features = &forward.features;
    let upstream = upstream.to_dtype(features.dtype())?.to_device(features.device())?.contiguous()?;
    let gradients = match way {
        Way::Tape { node: Some(node), variables } => backward_on_tape(node, upstream, &variables.numbers(parameters))?,
        Way::Tape { node: None, .. } => vec![None; parameters.len()],
        Way::Candle(features) => backward_in_candle(features, &upstream, parameters, frozen)?,
    };
    let checked = gradients.into_iter().zip(parameters).map(|(gradient, (name, variable))| match gradient {
        None if !frozen.contains(variable) => match way {
            Way::Tape { .. } => Err(missing(name)),
            Way::Candle(_) => Err(EncoderError::CutGradient { name: name.clone() }),
        },
        gradient => Ok(gradient),
    });
    checked.collect::<Result<_, _>>().map(Gradients)
}

/// candle's own backward pass, from dH. It computes gradients of frozen parameters too, which are dropped here.
fn backward_in_candle(
    features: &Tensor,
    upstream: &Tensor,
    parameters: &[(String, Var)],
    frozen: &Frozen,
) -> Result<Vec<Option<Tensor>>, EncoderError> {
    let store = (features * upstream)?.sum_all()?.backward()?;
    let gradient = |(_, variable): &(String, Var)| match frozen.contains(variable) {
        true => None,
        false => store.get(variable.as_tensor()).cloned(),
    };
    Ok(parameters.iter().map(gradient).collect())
}

/// Parameters, then buffers: the state of an encoder for a checkpoint. They are copies, which later steps do not
/// change.
///
/// # Errors
/// If candle fails.
pub fn state(encoder: &dyn Encoder) -> Result<Vec<(String, Tensor)>, EncoderError> {
    let mut state = Vec::new();
    for (name, variable) in encoder.parameters() {
        state.push((name.clone(), variable.copy()?.detach()));
    }
    state.extend(encoder.buffers()?);
    Ok(state)
}

/// Restores the result of [`state`]. All tensors are checked before the first one is loaded. Names that the encoder
/// does not have are ignored.
///
/// # Errors
/// [`EncoderError::WrongTensor`] if a tensor is missing or has another shape or type.
pub fn restore(encoder: &mut dyn Encoder, tensors: &BTreeMap<String, Tensor>) -> Result<(), EncoderError> {
    for (name, own) in state(encoder)? {
        check_saved(&name, &own, tensors.get(&name))?;
    }
    for (name, variable) in encoder.parameters() {
        variable.set(&tensors[name].to_device(variable.device())?.contiguous()?)?;
    }
    encoder.load_buffers(tensors)
}

/// The saved tensor, if it may replace `own`.
pub(crate) fn check_saved<'a>(name: &str, own: &Tensor, saved: Option<&'a Tensor>) -> Result<&'a Tensor, EncoderError> {
    let wrong = |problem| EncoderError::WrongTensor { name: name.to_owned(), problem };
    let saved = saved.ok_or_else(|| wrong("it is missing".to_owned()))?;
    if saved.dims() != own.dims() || saved.dtype() != own.dtype() {
        let [saved, own] = [saved, own].map(|t| format!("{:?} {:?}", t.dtype(), t.dims()));
        return Err(wrong(format!("it is {saved}, not {own}")));
    }
    Ok(saved)
}
