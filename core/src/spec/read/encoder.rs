//! The network of a modality.

use super::super::fields::encoder as at;
use super::super::json::Json;
use super::super::model::{BertSize, EncoderSpec, Pooling, Precision, ResnetDepth, TransferSpec, VitSize};
use super::super::reader::{Refused, Section};
use super::super::scalar;
use super::transfer::transfer;
use crate::ids::EncoderName;

/// The network, its pretrained weights and its number format.
pub(super) fn encoder(mut section: Section<'_>) -> Option<(EncoderSpec, TransferSpec, Precision)> {
    let registered = section.registered(&at::KIND);
    let kind = if registered.is_none() { section.choice(&at::KIND) } else { None };
    let known = kind.is_some() || matches!(registered, Some(Ok(_)));
    let encoder = match registered {
        Some(Ok(name)) => custom(name, &mut section),
        Some(Err(Refused)) => None,
        None => kind.and_then(|kind| built_in(kind, &mut section)),
    };
    let transfer = transfer(&mut section);
    let precision = section.choice(&at::PRECISION);
    let precision = precision.map(|name| if name == "bf16" { Precision::Bf16 } else { Precision::F32 });
    // The keys depend on the kind.
    if known {
        section.finish();
    }
    Some((encoder?, transfer?, precision?))
}

/// The network of a built-in kind.
fn built_in(kind: &str, section: &mut Section<'_>) -> Option<EncoderSpec> {
    match kind {
        "mlp" => mlp(section),
        "cnn" => cnn(section),
        "text" => text(section),
        "resnet18" => Some(EncoderSpec::Resnet { depth: ResnetDepth::Eighteen }),
        "resnet34" => Some(EncoderSpec::Resnet { depth: ResnetDepth::ThirtyFour }),
        "resnet50" => Some(EncoderSpec::Resnet { depth: ResnetDepth::Fifty }),
        "vit" => vit(section),
        "bert" => bert(section),
        _ => Some(EncoderSpec::Auto),
    }
}

fn custom(name: EncoderName, section: &mut Section<'_>) -> Option<EncoderSpec> {
    let options = section.read(&at::OPTIONS, scalar::options, |options| Json::from(options))?;
    Some(EncoderSpec::Custom { name, options })
}

fn mlp(section: &mut Section<'_>) -> Option<EncoderSpec> {
    let hidden = section.wholes(&at::HIDDEN);
    let dropout = section.share(&at::DROPOUT);
    Some(EncoderSpec::Mlp { hidden: hidden?, dropout: dropout? })
}

fn cnn(section: &mut Section<'_>) -> Option<EncoderSpec> {
    let channels = section.wholes(&at::CHANNELS);
    let dropout = section.share(&at::DROPOUT);
    Some(EncoderSpec::Cnn { channels: channels?, dropout: dropout? })
}

fn text(section: &mut Section<'_>) -> Option<EncoderSpec> {
    let width: Option<u32> = section.whole(&at::WIDTH);
    let layers = section.whole(&at::LAYERS);
    let heads: Option<u32> = section.whole(&at::HEADS);
    let dropout = section.share(&at::DROPOUT);
    if let (Some(width), Some(heads)) = (width, heads)
        && !width.is_multiple_of(heads)
    {
        let above = width.next_multiple_of(heads);
        let rule = format!("is not a multiple of `heads`, which is {heads}; use {above}");
        section.refuse(&at::WIDTH, width, rule);
    }
    Some(EncoderSpec::Text { width: width?, layers: layers?, heads: heads?, dropout: dropout? })
}

fn vit(section: &mut Section<'_>) -> Option<EncoderSpec> {
    let size = section.choice(&at::VIT_SIZE).map(|size| match size {
        "tiny" => VitSize::Tiny,
        "base" => VitSize::Base,
        _ => VitSize::Small,
    });
    let patch = section.whole(&at::PATCH);
    let pooling = pooling(section);
    let dropout = section.share(&at::DROPOUT);
    Some(EncoderSpec::Vit { size: size?, patch: patch?, pooling: pooling?, dropout: dropout? })
}

fn bert(section: &mut Section<'_>) -> Option<EncoderSpec> {
    let size = section.choice(&at::BERT_SIZE).map(|size| match size {
        "tiny" => BertSize::Tiny,
        "mini" => BertSize::Mini,
        "small" => BertSize::Small,
        "medium" => BertSize::Medium,
        _ => BertSize::Base,
    });
    let pooling = pooling(section);
    let dropout = section.share(&at::BERT_DROPOUT);
    Some(EncoderSpec::Bert { size: size?, pooling: pooling?, dropout: dropout? })
}

fn pooling(section: &mut Section<'_>) -> Option<Pooling> {
    let pooling = section.choice(&at::POOLING)?;
    Some(if pooling == "mean" { Pooling::Mean } else { Pooling::Cls })
}
