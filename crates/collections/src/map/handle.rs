//! What users call. Encodes, waits, decodes; decides nothing.

use std::borrow::Borrow;
use std::fmt;
use std::future::Future;
use std::marker::PhantomData;
use std::sync::Arc;

use atomix_resource::fencing::{FenceRefusal, Fenceable, Fenced, Fencing, FencingToken};
use atomix_resource::{
    Apply, Call, Consistency, Handle, Index, ResourceError, ResourceHandle, Session, Sharing, limits, open,
};
use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;
use thiserror::Error;

use super::op::{Clear, Entry, MapRefusal, Put, PutIfAbsent, Remove, RemoveIf, Replace, ReplaceIf, Version};
use super::state::MapState;
use super::watch::Watching;
use crate::bytes_of::{decode, encode};

/// An example over the loop-back session, with an empty `map` at hand.
macro_rules! example {
    ($lines:literal) => {
        concat!(
            "```\n",
            "# use atomix_collections::{Consistency, DistributedMap, register};\n",
            "# use atomix_testkit::loopback::Loopback;\n",
            "# #[tokio::main(flavor = \"current_thread\")] async fn main() -> Result<(), Box<dyn std::error::Error>> {\n",
            "# let session = Loopback::new(register(atomix_resource::Registry::new())).session();\n",
            "# let map: DistributedMap<String, u64> = DistributedMap::open(&session, \"/map\").await?;",
            $lines,
            "# Ok(())\n# }\n```",
        )
    };
}
pub(super) use example;

/// A replicated map from `K` to `V`. The [story](crate::map) says what it promises.
///
/// Clones are cheap and share the open instance. Every method submits when it is called, not when its future is polled: several
/// calls may be under way at once, and take effect in the order of calls. Dropping a future gives up the answer, not the operation;
/// only a watch is taken back with it.
/// Keys may be given in a borrowed form that encodes alike, `&str` for `String`; so may values.
pub struct DistributedMap<K, V> {
    pub(super) handle: Handle<MapState>,
    pub(super) consistency: Consistency,
    /// How many changes wait in a stream at most.
    pub(super) queue: usize,
    fence: Option<FencingToken>,
    pub(super) watching: Arc<Watching>,
    types: PhantomData<fn() -> (K, V)>,
}

/// A value and the write it is from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Versioned<V> {
    /// The value.
    pub value: V,
    /// The write it is from.
    pub version: Version,
}

/// Why an operation of a map did not return what it promises.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum MapError {
    /// The map refused: nothing changed.
    #[error("refused: {0}")]
    Refused(MapRefusal),
    /// The map refused the token of a fenced write: nothing changed.
    #[error("refused: {0}")]
    Fenced(FenceRefusal),
    /// Not done, or unknown whether it was done: the error says which.
    #[error(transparent)]
    Resource(#[from] ResourceError),
}

impl<K, V> DistributedMap<K, V>
where
    K: Serialize + DeserializeOwned,
    V: Serialize + DeserializeOwned,
{
    /// Opens the map at a path, creating it if need be. Handles of one session share the instance.
    ///
    /// ```
    /// # use atomix_collections::{DistributedMap, ResourceError, register};
    /// # use atomix_resource::Registry;
    /// # use atomix_testkit::loopback::Loopback;
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), ResourceError> {
    /// # let session = Loopback::new(register(Registry::new())).session();
    /// let users: DistributedMap<String, u64> = DistributedMap::open(&session, "/users").await?;
    /// assert_eq!(users.path(), "/users");
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`ResourceError::WrongKind`] if the path holds something else; *not done* or *unknown*, after which opening again is
    /// harmless.
    pub fn open(
        session: &Arc<dyn Session>,
        path: &str,
    ) -> impl Future<Output = Result<Self, ResourceError>> + Send + use<K, V> {
        open(session, path, &(), Sharing::Shared)
    }

    /// The same map with reads of another consistency. Writes are not affected.
    ///
    #[doc = example!(r#"
let replica = map.with_consistency(Consistency::Sequential);
map.put("a", &1).await?;
assert_eq!(replica.get("a").await?, Some(1)); // sees at least what this client did before
"#)]
    #[must_use]
    pub fn with_consistency(&self, consistency: Consistency) -> Self {
        DistributedMap { consistency, ..self.clone() }
    }

    /// The same map with room for so many changes in the queue of each stream that it gives from then on: at least one, by default
    /// [`HANDLE_QUEUE`](atomix_resource::limits::HANDLE_QUEUE).
    ///
    #[doc = example!(r#"
let mut changes = map.with_queue(16).watch().await?;
# drop(changes);
"#)]
    #[must_use]
    pub fn with_queue(&self, changes: usize) -> Self {
        DistributedMap { queue: changes.max(1), ..self.clone() }
    }

    /// The same map with writes that carry the token of a lock's guard. Once the map has seen a later holder of that lock it refuses
    /// them with [`MapError::Fenced`], in the same entry of the log, so also from a holder that does not know yet that it is none.
    /// Reads are not affected.
    ///
    #[doc = example!(r#"
