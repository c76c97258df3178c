//! What a client says of itself while its coordinator keeps it waiting, before there are events of the job to show.

use std::pin::pin;

use tokio::time::{Instant, sleep_until};

use crate::outage::SAY_AGAIN;
use crate::output::{self, Format};

/// What is said of one job. People read ids and events from standard output, so what is said to them goes elsewhere.
#[derive(Debug, Clone)]
pub(crate) struct Remarks {
    pub(crate) format: Format,
    /// None where it has no id yet.
    pub(crate) job: Option<String>,
    /// For so many seconds a coordinator that is away is waited for.
    pub(crate) up_to: u64,
}

impl Remarks {
    /// The coordinator is away, for so long now.
    pub(crate) fn unreachable(&self, seconds: u64, error: &str) -> anyhow::Result<()> {
        let event = serde_json::json!({"event": "unreachable", "job": self.job, "seconds": seconds, "error": error});
        let so_far = if seconds == 0 { String::new() } else { format!(", {seconds} s so far") };
        self.say(&event, &format!("{error}; trying again for up to {} s{so_far}", self.up_to))
    }

    /// It is there, after so long.
    pub(crate) fn reached(&self, seconds: u64) -> anyhow::Result<()> {
        let event = serde_json::json!({"event": "reached", "job": self.job, "seconds": seconds});
        self.say(&event, &format!("coordinator reached after {seconds} s"))
    }

    /// The answer to something that the coordinator takes its time for; for what, is said every ten seconds.
    pub(crate) async fn until<T>(
        &self,
        reason: &str,
        answer: impl Future<Output = anyhow::Result<T>>,
    ) -> anyhow::Result<T> {
        let begun = Instant::now();
        let mut answer = pin!(answer);
        let mut say_at = begun + SAY_AGAIN;
        loop {
            tokio::select! {
                answer = &mut answer => return answer,
                () = sleep_until(say_at) => {
                    say_at += SAY_AGAIN;
                    let seconds = begun.elapsed().as_secs();
                    let event =
                        serde_json::json!({"event": "waiting", "job": self.job, "reason": reason, "seconds": seconds});
                    self.say(&event, &format!("waiting ({seconds} s): {reason}"))?;
                }
            }
        }
    }

    fn say(&self, event: &serde_json::Value, text: &str) -> anyhow::Result<()> {
        match self.format {
            Format::Json => Ok(output::json(event)?),
            Format::Text => Ok(output::complain(text)?),
        }
    }
}
