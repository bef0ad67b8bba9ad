//! What the files mean after whatever happened to them (D3): pure functions of their bytes.
//!
//! A batch counts as a whole or not at all: one without its trailer was never acknowledged, and none of it is handed out (the shortest
//! prefix that D1 allows). Since a batch is written only after the sync of the one before, at most the last batch can be unfinished. So a
//! batch that fails is **torn** if nothing says that a sync followed it, and **damaged** if something does: the mark, the manifest, or
//! any record of a later batch. What is torn is cut off. What is damaged is left as it is, and not served: the log goes on behind the
//! last batch before it, in a segment of its own, and the server abstains until a leader has given it again what may have been there (D4).
//!
//! | module | question |
//! |---|---|
//! | `line` | which segments belong together, and in which order? |
//! | `scan` | how far do whole batches reach? |
//! | `ending` | what lies behind them, and what is known to have been there? |
//! | `fit` | how do log and snapshots belong together? |
//! | `verdict` | what follows from all that: the table |
//! | `survey` | asks all of them, reading only |
//! | `finding` | what is wrong, in words |

#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

mod ending;
mod finding;
mod fit;
mod line;
mod scan;
mod survey;
mod verdict;

pub(crate) use finding::FOREIGN;
pub use finding::Finding;
pub(crate) use line::Segment;
pub(crate) use scan::Tail;
pub(crate) use survey::Survey;
pub(crate) use verdict::Fit;
pub use verdict::Verdict;
