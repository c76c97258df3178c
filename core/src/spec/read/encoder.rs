//! The network of a modality.

use super::super::fields::encoder as at;
use super::super::model::EncoderSpec;
use super::super::reader::Section;

pub(super) fn encoder(mut section: Section<'_>) -> Option<EncoderSpec> {
    let kind = section.choice(&at::KIND)?;
    let encoder = match kind {
        "mlp" => mlp(&mut section),
        "cnn" => cnn(&mut section),
        "text" => text(&mut section),
        _ => Some(EncoderSpec::Auto),
    };
    section.finish();
    encoder
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
