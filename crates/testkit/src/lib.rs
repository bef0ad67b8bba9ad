//! How we know that it works: the simulator, the scenario runner, conformance suites and a loop-back session.
//!
//! Deliberately not inside: Raft, session or retry logic. What is run here is what ships.
//!
//! | module | what it is |
//! |---|---|
//! | [`conformance`] | suites for whoever implements a plug trait |
//! | `directed` (feature `sim`) | short histories, each for one deliberate bug |
//! | [`loopback`] | a session without a cluster, for tests of resources |
//! | [`scenario`] | consensus as readable texts |
//! | `sim` (feature) | whole clusters with clients on a simulated clock, network and disk |

#![forbid(unsafe_code)]

pub mod conformance;
#[cfg(feature = "sim")]
pub mod directed;
pub mod loopback;
pub mod scenario;
#[cfg(feature = "sim")]
pub mod sim;
