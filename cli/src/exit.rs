//! The exit codes of `antiphon`, and the code of each error.

pub use antiphon_process::Exit;

use crate::client::ClientError;

/// An error that knows its exit code; any other error is [`Exit::Failed`].
#[derive(Debug)]
pub struct Exiting {
    /// The code that the process exits with.
    pub exit: Exit,
    /// The error that is printed.
    pub error: anyhow::Error,
}

impl std::fmt::Display for Exiting {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&antiphon_process::full_message(self.error.as_ref()))
    }
}

impl std::error::Error for Exiting {}

/// Attaches an exit code to the error of a result.
pub trait OrExit<T> {
    /// Attaches this code to the error, if there is one.
    ///
    /// # Errors
    /// The same error, with the code.
    fn or_exit(self, exit: Exit) -> anyhow::Result<T>;
}

impl<T, E: Into<anyhow::Error>> OrExit<T> for Result<T, E> {
    fn or_exit(self, exit: Exit) -> anyhow::Result<T> {
        self.map_err(|error| anyhow::Error::new(Exiting { exit, error: error.into() }))
    }
}

/// The exit code that an error carries.
#[must_use]
pub fn of(error: &anyhow::Error) -> Exit {
    let given = error.downcast_ref::<Exiting>().map(|exiting| exiting.exit);
    given.or_else(|| error.downcast_ref::<ClientError>().map(ClientError::exit)).unwrap_or(Exit::Failed)
}

/// Whether the error says that standard output is closed, for example because a reader such as `head` has exited.
#[must_use]
pub fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let output = match error.downcast_ref::<ClientError>() {
        Some(ClientError::Output(output)) => Some(output),
        _ => error.downcast_ref::<std::io::Error>(),
    };
    output.is_some_and(|output| output.kind() == std::io::ErrorKind::BrokenPipe)
}
