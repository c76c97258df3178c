//! The network of a modality.

use super::super::fields::encoder as at;
use super::super::model::{BertSize, EncoderSpec, Pooling, Precision, ResnetDepth, TransferSpec, VitSize};
use super::super::reader::Section;
use super::transfer::transfer;

/// The network, what it begins from, and what it computes in.
pub(super) fn encoder(mut section: Section<'_>) -> Option<(EncoderSpec, TransferSpec, Precision)> {
    let kind = section.choice(&at::KIND);
    let encoder = kind.and_then(|kind| match kind {
        "mlp" => mlp(&mut section),
        "cnn" => cnn(&mut section),
        "text" => text(&mut section),
        "resnet18" => Some(EncoderSpec::Resnet { depth: ResnetDepth::Eighteen }),
        "resnet34" => Some(EncoderSpec::Resnet { depth: ResnetDepth::ThirtyFour }),
        "resnet50" => Some(EncoderSpec::Resnet { depth: ResnetDepth::Fifty }),
        "vit" => vit(&mut section),
        "bert" => bert(&mut section),
        _ => Some(EncoderSpec::Auto),
    });
    let transfer = transfer(&mut section);
    let precision = section.choice(&at::PRECISION);
    let precision = precision.map(|name| if name == "bf16" { Precision::Bf16 } else { Precision::F32 });
    // Which keys there are depends on the kind.
    if kind.is_some() {
        section.finish();
    }
    Some((encoder?, transfer?, precision?))
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
