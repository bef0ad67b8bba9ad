//! What users call. Encodes, waits, decodes; decides nothing.

use std::borrow::Borrow;
use std::fmt;
use std::future::Future;
use std::marker::PhantomData;
use std::sync::Arc;

use atomix_resource::{Call, Consistency, Handle, ResourceError, ResourceHandle, Session, Sharing, open};
use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;
use thiserror::Error;

use super::op::{
    Clear, ContainsKey, Entries, Entry, Get, Len, MapRefusal, Page, Put, PutIfAbsent, Remove, RemoveIf,
    Replace, ReplaceIf, Version,
};
use super::state::MapState;
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

/// A replicated map from `K` to `V`. The [story](crate::map) says what it promises.
///
/// Clones are cheap and share the open instance. Every method submits when it is called, not when its future is polled: several
/// calls may be under way at once, and take effect in the order of calls. Dropping a future gives up the answer, not the operation.
/// Keys may be given in a borrowed form that encodes alike, `&str` for `String`; so may values.
pub struct DistributedMap<K, V> {
    handle: Handle<MapState>,
    consistency: Consistency,
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
        let put = encode_both(key, value).map(|(key, value)| self.handle.command(&Put { key, value }));
        async move { value_of(put?.await?.1.map_err(MapError::Refused)?) }
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
        let put =
            encode_both(key, value).map(|(key, value)| self.handle.command(&PutIfAbsent { key, value }));
        async move { value_of(put?.await?.1.map_err(MapError::Refused)?) }
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
        let replace =
            encode_both(key, value).map(|(key, value)| self.handle.command(&Replace { key, value }));
        async move { value_of(replace?.await?.1) }
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
            .map(|(key, value)| self.handle.command(&ReplaceIf { key, version: version.index(), value }));
        async move {
            let (index, replaced) = replace?.await?;
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
        let remove = encode(key).map(|key| self.handle.command(&Remove { key }));
        async move { value_of(remove?.await?.1) }
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
        let remove = encode(key).map(|key| self.handle.command(&RemoveIf { key, version: version.index() }));
        async move { Ok(remove?.await?.1) }
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
        let clear = self.handle.command(&Clear);
        async move {
            clear.await?;
            Ok(())
        }
    }

    /// What a key holds.
    ///
    #[doc = example!(r#"
assert_eq!(map.get("a").await?, None);
map.put("a", &1).await?;
assert_eq!(map.get("a").await?, Some(1));
"#)]
    ///
    /// # Errors
    /// *not done*.
    pub fn get<Q>(&self, key: &Q) -> impl Future<Output = Result<Option<V>, MapError>> + Send + use<K, V, Q>
    where
        K: Borrow<Q>,
        Q: Serialize + ?Sized,
    {
        let get = self.entry(key);
        async move { value_of(get?.await?.1) }
    }

    /// What a key holds, or `default` if it holds nothing.
    ///
    #[doc = example!(r#"
assert_eq!(map.get_or_default("a", 7).await?, 7);
map.put("a", &1).await?;
assert_eq!(map.get_or_default("a", 7).await?, 1);
"#)]
    ///
    /// # Errors
    /// *not done*.
    pub fn get_or_default<Q>(
        &self,
        key: &Q,
        default: V,
    ) -> impl Future<Output = Result<V, MapError>> + use<K, V, Q>
    where
        K: Borrow<Q>,
        Q: Serialize + ?Sized,
    {
        let get = self.entry(key);
        async move { Ok(value_of(get?.await?.1)?.unwrap_or(default)) }
    }

    /// What a key holds, with its version for [`DistributedMap::replace_if`] and [`DistributedMap::remove_if`].
    ///
    #[doc = example!(r#"
map.put("a", &1).await?;
let first = map.get_versioned("a").await?.unwrap();
map.put("a", &1).await?;
let second = map.get_versioned("a").await?.unwrap();
assert_eq!(first.value, second.value);
assert!(first.version < second.version);
"#)]
    ///
    /// # Errors
    /// *not done*.
    pub fn get_versioned<Q>(
        &self,
        key: &Q,
    ) -> impl Future<Output = Result<Option<Versioned<V>>, MapError>> + Send + use<K, V, Q>
    where
        K: Borrow<Q>,
        Q: Serialize + ?Sized,
    {
        let get = self.entry(key);
        async move {
            let Some(entry) = get?.await?.1 else { return Ok(None) };
            Ok(Some(Versioned { value: decode(&entry.value)?, version: entry.version.into() }))
        }
    }

