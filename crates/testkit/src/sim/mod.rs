//! Whole clusters with clients on a simulated clock, network and disk.
