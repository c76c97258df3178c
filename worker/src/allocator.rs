//! The allocator of programs that train: mimalloc, told what training is like.
//!
//! A step takes hundreds of megabytes and gives them all back, to take as many again in the next one. Given back to the system each
//! time, that memory comes again in pages of four kilobytes, each faulted in and cleared by the kernel: up to a fifth of a step. So it is
//! kept for a while, and asked for in huge pages where the system has them on request.

use std::alloc::{GlobalAlloc, Layout};
use std::ffi::{c_int, c_long};
use std::sync::atomic::{AtomicBool, Ordering};

use libmimalloc_sys::{mi_option_large_os_pages, mi_option_set_default, mi_option_t};
use mimalloc::MiMalloc;

/// To be declared by a program: `#[global_allocator] static ALLOCATOR: Allocator = Allocator::new();`. What the environment says
/// (`MIMALLOC_PURGE_DELAY`, `MIMALLOC_ALLOW_LARGE_OS_PAGES`) goes before what is said here.
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

    /// Before the first memory is taken, as options count from then on only.
    #[inline]
    fn tell(&self) {
        if !self.told.load(Ordering::Relaxed) {
            // SAFETY: both set a number, and neither allocates.
            unsafe {
                mi_option_set_default(mi_option_large_os_pages, 1);
                mi_option_set_default(PURGE_DELAY, KEPT);
            }
            self.told.store(true, Ordering::Relaxed);
        }
    }
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
