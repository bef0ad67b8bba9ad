//! Faults: the classes, which of them a seed has and how often, and the stream of single faults of each.
//!
//! Everything about a fault is drawn before it strikes, apart from what depends on the state ("the leader"). Each
//! class draws from streams of its own, keyed by its name, and each fault has a seed of its own for what is drawn
//! while it strikes: leaving one out, or adding a class, shifts none of the others. That is what makes a failing seed
//! smaller (`shrink`).

mod class;
mod draw;
mod fault;
mod shape;
mod swarm;

pub use class::Class;
pub(in crate::sim) use fault::{Fault, Planned, Shape, Target, Words};
pub(in crate::sim) use shape::cut_links;
pub(in crate::sim) use swarm::{Source, Swarm};
