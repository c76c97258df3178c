//! The options that `eval` and `predict` share.

use std::collections::BTreeMap;
use std::str::FromStr;

use antiphon_core::ids::{ModalityName, Split};
use antiphon_core::spec::{FusionSpec, Override};
use antiphon_model::device::DeviceChoice;
use clap::builder::{PossibleValuesParser, TypedValueParser as _};

use super::error::PredictorError;

/// The checkpoint, and the data to use it on
#[derive(Debug, Clone, clap::Args)]
pub struct Source {
    /// Folder or URL of the checkpoint, or of a run for its newest checkpoint
    pub checkpoint: String,

    /// Parquet files to read instead of the job's: a path or URL with `*` and `?`, for all modalities, or for one as in
    /// `audio=PATTERN`; can be repeated
    #[arg(long, value_name = "[MODALITY=]PATTERN")]
    pub data: Vec<DataPattern>,

    /// Split of the job's data to read; files of --data are read as this split
    #[arg(long, default_value = "test", value_parser = PossibleValuesParser::new(["test", "validation", "train"]).map(split))]
    pub split: Split,

    /// Leave out a modality: its weight λ is 0, and the weights of the others sum to 1; can be repeated
    #[arg(long, value_name = "MODALITY")]
    pub drop: Vec<String>,

    /// Fusion rule to use instead of the job's: `entropy`, `mean`, `tuned`, or weights as in `audio=0.7,image=0.3`
    #[arg(long, value_name = "RULE", value_parser = fusion)]
    pub fusion: Option<FusionSpec>,

    /// Set one field of the checkpoint's job, for example `--set labels.column=digit`; can be repeated
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub set: Vec<Override>,

    /// Samples to compute at once, instead of the job's `evaluation.chunk`; results do not depend on it
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub chunk: Option<u32>,

    /// Threads per modality that decode samples ahead
    #[arg(long, default_value_t = 1, value_name = "N")]
    pub decode_threads: usize,

    /// Memory for encoded samples, in MiB per modality; the rest goes to a temporary file
    #[arg(long, default_value_t = 256, value_name = "MIB")]
    pub data_memory: u64,

    /// Device of the encoders: auto (the first GPU if the program can use one, otherwise cpu), cpu, cuda or
    /// cuda:N
    #[arg(long, env = "ANTIPHON_DEVICE", default_value_t, value_name = "DEVICE")]
    pub device: DeviceChoice,
}

/// Files that replace the job's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DataPattern {
    /// The modality that reads the files; None for all.
    pub modality: Option<ModalityName>,
    /// Path or URL, with wildcards.
    pub pattern: String,
}

impl FromStr for DataPattern {
    type Err = String;

    /// Parses `PATTERN` or `MODALITY=PATTERN`. A modality is recognised if the text before the first `=` is a valid
    /// name.
    fn from_str(text: &str) -> Result<Self, String> {
        let named =
            text.split_once('=').and_then(|(name, pattern)| Some((ModalityName::try_from(name).ok()?, pattern)));
        let (modality, pattern) = named.map_or((None, text), |(name, pattern)| (Some(name), pattern));
        if pattern.is_empty() {
            return Err("a path or URL is missing".to_owned());
        }
        Ok(Self { modality, pattern: pattern.to_owned() })
    }
}

