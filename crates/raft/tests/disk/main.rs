//! Disks that are damaged, full, or fail: what consensus does without them (D4, D5).

mod abstaining;
mod failed;
mod full;
mod repairing;
