//! Two ways to read a field of a kernel struct.
//!
//! A `tp_btf` program is given pointers whose types the verifier knows, and may follow them by plain loads; a bad one reads as
//! zero. A raw tracepoint program is given numbers, and reads through a helper. Each program body is written once over [`Read`].

use aya_ebpf::helpers::generated::bpf_probe_read_kernel;
use core::mem::MaybeUninit;
use netflow_ebpf::Addr;

/// How to read.
pub trait Read {
    /// The `T` at `address`.
    ///
    /// # Safety
    /// Any bytes are a valid `T`.
    unsafe fn read<T: Copy>(address: *const T) -> T;

    /// The IPv6 address at `at`.
    fn address(at: *const [u32; 4]) -> Addr;
}

/// By a plain load: the address is a pointer that the verifier knows plus an offset from BTF.
pub enum Direct {}

impl Read for Direct {
    #[inline(always)]
    unsafe fn read<T: Copy>(address: *const T) -> T {
        // Volatile, so that each field is one load of its own size: the verifier does not take two fields in one.
        // SAFETY: the verifier has checked the field, and a bad pointer reads as zero.
        unsafe { address.read_volatile() }
    }

    /// Word by word: a plain load takes eight bytes at most.
    #[inline(always)]
    fn address(at: *const [u32; 4]) -> Addr {
        let word = |n| at.cast::<u32>().wrapping_add(n);
        // SAFETY: integers.
        unsafe {
            Addr([
                Self::read(word(0)),
                Self::read(word(1)),
                Self::read(word(2)),
                Self::read(word(3)),
            ])
        }
    }
}

/// Through the helper: any address. What cannot be read is zero.
pub enum Probe {}

impl Read for Probe {
    #[inline(always)]
    unsafe fn read<T: Copy>(address: *const T) -> T {
        let mut value = MaybeUninit::<T>::uninit();
        // SAFETY: the helper takes any address, and fills `value` with what it read or with zeros
        // (`bpf_probe_read_kernel_common`, https://elixir.bootlin.com/linux/v6.18/source/kernel/trace/bpf_trace.c).
        unsafe {
            bpf_probe_read_kernel(
                value.as_mut_ptr().cast(),
                size_of::<T>() as u32,
                address.cast(),
            );
            value.assume_init()
        }
    }

    #[inline(always)]
    fn address(at: *const [u32; 4]) -> Addr {
        // SAFETY: integers.
        Addr(unsafe { Self::read(at) })
    }
}

/// Makes the verifier forget what it knows of `value`, which stays the same: what a helper has written is just bytes to it. After code
/// with many outcomes it goes on with one state, and not with one for each of them.
///
/// # Safety
/// `value` is memory of this program, and initialized.
#[inline(always)]
pub unsafe fn forget<T>(value: *mut T) {
    // SAFETY: it is written over with itself.
    unsafe { bpf_probe_read_kernel(value.cast(), size_of::<T>() as u32, value.cast()) };
}

/// The same for a value that is moved.
#[inline(always)]
pub fn forgotten<T: Copy>(mut value: T) -> T {
    // SAFETY: it is this function's own.
    unsafe { forget(&raw mut value) };
    value
}

/// The IPv6 address at `at`.
#[inline(always)]
pub fn address<R: Read>(at: *const [u32; 4]) -> Addr {
    R::address(at)
}

/// `field_address!(base, name)`: the address of the field of [`netflow_ebpf::Layout`] called `name` of the struct at `base`.
macro_rules! field_address {
    ($base:expr, $name:ident) => {{
        let offset = usize::from($crate::programs::layout::layout!($name));
        ($base).cast::<u8>().wrapping_add(offset).cast()
    }};
}
pub(crate) use field_address;

/// `field!(R, base, name: T)`: the field of [`netflow_ebpf::Layout`] called `name` of the struct at `base`.
macro_rules! field {
    ($read:ty, $base:expr, $name:ident: $ty:ty) => {{
        let at: *const $ty = $crate::programs::read::field_address!($base, $name);
        // SAFETY: integers and raw pointers only, for which any bytes are valid.
        unsafe { <$read as $crate::programs::read::Read>::read(at) }
    }};
}
pub(crate) use field;
