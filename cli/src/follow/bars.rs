//! Progress of a job as text: one bar per modality on a terminal, one line per epoch elsewhere.

use std::collections::BTreeMap;
use std::io;
use std::time::Duration;

use antiphon_core::event::{JobEvent, ModalityStart, StepEvent};
use antiphon_core::ids::{ModalityName, Split, Turn};
use antiphon_core::metrics::EvaluationReport;
use antiphon_core::spec::JobSpec;
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

use crate::output;

/// Weight of the newest step in the moving averages of a bar.
const NEWEST: f64 = 0.05;

/// The bars of one job.
pub(super) struct Bars {
    all: MultiProgress,
    head: ProgressBar,
    modalities: BTreeMap<ModalityName, Modality>,
    epoch: u64,
    on_terminal: bool,
    steps_per_turn: u64,
    /// For each modality, why it last lost a worker.
    lost: BTreeMap<ModalityName, String>,
}

struct Modality {
    bar: ProgressBar,
    smooth: Option<Figures>,
    epoch: Sum,
}

/// Moving averages of the figures of steps.
#[derive(Clone, Copy)]
struct Figures {
    loss: f64,
    accuracy: f64,
    ratio: f64,
}

#[derive(Clone, Copy, Default)]
struct Sum {
    loss: f64,
    accuracy: f64,
    ratio: f64,
    steps: f64,
}

impl Bars {
    pub(super) fn new(spec: &JobSpec) -> Self {
        let all = MultiProgress::new();
        let on_terminal = !all.is_hidden();
        let head = all.add(ProgressBar::new_spinner());
        head.enable_steady_tick(Duration::from_millis(200));
        head.set_message("starting");
        let widest = spec.modalities.iter().map(|m| m.name.as_str().len()).max().unwrap_or(0);
        let modalities = spec.modalities.iter().map(|m| {
            let bar = all.add(ProgressBar::no_length());
            bar.set_style(style("  {prefix} [{bar:24}] {pos:>6} turns  {msg}  {eta} to go"));
            bar.set_prefix(format!("{:widest$}", m.name.as_str()));
            (m.name.clone(), Modality { bar, smooth: None, epoch: Sum::default() })
        });
        let modalities = modalities.collect();
        let (steps_per_turn, lost) = (u64::from(spec.schedule.turn_batches), BTreeMap::new());
        Self { all, head, modalities, epoch: 0, on_terminal, steps_per_turn, lost }
    }

    /// Prints a line above the bars.
    pub(super) fn say(&self, text: &str) -> io::Result<()> {
        if self.on_terminal { self.all.println(text) } else { output::line(text) }
    }

    pub(super) fn clear(&mut self) {
        self.head.finish_and_clear();
        for modality in self.modalities.values() {
            modality.bar.finish_and_clear();
        }
    }

    pub(super) fn show(&mut self, event: &JobEvent, spec: &JobSpec) -> io::Result<()> {
        match event {
            JobEvent::Submitted { job, resumed_from, .. } => {
                self.head.set_message(format!("{job}: waiting for workers"));
                let from = resumed_from.as_ref().map(|url| format!(", from {url}")).unwrap_or_default();
                self.say(&format!("job {job}{from}"))
            }
            JobEvent::Recovered { turn, checkpoint, reason, .. } => {
                // Turns after this one are replayed. They count only once.
                self.modalities.values_mut().for_each(|modality| modality.epoch = Sum::default());
                self.head.set_message("waiting for workers");
                let from = checkpoint.as_ref().map(|url| format!(", {url}")).unwrap_or_default();
                self.say(&format!("recovered: {reason}; resumes from turn {turn}{from}"))
            }
            JobEvent::Suspended { turn, checkpoint, .. } => {
                self.head.set_message("suspended");
                let from = checkpoint.as_deref().unwrap_or("the beginning");
                self.say(&format!(
                    "suspended after {turn} turns: the coordinator shuts down; its successor resumes the job from \
                     {from}"
                ))
            }
            JobEvent::Waiting { reason, seconds, .. } => self.say(&format!("waiting ({seconds:.0} s): {reason}")),
            JobEvent::LeaseExpired { modality, worker, reason, .. } => {
                self.say(&format!("  {modality} worker {worker}: {reason}; its slot is released"))
            }
            JobEvent::WorkerLost { modality, worker, reason, .. } => {
                let before = self.lost.insert(modality.clone(), reason.clone());
                let reason = if before.as_ref() == Some(reason) { "the same reason as before" } else { reason };
                self.say(&format!("  {modality} worker {worker} is lost: {reason}"))
            }
            JobEvent::MixedNumerics { modality, worker, fingerprint, before, .. } => {
                let before: Vec<String> = before.iter().map(ToString::to_string).collect();
                let before = before.join(", ");
                self.say(&format!(
                    "  {modality} worker {worker} rounds differently from the workers before it (numeric fingerprint \
                     {fingerprint}, not {before}): the result can differ from that of workers of one kind"
                ))
            }
            JobEvent::WorkerReady { modality, worker, replayed, seconds, .. } => {
                let steps = if *replayed == 1 { "step" } else { "steps" };
                self.say(&format!(
                    "  {modality} worker {worker} is ready after {seconds:.1} s and replayed {replayed} {steps}"
                ))
            }
            JobEvent::Started { turn, turns, modalities, .. } => self.started(*turn, *turns, modalities),
            JobEvent::Step(step) => self.step(step),
            JobEvent::Evaluated { report, .. } => self.evaluated(report, spec),
            JobEvent::Checkpoint { checkpoint, best, stall_seconds, .. } => {
                let best = if *best { " (best so far)" } else { "" };
                let stalled = if *stall_seconds >= 1.0 {
                    format!("; training stalled for {stall_seconds:.1} s")
                } else {
                    String::new()
                };
                self.say(&format!("  checkpoint {checkpoint}{best}{stalled}"))
            }
            JobEvent::Times { .. } | JobEvent::Finished(_) => Ok(()),
        }
    }