    /// Whether a key holds something.
    ///
    #[doc = example!(r#"
assert!(!map.contains_key("a").await?);
map.put("a", &1).await?;
assert!(map.contains_key("a").await?);
"#)]
    ///
    /// # Errors
    /// *not done*.
    pub fn contains_key<Q>(
        &self,
        key: &Q,
    ) -> impl Future<Output = Result<bool, MapError>> + Send + use<K, V, Q>
    where
        K: Borrow<Q>,
        Q: Serialize + ?Sized,
    {
        let contains = encode(key).map(|key| self.handle.query(&ContainsKey { key }, self.consistency));
        async move { Ok(contains?.await?.1) }
    }

    /// How many keys there are.
    ///
    #[doc = example!(r#"
assert_eq!(map.len().await?, 0);
map.put("a", &1).await?;
assert_eq!(map.len().await?, 1);
"#)]
    ///
    /// # Errors
    /// *not done*.
    pub fn len(&self) -> impl Future<Output = Result<u64, MapError>> + Send + use<K, V> {
        let len = self.handle.query(&Len, self.consistency);
        async move { Ok(len.await?.1) }
    }

    /// Whether there are no keys.
    ///
    #[doc = example!(r#"
assert!(map.is_empty().await?);
"#)]
    ///
    /// # Errors
    /// *not done*.
    pub fn is_empty(&self) -> impl Future<Output = Result<bool, MapError>> + Send + use<K, V> {
        let len = self.len();
        async move { Ok(len.await? == 0) }
    }

    /// All entries, in order of the encoded keys.
    ///
    /// They are fetched in pages of some 256 KiB, each a read of its own in the handle's consistency. So this is not the map as of
    /// one moment: an entry that nobody touches meanwhile is there exactly once; one that is written or removed meanwhile is there
    /// in one of its states, or not. All of them are in memory at once here.
    ///
    #[doc = example!(r#"
map.put("b", &2).await?;
map.put("a", &1).await?;
assert_eq!(map.entries().await?, [("a".to_owned(), 1), ("b".to_owned(), 2)]);
"#)]
    ///
    /// # Errors
    /// *not done*.
    pub fn entries(&self) -> impl Future<Output = Result<Vec<(K, V)>, MapError>> + Send + use<K, V> {
        let (handle, consistency) = (self.handle.clone(), self.consistency);
        let mut page = handle.query(&Entries { after: None }, consistency);
        let mut all = Vec::new();
        async move {
            loop {
                let (_, Page { entries, more }) = page.await?;
                all.extend(entries);
                match all.last() {
                    Some((last, _)) if more => {
                        page = handle.query(&Entries { after: Some(last.clone()) }, consistency);
                    }
                    _ => break,
                }
            }
            all.iter().map(|(key, entry)| Ok((decode(key)?, decode(&entry.value)?))).collect()
        }
    }

    fn entry<Q: Serialize + ?Sized>(&self, key: &Q) -> Result<Call<Option<Entry>>, ResourceError> {
        encode(key).map(|key| self.handle.query(&Get { key }, self.consistency))
    }
}

fn encode_both<Q, W>(key: &Q, value: &W) -> Result<(Bytes, Bytes), ResourceError>
where
    Q: Serialize + ?Sized,
    W: Serialize + ?Sized,
{
    Ok((encode(key)?, encode(value)?))
}

fn value_of<V: DeserializeOwned>(entry: Option<Entry>) -> Result<Option<V>, MapError> {
    Ok(entry.map(|entry| decode(&entry.value)).transpose()?)
}

impl MapError {
    /// Whether it is certain that the operation was not done, and never will be.
    #[must_use]
    pub fn is_not_done(&self) -> bool {
        match self {
            MapError::Refused(_) => true,
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
        DistributedMap { handle, consistency: Consistency::default(), types: PhantomData }
    }
}

impl<K, V> Clone for DistributedMap<K, V> {
    fn clone(&self) -> Self {
        DistributedMap { handle: self.handle.clone(), consistency: self.consistency, types: PhantomData }
    }
}

impl<K, V> fmt::Debug for DistributedMap<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DistributedMap")
            .field("handle", &self.handle)
            .field("consistency", &self.consistency)
            .finish()
    }
}
