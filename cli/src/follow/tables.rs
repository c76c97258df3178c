//! The summary of a job that has ended, and the command that resumes it.

use std::fmt::Write as _;
use std::io;

use antiphon_core::event::{FinalState, Finished};
use antiphon_core::metrics::{EvaluationReport, RuleName};
use antiphon_core::spec::JobSpec;

use super::ending::OnInterrupt;
use crate::output;

/// Prints how a job ended.
pub(super) fn finished(finished: &Finished, spec: &JobSpec, on_interrupt: &OnInterrupt) -> io::Result<()> {
    if let Some(report) = &finished.evaluation {
        output::line(&format!("\n{}", evaluation_table(report, RuleName::from(&spec.fusion))))?;
    }
    if let Some(best) = &finished.best {
        output::line(&format!("best by validation  {} ({:.1} %)", best.checkpoint, 100.0 * best.score))?;
    }
    if let Some(checkpoint) = &finished.checkpoint {
        output::line(&format!("checkpoint          {checkpoint}"))?;
    }
    if let Some(digest) = &finished.digest {
        output::line(&format!("digest              {digest}"))?;
    }
    let resume = on_interrupt.resume_command(finished);
    match (finished.state, resume) {
        (FinalState::Succeeded, _) => output::line(&format!("succeeded after {} turns", finished.turn))?,
        (FinalState::Stopped, Some(command)) => {
            output::line(&format!("stopped after {} turns; resume with\n  {command}", finished.turn))?;
        }
        (FinalState::Stopped, None) => {
            output::line(&format!("stopped after {} turns, without a checkpoint", finished.turn))?;
        }
        (FinalState::Failed, resume) => {
            let reason = finished.reason.as_deref().unwrap_or("?");
            output::complain(&format!("failed after {} turns: {reason}", finished.turn))?;
            if let Some(command) = resume {
                output::complain(&format!("resume from its newest checkpoint with\n  {command}"))?;
            }
        }
    }
    Ok(())
}

/// One line per modality and per fusion rule; the rule in `headline` is marked.
#[must_use]
pub fn evaluation_table(report: &EvaluationReport, headline: RuleName) -> String {
    let mut text = format!("{} split, {} samples\n", report.split, report.samples);
    let head = ["", "accuracy", "macro-F1", "ECE", "entropy", "mean λ", "samples"];
    row(&mut text, head.map(str::to_owned));
    for (name, modality) in &report.modalities {
        let scores = &modality.scores;
        let cells = [
            name.to_string(),
            percent(scores.accuracy),
            percent(scores.macro_f1),
            scores.ece.map(percent).unwrap_or_default(),
            format!("{:.3}", modality.entropy),
            format!("{:.3}", modality.lambda),
            modality.samples.to_string(),
        ];
        row(&mut text, cells);
    }
    for (rule, scores) in &report.fused {
        let mark = if *rule == headline { " *" } else { "" };
        let name = format!("fused, {}{mark}", format!("{rule:?}").to_lowercase());
        let [accuracy, macro_f1] = [scores.accuracy, scores.macro_f1].map(percent);
        let ece = scores.ece.map(percent).unwrap_or_default();
        row(&mut text, [name, accuracy, macro_f1, ece, String::new(), String::new(), report.samples.to_string()]);
    }
    text
}

fn row(text: &mut String, cells: [String; 7]) {
    let [name, rest @ ..] = cells;
    let rest = rest.map(|cell| format!("{cell:>10}")).concat();
    // Writing to a String cannot fail.
    let _ = writeln!(text, "{}", format!("  {name:<18}{rest}").trim_end());
}

fn percent(share: f64) -> String {
    format!("{:.1} %", 100.0 * share)
}
