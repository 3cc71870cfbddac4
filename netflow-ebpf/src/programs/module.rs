//! What is known of modules: see [`netflow_ebpf::ModuleLayout`].

use aya_ebpf::macros::map;
use aya_ebpf::maps::Array;
use netflow_ebpf::ModuleLayout;

#[map]
static MODULES: Array<ModuleLayout> = Array::with_max_entries(1, 0);

/// Offsets and addresses, as far as they are known by now.
#[inline(always)]
pub fn modules() -> Option<&'static ModuleLayout> {
    MODULES.get(0)
}

/// `at(base, offset)`: the address `offset` bytes behind `base`.
#[inline(always)]
pub fn at<T>(base: *const core::ffi::c_void, offset: u16) -> *const T {
    base.cast::<u8>().wrapping_add(usize::from(offset)).cast()
}
