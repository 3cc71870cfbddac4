//! Text for a terminal. Everything here turns values into a `String` with styles in it; the stream drops the styles where
//! they do not belong.

mod code;
mod doctor;
mod evidence;
mod explain;
mod fleet;
mod page;
mod paths;
mod status;
mod words;

pub use code::{code, codes};
pub use doctor::doctor;
pub use explain::{explain, preview};
pub use fleet::fleet;
pub use page::{cut, wrap};
pub use status::status;
pub use words::{outcomes, path_ends, via};

#[cfg(test)]
pub(super) mod samples;
#[cfg(test)]
mod tests;

/// What the text is laid out for.
#[derive(Debug, Clone, Copy)]
pub struct Layout {
    /// Columns.
    pub width: usize,
    /// Every path and all evidence.
    pub wide: bool,
}
