//! The rules of docs/protocol.md as one server, a few servers, or a few servers with clients keep them. Tests are named by rule.

mod bootstrap;
mod chaos;
mod clients;
mod disk;
mod events;
mod failover;
mod hand_over;
mod handshake;
mod hostile;
mod identity;
mod joining;
mod journal;
mod leadership;
mod leases;
mod levels;
mod lone;
mod members;
mod operator;
mod reads;
mod sessions;
mod snapshots;
mod solo;
mod users;
mod world;
