//! What a network is built for.

use std::cell::Cell;

use antiphon_core::ids::ModalityName;
use antiphon_data::InputShape;

use super::dropout::{CurrentStep, Dropout};
use super::options::Options;

/// The input of a registered function that builds a network.
#[derive(Debug)]
pub struct Blueprint<'a> {
    /// The modality of the network.
    pub modality: &'a ModalityName,
    /// The shape of a sample. The network reads a batch of B samples:
    ///
    /// | input | tensor |
    /// |---|---|
    /// | `Features` | (B, width), f32 |
    /// | `Grid`: an image, or a spectrogram with mel bands as rows and frames as columns | (B, channels, height, width), f32 |
    /// | `Clip` | (B · frames, channels, height, width), f32: frames are independent; features are averaged over them |
    /// | `Tokens` | (B, `max_tokens`), u32, filled with `padding` |
    pub input: &'a InputShape,
    /// s, the width of the head. A linear adapter follows a network that ends in another width.
    pub width: usize,
    /// The `options` of the job file.
    pub options: Options<'a>,
    pub(super) step: CurrentStep,
    pub(super) checks_gradients: Cell<bool>,
}

impl Blueprint<'_> {
    /// A dropout layer called `name`, whose masks are a function of the job's seed, the step and this name. candle's
    /// own dropout draws from the thread's generator, so no run could be repeated.
    #[must_use]
    pub fn dropout(&self, name: &str, probability: f64) -> Dropout {
        Dropout::new(self.step.clone(), name, probability)
    }

    /// Disables the comparison of gradients with finite differences. Call it for a network whose backward pass is
    /// intentionally not the derivative of its forward pass, because it detaches a tensor or has a straight-through
    /// estimator.
    pub fn skip_gradient_check(&self) {
        self.checks_gradients.set(false);
    }
}
