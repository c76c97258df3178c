//! Where a modality's samples come from.

use super::super::document::Node;
use super::super::fields::data as at;
use super::super::json::Json;
use super::super::model::{DataSpec, SynthKind, SynthSamples, ValidationSource};
use super::super::reader::{Section, listed, texts_json};
use super::super::scalar;
use crate::ids::ModalityName;

pub(super) fn data(mut section: Section<'_>, name: &ModalityName) -> Option<DataSpec> {
    match section.choice(&at::SOURCE)? {
        "synth" => synth(section, name),
        _ => parquet(section, name),
    }
}

fn parquet(mut section: Section<'_>, name: &ModalityName) -> Option<DataSpec> {
    let train = section.texts(&at::TRAIN);
    if train.as_ref().is_some_and(Vec::is_empty) {
        section.refuse(&at::TRAIN, "[]", "names no file; give at least one file to train on");
    }
    let validation = section.read(&at::VALIDATION, validation, validation_json);
    let test = section.texts(&at::TEST);
    let column = column(&mut section, name);
    let id = section.optional_text(&at::ID);
    section.finish();
    Some(DataSpec::Parquet { train: train?, validation: validation?, test: test?, column: column?, id: id? })
}

fn column(section: &mut Section<'_>, name: &ModalityName) -> Option<String> {
    section.read_or(&at::COLUMN, Some(name.to_string()), scalar::text, |text| Json::text(text))
}

fn validation(node: &Node) -> Option<ValidationSource> {
    if scalar::looks_like_share(node) {
        scalar::share(node).map(ValidationSource::Fraction)
    } else {
        scalar::texts(node).filter(|files| !files.is_empty()).map(ValidationSource::Files)
    }
}

fn validation_json(validation: &ValidationSource) -> Json {
    match validation {
        ValidationSource::Fraction(share) => Json::Number(*share),
        ValidationSource::Files(files) => texts_json(files),
    }
}

fn synth(mut section: Section<'_>, name: &ModalityName) -> Option<DataSpec> {
    let kind = section.choice(&at::KIND).map(|kind| match kind {
        "features" => SynthKind::Features,
        _ => SynthKind::SpokenDigits,
    });
    let column = column(&mut section, name);
    if let (Some(kind), Some(column)) = (kind, &column)
        && !kind.columns().contains(&column.as_str())
    {
        let rule = format!("is not a column of `{}`; it has {}", kind.name(), listed(kind.columns()));
        section.refuse(&at::COLUMN, column, rule);
    }
    let samples = section.section(&at::SAMPLES).and_then(samples);
    let missing = section.share(&at::MISSING);
    let seed = section.whole(&at::SEED);
    section.finish();
    Some(DataSpec::Synth { kind: kind?, column: column?, samples: samples?, missing: missing?, seed: seed? })
}

fn samples(mut section: Section<'_>) -> Option<SynthSamples> {
    let train = section.whole(&at::SAMPLES_TRAIN);
    let validation = section.whole(&at::SAMPLES_VALIDATION);
    let test = section.whole(&at::SAMPLES_TEST);
    section.finish();
    Some(SynthSamples { train: train?, validation: validation?, test: test? })
}
