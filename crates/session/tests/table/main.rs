//! The replicated table, and what a leader knows of its events: one test per rule, naive twins, and the bytes of snapshots.

mod commands;
mod deliveries;
mod events;
#[path = "../ledger/mod.rs"]
mod ledger;
mod replica;
mod twin;
