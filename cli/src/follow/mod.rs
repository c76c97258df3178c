//! Following a job: its events as they come, shown to people as bars and tables or passed on to programs as they are.

mod bars;
mod tables;
mod times;

use antiphon_core::event::{FinalState, Finished, JobEvent};
use antiphon_core::spec::JobSpec;
use anyhow::anyhow;
use tokio_stream::StreamExt as _;

pub use tables::evaluation_table;

use crate::client::Client;
use crate::exit::{Exit, OrExit as _};
use crate::output::{self, Format};
use crate::signals::Interrupts;
use bars::Bars;
pub(crate) use times::Accounts;

/// What Ctrl-C means to the job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OnInterrupt {
    /// It stops at the next turn boundary; afterwards this command goes on with it.
    Stop(String),
    /// It goes on without being watched.
    Leave,
}

/// Shows a job's events until it ends.
///
/// # Errors
/// The coordinator goes away, or standard output is closed.
pub(crate) async fn follow(
    client: &mut Client,
    job: &str,
    spec: &JobSpec,
    format: Format,
    on_interrupt: OnInterrupt,
) -> anyhow::Result<Exit> {
    let mut interrupts = Interrupts::listen()?;
    let mut events = client.watch(job).await?;
    let mut view = View::new(format, spec);
    let mut stopping = false;
    loop {
        tokio::select! {
            event = events.next() => {
                let lost = || Err(anyhow!("the coordinator ended the events of {job}")).or_exit(Exit::Unreachable);
                let (event, json) = event.unwrap_or_else(lost)?;
                if let Some(exit) = view.show(&event, &json, &on_interrupt)? {
                    return Ok(exit);
                }
            }
            () = interrupts.next() => match &on_interrupt {
                OnInterrupt::Stop(_) if !stopping => {
                    stopping = true;
                    view.say("stopping at the next turn boundary, with a checkpoint; Ctrl-C again ends at once")?;
                    client.stop(job).await?;
                }
                OnInterrupt::Stop(_) => return Ok(Exit::Interrupted),
                OnInterrupt::Leave => {
                    view.say(&format!("job {job} goes on without being followed"))?;
                    return Ok(Exit::Interrupted);
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

    /// Shows an event; the exit code after the last.
    fn show(&mut self, event: &JobEvent, json: &str, on_interrupt: &OnInterrupt) -> anyhow::Result<Option<Exit>> {
        match self {
            Self::Json => output::line(json)?,
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
        Ok(Some(exit_of(finished)))
    }
}

fn exit_of(finished: &Finished) -> Exit {
    match finished.state {
        FinalState::Succeeded => Exit::Success,
        FinalState::Stopped => Exit::Interrupted,
        FinalState::Failed => Exit::Failed,
    }
}
