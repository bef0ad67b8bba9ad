//! Short histories of their own, each for one bug that no drawing of seeds meets often enough.
//!
//! Every function passes on the code as it ships. An error begins with the name of the checker that fired.

mod cast;
pub mod client;
pub mod identity;
pub mod resources;
pub mod server;
