//! The allocator of programs that train: mimalloc, told what training is like.
//!
//! A step takes hundreds of megabytes and gives them all back, to take as many again in the next one. Given back to the system each
//! time, that memory comes again in pages of four kilobytes, each faulted in and cleared by the kernel: some 10 % of a step of a vision
//! transformer. So it is kept for a while; and mimalloc asks for it in huge pages, which cost less to fault in and to reach.

use std::alloc::{GlobalAlloc, Layout};
use std::ffi::{c_int, c_long};
use std::sync::atomic::{AtomicBool, Ordering};

use libmimalloc_sys::{mi_collect, mi_option_set_default, mi_option_t};
use mimalloc::MiMalloc;

/// To be declared by a program: `#[global_allocator] static ALLOCATOR: Allocator = Allocator::new();`. What the environment says
/// (`MIMALLOC_PURGE_DELAY`) goes before what is said here.
#[derive(Debug)]
pub struct Allocator {
    told: AtomicBool,
}

/// `mi_option_purge_delay`, which the bindings have no name for.
const PURGE_DELAY: mi_option_t = 15 as c_int;

/// Milliseconds that free memory is kept: longer than most steps take.
const KEPT: c_long = 60_000;

impl Allocator {
    /// An allocator that has given nothing yet.
    #[must_use]
    pub const fn new() -> Self {
        Self { told: AtomicBool::new(false) }
    }

    /// Before the first memory is taken.
    #[inline]
    fn tell(&self) {
        if !self.told.load(Ordering::Relaxed) {
            // SAFETY: it sets a number, and does not allocate.
            unsafe { mi_option_set_default(PURGE_DELAY, KEPT) };
            self.told.store(true, Ordering::Relaxed);
        }
    }
}

/// Gives the memory that is free back to the system at once: for the end of a job.
pub fn give_back() {
    // SAFETY: it touches memory that is free, and may be called at any time from any thread.
    unsafe { mi_collect(true) };
}

impl Default for Allocator {
    fn default() -> Self {
        Self::new()
    }
}

// SAFETY: all is done by mimalloc's own implementation.
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
        // A second is what mimalloc has by default for this option and for no other.
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
