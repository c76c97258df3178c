//! Lists the processor cores that a process may use, and binds processes to one of them.

use std::io;

/// The cores that this process may use; None if the system does not report them.
pub(crate) fn available() -> Option<Vec<usize>> {
    imp::available()
}

/// Starts a process or thread bound to one core. Its children inherit the binding.
pub(crate) fn bound_to<T>(core: Option<usize>, start: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    match core {
        Some(core) => imp::bound_to(core, start),
        None => start(),
    }
}

#[cfg(target_os = "linux")]
mod imp {
    use std::io;

    use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

    pub(super) fn available() -> Option<Vec<usize>> {
        let set = sched_getaffinity(None).ok()?;
        Some((0..CpuSet::MAX_CPU).filter(|core| set.is_set(*core)).collect())
    }

    /// A new process or thread inherits the cores of the thread that creates it.
    pub(super) fn bound_to<T>(core: usize, start: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        let before = sched_getaffinity(None)?;
        let mut one = CpuSet::new();
        one.set(core);
        sched_setaffinity(None, &one)?;
        let started = start();
        sched_setaffinity(None, &before)?;
        started
    }
}

#[cfg(not(target_os = "linux"))]
mod imp {
    use std::io;

    pub(super) fn available() -> Option<Vec<usize>> {
        None
    }

    pub(super) fn bound_to<T>(_core: usize, start: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        start()
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn a_thread_that_is_started_on_a_core_stays_there() {
        let before = available().expect("Linux tells");
        let core = before.last().copied();
        let thread = bound_to(core, || std::thread::Builder::new().spawn(available)).expect("a thread");
        assert_eq!(thread.join().expect("it ends"), core.map(|core| vec![core]));
        assert_eq!(available(), Some(before));
    }
}
