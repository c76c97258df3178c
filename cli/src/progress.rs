//! Work that may take long: shown on standard error after two seconds, cancelled by Ctrl-C.

use std::time::Duration;

use antiphon_process::Interrupts;
use anyhow::Context as _;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use tokio_util::sync::CancellationToken;

/// Work that ends before this time is not shown.
const SHOW_AFTER: Duration = Duration::from_secs(2);

/// A progress bar on standard error, shown once the work takes long. It is not shown if standard error is not a
/// terminal.
#[derive(Debug, Clone)]
pub(crate) struct Progress {
    bar: ProgressBar,
}

impl Progress {
    pub(crate) fn new() -> Self {
        Self { bar: ProgressBar::with_draw_target(None, ProgressDrawTarget::hidden()) }
    }

    /// Shows a spinner while it waits for work of unknown length.
    pub(crate) async fn during<T>(&self, doing: &'static str, work: impl Future<Output = T>) -> T {
        self.bar.set_style(ProgressStyle::default_spinner());
        self.bar.set_message(doing);
        let mut work = std::pin::pin!(work);
        tokio::select! {
            done = &mut work => return done,
            () = tokio::time::sleep(SHOW_AFTER) => self.show(),
        }
        self.bar.enable_steady_tick(Duration::from_millis(200));
        let done = work.await;
        self.bar.disable_steady_tick();
        done
    }

    /// Shows why the work is delayed.
    pub(crate) fn delayed(&self, reason: String) {
        self.bar.set_message(reason);
    }

    /// Starts a bar for work of `length` rows.
    pub(crate) fn begin(&self, doing: &'static str, length: u64) {
        self.begin_counting(doing, length, "rows");
    }

    /// Starts a bar for work of `length` items, which `what` names.
    pub(crate) fn begin_counting(&self, doing: &'static str, length: u64, what: &'static str) {
        let template = format!("  {{msg}} [{{bar:24}}] {{pos}}/{{len}} {what}  {{elapsed}} elapsed, {{eta}} to go");
        self.bar.set_style(ProgressStyle::with_template(&template).unwrap_or_else(|_| ProgressStyle::default_bar()));
        self.bar.set_message(doing);
        self.bar.set_length(length);
        self.bar.reset();
    }

    /// Sets the number of items that are done.
    pub(crate) fn at(&self, rows: u64) {
        if self.bar.is_hidden() && self.bar.elapsed() >= SHOW_AFTER {
            self.show();
        }
        self.bar.set_position(rows);
    }

    pub(crate) fn clear(&self) {
        self.bar.finish_and_clear();
    }

    fn show(&self) {
        self.bar.set_draw_target(ProgressDrawTarget::stderr());
    }
}

/// Opens something, then works on it on a separate thread. `work` must check the token between samples, and return None
/// once it is cancelled. Returns None after Ctrl-C or SIGTERM, once the work has ended.
pub(crate) async fn until_interrupted<O, T, W>(
    open: impl Future<Output = anyhow::Result<O>>,
    work: W,
) -> anyhow::Result<Option<T>>
where
    O: Send + 'static,
    T: Send + 'static,
    W: FnOnce(O, &CancellationToken) -> anyhow::Result<Option<T>> + Send + 'static,
{
    let mut interrupts = Interrupts::listen()?;
    let opened = tokio::select! {
        opened = open => opened?,
        () = interrupts.next() => return Ok(None),
    };
    let cancelled = CancellationToken::new();
    let token = cancelled.clone();
    let mut working = tokio::task::spawn_blocking(move || work(opened, &token));
    loop {
        tokio::select! {
            done = &mut working => return done.context("the work panicked")?,
            () = interrupts.next() => cancelled.cancel(),
        }
    }
}
