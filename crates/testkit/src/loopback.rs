//! A session without a cluster.
