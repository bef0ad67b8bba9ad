//! The rules of docs/protocol.md as one server, a few servers, or a few servers with clients keep them. Tests are named by rule.

mod bootstrap;
mod chaos;
mod clients;
mod disk;
mod events;
mod failover;
mod handshake;
mod hostile;
mod journal;
mod leadership;
mod lone;
mod reads;
mod sessions;
mod snapshots;
mod solo;
mod users;
mod world;
