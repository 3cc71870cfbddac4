//! From bytes to structs and back, for the side that has only bytes.

use core::mem::{MaybeUninit, size_of};
use core::{ptr, slice};

/// A struct that is nothing but its bytes.
///
/// # Safety
/// Every bit pattern is a valid value and there are no padding bytes.
pub unsafe trait Plain: Copy {
    /// The value's bytes.
    fn bytes(&self) -> &[u8] {
        // SAFETY: `Self` has no padding, so all its bytes are initialised.
        unsafe { slice::from_raw_parts(ptr::from_ref(self).cast(), size_of::<Self>()) }
    }

    /// The value at the start of `bytes`; `None` if there are too few of them.
    fn read(bytes: &[u8]) -> Option<Self> {
        if bytes.len() < size_of::<Self>() {
            return None;
        }
        // SAFETY: long enough, and any bytes are a valid value.
        Some(unsafe { ptr::read_unaligned(bytes.as_ptr().cast()) })
    }

    /// All bytes zero.
    #[must_use]
    fn zero() -> Self {
        // SAFETY: any bytes are a valid value.
        unsafe { MaybeUninit::zeroed().assume_init() }
    }
}

/// Marks structs as [`Plain`] and checks their size, which leaves no room for padding.
macro_rules! plain {
    ($($name:ty = $size:expr),+ $(,)?) => { $(
        const _: () = assert!(core::mem::size_of::<$name>() == $size);
        // SAFETY: integers and arrays of integers only; the sizes of the fields add up to the size asserted above.
        unsafe impl $crate::abi::Plain for $name {}
    )+ };
}
pub(crate) use plain;
