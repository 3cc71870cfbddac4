//! The recording codec: [`super::Input`] to bytes and back.
