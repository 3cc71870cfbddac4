//! The frozen [`Layout`].

use netflow_ebpf::Layout;

/// Replaced by the loader before the section is frozen.
#[unsafe(no_mangle)]
pub static LAYOUT: Layout = Layout::EMPTY;

/// One field of [`LAYOUT`], read so that the compiler does not take the built-in value for granted.
macro_rules! layout {
    ($($field:tt)+) => {
        // SAFETY: a valid reference to a static.
        unsafe { core::ptr::read_volatile(&raw const $crate::programs::layout::LAYOUT.$($field)+) }
    };
}
pub(crate) use layout;
