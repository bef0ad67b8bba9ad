//! A stream of changes: how what was told becomes what is handed out.

use std::fmt;
use std::future::poll_fn;
use std::marker::PhantomData;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::vec;

use atomix_resource::stream::{EventStream, StreamEnd};
use atomix_resource::{Call, Index, NotDone, ResourceError};
use bytes::Bytes;
use futures_core::Stream;
use serde::de::DeserializeOwned;
use thiserror::Error;

#[cfg(doc)]
use super::handle::DistributedMap;
use super::handle::{Versioned, example};
use super::op::{Entry, MapEvent, Page, Version};
use super::watch::{Registration, Told};
use crate::bytes_of::decode;

/// A change of a map, or with [`MapStream::current_first`] what it held before the first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MapChange<K, V> {
    /// Not a change: what a key holds, of which the stream has not told before.
    Current {
        /// The key.
        key: K,
        /// What it holds.
        entry: Versioned<V>,
    },
    /// A key that held nothing was set.
    Added {
        /// The key.
        key: K,
        /// What it holds.
        entry: Versioned<V>,
    },
    /// A key that held something was set, perhaps to an equal value.
    Updated {
        /// The key.
        key: K,
        /// What it held.
        old: Versioned<V>,
        /// What it holds.
        new: Versioned<V>,
    },
    /// A key was removed.
    Removed {
        /// The key.
        key: K,
        /// What it held.
        old: Versioned<V>,
        /// The removal.
        version: Version,
    },
    /// All keys were removed at once. A stream of one key tells of it if the key held something.
    Cleared {
        /// The removal.
        version: Version,
    },
}

/// Why a stream of changes is over.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum WatchEnd {
    /// It was taken from too slowly: changes are missing from here on. To go on, watch anew, with
    /// [`current_first`](MapStream::current_first).
    #[error("lagged behind: changes are missing")]
    Lagged,
    /// The session has ended.
    #[error("the session has ended")]
    SessionEnded,
    /// The map was deleted.
    #[error("the map was deleted")]
    Deleted,
    /// A key or value is not of the type that this stream expects.
    #[error("a change does not decode as the expected types")]
    Undecodable,
    /// What the map holds could not be read, which [`current_first`](MapStream::current_first) takes.
    #[error("what the map holds could not be read: {0}")]
    Unread(ResourceError),
}

impl From<ResourceError> for WatchEnd {
    fn from(error: ResourceError) -> Self {
        match error {
            ResourceError::Undecodable => WatchEnd::Undecodable,
            ResourceError::Deleted => WatchEnd::Deleted,
            ResourceError::NotDone(NotDone::SessionEnded) => WatchEnd::SessionEnded,
            other => WatchEnd::Unread(other),
        }
    }
}

/// The changes of a map or of one of its keys, from [`DistributedMap::watch`] or [`DistributedMap::watch_key`] on, in order.
///
/// Also a [`Stream`], which yields the end as its last item. Dropping it takes the watch back.
#[must_use = "dropping it takes the watch back"]
pub struct MapStream<K, V> {
    /// `None` once it is over.
    registration: Option<Registration>,
    told: EventStream<Told>,
    /// Taken out of `told`, and not yet due.
    peeked: Option<(Index, MapEvent)>,
    /// Only changes of this one; `None`: of all.
    key: Option<Bytes>,
    /// What that key holds, as far as the stream has told.
    holds: Option<Entry>,
    phase: Phase,
    /// Why it is over, and whether the [`Stream`] has said so.
    end: Option<(WatchEnd, bool)>,
    types: PhantomData<fn() -> (K, V)>,
}

/// What is handed out next.
enum Phase {
    /// What is told.
    Changes,
    /// What the map holds behind the keys that have been shown already; for that, a page is read.
    Reading { page: Call<Page>, shown: Option<Bytes> },
    /// A page.
    Showing(Showing),
}

