//! How a raw value becomes numbers.

use super::super::document::Node;
use super::super::fields::input as at;
use super::super::json::Json;
use super::super::model::{InputSpec, TokenizerSpec};
use super::super::reader::Section;
use super::super::scalar;

pub(super) fn input(mut section: Section<'_>) -> Option<InputSpec> {
    let kind = section.choice(&at::KIND)?;
    let input = match kind {
        "image" => image(&mut section),
        "audio" => audio(&mut section),
        "text" => text(&mut section),
        "features" => section.flag(&at::STANDARDISE).map(|standardise| InputSpec::Features { standardise }),
        _ => Some(InputSpec::Auto),
    };
    section.finish();
    input
}

fn image(section: &mut Section<'_>) -> Option<InputSpec> {
    let height = section.optional_whole(&at::HEIGHT);
    let width = section.optional_whole(&at::WIDTH);
    match (height, width) {
        (Some(Some(height)), Some(None)) => {
            section.refuse(&at::HEIGHT, height, "is given without `width`; give both or neither");
        }
        (Some(None), Some(Some(width))) => {
            section.refuse(&at::WIDTH, width, "is given without `height`; give both or neither");
        }
        _ => {}
    }
    let get = |node: &Node| scalar::whole(node, 1, 3).filter(|n| *n != 2).and_then(|n| u32::try_from(n).ok());
    let channels = section.read(&at::CHANNELS, get, |n| Json::from(*n));
    let frames = section.whole(&at::FRAMES);
    Some(InputSpec::Image { height: height?, width: width?, channels: channels?, frames: frames? })
}

fn audio(section: &mut Section<'_>) -> Option<InputSpec> {
    let sample_rate: Option<u32> = section.whole(&at::SAMPLE_RATE);
    let seconds = section.read(&at::SECONDS, scalar::seconds, |seconds| Json::Number(*seconds));
    let mels: Option<u32> = section.whole(&at::MELS);
    let window: Option<u32> = section.whole(&at::WINDOW);
    let hop: Option<u32> = section.whole(&at::HOP);
    if let Some(window) = window {
        window_rules(section, window, hop, mels);
    }
    if let (Some(rate), Some(seconds), Some(window)) = (sample_rate, seconds, window)
        && f64::from(rate) * seconds < f64::from(window)
    {
        let rule =
            format!("at {rate} Hz is shorter than one window of {window} samples; lengthen it or shorten `window`");
        section.refuse(&at::SECONDS, format!("{seconds} s"), rule);
    }
    Some(InputSpec::Audio { sample_rate: sample_rate?, seconds: seconds?, mels: mels?, window: window?, hop: hop? })
}

fn window_rules(section: &mut Section<'_>, window: u32, hop: Option<u32>, mels: Option<u32>) {
    if !window.is_power_of_two() {
        let above = window.next_power_of_two();
        let rule = format!("is not a power of two; use {} or {above}", above / 2);
        section.refuse(&at::WINDOW, window, rule);
    }
    if let Some(hop) = hop.filter(|hop| *hop > window) {
        section.refuse(&at::HOP, hop, format!("is more than `window`, which is {window}; use at most {window}"));
    }
    if let Some(mels) = mels.filter(|mels| *mels > window / 2) {
        let rule = format!("is more than half of `window`, which is {window}; use at most {}", window / 2);
        section.refuse(&at::MELS, mels, rule);
    }
}

fn text(section: &mut Section<'_>) -> Option<InputSpec> {
    let tokenizer = section.read(&at::TOKENIZER, tokenizer, |tokenizer| {
        Json::text(match tokenizer {
            TokenizerSpec::Byte => "byte",
            TokenizerSpec::File(path) => path,
        })
    });
    let max_tokens = section.whole(&at::MAX_TOKENS);
    Some(InputSpec::Text { tokenizer: tokenizer?, max_tokens: max_tokens? })
}

/// `byte`, or a path that ends in `.json`.
fn tokenizer(node: &Node) -> Option<TokenizerSpec> {
    match node.text()? {
        "byte" => Some(TokenizerSpec::Byte),
        path if path.ends_with(".json") => Some(TokenizerSpec::File(path.to_owned())),
        _ => None,
    }
}
