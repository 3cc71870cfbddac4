//! Zeroing memory word by word. A struct literal with many zeros becomes a call of `memset`, which on this target is a loop over
//! bytes; a volatile store stays the store that it is.

/// Writes zeros over `to`, whose size is a multiple of its alignment.
///
/// # Safety
/// `to` can be written, and zeros are a valid `T`.
#[inline(always)]
pub unsafe fn clear<T>(to: *mut T) {
    match align_of::<T>() {
        8 => words::<u64>(to.cast(), size_of::<T>() / 8, 0),
        4 => words::<u32>(to.cast(), size_of::<T>() / 4, 0),
        _ => words::<u8>(to.cast(), size_of::<T>(), 0),
    }
}

#[inline(always)]
fn words<W: Copy>(to: *mut W, count: usize, zero: W) {
    for n in 0..count {
        // SAFETY: within the `T` that `clear` was given.
        unsafe { to.add(n).write_volatile(zero) };
    }
}