/// A page of what the map holds. What is told while the pages are read fits in like this: of the changes up to the moment when the page
/// was read, those of keys shown before are handed out before the page, and those of others dropped, because the page, or one behind
/// it, has them in it. What comes later waits for the next page, or for the end of the last. So at each moment all that was handed out
/// adds up to what the keys shown held.
struct Showing {
    /// When it was read. All that is told up to then has arrived (Q2).
    at: Index,
    /// The last key of the pages before; `None` if there are none.
    shown: Option<Bytes>,
    entries: vec::IntoIter<(Bytes, Entry)>,
    /// Its last key, if there are more pages.
    more_behind: Option<Bytes>,
}

impl Showing {
    fn concerns(&self, event: &MapEvent) -> bool {
        self.shown.as_ref().is_some_and(|shown| match event {
            MapEvent::Added { key, .. } | MapEvent::Updated { key, .. } | MapEvent::Removed { key, .. } => {
                key <= shown
            }
            MapEvent::Cleared | MapEvent::Deleted => true,
        })
    }
}

impl<K, V> MapStream<K, V> {
    /// What is told to a registration; `holds` is what its one key held there.
    pub(super) fn new(
        registration: Registration,
        told: EventStream<Told>,
        key: Option<Bytes>,
        holds: Option<Entry>,
    ) -> Self {
        let (registration, phase) = (Some(registration), Phase::Changes);
        MapStream { registration, told, peeked: None, key, holds, phase, end: None, types: PhantomData }
    }
}

impl<K: DeserializeOwned, V: DeserializeOwned> MapStream<K, V> {
    /// The same stream, beginning with what the map or the key holds: each entry as [`MapChange::Current`], then the changes since. A map
    /// is read in pages while the stream is taken from; changes of keys that were shown already may come between them.
    ///
    #[doc = example!(r#"
# use atomix_collections::MapChange;
map.put("a", &1).await?;
let mut changes = map.watch().await?.current_first();
assert!(matches!(changes.next().await?, MapChange::Current { key, .. } if key == "a"));
"#)]
    pub fn current_first(mut self) -> Self {
        self.phase = match (&self.key, &self.registration) {
            (Some(key), _) => {
                let entries: Vec<_> = self.holds.iter().map(|entry| (key.clone(), entry.clone())).collect();
                let entries = entries.into_iter();
                // As of what was handed out last: no change that is still to come is in it.
                Phase::Showing(Showing { at: Index::ZERO, shown: None, entries, more_behind: None })
            }
            (None, Some(registration)) => Phase::Reading { page: registration.page(None), shown: None },
            (None, None) => Phase::Changes,
        };
        self
    }

