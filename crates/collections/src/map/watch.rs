//! Watching a map: a place among those who are told, and what they are told (E1–E5).
//!
//! The instance of a session is told of a change once, however many streams it concerns, and each open map passes it on to those of
//! its streams whose keys it touches. The events of other registrations look the same, so one thing decides: a stream's
//! registration is a command in the log, and what concerns the stream is what comes behind it.

use std::borrow::Borrow;
use std::collections::{BTreeMap, VecDeque};
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use atomix_resource::stream::{EventStream, Feed, stream};
use atomix_resource::{Call, Consistency, Handle, Index, ResourceError, Sequence, Subscription};
use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::changes::{MapStream, WatchEnd};
use super::handle::{DistributedMap, MapError, example};
use super::op::{Entries, Entry, MapEvent, MapRefusal, Page, Scope, Unwatch, Watch};
use super::state::MapState;
use crate::bytes_of::encode;

/// Changes.
impl<K, V> DistributedMap<K, V>
where
    K: Serialize + DeserializeOwned,
    V: Serialize + DeserializeOwned,
{
    /// Watches all keys. When the stream is there, every later change arrives.
    ///
    /// Dropping the future, or later the stream, takes the watch back.
    ///
    #[doc = example!(r#"
# use atomix_collections::MapChange;
let mut changes = map.watch().await?;
map.put("a", &1).await?;
map.put("a", &2).await?;
let MapChange::Added { key, entry } = changes.next().await? else { panic!() };
assert_eq!((key.as_str(), entry.value), ("a", 1));
let MapChange::Updated { old, new, .. } = changes.next().await? else { panic!() };
assert_eq!((old, new.value), (entry, 2));
"#)]
    ///
    /// # Errors
    /// [`MapRefusal::TooManyWatches`]; *not done*; *unknown*, and nothing is watched then either.
    pub fn watch(&self) -> impl Future<Output = Result<MapStream<K, V>, MapError>> + Send + use<K, V> {
        registered(Ok(Registering::new(self, None)))
    }

    /// Watches one key. When the stream is there, every later change of it arrives.
    ///
    /// Dropping the future, or later the stream, takes the watch back.
    ///
    #[doc = example!(r#"
# use atomix_collections::MapChange;
map.put("a", &1).await?;
let mut changes = map.watch_key("a").await?.current_first();
map.put("b", &2).await?;
map.remove("a").await?;
assert!(matches!(changes.next().await?, MapChange::Current { entry, .. } if entry.value == 1));
assert!(matches!(changes.next().await?, MapChange::Removed { old, .. } if old.value == 1));
"#)]
    ///
    /// # Errors
    /// [`MapRefusal::TooManyWatches`], [`MapRefusal::KeyTooLong`]; *not done*; *unknown*, and nothing is watched then either.
    pub fn watch_key<Q>(
        &self,
        key: &Q,
    ) -> impl Future<Output = Result<MapStream<K, V>, MapError>> + Send + use<K, V, Q>
    where
        K: Borrow<Q>,
        Q: Serialize + ?Sized,
    {
        registered(encode(key).map(|key| Registering::new(self, Some(key))))
    }
}

/// A watch on its way to the log. Dropped, it is taken back.
struct Registering {
    registration: Registration,
    call: Call<Result<Option<Entry>, MapRefusal>>,
    told: EventStream<Told>,
}

impl Registering {
    fn new<K, V>(map: &DistributedMap<K, V>, key: Option<Bytes>) -> Self {
        let (feed, told) = stream(map.queue);
        let early = Early { newest: VecDeque::new(), room: map.queue, missing: Index::ZERO };
        let front = Arc::new(Mutex::new(Front { feed, early: Some(early) }));
        // Before the command: nothing that comes behind it may find nobody.
        map.watching.fronts.add(&key, &front);
        let scope = key.clone().map_or(Scope::All, Scope::Key);
        let mut watch = None;
        let call = map.handle.command_numbered(&Watch { scope }, |sequence| watch = Some(sequence));
        let (handle, watching) = (map.handle.clone(), map.watching.clone());
        Registering { registration: Registration { handle, watch, key, front, watching }, call, told }
    }
}

async fn registered<K, V>(
    registering: Result<Registering, ResourceError>,
) -> Result<MapStream<K, V>, MapError> {
    let Registering { mut registration, call, told } = registering?;
    let done = call.await.map_err(MapError::Resource);
    match done.and_then(|(at, reply)| Ok((at, reply.map_err(MapError::Refused)?))) {
        Ok((at, holds)) => {
            locked(&registration.front).registered(at);
            let key = registration.key.clone();
            Ok(MapStream::new(registration, told, key, holds))
        }
        Err(error) => {
            if error.is_not_done() {
                registration.lapse();
            }
            Err(error)
        }
    }
}

