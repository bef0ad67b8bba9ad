//! The words that Atomix servers and clients exchange, and nothing that happens because of them.
//!
//! Deliberately not inside: consensus, sessions, sockets, files, clocks, threads. Every type here is plain
//! data; every decoder is total (bytes from outside end in a value or a [`DecodeError`], never in a panic).
//!
//! | module | what it holds |
//! |---|---|
//! | [`ids`] | newtypes for every number that is said aloud |
//! | [`time`] | a process's own clock, and cluster time (T1–T3) |
//! | [`member`] | member records and configurations (I4, R7) |
//! | [`change`] | changes of the configuration, and why they are refused (R7) |
//! | [`entry`] | one slot of the replicated log |
//! | [`durable`] | what a server makes durable (D1) |
//! | [`peer`] | the RPCs between servers, one type per RPC and direction |
//! | [`handshake`] | the first frame each way (I5) |
//! | [`bootstrap`] | how a cluster is formed from empty servers (I2) |
//! | [`session`] | what sessions write into the log (S1–S9) |
//! | [`envelope`] | how a command names its resource (M1) |
//! | [`client`] | frames between clients and servers |
//! | [`status`] | what a server says of itself |
//! | [`codec`] | frame layout and the one place that knows the encoding |
//! | [`limits`] | the defaults of every limit (N) |
//! | [`mutant`] | the switches of the mutation tests |

#![no_std]
#![forbid(unsafe_code)]
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

extern crate alloc;

pub mod bootstrap;
pub mod change;
pub mod client;
pub mod codec;
pub mod durable;
pub mod entry;
pub mod envelope;
pub mod handshake;
pub mod ids;
pub mod limits;
pub mod member;
pub mod mutant;
pub mod peer;
pub mod session;
pub mod status;
pub mod time;

pub use codec::DecodeError;
pub use durable::{HardState, Identity, WriteBatch};
pub use entry::{Entry, EntryId, EntryKind};
pub use ids::{
    Address, BootNonce, ClientId, ClusterId, GroupId, Incarnation, Index, InstanceId, LinkId, ResourceId,
    Round, Sequence, ServerId, SessionId, SessionKey, Term,
};
pub use member::{Configuration, Member, MemberKind};
pub use time::{ClusterTime, LocalTime};