    /// The next change. Dropping the future loses nothing.
    ///
    /// # Errors
    /// When the stream is over, every time from then on.
    pub async fn next(&mut self) -> Result<MapChange<K, V>, WatchEnd> {
        poll_fn(|cx| self.poll(cx)).await
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<MapChange<K, V>, WatchEnd>> {
        if let Some((end, _)) = &self.end {
            return Poll::Ready(Err(end.clone()));
        }
        let change = ready!(self.poll_change(cx));
        if let Err(end) = &change {
            self.end = Some((end.clone(), false));
            self.give_up(end);
        }
        Poll::Ready(change)
    }

    fn give_up(&mut self, end: &WatchEnd) {
        if let Some(mut registration) = self.registration.take()
            && matches!(end, WatchEnd::SessionEnded | WatchEnd::Deleted)
        {
            registration.lapse();
        }
    }

    fn poll_change(&mut self, cx: &mut Context<'_>) -> Poll<Result<MapChange<K, V>, WatchEnd>> {
        loop {
            match &mut self.phase {
                Phase::Changes => {
                    let (index, event) = match self.peeked.take() {
                        Some(told) => told,
                        None => ready!(self.poll_told(cx))?,
                    };
                    if self.happened(&event) {
                        return Poll::Ready(typed(index, event));
                    }
                }
                Phase::Reading { page, shown } => {
                    let (at, page) = ready!(Pin::new(page).poll(cx)).map_err(WatchEnd::from)?;
                    let more_behind = page.entries.last().filter(|_| page.more).map(|(key, _)| key.clone());
                    let (shown, entries) = (shown.take(), page.entries.into_iter());
                    self.phase = Phase::Showing(Showing { at, shown, entries, more_behind });
                }
                Phase::Showing(_) => {
                    if let Some(change) = self.show()? {
                        return Poll::Ready(Ok(change));
                    }
                }
            }
        }
    }

    fn poll_told(&mut self, cx: &mut Context<'_>) -> Poll<Result<(Index, MapEvent), WatchEnd>> {
        let told = ready!(self.told.poll_next(cx));
        Poll::Ready(told.map_err(end_of).and_then(|(index, event)| Ok((index, event?))))
    }

    /// What comes next of the page at hand; `None` when there is no more of it.
    fn show(&mut self) -> Result<Option<MapChange<K, V>>, WatchEnd> {
        let Phase::Showing(showing) = &mut self.phase else { return Ok(None) };
        loop {
            if self.peeked.is_none() {
                self.peeked = match self.told.try_next().map_err(end_of)? {
                    Some((index, event)) => Some((index, event?)),
                    None => None,
                };
            }
            match self.peeked.take_if(|(index, _)| *index <= showing.at) {
                Some((index, event)) if showing.concerns(&event) => return typed(index, event).map(Some),
                Some(_) => {}
                None => break,
            }
        }
        if let Some((key, entry)) = showing.entries.next() {
            let (key, entry) = (decode(&key)?, versioned(&entry)?);
            return Ok(Some(MapChange::Current { key, entry }));
        }
        let rest = showing.more_behind.take().zip(self.registration.as_ref());
        self.phase = match rest {
            Some((last, registration)) => {
                Phase::Reading { page: registration.page(Some(last.clone())), shown: Some(last) }
            }
            None => Phase::Changes,
        };
        Ok(None)
    }

    /// Follows what the one key holds. Returns whether the event is a change to this stream: another registration of the instance may be
    /// told that the map was cleared when the key held nothing.
    fn happened(&mut self, event: &MapEvent) -> bool {
        if self.key.is_none() {
            return true;
        }
        match event {
            MapEvent::Added { entry: new, .. } | MapEvent::Updated { new, .. } => {
                self.holds = Some(new.clone());
                true
            }
            MapEvent::Removed { .. } | MapEvent::Cleared => self.holds.take().is_some(),
            MapEvent::Deleted => true,
        }
    }
}

fn end_of(end: StreamEnd) -> WatchEnd {
    match end {
        StreamEnd::Lagged => WatchEnd::Lagged,
        _ => WatchEnd::SessionEnded,
    }
}

fn typed<K, V>(index: Index, event: MapEvent) -> Result<MapChange<K, V>, WatchEnd>
where
    K: DeserializeOwned,
    V: DeserializeOwned,
{
    let version = Version::from(index);
    Ok(match event {
        MapEvent::Added { key, entry } => MapChange::Added { key: decode(&key)?, entry: versioned(&entry)? },
        MapEvent::Updated { key, old, new } => {
            MapChange::Updated { key: decode(&key)?, old: versioned(&old)?, new: versioned(&new)? }
        }
        MapEvent::Removed { key, old } => {
            MapChange::Removed { key: decode(&key)?, old: versioned(&old)?, version }
        }
        MapEvent::Cleared => MapChange::Cleared { version },
        MapEvent::Deleted => return Err(WatchEnd::Deleted),
    })
}

fn versioned<V: DeserializeOwned>(entry: &Entry) -> Result<Versioned<V>, WatchEnd> {
    Ok(Versioned { value: decode(&entry.value)?, version: entry.version.into() })
}

impl<K: DeserializeOwned, V: DeserializeOwned> Stream for MapStream<K, V> {
    type Item = Result<MapChange<K, V>, WatchEnd>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if matches!(self.end, Some((_, true))) {
            return Poll::Ready(None);
        }
        let change = ready!(self.poll(cx));
        if let Some((_, said)) = &mut self.end {
            *said = true;
        }
        Poll::Ready(Some(change))
    }
}

impl<K, V> fmt::Debug for MapStream<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let registration = self.registration.as_ref();
        f.debug_struct("MapStream")
            .field("map", &registration.map(|registration| &registration.handle))
            .field("told", &self.told)
            .field("end", &self.end)
            .finish_non_exhaustive()
    }
}
