//! Suites for whoever implements a plug trait.

pub mod storage;
#[cfg(feature = "transport")]
pub mod transport;
