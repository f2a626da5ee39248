//! Memory that forgets: every freed block is overwritten, so that no copy of a token that a library made on
//! its way outlives its use; and a process that nobody can dump.

use std::alloc::{GlobalAlloc, Layout, System};
use std::fmt;
use std::ops::{Deref, DerefMut};
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

/// A value that is wiped when it is dropped, all of its room, whichever allocator frees it. As `zeroize::Zeroizing`, which
/// writes one byte after the other: each rotation wipes ten thousand.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Zeroizing<T: Wipe>(T);

/// What can be wiped where it stands.
pub trait Wipe {
    /// Makes it zeros, or empty with zeros in its room.
    fn wipe(&mut self);
}

impl Wipe for Vec<u8> {
    fn wipe(&mut self) {
        self.clear();
        // SAFETY: the room of a list is its own, used or not.
        #[allow(unsafe_code)]
        unsafe {
            wipe(self.as_mut_ptr(), self.capacity());
        }
    }
}

impl Wipe for String {
    fn wipe(&mut self) {
        std::mem::take(self).into_bytes().wipe();
    }
}

impl<const N: usize> Wipe for [u8; N] {
    fn wipe(&mut self) {
        // SAFETY: an array is as long as it says.
        #[allow(unsafe_code)]
        unsafe {
            wipe(self.as_mut_ptr(), N);
        }
    }
}

impl<T: Wipe> Zeroizing<T> {
    /// Takes the value over.
    pub fn new(value: T) -> Self {
        Self(value)
    }
}

impl<T: Wipe> Drop for Zeroizing<T> {
    fn drop(&mut self) {
        self.0.wipe();
    }
}

impl<T: Wipe> Deref for Zeroizing<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

impl<T: Wipe> DerefMut for Zeroizing<T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.0
    }
}

/// Says nothing of it.
impl<T: Wipe> fmt::Debug for Zeroizing<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[secret]")
    }
}

impl AsRef<[u8]> for Zeroizing<Vec<u8>> {
    fn as_ref(&self) -> &[u8] {
        &self.0
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
    fn a_list_is_wiped_with_all_of_its_room() {
        let mut list = Zeroizing::new(b"secret|rest".to_vec());
        list.truncate(3);
        let (begin, room) = (list.as_ptr(), list.capacity());
        list.wipe();
        // SAFETY: the list still has its room, all of which was written to.
        assert!(room >= 11 && unsafe { std::slice::from_raw_parts(begin, room) }.iter().all(|byte| *byte == 0));
        let mut text = Zeroizing::new(String::from("secret"));
        text.wipe();
        let mut key = Zeroizing::new([7; 32]);
        key.wipe();
        assert_eq!((text.as_str(), *key), ("", [0; 32]));
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
