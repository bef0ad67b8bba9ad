//! What the binary `atomix` is made of. Not an interface for programs: those use the crate `atomix`.
//!
//! Deliberately not inside: anything that decides. The commands call the public interface of `atomix`, as any user does.
//!
//! | module | what it is |
//! |---|---|
//! | [`args`] | the command line |
//! | [`serve`] | `atomix serve`: one server |
//! | [`map`] | `atomix map`: operations on a map, and its changes |
//! | [`lock`] | `atomix lock`: a command under a lock, and who has one |
//! | [`management`] | `atomix delete`, `atomix exists`: resources by path, whatever their kind |
//! | [`member`] | `atomix member`: who belongs to the cluster, and who leads it |
//! | [`log`] | `atomix log`: what the data directory of a stopped server holds |
//! | [`status`] | `atomix status`: what the servers say of themselves |
//! | [`demo`] | `atomix demo`: a cluster that loses its leader, and then everybody; a lock whose holders stop |
//! | [`session`] | a session for one command |
//! | [`cluster`] | a cluster of server processes on this machine, for the demo, tests and benches |
//! | [`exit`] | how a command ends |
//! | [`signals`] | what ends a process from outside |
//! | [`table`] | columns for people |

#![forbid(unsafe_code)]

pub mod args;
pub mod cluster;
pub mod demo;
pub mod exit;
pub mod lock;
pub mod log;
pub mod management;
pub mod map;
pub mod member;
pub mod serve;
pub mod session;
pub mod signals;
pub mod status;
pub mod table;
