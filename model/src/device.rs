//! Where encoders compute: in main memory, or on an NVIDIA GPU in a program that was built for one.

use std::fmt;
use std::str::FromStr;

pub use candle_core::Device;

/// The device that a user chooses for a worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum DeviceChoice {
    /// The first GPU, if there is one that the program can use. Otherwise main memory.
    #[default]
    Auto,
    /// Main memory.
    Cpu,
    /// The GPU of this number.
    Cuda(usize),
}

/// A device that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DeviceError {
    /// A text that names no device.
    #[error("`{0}` is not a device; use auto, cpu, cuda or cuda:1")]
    Unknown(String),
    /// The program was built without operators for the device.
    #[error(
        "this program was built without CUDA, so there is no device `{0}`; use `cpu`, or build with `--features cuda`"
    )]
    NotBuilt(DeviceChoice),
    /// The device does not exist or does not answer.
    #[error("device `{choice}` cannot be used: {reason}; run `nvidia-smi` to list the GPUs, or use `cpu`")]
    Unusable {
        /// The requested device.
        choice: DeviceChoice,
        /// The error of its driver.
        reason: String,
    },
}

impl FromStr for DeviceChoice {
    type Err = DeviceError;

    fn from_str(text: &str) -> Result<Self, DeviceError> {
        match (text, text.strip_prefix("cuda:").map(str::parse)) {
            ("auto", _) => Ok(Self::Auto),
            ("cpu", _) => Ok(Self::Cpu),
            ("cuda", _) => Ok(Self::Cuda(0)),
            (_, Some(Ok(number))) => Ok(Self::Cuda(number)),
            _ => Err(DeviceError::Unknown(text.to_owned())),
        }
    }
}

impl fmt::Display for DeviceChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Cpu => f.write_str("cpu"),
            Self::Cuda(number) => write!(f, "cuda:{number}"),
        }
    }
}

impl DeviceChoice {
    /// The device for one of several workers on a machine with the same choice, by its number. If there are several
    /// GPUs, `auto` distributes the workers over them, and no worker falls back to main memory if its GPU fails.
    #[must_use]
    pub fn for_worker(self, number: usize) -> Self {
        match (self, cards()) {
            (Self::Auto, cards @ 2..) => Self::Cuda(number % cards),
            (told, _) => told,
        }
    }

    /// The device itself.
    ///
    /// # Errors
    /// If a GPU was requested and cannot be used.
    pub fn open(self) -> Result<Device, DeviceError> {
        match self {
            Self::Cpu => Ok(Device::Cpu),
            Self::Cuda(number) => self.card(number),
            Self::Auto => Ok(Self::Cuda(0).open().unwrap_or_else(|error| {
                if !matches!(error, DeviceError::NotBuilt(_)) {
                    tracing::warn!(%error, "the first GPU cannot be used; encoders compute on the CPU");
                }
                Device::Cpu
            })),
        }
    }

    #[cfg(feature = "cuda")]
    fn card(self, number: usize) -> Result<Device, DeviceError> {
        crate::nn::cuda::open(number)
            .map_err(|error| DeviceError::Unusable { choice: self, reason: first_line(&error.to_string()) })
    }

    #[cfg(not(feature = "cuda"))]
    fn card(self, _number: usize) -> Result<Device, DeviceError> {
        Err(DeviceError::NotBuilt(self))
    }
}

/// The number of GPUs that the driver knows.
#[cfg(feature = "cuda")]
fn cards() -> usize {
    crate::nn::cuda::count()
}

#[cfg(not(feature = "cuda"))]
fn cards() -> usize {
    0
}

/// The first line, without the addresses that candle may append.
#[cfg(feature = "cuda")]
fn first_line(text: &str) -> String {
    text.lines().next().unwrap_or_default().to_owned()
}

/// Returns free memory of a GPU, so that other programs can use it. Does nothing in main memory.
pub fn give_back(device: &Device) {
    #[cfg(feature = "cuda")]
    if device.is_cuda()
        && let Err(error) = crate::nn::cuda::give_back(device)
    {
        tracing::warn!(%error, "the free memory of the GPU cannot be returned to other programs");
    }
    let _ = device;
}

/// Resets [`peak`].
pub fn forget_peak(device: &Device) {
    #[cfg(feature = "cuda")]
    if device.is_cuda() {
        // If this fails, `peak` fails too.
        let _ = crate::nn::cuda::forget_peak(device);
    }
    let _ = device;
}

/// The peak memory of a GPU that this program has used since [`forget_peak`], in bytes, without the memory of
/// libraries. None in main memory, or if it is not known.
#[must_use]
pub fn peak(device: &Device) -> Option<u64> {
    #[cfg(feature = "cuda")]
    if device.is_cuda() {
        return crate::nn::cuda::peak(device).ok().flatten();
    }
    let _ = device;
    None
}

/// The name that a worker reports to its coordinator.
#[must_use]
pub fn name(device: &Device) -> String {
    match device.location() {
        candle_core::DeviceLocation::Cuda { gpu_id } => DeviceChoice::Cuda(gpu_id).to_string(),
        _ => DeviceChoice::Cpu.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_have_names() {
        for (text, choice) in [
            ("auto", DeviceChoice::Auto),
            ("cpu", DeviceChoice::Cpu),
            ("cuda:0", DeviceChoice::Cuda(0)),
            ("cuda:3", DeviceChoice::Cuda(3)),
        ] {
            assert_eq!(text.parse(), Ok(choice));
            assert_eq!(choice.to_string(), text);
        }
        assert_eq!("cuda".parse(), Ok(DeviceChoice::Cuda(0)));
        for text in ["", "gpu", "cuda:", "cuda:-1", "cuda:x"] {
            let error = text.parse::<DeviceChoice>().expect_err("no device").to_string();
            assert_eq!(error, format!("`{text}` is not a device; use auto, cpu, cuda or cuda:1"));
        }
    }

    #[test]
    fn main_memory_is_always_there() {
        assert!(DeviceChoice::Cpu.open().expect("main memory").is_cpu());
        assert!(DeviceChoice::Auto.open().is_ok());
    }

    #[test]
    fn auto_spreads_workers_over_the_cards_there_are() {
        for choice in [DeviceChoice::Cpu, DeviceChoice::Cuda(2)] {
            assert_eq!(choice.for_worker(1), choice);
        }
        for worker in 0..5 {
            let device = DeviceChoice::Auto.for_worker(worker).open().expect("main memory at least");
            let expected = match cards() {
                0 => DeviceChoice::Cpu,
                cards => DeviceChoice::Cuda(worker % cards),
            };
            assert_eq!(name(&device), expected.to_string());
        }
    }

    #[cfg(not(feature = "cuda"))]
    #[test]
    fn a_card_is_refused_where_the_program_has_no_operators_for_it() {
        let error = DeviceChoice::Cuda(0).open().expect_err("built without");
        assert_eq!(
            error.to_string(),
            "this program was built without CUDA, so there is no device `cuda:0`; use `cpu`, or build with `--features \
             cuda`"
        );
    }
}