    fn started(
        &mut self,
        turn: Turn,
        turns: u64,
        modalities: &BTreeMap<ModalityName, ModalityStart>,
    ) -> io::Result<()> {
        self.head.set_style(style("  {msg}  {pos}/{len} turns  {percent}%  {elapsed} elapsed, {eta} to go"));
        self.head.set_length(turns);
        self.head.set_position(turn.0);
        self.head.reset_eta();
        self.head.set_message("training");
        for (name, start) in modalities {
            let (samples, parameters) = (start.samples, start.parameters);
            self.say(&format!(
                "  {name}: {} training, {} validation, {} test samples; {parameters} parameters",
                samples.train, samples.validation, samples.test
            ))?;
        }
        for (name, start) in modalities {
            if let Some(modality) = self.modalities.get(name) {
                modality.bar.set_length(start.turns);
                modality.bar.set_position(start.turns_done);
                modality.bar.reset_eta();
            }
        }
        Ok(())
    }

    fn step(&mut self, step: &StepEvent) -> io::Result<()> {
        if step.epoch != self.epoch {
            self.end_epoch()?;
            self.epoch = step.epoch;
        }
        let last_of_turn = u64::from(step.step) + 1 == self.steps_per_turn;
        let Some(modality) = self.modalities.get_mut(&step.modality) else { return Ok(()) };
        let now = Figures { loss: step.loss, accuracy: step.accuracy, ratio: step.projected_ratio };
        let smooth = modality.smooth.map_or(now, |before| before.towards(now));
        modality.smooth = Some(smooth);
        modality.epoch.add(now);
        modality.bar.set_message(smooth.to_string());
        if last_of_turn {
            modality.bar.inc(1);
            self.head.set_position(step.turn.0 + 1);
            self.head.set_message(format!("epoch {}", step.epoch + 1));
        }
        Ok(())
    }

    /// Prints the means of the epoch after its last step.
    fn end_epoch(&mut self) -> io::Result<()> {
        let mut means = Vec::new();
        for (name, modality) in &mut self.modalities {
            if let Some(mean) = std::mem::take(&mut modality.epoch).mean() {
                means.push(format!("{name} {mean}"));
            }
        }
        if means.is_empty() {
            return Ok(());
        }
        let text = format!("epoch {:>3}  {}", self.epoch + 1, means.join(" | "));
        self.say(&text)
    }

    fn evaluated(&mut self, report: &EvaluationReport, spec: &JobSpec) -> io::Result<()> {
        self.end_epoch()?;
        if report.split != Split::Validation {
            return Ok(());
        }
        let alone = report.modalities.iter().map(|(name, m)| format!("{name} {:.1} %", 100.0 * m.scores.accuracy));
        let fused = report.headline(&spec.fusion).map_or(0.0, |scores| scores.accuracy);
        let alone: Vec<String> = alone.collect();
        self.say(&format!("  validation  {} | fused {:.1} %", alone.join(" | "), 100.0 * fused))
    }
}

impl Figures {
    fn towards(self, now: Self) -> Self {
        let mix = |old: f64, new: f64| old + NEWEST * (new - old);
        Self {
            loss: mix(self.loss, now.loss),
            accuracy: mix(self.accuracy, now.accuracy),
            ratio: mix(self.ratio, now.ratio),
        }
    }
}

impl std::fmt::Display for Figures {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "loss {:.3}  acc {:5.1} %  |GP|/|G| {:.2}", self.loss, 100.0 * self.accuracy, self.ratio)
    }
}

impl Sum {
    fn add(&mut self, step: Figures) {
        self.loss += step.loss;
        self.accuracy += step.accuracy;
        self.ratio += step.ratio;
        self.steps += 1.0;
    }

    fn mean(self) -> Option<Figures> {
        (self.steps > 0.0).then(|| Figures {
            loss: self.loss / self.steps,
            accuracy: self.accuracy / self.steps,
            ratio: self.ratio / self.steps,
        })
    }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar()).progress_chars("━╸ ")
}
