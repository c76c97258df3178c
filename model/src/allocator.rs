//! The allocator of programs that train: mimalloc, configured for training.
//!
//! A step allocates hundreds of megabytes and frees them, and the next step allocates as many. If freed memory went
//! back to the system, the kernel would fault in and clear every page of four kilobytes again: some 10 % of a step of a
//! vision transformer. So freed memory is retained for a while. mimalloc also asks for huge pages, which cost less to
//! fault in and to access.

use std::alloc::{GlobalAlloc, Layout};
use std::ffi::{c_int, c_long};
use std::sync::atomic::{AtomicBool, Ordering};

use libmimalloc_sys::{mi_collect, mi_option_set_default, mi_option_t};
use mimalloc::MiMalloc;

/// To be declared by a program: `#[global_allocator] static ALLOCATOR: Allocator = Allocator::new();`. The environment
/// variable `MIMALLOC_PURGE_DELAY` overrides the settings here.
#[derive(Debug)]
pub struct Allocator {
    told: AtomicBool,
}

/// `mi_option_purge_delay`, which the bindings have no name for.
const PURGE_DELAY: mi_option_t = 15 as c_int;

/// Milliseconds for which free memory is retained: longer than most steps take.
const KEPT: c_long = 60_000;

impl Allocator {
    /// An allocator that has allocated nothing yet.
    #[must_use]
    pub const fn new() -> Self {
        Self { told: AtomicBool::new(false) }
    }

    /// Sets the options, before the first allocation.
    #[inline]
    fn tell(&self) {
        if !self.told.load(Ordering::Relaxed) {
            // SAFETY: it sets a number, and does not allocate.
            unsafe { mi_option_set_default(PURGE_DELAY, KEPT) };
            self.told.store(true, Ordering::Relaxed);
        }
    }
}

/// Returns free memory to the system at once, for the end of a job.
pub fn give_back() {
    // SAFETY: it touches free memory only, and any thread may call it at any time.
    unsafe { mi_collect(true) };
}

impl Default for Allocator {
    fn default() -> Self {
        Self::new()
    }
}

// SAFETY: mimalloc's own implementation does all the work.
unsafe impl GlobalAlloc for Allocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        self.tell();
        unsafe { MiMalloc.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        self.tell();
        unsafe { MiMalloc.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        unsafe { MiMalloc.dealloc(memory, layout) }
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        unsafe { MiMalloc.realloc(memory, layout, size) }
    }
}

#[cfg(test)]
mod tests {
    use libmimalloc_sys::mi_option_get;

    use super::*;

    #[test]
    fn the_option_that_is_set_is_how_long_free_memory_is_kept() {
        if std::env::var_os("MIMALLOC_PURGE_DELAY").is_some() {
            return;
        }
        // Only this option has a default of one second.
        assert_eq!(unsafe { mi_option_get(PURGE_DELAY) }, 1000);
        let allocator = Allocator::new();
        let layout = Layout::array::<u64>(1 << 20).expect("a layout");
        unsafe {
            let memory = allocator.alloc_zeroed(layout);
            assert!(!memory.is_null() && *memory == 0);
            let memory = allocator.realloc(memory, layout, 2 * layout.size());
            allocator.dealloc(memory, Layout::array::<u64>(1 << 21).expect("a layout"));
        }
        assert_eq!(unsafe { mi_option_get(PURGE_DELAY) }, KEPT);
        give_back();
    }
}
