//! Persistent ordered maps in snapshots: `#[serde(with = "atomix_resource::ordered")]`.
//!
//! An [`OrdMap`] is what state that can grow large is kept in: a clone costs nothing, so a snapshot does not stop the writes.
//! Reading one back is strict and allocates only for what is really there: keys must ascend, a length is never believed.

use std::fmt;
use std::marker::PhantomData;

use imbl::OrdMap;
use serde::de::{Error, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Writes the entries in ascending order.
///
/// # Errors
/// Those of the serializer.
pub fn serialize<K, V, S>(map: &OrdMap<K, V>, serializer: S) -> Result<S::Ok, S::Error>
where
    K: Ord + Serialize,
    V: Serialize,
    S: Serializer,
{
    serializer.collect_map(map.iter())
}

/// Reads them back.
///
/// # Errors
/// If the keys do not ascend, and those of the deserializer.
pub fn deserialize<'de, K, V, D>(deserializer: D) -> Result<OrdMap<K, V>, D::Error>
where
    K: Ord + Clone + Deserialize<'de>,
    V: Clone + Deserialize<'de>,
    D: Deserializer<'de>,
{
    deserializer.deserialize_map(Ascending(PhantomData))
}

struct Ascending<K, V>(PhantomData<(K, V)>);

impl<'de, K, V> Visitor<'de> for Ascending<K, V>
where
    K: Ord + Clone + Deserialize<'de>,
    V: Clone + Deserialize<'de>,
{
    type Value = OrdMap<K, V>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a map with ascending keys")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Self::Value, A::Error> {
        let mut map = OrdMap::new();
        while let Some((key, value)) = entries.next_entry()? {
            if map.get_max().is_some_and(|(last, _)| *last >= key) {
                return Err(A::Error::custom("keys do not ascend"));
            }
            map.insert(key, value);
        }
        Ok(map)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct State(#[serde(with = "super")] OrdMap<u8, u8>);

    #[test]
    fn reads_back_what_it_wrote() {
        let state = State([(3, 4), (1, 2)].into_iter().collect());
        let bytes = postcard::to_allocvec(&state).unwrap();
        assert_eq!(bytes, [2, 1, 2, 3, 4]);
        assert_eq!(postcard::from_bytes::<State>(&bytes).unwrap(), state);
    }

    #[test]
    fn refuses_what_it_never_writes() {
        for (bytes, why) in [
            (&[2, 3, 4, 1, 2][..], "keys descend"),
            (&[2, 1, 2, 1, 2], "a key twice"),
            (&[2, 1, 2], "fewer entries than said"),
            (
                &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01, 1, 2],
                "a length beyond all memory",
            ),
        ] {
            assert!(postcard::from_bytes::<State>(bytes).is_err(), "{why}");
        }
    }
}
