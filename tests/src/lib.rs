//! The lab and the scenarios.
