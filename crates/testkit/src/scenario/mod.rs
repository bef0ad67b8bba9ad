//! Consensus as readable texts.
//!
//! A [`Cluster`] is a handful of consensus machines with disks in memory, links that hold messages until they are
//! told to deliver, and a clock that stands still until it is told to go on. Whatever happens, [`Checker`] compares
//! it with the safety properties of Figure 3.2. A text drives it, one command per line, and records what the machines
//! did:
//!
//! ```text
//! servers 3
//! campaign 1
//! ----
//! 1 is pre-candidate in term 0
//! 1 -> 2 PreVote term 1, last 0@0
//! ...
//! ```
//!
//! [`run`] compares what happened with what the text says; [`record`] writes the text anew. The commands are those of
//! [`text`]; those of [`members`] change who belongs to it. A [`Machine`] is one of them by itself, and [`words`] are what it is told. [`directed`] and [`leadership`] hold histories
//! that no random run finds, or that are each for one deliberate bug.

mod checker;
mod cluster;
mod configurations;
mod damage;
pub mod directed;
pub mod leadership;
mod machine;
pub mod members;
mod render;
pub mod running;
mod server;
pub mod text;
pub mod words;

pub use checker::Checker;
pub use cluster::{Cluster, Settings};
pub use machine::Machine;
pub use running::Running;
pub use text::{record, run};
