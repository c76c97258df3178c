//! Initial parameters. Each has its own random stream, so adding one changes no other.

use antiphon_core::ids::ModalityName;
use antiphon_core::rng::{self, Stream};
use antiphon_core::spec::Precision;
use candle_core::{DType, Device, Result, Shape, Tensor, Var};

/// The number types of an encoder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Numbers {
    /// The type of parameters, their gradients, and the features.
    pub(crate) parameters: DType,
    /// The type of activations between layers.
    pub(crate) activations: DType,
}

impl Numbers {
    /// f64 throughout, for comparisons that rounding would disturb.
    pub const F64: Self = Self { parameters: DType::F64, activations: DType::F64 };
}

impl From<Precision> for Numbers {
    fn from(precision: Precision) -> Self {
        let activations = match precision {
            Precision::F32 => DType::F32,
            Precision::Bf16 => DType::BF16,
        };
        Self { parameters: DType::F32, activations }
    }
}

/// Creates the parameters of one encoder, and lists them in the order of creation.
#[derive(Debug)]
pub(crate) struct Parameters<'a> {
    seed: u64,
    modality: &'a ModalityName,
    numbers: Numbers,
    device: &'a Device,
    made: Vec<(String, Var)>,
}

impl<'a> Parameters<'a> {
    /// The stream of parameter `name` is `[init, modality, name]` under `seed`.
    pub(crate) fn new(seed: u64, modality: &'a ModalityName, numbers: Numbers, device: &'a Device) -> Self {
        Self { seed, modality, numbers, device, made: Vec::new() }
    }

    /// A parameter that is uniform within ±`bound`.
    pub(crate) fn uniform(&mut self, name: String, shape: impl Into<Shape>, bound: f64) -> Result<Var> {
        self.drawn(name, shape.into(), |stream| (2.0 * rng::uniform(stream) - 1.0) * bound)
    }

    /// A parameter that is normal with mean 0.
    pub(crate) fn normal(&mut self, name: String, shape: impl Into<Shape>, deviation: f64) -> Result<Var> {
        self.drawn(name, shape.into(), |stream| rng::normal(stream) * deviation)
    }

    /// A parameter that is uniform from `low` to `high`.
    pub(crate) fn uniform_between(
        &mut self,
        name: String,
        shape: impl Into<Shape>,
        low: f64,
        high: f64,
    ) -> Result<Var> {
        self.drawn(name, shape.into(), |stream| low + rng::uniform(stream) * (high - low))
    }

    /// A parameter that is normal around `mean`.
    pub(crate) fn normal_around(
        &mut self,
        name: String,
        shape: impl Into<Shape>,
        mean: f64,
        deviation: f64,
    ) -> Result<Var> {
        self.drawn(name, shape.into(), |stream| mean + rng::normal(stream) * deviation)
    }

    /// The parameter of this name, if it was created.
    pub(crate) fn find(&self, name: &str) -> Option<&Var> {
        self.made.iter().find(|(made, _)| made == name).map(|(_, variable)| variable)
    }

    /// Whether parameters have this type and device.
    pub(crate) fn makes(&self, dtype: DType, device: &Device) -> bool {
        dtype == self.numbers.parameters && device.same_device(self.device)
    }

    /// A parameter with the same value in every element.
    pub(crate) fn constant(&mut self, name: String, shape: impl Into<Shape>, value: f64) -> Result<Var> {
        let shape = shape.into();
        let values = vec![value; shape.elem_count()];
        self.keep(name, shape, values)
    }

    /// The type of activations between layers.
    pub(crate) fn activations(&self) -> DType {
        self.numbers.activations
    }

    /// Names and values, in the order of creation.
    pub(crate) fn into_made(self) -> Vec<(String, Var)> {
        self.made
    }

    fn drawn(&mut self, name: String, shape: Shape, mut draw: impl FnMut(&mut Stream) -> f64) -> Result<Var> {
        let mut stream = rng::stream(self.seed, &["init".into(), self.modality.into(), (&name).into()]);
        let values = (0..shape.elem_count()).map(|_| draw(&mut stream)).collect();
        self.keep(name, shape, values)
    }

    fn keep(&mut self, name: String, shape: Shape, values: Vec<f64>) -> Result<Var> {
        let tensor = Tensor::from_vec(values, shape, &Device::Cpu)?.to_dtype(self.numbers.parameters)?;
        let variable = Var::from_tensor(&tensor.to_device(self.device)?)?;
        self.made.push((name, variable.clone()));
        Ok(variable)
    }
}

#[cfg(test)]
mod tests {
    use super::super::check::flat;
    use super::*;

    fn drawn(seed: u64, modality: &str, name: &str) -> Vec<f64> {
        let modality = ModalityName::try_from(modality).expect("a name");
        let mut parameters = Parameters::new(seed, &modality, Precision::F32.into(), &Device::Cpu);
        parameters.normal("another".to_owned(), 3, 1.0).expect("drawn");
        let variable = parameters.normal(name.to_owned(), (40, 50), 0.5).expect("drawn");
        assert_eq!(parameters.into_made()[1].0, name);
        flat(&variable)
    }

    #[test]
    fn each_parameter_of_each_modality_under_each_seed_is_its_own() {
        let values = drawn(1, "audio", "w");
        assert_eq!(values, drawn(1, "audio", "w"));
        for other in [drawn(2, "audio", "w"), drawn(1, "image", "w"), drawn(1, "audio", "v")] {
            assert_ne!(values, other);
        }
        let deviation = (values.iter().map(|v| v * v).sum::<f64>() / values.len() as f64).sqrt();
        assert!((deviation - 0.5).abs() < 0.03, "{deviation}");
    }
}