# use atomix_collections::{Fencing, FencingToken};
# struct Guard(FencingToken);
# impl Fencing for Guard { fn fencing_token(&self) -> FencingToken { self.0 } }
# let lock = atomix_resource::Handle::<atomix_collections::map::MapState>::open(
#     &session, "/lock", &(), atomix_resource::Sharing::Shared).await?.resource();
# (map.put("a", &0).await?, map.put("a", &0).await?);
# let guard_of = |later| Guard(FencingToken { lock, token: atomix_resource::Index(lock.0 + later) });
# let (guard, later_guard) = (guard_of(1), guard_of(2));
// `guard` and `later_guard` are those of two holders of a `DistributedLock`, one after the other.
map.fenced(&guard).put("a", &1).await?;
map.fenced(&later_guard).put("a", &2).await?;
let refused = map.fenced(&guard).put("a", &3).await.unwrap_err();
assert!(refused.is_not_done());
assert_eq!(map.get("a").await?, Some(2));
"#)]
    #[must_use]
    pub fn fenced(&self, guard: &impl Fencing) -> Self {
        DistributedMap { fence: Some(guard.fencing_token()), ..self.clone() }
    }

    /// Where the map lives.
    #[must_use]
    pub fn path(&self) -> &str {
        self.handle.path()
    }

    /// Sets a key. Returns what it held.
    ///
    #[doc = example!(r#"
assert_eq!(map.put("a", &1).await?, None);
assert_eq!(map.put("a", &2).await?, Some(1));
"#)]
    ///
    /// # Errors
    /// [`MapRefusal::KeyTooLong`]; *not done*; *unknown*.
    pub fn put<Q, W>(
        &self,
        key: &Q,
        value: &W,
    ) -> impl Future<Output = Result<Option<V>, MapError>> + Send + use<K, V, Q, W>
    where
        K: Borrow<Q>,
        V: Borrow<W>,
        Q: Serialize + ?Sized,
        W: Serialize + ?Sized,
    {
        let put = encode_both(key, value).map(|(key, value)| self.write(Put { key, value }));
        async move { value_of(put?.done().await?.1.map_err(MapError::Refused)?) }
    }

    /// Sets a key unless it holds something. Returns what it holds then, unchanged; `None` if it was set.
    ///
    #[doc = example!(r#"
assert_eq!(map.put_if_absent("a", &1).await?, None);
assert_eq!(map.put_if_absent("a", &2).await?, Some(1));
assert_eq!(map.get("a").await?, Some(1));
"#)]
    ///
    /// # Errors
    /// [`MapRefusal::KeyTooLong`]; *not done*; *unknown*.
    pub fn put_if_absent<Q, W>(
        &self,
        key: &Q,
        value: &W,
    ) -> impl Future<Output = Result<Option<V>, MapError>> + Send + use<K, V, Q, W>
    where
        K: Borrow<Q>,
        V: Borrow<W>,
        Q: Serialize + ?Sized,
        W: Serialize + ?Sized,
    {
        let put = encode_both(key, value).map(|(key, value)| self.write(PutIfAbsent { key, value }));
        async move { value_of(put?.done().await?.1.map_err(MapError::Refused)?) }
    }

    /// Sets a key that holds something. Returns what it held; `None` if it held nothing, and still does.
    ///
    #[doc = example!(r#"
assert_eq!(map.replace("a", &1).await?, None);
assert!(!map.contains_key("a").await?);
map.put("a", &1).await?;
assert_eq!(map.replace("a", &2).await?, Some(1));
"#)]
    ///
    /// # Errors
    /// *not done*; *unknown*.
    pub fn replace<Q, W>(
        &self,
        key: &Q,
        value: &W,
    ) -> impl Future<Output = Result<Option<V>, MapError>> + Send + use<K, V, Q, W>
    where
        K: Borrow<Q>,
        V: Borrow<W>,
        Q: Serialize + ?Sized,
        W: Serialize + ?Sized,
    {
        let replace = encode_both(key, value).map(|(key, value)| self.write(Replace { key, value }));
        async move { value_of(replace?.done().await?.1) }
    }

    /// Sets a key if its entry still is of `version` (compare-and-set). Returns the new version; `None` if the entry has been
    /// written or removed since, and is left as it is.
    ///
    #[doc = example!(r#"
map.put("a", &1).await?;
let seen = map.get_versioned("a").await?.unwrap();
assert!(map.replace_if("a", seen.version, &(seen.value + 1)).await?.is_some());
assert_eq!(map.replace_if("a", seen.version, &9).await?, None); // seen is out of date
assert_eq!(map.get("a").await?, Some(2));
"#)]
    ///
    /// # Errors
    /// *not done*; *unknown*.
    pub fn replace_if<Q, W>(
        &self,
        key: &Q,
        version: Version,
        value: &W,
    ) -> impl Future<Output = Result<Option<Version>, MapError>> + Send + use<K, V, Q, W>
    where
        K: Borrow<Q>,
        V: Borrow<W>,
        Q: Serialize + ?Sized,
        W: Serialize + ?Sized,
    {
        let replace = encode_both(key, value)
            .map(|(key, value)| self.write(ReplaceIf { key, version: version.index(), value }));
        async move {
            let (index, replaced) = replace?.done().await?;
            Ok(replaced.then_some(index.into()))
        }
    }

    /// Removes a key. Returns what it held.
    ///
    #[doc = example!(r#"
