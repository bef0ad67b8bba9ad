//! One file per RPC: sending, receiving, and the reply, in that order.

mod append_entries;
mod configure;
mod install_snapshot;
mod pre_vote;
mod request_vote;
mod timeout_now;
