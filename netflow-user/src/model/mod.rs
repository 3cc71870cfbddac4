//! Plain types that every other part of netflow speaks, and the traits that sources of facts implement.
//!
//! Nothing here does I/O. Times are wall-clock nanoseconds ([`Time`]); a source converts its own clock before it
//! hands a fact on, so the pure part (`flows`, `explain`) never asks what time it is.

pub mod answer;
pub mod capability;
pub mod cidr;
pub mod conntrack;
pub mod event_kind;
pub mod feed;
pub mod flow;
pub mod identity;
pub mod list;
pub mod lookup;
pub mod netns;
pub mod node;
pub mod objects;
pub mod query;
pub mod record;
pub mod recording;
pub mod resolve;
pub mod shared;
pub mod source;
pub mod spelling;
pub mod time;
pub mod tuple;

pub use conntrack::{CtStatus, CtTuples};
pub use feed::Input;
pub use netns::NetnsId;
pub use time::Time;
pub use tuple::{Proto, Tuple};
