//! How much memory this process has, as Linux counts it. Elsewhere it is not known.

use std::fs;

/// Bytes that are in memory now.
pub(super) fn resident() -> Option<u64> {
    status("VmRSS:")
}

/// The most bytes that were in memory since [`forget_peak`], or since the process began where the system does not forget.
pub(super) fn peak() -> Option<u64> {
    status("VmHWM:")
}

/// Lets [`peak`] count anew.
pub(super) fn forget_peak() {
    // Where this is refused, the peak is that of the whole process, which is no less true.
    let _ = fs::write("/proc/self/clear_refs", "5");
}

fn status(field: &str) -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let value = status.lines().find_map(|line| line.strip_prefix(field))?;
    Some(value.trim().strip_suffix(" kB")?.parse::<u64>().ok()? << 10)
}
