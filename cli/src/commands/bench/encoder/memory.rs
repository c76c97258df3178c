//! The memory of this process, as Linux counts it. Unknown on other systems.

use std::fs;

/// The resident memory in bytes.
pub(super) fn resident() -> Option<u64> {
    status("VmRSS:")
}

/// The peak resident memory in bytes since [`forget_peak`], or since the start of the process if the system cannot
/// reset the peak.
pub(super) fn peak() -> Option<u64> {
    status("VmHWM:")
}

/// Resets [`peak`].
pub(super) fn forget_peak() {
    // If this fails, the peak counts from the start of the process.
    let _ = fs::write("/proc/self/clear_refs", "5");
}

fn status(field: &str) -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let value = status.lines().find_map(|line| line.strip_prefix(field))?;
    Some(value.trim().strip_suffix(" kB")?.parse::<u64>().ok()? << 10)
}
