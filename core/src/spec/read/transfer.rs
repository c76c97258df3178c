//! Pretrained weights of an encoder, and which parameters are trained.

use super::super::document::{Node, Value};
use super::super::fields::transfer as at;
use super::super::json::Json;
use super::super::model::{TransferSpec, WeightsSpec};
use super::super::reader::{Section, optional, texts_json};
use super::super::scalar;

pub(super) fn transfer(encoder: &mut Section<'_>) -> Option<TransferSpec> {
    let weights = weights(encoder);
    let freeze = encoder.read(&at::FREEZE, scalar::texts, |patterns| texts_json(patterns));
    let adapter_lr = encoder.number(&at::ADAPTER_LR);
    Some(TransferSpec { weights: weights?, freeze: freeze?, adapter_lr: adapter_lr? })
}

fn weights(encoder: &mut Section<'_>) -> Option<Option<WeightsSpec>> {
    match encoder.child(&at::WEIGHTS) {
        Some(node) if says_something(&node) => {
            let section = encoder.section_of(&at::WEIGHTS, node)?;
            file(section).map(Some)
        }
        _ => encoder.read(&at::WEIGHTS, |node| node.is_null().then_some(None), |_| Json::Null),
    }
}

fn says_something(node: &Node) -> bool {
    match &node.value {
        Value::Map(entries) => !entries.is_empty(),
        _ => node.text().is_some() && !node.is_broken(),
    }
}

fn file(mut section: Section<'_>) -> Option<WeightsSpec> {
    let from = section.text(&at::FROM);
    let sha256 = section.read(&at::SHA256, optional(sha256), |digits| digits.clone().map_or(Json::Null, Json::Text));
    let strict = section.flag(&at::STRICT);
    section.finish();
    Some(WeightsSpec { from: from?, sha256: sha256?, strict: strict? })
}

fn sha256(node: &Node) -> Option<String> {
    let text = node.text()?;
    let hexadecimal = text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
    (text.len() == 64 && hexadecimal).then(|| text.to_owned())
}
