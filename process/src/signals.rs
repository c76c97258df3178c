//! Ctrl-C and SIGTERM: the first asks the program to end, the second ends it.

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::Exit;

/// The signals that ask the program to end.
#[derive(Debug)]
pub struct Interrupts {
    interrupt: Signal,
    terminate: Signal,
}

impl Interrupts {
    /// Starts to listen. From now on, signals do not end the program by themselves.
    ///
    /// # Errors
    /// If the system does not permit it.
    pub fn listen() -> std::io::Result<Self> {
        Ok(Self { interrupt: signal(SignalKind::interrupt())?, terminate: signal(SignalKind::terminate())? })
    }

    /// The next request. Cancelling it loses nothing.
    pub async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

/// A token that the first Ctrl-C or SIGTERM cancels. The second one ends the process at once, with the exit code of
/// [`Exit::Interrupted`].
///
/// # Errors
/// As [`Interrupts::listen`].
pub fn cancelled_by_signal() -> std::io::Result<CancellationToken> {
    let shutdown = CancellationToken::new();
    let (mut interrupts, cancel) = (Interrupts::listen()?, shutdown.clone());
    tokio::spawn(async move {
        interrupts.next().await;
        cancel.cancel();
        interrupts.next().await;
        end_at_once();
    });
    Ok(shutdown)
}

#[expect(
    clippy::disallowed_methods,
    reason = "a user who asks twice does not want to wait; persisted state is complete"
)]
fn end_at_once() -> ! {
    tracing::warn!("the program was asked to stop a second time and exits now");
    std::process::exit(Exit::Interrupted as i32)
}
