//! What a network is built for.

use antiphon_core::ids::ModalityName;
use antiphon_data::InputShape;

use super::dropout::{CurrentStep, Dropout};
use super::options::Options;

/// What a registered function reads to build its network.
#[derive(Debug)]
pub struct Blueprint<'a> {
    /// The modality that it is for.
    pub modality: &'a ModalityName,
    /// What a sample looks like. The network reads a batch B of them:
    ///
    /// | input | tensor |
    /// |---|---|
    /// | `Features` | (B, width), f32 |
    /// | `Grid`: an image, or a spectrogram with mel bands as rows and frames as columns | (B, channels, height, width), f32 |
    /// | `Clip` | (B · frames, channels, height, width), f32: each frame by itself; features are averaged over the frames |
    /// | `Tokens` | (B, `max_tokens`), u32, filled with `padding` |
    pub input: &'a InputShape,
    /// s, the width of the head. A network that ends in another width is followed by a linear adapter.
    pub width: usize,
    /// What the job says under `options`.
    pub options: Options<'a>,
    pub(super) step: CurrentStep,
}

impl Blueprint<'_> {
    /// A dropout layer called `name`, whose masks are a function of the job's seed, the step and this name. candle's own dropout
    /// draws from the thread's generator, so that no run could be repeated.
    #[must_use]
    pub fn dropout(&self, name: &str, probability: f64) -> Dropout {
        Dropout::new(self.step.clone(), name, probability)
    }
}
