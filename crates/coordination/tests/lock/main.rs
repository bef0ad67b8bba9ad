//! What users of a lock see: over the loop-back session, without a cluster, and without a runtime.

#![allow(clippy::unwrap_used, reason = "a test that can't go on fails")]

mod drops;
mod guards;
mod scenarios;
mod world;
