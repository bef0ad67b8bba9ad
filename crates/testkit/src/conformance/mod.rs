//! Suites for whoever implements a plug trait.
