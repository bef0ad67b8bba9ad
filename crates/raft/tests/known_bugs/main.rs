//! Bugs that other implementations of Raft had, each as the history that showed it. The numbers are those of their
//! trackers; docs/known-bugs.md has the whole list, and says where those are shown that are not here.
//!
//! A `Machine` is one server; the test is everyone else.

mod commit;
mod disk;
mod log;
mod reads;
mod votes;