map.put("a", &1).await?;
assert_eq!(map.remove("a").await?, Some(1));
assert_eq!(map.remove("a").await?, None);
"#)]
    ///
    /// # Errors
    /// *not done*; *unknown*.
    pub fn remove<Q>(
        &self,
        key: &Q,
    ) -> impl Future<Output = Result<Option<V>, MapError>> + Send + use<K, V, Q>
    where
        K: Borrow<Q>,
        Q: Serialize + ?Sized,
    {
        let remove = encode(key).map(|key| self.write(Remove { key }));
        async move { value_of(remove?.done().await?.1) }
    }

    /// Removes a key if its entry still is of `version`. Returns whether it was.
    ///
    #[doc = example!(r#"
map.put("a", &1).await?;
let seen = map.get_versioned("a").await?.unwrap();
map.put("a", &2).await?;
assert!(!map.remove_if("a", seen.version).await?);
"#)]
    ///
    /// # Errors
    /// *not done*; *unknown*.
    pub fn remove_if<Q>(
        &self,
        key: &Q,
        version: Version,
    ) -> impl Future<Output = Result<bool, MapError>> + Send + use<K, V, Q>
    where
        K: Borrow<Q>,
        Q: Serialize + ?Sized,
    {
        let remove = encode(key).map(|key| self.write(RemoveIf { key, version: version.index() }));
        async move { Ok(remove?.done().await?.1) }
    }

    /// Removes all keys, at once.
    ///
    #[doc = example!(r#"
map.put("a", &1).await?;
map.clear().await?;
assert!(map.is_empty().await?);
"#)]
    ///
    /// # Errors
    /// *not done*; *unknown*.
    pub fn clear(&self) -> impl Future<Output = Result<(), MapError>> + Send + use<K, V> {
        let clear = self.write(Clear);
        async move {
            clear.done().await?;
            Ok(())
        }
    }

    fn write<O: Fenceable>(&self, operation: O) -> Write<O::Reply>
    where
        MapState: Apply<O>,
    {
        match self.fence {
            None => Write::Plain(self.handle.command::<O>(&operation)),
            Some(token) => Write::Fenced(self.handle.command::<Fenced<O>>(&Fenced { token, operation })),
        }
    }
}

/// A write on its way.
enum Write<T> {
    Plain(Call<T>),
    Fenced(Call<Result<T, FenceRefusal>>),
}

impl<T: DeserializeOwned> Write<T> {
    async fn done(self) -> Result<(Index, T), MapError> {
        match self {
            Write::Plain(call) => Ok(call.await?),
            Write::Fenced(call) => {
                let (index, reply) = call.await?;
                Ok((index, reply.map_err(MapError::Fenced)?))
            }
        }
    }
}

fn encode_both<Q, W>(key: &Q, value: &W) -> Result<(Bytes, Bytes), ResourceError>
where
    Q: Serialize + ?Sized,
    W: Serialize + ?Sized,
{
    Ok((encode(key)?, encode(value)?))
}

pub(super) fn value_of<V: DeserializeOwned>(entry: Option<Entry>) -> Result<Option<V>, MapError> {
    Ok(entry.map(|entry| decode(&entry.value)).transpose()?)
}

impl MapError {
    /// Whether it is certain that the operation was not done, and never will be.
    #[must_use]
    pub fn is_not_done(&self) -> bool {
        match self {
            MapError::Refused(_) | MapError::Fenced(_) => true,
            MapError::Resource(error) => error.is_not_done(),
        }
    }

    /// Whether it is unknown if the operation was done, or may yet be.
    #[must_use]
    pub fn is_unknown(&self) -> bool {
        matches!(self, MapError::Resource(error) if error.is_unknown())
    }
}

impl<K, V> ResourceHandle for DistributedMap<K, V> {
    type State = MapState;

    fn from_handle(handle: Handle<MapState>) -> Self {
        DistributedMap {
            watching: Watching::new(&handle),
            handle,
            consistency: Consistency::default(),
            queue: limits::HANDLE_QUEUE,
            fence: None,
            types: PhantomData,
        }
    }
}

impl<K, V> Clone for DistributedMap<K, V> {
    fn clone(&self) -> Self {
        DistributedMap { handle: self.handle.clone(), watching: self.watching.clone(), ..*self }
    }
}

impl<K, V> fmt::Debug for DistributedMap<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DistributedMap")
            .field("handle", &self.handle)
            .field("consistency", &self.consistency)
            .field("fence", &self.fence)
            .finish_non_exhaustive()
    }
}
