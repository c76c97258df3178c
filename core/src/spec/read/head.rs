//! The shared head and its projector.

use super::super::document::Node;
use super::super::fields::head as at;
use super::super::json::Json;
use super::super::model::{Alpha, ApplyTo, HeadSpec, ProjectionSpec, Reset};
use super::super::reader::Section;
use super::super::scalar;
use super::optimizer;

pub(super) fn head(mut section: Section<'_>) -> Option<HeadSpec> {
    let width = section.whole(&at::WIDTH);
    let projection = section.section(&at::PROJECTION).and_then(projection);
    let optimizer = section.section(&at::OPTIMIZER).and_then(optimizer::optimizer);
    section.finish();
    Some(HeadSpec { width: width?, projection: projection?, optimizer: optimizer? })
}

fn projection(mut section: Section<'_>) -> Option<ProjectionSpec> {
    let kind = section.choice(&at::KIND)?;
    let projection = match kind {
        "off" => Some(ProjectionSpec::Off),
        "window" => window(&mut section),
        _ => rls(&mut section),
    };
    section.finish();
    projection
}

fn rls(section: &mut Section<'_>) -> Option<ProjectionSpec> {
    let alpha = section.read(&at::ALPHA, alpha, |alpha| match alpha {
        Alpha::Constant(alpha) => Json::Number(*alpha),
        Alpha::Decay => Json::text("decay"),
    });
    let reset = section.choice(&at::RESET).map(|reset| if reset == "epoch" { Reset::Epoch } else { Reset::Never });
    let apply_to = apply_to(section);
    Some(ProjectionSpec::Rls { alpha: alpha?, reset: reset?, apply_to: apply_to? })
}

fn window(section: &mut Section<'_>) -> Option<ProjectionSpec> {
    let alpha = section.number(&at::WINDOW_ALPHA);
    let turns = section.whole(&at::TURNS);
    let apply_to = apply_to(section);
    Some(ProjectionSpec::Window { alpha: alpha?, turns: turns?, apply_to: apply_to? })
}

fn alpha(node: &Node) -> Option<Alpha> {
    use std::ops::Bound::{Excluded, Unbounded};
    match node.text()? {
        "decay" => Some(Alpha::Decay),
        _ => scalar::number(node, Excluded(0.0), Unbounded).map(Alpha::Constant),
    }
}

fn apply_to(section: &mut Section<'_>) -> Option<ApplyTo> {
    section.choice(&at::APPLY_TO).map(|to| if to == "update" { ApplyTo::Update } else { ApplyTo::Gradient })
}
