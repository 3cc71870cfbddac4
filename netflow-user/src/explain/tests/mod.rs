//! The rules on hand-made records: what each code needs, and what it must not be taken for.

mod codes;
mod foreign;
mod proxy;
mod story;
