//! The rows of a bench, printed one by one as a table or as JSON objects.

use antiphon_process::Interrupts;
use serde::Serialize;

use crate::output::{self, Format};
use crate::progress::Progress;

/// The output of a bench.
pub(super) struct Rows {
    format: Format,
    progress: Progress,
    interrupts: Interrupts,
    printed: usize,
}

impl Rows {
    pub(super) fn new(format: Format) -> anyhow::Result<Self> {
        Ok(Self { format, progress: Progress::new(), interrupts: Interrupts::listen()?, printed: 0 })
    }

    /// Waits for work and shows on standard error what it is. None after Ctrl-C.
    pub(super) async fn meanwhile<T>(
        &mut self,
        doing: &'static str,
        done: impl Future<Output = anyhow::Result<T>>,
    ) -> anyhow::Result<Option<T>> {
        let done = tokio::select! {
            done = self.progress.during(doing, done) => Some(done),
            () = self.interrupts.next() => None,
        };
        self.progress.clear();
        done.transpose()
    }

    /// Waits for a row and prints it. The first row is preceded by `head`. None after Ctrl-C.
    pub(super) async fn next<R: Serialize>(
        &mut self,
        doing: &'static str,
        measuring: impl Future<Output = anyhow::Result<R>>,
        head: impl Fn(&R) -> String,
        line: impl Fn(&R) -> String,
    ) -> anyhow::Result<Option<R>> {
        let Some(row) = self.meanwhile(doing, measuring).await? else { return Ok(None) };
        match self.format {
            Format::Json => output::json(&row)?,
            Format::Text if self.printed == 0 => output::line(&format!("{}\n{}", head(&row), line(&row)))?,
            Format::Text => output::line(&line(&row))?,
        }
        self.printed += 1;
        Ok(Some(row))
    }
}
