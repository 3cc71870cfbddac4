//! What was recorded within the last second, by a hash of what makes it the same.

use aya_ebpf::macros::map;
use aya_ebpf::maps::LruHashMap;
use netflow_ebpf::map::SEEN_ENTRIES;

const AGAIN_AFTER: u64 = 1_000_000_000;

#[map]
static SEEN: LruHashMap<u64, u64> = LruHashMap::with_max_entries(SEEN_ENTRIES, 0);

/// Whether `key` was recorded within the last second; if not, notes that it is now.
#[inline(always)]
pub fn is_seen(key: u64, now: u64) -> bool {
    if let Some(seen) = SEEN.get_ptr_mut(&key) {
        // SAFETY: an element of a preallocated map stays valid memory for as long as the program runs.
        unsafe {
            if now.wrapping_sub(*seen) < AGAIN_AFTER {
                return true;
            }
            *seen = now;
        }
        return false;
    }
    // A full map only means a record more.
    let _ = SEEN.insert(&key, &now, 0);
    false
}
