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
    /// From now on signals do not end the program by themselves.
    ///
    /// # Errors
    /// The system does not let signals be listened to.
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

/// Cancelled by the first request to end, Ctrl-C or what Kubernetes sends. The second ends the process at once, with
/// exit code of [`Exit::Interrupted`].
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
    reason = "the user who asks twice does not want to wait; what is persisted is complete"
)]
fn end_at_once() -> ! {
    tracing::warn!("the program was asked to end a second time and ends now");
    std::process::exit(Exit::Interrupted as i32)
}