/// A place among those who are told. Dropping it gives it up, from wherever that happens.
pub(super) struct Registration {
    pub(super) handle: Handle<MapState>,
    /// The command that it is from; `None` once there is nothing to take back.
    watch: Option<Sequence>,
    /// Only changes of this one; `None`: of all.
    key: Option<Bytes>,
    front: Arc<Mutex<Front>>,
    watching: Arc<Watching>,
}

impl Drop for Registration {
    fn drop(&mut self) {
        self.watching.fronts.remove(&self.key, &self.front);
        if let Some(watch) = self.watch {
            self.handle.command_detached(&Unwatch { watch });
        }
    }
}

impl Registration {
    /// There is nothing to take back.
    pub(super) fn lapse(&mut self) {
        self.watch = None;
    }

    /// At least as new as the registration is what a read sees that comes behind it in its session.
    pub(super) fn page(&self, after: Option<Bytes>) -> Call<Page> {
        self.handle.query(&Entries { after }, Consistency::Sequential)
    }
}

/// An event and its index; an end takes the place of what can't be told.
pub(super) type Told = (Index, Result<MapEvent, WatchEnd>);

/// One open map that may be watched. Its clones and streams share it; the last of them takes the sink out of the session.
pub(super) struct Watching {
    fronts: Arc<Fronts>,
    _events: Subscription,
}

impl Watching {
    pub(super) fn new(handle: &Handle<MapState>) -> Arc<Self> {
        let fronts = Arc::new(Fronts::default());
        let sink = Sink(fronts.clone());
        let events = handle.events(move |index, event| {
            sink.0.tell(index, event.map_err(|_| WatchEnd::Undecodable));
        });
        Arc::new(Watching { fronts, _events: events })
    }
}

/// What the session has of an open map. Once it drops that, nothing more is told, and the streams end.
struct Sink(Arc<Fronts>);

impl Drop for Sink {
    fn drop(&mut self) {
        let ended = std::mem::take(&mut *locked(&self.0.0));
        ended.values().flatten().for_each(|front| locked(front).feed.end());
    }
}

/// Streams by the key that they are about; `None`: all keys.
type ByKey = BTreeMap<Option<Bytes>, Vec<Arc<Mutex<Front>>>>;

/// The streams of an open map. Its lock is taken with the session's held, and never
/// held while the session is used.
#[derive(Default)]
struct Fronts(Mutex<ByKey>);

impl Fronts {
    fn add(&self, key: &Option<Bytes>, front: &Arc<Mutex<Front>>) {
        locked(&self.0).entry(key.clone()).or_default().push(front.clone());
    }

    fn remove(&self, key: &Option<Bytes>, front: &Arc<Mutex<Front>>) {
        let mut fronts = locked(&self.0);
        if let Some(same) = fronts.get_mut(key) {
            same.retain(|other| !Arc::ptr_eq(other, front));
            if same.is_empty() {
                fronts.remove(key);
            }
        }
    }

    /// Bodies are shared by all that it concerns.
    fn tell(&self, index: Index, told: Result<MapEvent, WatchEnd>) {
        let fronts = locked(&self.0);
        let take = |front: &Arc<Mutex<Front>>| locked(front).take((index, told.clone()));
        match &told {
            Ok(
                MapEvent::Added { key, .. } | MapEvent::Updated { key, .. } | MapEvent::Removed { key, .. },
            ) => {
                let concerned = [fronts.get(&None), fronts.get(&Some(key.clone()))];
                concerned.into_iter().flatten().flatten().for_each(take);
            }
            Ok(MapEvent::Cleared | MapEvent::Deleted) | Err(_) => fronts.values().flatten().for_each(take),
        }
    }
}

/// Where the events of one stream come in.
struct Front {
    feed: Feed<Told>,
    early: Option<Early>,
}

/// What comes before it is known where in the log the registration is. Those of it that precede the registration belong to others, and
/// must not make the stream lag.
struct Early {
    newest: VecDeque<Told>,
    room: usize,
    /// The last one for which there was no room.
    missing: Index,
}

impl Front {
    fn take(&mut self, told: Told) {
        let Some(early) = &mut self.early else { return self.feed.push(told) };
        if early.newest.len() == early.room {
            early.missing = early.newest.pop_front().map_or(early.missing, |(index, _)| index);
        }
        early.newest.push_back(told);
    }

    /// The registration is at this index: what comes behind it is the stream's.
    fn registered(&mut self, at: Index) {
        let Some(early) = self.early.take() else { return };
        if early.missing > at {
            self.feed.push((early.missing, Err(WatchEnd::Lagged)));
            return self.feed.end();
        }
        early.newest.into_iter().filter(|(index, _)| *index > at).for_each(|told| self.feed.push(told));
    }
}

/// Its holders do not panic while they hold it, and leave it whole at every step.
fn locked<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}
