//! The loop that shows the events of a job and handles Ctrl-C.

use std::io;

use antiphon_core::event::{FinalState, JobEvent};
use antiphon_core::spec::JobSpec;
use antiphon_process::Interrupts;
use antiphon_transport::ReconnectPolicy;
use serde::Serialize;

use super::bars::Bars;
use super::ending::{Followed, OnInterrupt, can_resume, nothing_left};
use super::remarks::as_event;
use super::tables;
use super::times::Accounts;
use crate::client::{Client, Events, Notice, Notify, Watched};
use crate::output::{self, Format};

/// Shows a job's events with numbers above `after`, until the job ends.
///
/// # Errors
/// The coordinator is unreachable for longer than the policy allows, or standard output is closed.
pub(crate) async fn follow(
    client: &Client,
    job: &str,
    (spec, after): (&JobSpec, u64),
    format: Format,
    on_interrupt: OnInterrupt,
    policy: ReconnectPolicy,
) -> anyhow::Result<Followed> {
    let mut interrupts = Interrupts::listen()?;
    let mut events = Events::new(client.clone(), job, after, policy);
    let mut view = View::new(job, format, spec);
    let (mut training, mut stopping) = (false, false);
    loop {
        tokio::select! {
            next = events.next(&mut view) => {
                let Watched { event, json, .. } = next?;
                training |= matches!(event, JobEvent::Started { .. });
                if let Some(state) = view.show(&event, &json, &on_interrupt)? {
                    return Ok(Followed::ToItsEnd(state));
                }
            }
            () = interrupts.next() => match &on_interrupt {
                OnInterrupt::Stop(_) if !stopping => {
                    stopping = true;
                    view.say(match training {
                        true => "stopping at the next turn boundary, with a checkpoint; Ctrl-C again ends at once",
                        // Before the first turn, no checkpoint is written.
                        false => "stopping; Ctrl-C again ends at once",
                    })?;
                    client.stop(job, false).await?;
                }
                OnInterrupt::Stop(_) => return Ok(Followed::Interrupted),
                OnInterrupt::Leave(_) => {
                    let program = output::program();
                    view.say(&format!("job {job} keeps running; `{program} follow {job}` shows its events again"))?;
                    return Ok(Followed::Interrupted);
                }
            }
        }
    }
}

/// The output of a job's events.
struct View<'a> {
    job: &'a str,
    spec: &'a JobSpec,
    /// Whether the job resumes from a checkpoint and has not taken a step yet.
    resumes: bool,
    form: Form,
}

enum Form {
    Json,
    Text { bars: Box<Bars>, accounts: Option<Accounts> },
}

impl<'a> View<'a> {
    fn new(job: &'a str, format: Format, spec: &'a JobSpec) -> Self {
        let form = match format {
            Format::Json => Form::Json,
            Format::Text => Form::Text { bars: Box::new(Bars::new(spec)), accounts: None },
        };
        Self { job, spec, resumes: false, form }
    }

    /// Prints a message that is not an event.
    fn say(&self, text: &str) -> io::Result<()> {
        match &self.form {
            Form::Json => output::complain(text),
            Form::Text { bars, .. } => bars.say(text),
        }
    }

    /// Shows an event. After the last event, returns how the job ended.
    fn show(&mut self, event: &JobEvent, json: &str, on_interrupt: &OnInterrupt) -> anyhow::Result<Option<FinalState>> {
        let spec = self.spec;
        match &mut self.form {
            Form::Json => match (event, on_interrupt) {
                (JobEvent::Finished(finished), OnInterrupt::Stop(resume)) if can_resume(finished) => {
                    output::json(&Resumable { event, resume })?;
                }
                _ => output::line(json)?,
            },
            Form::Text { bars, accounts } => {
                if let JobEvent::Times { modalities, coordinator, .. } = event {
                    *accounts = Some(Accounts { modalities: modalities.clone(), coordinator: *coordinator });
                }
                bars.show(event, spec)?;
            }
        }
        match event {
            JobEvent::Submitted { resumed_from, .. } => self.resumes = resumed_from.is_some(),
            JobEvent::Step(_) => self.resumes = false,
            JobEvent::Started { turn, turns, .. } if self.resumes && turn.0 >= *turns => {
                self.say(&nothing_left(*turn, *turns, spec.schedule.length))?;
            }
            _ => {}
        }
        let JobEvent::Finished(finished) = event else { return Ok(None) };
        if let Form::Text { bars, accounts } = &mut self.form {
            bars.clear();
            if let Some(accounts) = accounts {
                output::line(&format!("\n{}", accounts.table().trim_end()))?;
            }
            tables::finished(finished, spec, on_interrupt)?;
        }
        Ok(Some(finished.state))
    }
}

impl Notify for View<'_> {
    fn notify(&mut self, notice: Notice<'_>) -> io::Result<()> {
        match &self.form {
            Form::Json => output::json(&as_event(Some(self.job), notice)),
            Form::Text { bars, .. } => bars.say(&match notice {
                Notice::Unreachable { seconds: 0, error } => {
                    format!("cannot reach the coordinator, retrying: {error}")
                }
                Notice::Unreachable { seconds, .. } => {
                    format!("cannot reach the coordinator for {seconds} s, retrying")
                }
                Notice::Reconnected { seconds } => format!("reconnected to the coordinator after {seconds} s"),
                Notice::Waiting { seconds, reason } => format!("waiting ({seconds} s): {reason}"),
            }),
        }
    }
}

/// The last event of a job that can be resumed.
#[derive(Serialize)]
struct Resumable<'a> {
    #[serde(flatten)]
    event: &'a JobEvent,
    /// The command that resumes it.
    resume: &'a str,
}
