//! Consensus as readable texts.
