//! The loop that shows what comes and heeds Ctrl-C.

use std::time::Duration;

use antiphon_core::event::{FinalState, JobEvent};
use antiphon_core::spec::JobSpec;
use antiphon_process::Interrupts;
use serde::Serialize;

use super::bars::Bars;
use super::connection::{Connection, News};
use super::ending::{Followed, OnInterrupt, can_go_on};
use super::tables;
use super::times::Accounts;
use crate::client::{Client, Watched};
use crate::output::{self, Format};

/// Shows a job's events, those numbered above `after`, until it ends. A coordinator that goes away is waited for, `patience` long.
///
/// # Errors
/// The coordinator goes away and does not come back, or standard output is closed.
pub(crate) async fn follow(
    client: &mut Client,
    job: &str,
    (spec, after): (&JobSpec, u64),
    format: Format,
    on_interrupt: OnInterrupt,
    patience: Duration,
) -> anyhow::Result<Followed> {
    let mut interrupts = Interrupts::listen()?;
    let mut connection = Connection::new(client.clone(), job, after, patience);
    let mut view = View::new(format, spec);
    let (mut training, mut stopping) = (false, false);
    loop {
        tokio::select! {
            news = connection.next() => match news? {
                News::Event(Watched { event, json, .. }) => {
                    training |= matches!(event, JobEvent::Started { .. });
                    if let Some(state) = view.show(&event, &json, &on_interrupt)? {
                        return Ok(Followed::ToItsEnd(state));
                    }
                }
                News::Unreachable { seconds, error } => view.unreachable(job, seconds, &error)?,
                News::Reached { seconds } => view.reached(job, seconds)?,
            },
            () = interrupts.next() => match &on_interrupt {
                OnInterrupt::Stop(_) if !stopping => {
                    stopping = true;
                    view.say(match training {
                        true => "stopping at the next turn boundary, with a checkpoint; Ctrl-C again ends at once",
                        // There is nothing yet that a checkpoint could keep.
                        false => "stopping; Ctrl-C again ends at once",
                    })?;
                    client.stop(job, false).await?;
                }
                OnInterrupt::Stop(_) => return Ok(Followed::Interrupted),
                OnInterrupt::Leave => {
                    view.say(&format!("job {job} goes on without being followed; `antiphon follow {job}` shows it again"))?;
                    return Ok(Followed::Interrupted);
                }
            }
        }
    }
}

/// What is shown.
enum View<'a> {
    Json,
    Text { bars: Box<Bars>, spec: &'a JobSpec, accounts: Option<Accounts> },
}

impl<'a> View<'a> {
    fn new(format: Format, spec: &'a JobSpec) -> Self {
        match format {
            Format::Json => Self::Json,
            Format::Text => Self::Text { bars: Box::new(Bars::new(spec)), spec, accounts: None },
        }
    }

    /// A remark that is no event.
    fn say(&self, text: &str) -> anyhow::Result<()> {
        match self {
            Self::Json => Ok(output::complain(text)?),
            Self::Text { bars, .. } => bars.say(text),
        }
    }

    /// The coordinator is gone, for so long now.
    fn unreachable(&self, job: &str, seconds: u64, error: &str) -> anyhow::Result<()> {
        match self {
            Self::Json => Ok(output::json(
                &serde_json::json!({"event": "unreachable", "job": job, "seconds": seconds, "error": error}),
            )?),
            Self::Text { bars, .. } if seconds == 0 => {
                bars.say(&format!("coordinator not reachable, trying again: {error}"))
            }
            Self::Text { bars, .. } => bars.say(&format!("coordinator not reachable for {seconds} s, trying again")),
        }
    }

    /// The coordinator is there again, after so long.
    fn reached(&self, job: &str, seconds: u64) -> anyhow::Result<()> {
        match self {
            Self::Json => Ok(output::json(&serde_json::json!({"event": "reached", "job": job, "seconds": seconds}))?),
            Self::Text { bars, .. } => bars.say(&format!("coordinator reached again after {seconds} s")),
        }
    }

    /// Shows an event; after the last, how the job ended.
    fn show(&mut self, event: &JobEvent, json: &str, on_interrupt: &OnInterrupt) -> anyhow::Result<Option<FinalState>> {
        match self {
            Self::Json => match (event, on_interrupt) {
                (JobEvent::Finished(finished), OnInterrupt::Stop(resume)) if can_go_on(finished) => {
                    output::json(&Resumable { event, resume })?;
                }
                _ => output::line(json)?,
            },
            Self::Text { bars, spec, accounts } => {
                if let JobEvent::Times { modalities, coordinator, .. } = event {
                    *accounts = Some(Accounts { modalities: modalities.clone(), coordinator: *coordinator });
                }
                bars.show(event, spec)?;
            }
        }
        let JobEvent::Finished(finished) = event else { return Ok(None) };
        if let Self::Text { bars, spec, accounts } = self {
            bars.clear();
            if let Some(accounts) = accounts {
                output::line(&format!("\n{}", accounts.table().trim_end()))?;
            }
            tables::finished(finished, spec, on_interrupt)?;
        }
        Ok(Some(finished.state))
    }
}

/// The end of a job that can be gone on with.
#[derive(Serialize)]
struct Resumable<'a> {
    #[serde(flatten)]
    event: &'a JobEvent,
    /// The command for it.
    resume: &'a str,
}
