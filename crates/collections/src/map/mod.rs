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
//! **When a session ends**, entries stay: data belongs to the map, not to who wrote it. A command of the ended session that was
//! not answered is *unknown* to its caller.
//!
//! **Limits.** An encoded key is at most [`KEY_BYTES`](atomix_resource::limits::KEY_BYTES) long; key and value together fit into a
//! command of [`COMMAND_BYTES`](atomix_resource::limits::COMMAND_BYTES). A map lives in memory on every server.
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

mod handle;
pub mod op;
mod state;
#[cfg(test)]
mod tests;

pub use self::handle::{DistributedMap, MapError, Versioned};
pub use self::op::{MapRefusal, Version};
pub use self::state::MapState;
