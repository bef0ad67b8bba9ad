//! Reading a map.

use std::borrow::Borrow;
use std::future::Future;

use atomix_resource::{Call, ResourceError};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::handle::{DistributedMap, MapError, Versioned, example, value_of};
use super::op::{ContainsKey, Entries, Entry, Get, Len, Page};
use crate::bytes_of::{decode, encode};

/// Reads. Each sees at least what the handle's consistency promises.
impl<K, V> DistributedMap<K, V>
where
    K: Serialize + DeserializeOwned,
    V: Serialize + DeserializeOwned,
{
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
