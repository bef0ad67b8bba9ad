//! Replicated collections.
