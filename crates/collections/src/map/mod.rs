//! A replicated map.
//!
//! Keys and values are any serde types; the servers see their encoded bytes and compare keys by them. Every entry has a
//! [`Version`], the place in the log of its last write: whoever has read an entry can replace or remove it on the condition that
//! nobody else has been there since ([`DistributedMap::replace_if`], [`DistributedMap::remove_if`]).
//!
//! **Promises.** A write that has returned is on a majority's disks and survives the loss of any minority; it was applied once,
//! however often it was sent. Writes of one client take effect in the order of calls. Reads are linearizable unless a handle
//! asks for less ([`DistributedMap::with_consistency`]). What is *unknown* is said to be unknown ([`MapError`]).
//!
//! **Watching.** [`DistributedMap::watch`] and [`DistributedMap::watch_key`] give a [`MapStream`] of changes, with what a key held
//! before and holds now. Once the stream is there, every change that comes later arrives: exactly once, in the order of the log, before
//! the reply of any own write that comes after it, and across the deaths of leaders and lost connections. What changes nothing is no
//! change: a write that was refused or found nothing to do, clearing an empty map. A stream can begin with what the map holds
//! ([`MapStream::current_first`]); both add up without a gap or an overlap. A stream that can't go on says why ([`WatchEnd`]): one that
//! is taken from too slowly ends as lagged, and never just skips. Dropping it is all it takes to be told no more.
//!
//! **Fencing.** [`DistributedMap::fenced`] gives a map whose writes carry the token of a lock's guard. The map keeps the greatest token
//! that it has seen of each lock and refuses a write with a smaller one, in the same entry of the log: a holder that was paused, and
//! whose lock has passed to another which has written here, writes no more. Reads, and writes that are not fenced, are not affected.
//!
//! **When a session ends**, entries stay: data belongs to the map, not to who wrote it. A command of the ended session that was
//! not answered is *unknown* to its caller. Its watches end, and its streams say so.
//!
//! **Limits.** An encoded key is at most [`KEY_BYTES`](atomix_resource::limits::KEY_BYTES) long; key and value together fit into a
//! command of [`COMMAND_BYTES`](atomix_resource::limits::COMMAND_BYTES). A map has at most [`MOST_WATCHES`](op::MOST_WATCHES) watches; in
//! a stream wait at most [`HANDLE_QUEUE`](atomix_resource::limits::HANDLE_QUEUE) changes, or as many as
//! [`DistributedMap::with_queue`] says. A map lives in memory on every server.
//!
//! ```
//! # use atomix_collections::register;
//! # use atomix_resource::Registry;
//! # use atomix_testkit::loopback::Loopback;
//! use atomix_collections::DistributedMap;
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let session = Loopback::new(register(Registry::new())).session();
//! let stock: DistributedMap<String, u32> = DistributedMap::open(&session, "/stock").await?;
//! stock.put("apples", &5).await?;
//!
//! // Take one, however many others do so too.
//! while let Some(apples) = stock.get_versioned("apples").await? {
//!     let left = apples.value.checked_sub(1).ok_or("sold out")?;
//!     if stock.replace_if("apples", apples.version, &left).await?.is_some() {
//!         break;
//!     }
//! }
//! assert_eq!(stock.get("apples").await?, Some(4));
//! # Ok(())
//! # }
//! ```
//!
//! Whoever keeps a copy of a map keeps it up to date:
//!
//! ```
//! # use atomix_collections::register;
//! # use atomix_resource::Registry;
//! # use atomix_testkit::loopback::Loopback;
//! # use std::collections::BTreeMap;
//! use atomix_collections::{DistributedMap, MapChange};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let session = Loopback::new(register(Registry::new())).session();
//! # let stock: DistributedMap<String, u32> = DistributedMap::open(&session, "/stock").await?;
//! # stock.put("apples", &4).await?;
//! let mut copy = BTreeMap::new();
//! let mut changes = stock.watch().await?.current_first();
//! # stock.put("pears", &2).await?;
//! # stock.remove("apples").await?;
//! loop {
//!     match changes.next().await? {
//!         MapChange::Current { key, entry } | MapChange::Added { key, entry } => copy.insert(key, entry.value),
//!         MapChange::Updated { key, new, .. } => copy.insert(key, new.value),
//!         MapChange::Removed { key, .. } => copy.remove(&key),
//!         MapChange::Cleared { .. } => {
//!             copy.clear();
//!             None
//!         }
//!     };
//! #   if copy.contains_key("pears") && !copy.contains_key("apples") { break }
//! }
//! # assert_eq!(copy, BTreeMap::from([("pears".to_owned(), 2)]));
//! # Ok(())
//! # }
//! ```

mod changes;
mod handle;
pub mod op;
mod read;
mod state;
#[cfg(test)]
mod tests;
mod watch;

pub use self::changes::{MapChange, MapStream, WatchEnd};
pub use self::handle::{DistributedMap, MapError, Versioned};
pub use self::op::{MapRefusal, Version};
pub use self::state::MapState;
