//! Typed resources over an untyped session.
