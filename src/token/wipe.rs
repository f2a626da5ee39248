//! Memory that forgets: every freed block is overwritten, so that no copy of a token that a library made on
//! its way outlives its use; and a process that nobody can dump.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::process::{DumpableBehavior, Resource, Rlimit};

/// The system's allocator, with every block zeroed before it is given back. Meant for `#[global_allocator]`.
pub struct Wiping;

// SAFETY: every call goes to `System` with the layout it was made with; a block is written to only while it
// is still ours, within its size. `realloc` is the trait's own: it allocates, copies and frees through the
// functions below, so that the old block is wiped and never left to the system by a move.
#[allow(unsafe_code)] // an allocator cannot be written without
unsafe impl GlobalAlloc for Wiping {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promise is passed on as it is.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promise is passed on as it is.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: the caller owns the block, which is `layout.size()` bytes long, until it is given back here.
        unsafe {
            wipe(block, layout.size());
            System.dealloc(block, layout);
        }
    }
}

/// Zeroes `size` bytes in a way that the compiler may not leave out.
///
/// # Safety
/// `block` has to be valid for writing `size` bytes.
#[allow(unsafe_code)]
unsafe fn wipe(block: *mut u8, size: usize) {
    // SAFETY: as promised by the caller. The empty instruction may read all memory that the pointer reaches as
    // far as the compiler knows, so the zeros have to be there: a store before `free` would count as dead else.
    unsafe {
        block.write_bytes(0, size);
        std::arch::asm!("/* {0} */", in(reg) block, options(nostack, preserves_flags));
    }
}

/// Gives memory that nobody uses back to the system, which keeps none of it for the next block by itself: a start or a
/// reload of a hundred thousand targets takes more than it leaves. Takes milliseconds, and holds up who allocates.
pub fn give_back() {
    #[cfg(target_env = "gnu")]
    {
        #[allow(unsafe_code)] // malloc_trim(3) of the C library that `System` is there
        unsafe extern "C" {
            safe fn malloc_trim(keep: usize) -> std::ffi::c_int;
        }
        // Whether there was any says nothing.
        let _ = malloc_trim(0);
    }
}

/// Shuts the process's memory and new files to others: not dumpable (so that another process of the same user
/// reads neither memory nor environment, and no core is written), no core files, umask 077. The first thing
/// that `main` does.
///
/// # Errors
/// What the kernel refused; none is known to refuse any of it.
pub fn harden() -> std::io::Result<()> {
    rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    rustix::process::setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) })?;
    let before = rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
    UMASK.store(before.bits(), Ordering::Relaxed);
    Ok(())
}

static UMASK: AtomicU32 = AtomicU32::new(0o022);

/// The umask that this process was started with: for programs that we start for somebody else.
pub fn umask_before() -> rustix::fs::Mode {
    rustix::fs::Mode::from_raw_mode(UMASK.load(Ordering::Relaxed))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[allow(unsafe_code)]
    fn a_wiped_block_holds_zeros_and_nothing_beyond_it_changes() {
        let mut block = *b"secret|rest";
        // SAFETY: six of eleven bytes.
        unsafe { wipe(block.as_mut_ptr(), 6) };
        assert_eq!(&block, b"\0\0\0\0\0\0|rest");
    }

    #[test]
    #[allow(unsafe_code)]
    fn a_block_that_grows_keeps_its_bytes() {
        let small = Layout::array::<u8>(16).unwrap();
        // SAFETY: the block is used within its size and given back with its last layout.
        unsafe {
            let block = Wiping.alloc(small);
            block.write_bytes(7, 16);
            let grown = Wiping.realloc(block, small, 4096);
            assert_eq!(std::slice::from_raw_parts(grown, 16), [7; 16]);
            Wiping.dealloc(grown, Layout::array::<u8>(4096).unwrap());
        }
    }
}
