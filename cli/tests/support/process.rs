//! A part of the system as a process of its own.

use std::process::{Child, Command};
use std::sync::mpsc;
use std::time::Duration;

/// Nothing that a process of a test does takes that long.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

/// A process that does not outlive its test.
pub(crate) struct Process(pub(crate) Child);

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Process {
    pub(crate) fn signal(&self, signal: &str) {
        let kill = Command::new("kill").args([signal, &self.0.id().to_string()]).status();
        assert!(kill.expect("kill starts").success());
    }

    /// Its exit code, once it has ended.
    pub(crate) fn ended(mut self) -> Option<i32> {
        let (tell, ended) = mpsc::channel();
        std::thread::spawn(move || tell.send(self.0.wait().expect("it is a child").code()));
        ended.recv_timeout(PATIENCE).expect("it ends")
    }
}