impl Source {
    /// Checks that the options fit a job with the modalities `there`.
    pub(super) fn check(&self, there: &[ModalityName]) -> Result<(), PredictorError> {
        let known = |option, given: &str, hint| {
            if there.iter().any(|name| name.as_str() == given) {
                return Ok(());
            }
            Err(PredictorError::UnknownModality { option, given: given.to_owned(), there: there.to_vec(), hint })
        };
        for name in &self.drop {
            known("--drop", name, "")?;
        }
        for name in self.data.iter().filter_map(|data| data.modality.as_ref()) {
            known("--data", name.as_str(), "; put ./ before a path that contains `=`")?;
        }
        let remaining = || there.iter().filter(|name| !self.drop.iter().any(|dropped| dropped == name.as_str()));
        if remaining().next().is_none() {
            return Err(PredictorError::NothingLeft { there: there.to_vec() });
        }
        if let Some(FusionSpec::Fixed(weights)) = &self.fusion {
            for name in weights.keys() {
                known("--fusion", name.as_str(), "")?;
            }
            if let Some(modality) = remaining().find(|name| !weights.contains_key(name)) {
                return Err(PredictorError::NoWeight { modality: modality.clone() });
            }
        }
        Ok(())
    }
}

fn split(text: String) -> Split {
    match text.as_str() {
        "train" => Split::Train,
        "validation" => Split::Validation,
        _ => Split::Test,
    }
}

fn fusion(text: &str) -> Result<FusionSpec, String> {
    match text {
        "entropy" => return Ok(FusionSpec::Entropy),
        "mean" => return Ok(FusionSpec::Mean),
        "tuned" => return Ok(FusionSpec::Tuned),
        _ if !text.contains('=') => {
            return Err("use `entropy`, `mean`, `tuned`, or weights as in `audio=0.7,image=0.3`".to_owned());
        }
        _ => {}
    }
    let mut weights = BTreeMap::new();
    for pair in text.split(',') {
        let (name, weight) = pair.split_once('=').ok_or_else(|| format!("`{pair}` is not MODALITY=WEIGHT"))?;
        let name = ModalityName::try_from(name.trim()).map_err(|error| error.to_string())?;
        let number: f64 = weight.trim().parse().map_err(|_| format!("`{weight}` is not a number"))?;
        if !number.is_finite() || number < 0.0 {
            return Err(format!("the weight {number} of `{name}` is not a number of at least 0"));
        }
        if weights.insert(name.clone(), number).is_some() {
            return Err(format!("`{name}` has two weights"));
        }
    }
    if weights.values().all(|weight| *weight == 0.0) {
        return Err("every weight is 0; give at least one modality a weight above 0".to_owned());
    }
    Ok(FusionSpec::Fixed(weights))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> ModalityName {
        ModalityName::try_from(text).expect("a name")
    }

    #[test]
    fn a_name_before_an_equals_sign_is_a_modality() {
        let read = |text: &str| text.parse::<DataPattern>().map(|data| (data.modality, data.pattern));
        assert_eq!(read("a/*.parquet"), Ok((None, "a/*.parquet".to_owned())));
        assert_eq!(read("audio=a=b.parquet"), Ok((Some(name("audio")), "a=b.parquet".to_owned())));
        assert_eq!(read("./date=1/a.parquet"), Ok((None, "./date=1/a.parquet".to_owned())));
        assert!(read("audio=").is_err() && read("").is_err());
    }

    #[test]
    fn fusion_rules_are_parsed_or_refused_with_a_reason() {
        assert_eq!(fusion("mean"), Ok(FusionSpec::Mean));
        let weights = [(name("audio"), 0.7), (name("image"), 0.0)].into();
        assert_eq!(fusion("audio=0.7, image=0"), Ok(FusionSpec::Fixed(weights)));
        for (text, message) in [
            ("sum", "use `entropy`, `mean`, `tuned`, or weights as in `audio=0.7,image=0.3`"),
            ("audio=x", "`x` is not a number"),
            ("audio=-1", "the weight -1 of `audio` is not a number of at least 0"),
            ("audio=NaN", "the weight NaN of `audio` is not a number of at least 0"),
            ("audio=1,image", "`image` is not MODALITY=WEIGHT"),
            ("audio=1,audio=2", "`audio` has two weights"),
            ("audio=0", "every weight is 0; give at least one modality a weight above 0"),
        ] {
            assert_eq!(fusion(text), Err(message.to_owned()));
        }
    }
}
