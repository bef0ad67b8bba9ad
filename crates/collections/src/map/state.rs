//! The replicated state of a map: deterministic, and nothing but what the commands say.

use std::ops::Bound;

use atomix_resource::fencing::{Fences, Guarded};
use atomix_resource::{
    Answer, Apply, BadConfiguration, Caller, CommandContext, Context, Deletion, InstanceId, QueryContext,
    Resource, Sequence, SessionId, Slice, limits,
};
use bytes::Bytes;
use imbl::{OrdMap, OrdSet};
use serde::{Deserialize, Serialize};

use super::op::{
    Clear, ContainsKey, Entries, Entry, Get, Len, MOST_WATCHES, MapEvent, MapOperations, MapRefusal, Page,
    Put, PutIfAbsent, Remove, RemoveIf, Replace, ReplaceIf, Scope, Unwatch, Watch,
};

/// A reply of [`Entries`] ends with the entry that passes this many bytes: with the largest entry still far below a frame.
const PAGE_BYTES: usize = 256 << 10;
/// What an entry counts for in a page beside key and value.
const ENTRY_BYTES: usize = 16;
/// So many watches of a session that has ended are forgotten with one entry of the log (S9).
const WATCHES_PER_SLICE: usize = 128;

/// Keys and what they hold, and who wants to be told when that changes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MapState {
    /// By encoded key. Persistent, so that a snapshot costs nothing however large the map is.
    /// Invariant: keys and values own their bytes. Decoding copies them: a slice would keep the whole buffer alive in which its
    /// command arrived.
    #[serde(with = "atomix_resource::ordered")]
    entries: OrdMap<Bytes, Entry>,
    /// Who watches. Invariant: at most [`MOST_WATCHES`].
    watches: Watches,
    /// The tokens that fenced writes came with.
    fences: Fences,
}

/// Who wants to be told of what.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Registered", into = "Registered")]
struct Watches {
    /// By the command that registered it: those of one session lie together.
    scopes: OrdMap<Caller, Scope>,
    /// Those of one scope lie together: a change costs only whom it concerns. Invariant: derived from `scopes`, one to one.
    concerned: OrdSet<(Scope, Caller)>,
}

/// [`Watches`] in a snapshot.
#[derive(Serialize, Deserialize)]
struct Registered(#[serde(with = "atomix_resource::ordered")] OrdMap<Caller, Scope>);

impl From<Registered> for Watches {
    fn from(Registered(scopes): Registered) -> Self {
        let concerned = scopes.iter().map(|(watcher, scope)| (scope.clone(), *watcher)).collect();
        Watches { scopes, concerned }
    }
}

impl From<Watches> for Registered {
    fn from(watches: Watches) -> Self {
        Registered(watches.scopes)
    }
}

impl Watches {
    fn add(&mut self, watcher: Caller, scope: Scope) -> Result<(), MapRefusal> {
        if self.scopes.len() >= MOST_WATCHES {
            return Err(MapRefusal::TooManyWatches);
        }
        self.scopes.insert(watcher, scope.clone());
        self.concerned.insert((scope, watcher));
        Ok(())
    }

    fn remove(&mut self, watcher: Caller) {
        if let Some(scope) = self.scopes.remove(&watcher) {
            self.concerned.remove(&(scope, watcher));
        }
    }

    fn of_scope(&self, scope: Scope) -> impl Iterator<Item = Caller> + '_ {
        let first = (scope.clone(), first_of(SessionId(0)));
        let found = self.concerned.range(first..).take_while(move |(found, _)| *found == scope);
        found.map(|(_, watcher)| *watcher)
    }

    fn of_session(&self, session: SessionId) -> impl Iterator<Item = Caller> + '_ {
        let from_there_on = self.scopes.range(first_of(session)..).map(|(watcher, _)| *watcher);
        from_there_on.take_while(move |watcher| watcher.session == session)
    }
}

/// No watcher of this session is smaller.
fn first_of(session: SessionId) -> Caller {
    Caller { session, instance: InstanceId(0), sequence: Sequence::ZERO }
}

impl Resource for MapState {
    const KIND: &'static str = "map";
    type Operations = MapOperations;
    type Configuration = ();
    type Event = MapEvent;

    fn create((): ()) -> Result<Self, BadConfiguration> {
        Ok(Self::default())
    }

    fn session_ended(&mut self, _: &mut Context<'_>, session: SessionId) -> Slice {
        let slice: Vec<_> = self.watches.of_session(session).take(WATCHES_PER_SLICE).collect();
        slice.into_iter().for_each(|watcher| self.watches.remove(watcher));
        match self.watches.of_session(session).next() {
            Some(_) => Slice::More,
            None => Slice::Done,
        }
    }

    fn deletion_asked(&mut self, cx: &mut Context<'_>, _force: bool) -> Deletion {
        cx.publish(self.watches.scopes.keys().copied(), &MapEvent::Deleted);
        Deletion::Now
    }
}

impl Guarded for MapState {
    fn fences(&mut self) -> &mut Fences {
        &mut self.fences
    }
}

impl MapState {
    fn set(&mut self, cx: &mut CommandContext<'_>, key: Bytes, value: Bytes) -> Option<Entry> {
        let new = Entry { value, version: cx.index() };
        let old = self.entries.insert(key.clone(), new.clone());
        let event = match old.clone() {
            None => MapEvent::Added { key: key.clone(), entry: new },
            Some(old) => MapEvent::Updated { key: key.clone(), old, new },
        };
        self.tell(cx, key, &event);
        old
    }

    fn unset(&mut self, cx: &mut CommandContext<'_>, key: Bytes) -> Option<Entry> {
        let old = self.entries.remove(&key)?;
        let event = MapEvent::Removed { key: key.clone(), old: old.clone() };
        self.tell(cx, key, &event);
        Some(old)
    }

    /// Tells whom a change of this key concerns.
    fn tell(&self, cx: &mut CommandContext<'_>, key: Bytes, event: &MapEvent) {
        let watchers = self.watches.of_scope(Scope::All).chain(self.watches.of_scope(Scope::Key(key)));
        cx.publish(watchers, event);
    }
}

fn check(key: &Bytes) -> Result<(), MapRefusal> {
    if key.len() > limits::KEY_BYTES {
        return Err(MapRefusal::KeyTooLong);
    }
    Ok(())
}

impl Apply<Put> for MapState {
    fn apply(&mut self, cx: &mut CommandContext<'_>, put: Put) -> Result<Option<Entry>, MapRefusal> {
        check(&put.key)?;
        Ok(self.set(cx, put.key, put.value))
    }
}

impl Apply<PutIfAbsent> for MapState {
    fn apply(&mut self, cx: &mut CommandContext<'_>, put: PutIfAbsent) -> Result<Option<Entry>, MapRefusal> {
        check(&put.key)?;
        match self.entries.get(&put.key) {
            Some(held) => Ok(Some(held.clone())),
            None => Ok(self.set(cx, put.key, put.value)),
        }
    }
}

impl Apply<Replace> for MapState {
    fn apply(&mut self, cx: &mut CommandContext<'_>, replace: Replace) -> Option<Entry> {
        match self.entries.contains_key(&replace.key) {
            true => self.set(cx, replace.key, replace.value),
            false => None,
        }
    }
}

impl Apply<ReplaceIf> for MapState {
    fn apply(&mut self, cx: &mut CommandContext<'_>, replace: ReplaceIf) -> bool {
        let matches = self.entries.get(&replace.key).is_some_and(|held| held.version == replace.version);
        if matches {
            self.set(cx, replace.key, replace.value);
        }
        matches
    }
}

impl Apply<Remove> for MapState {
    fn apply(&mut self, cx: &mut CommandContext<'_>, remove: Remove) -> Option<Entry> {
        self.unset(cx, remove.key)
    }
}

impl Apply<RemoveIf> for MapState {
    fn apply(&mut self, cx: &mut CommandContext<'_>, remove: RemoveIf) -> bool {
        let matches = self.entries.get(&remove.key).is_some_and(|held| held.version == remove.version);
        if matches {
            self.unset(cx, remove.key);
        }
        matches
    }
}

impl Apply<Clear> for MapState {
    fn apply(&mut self, cx: &mut CommandContext<'_>, Clear: Clear) {
        if self.entries.is_empty() {
            return;
        }
        let held = std::mem::take(&mut self.entries);
        let concerned = self.watches.concerned.iter().filter(|(scope, _)| match scope {
            Scope::All => true,
            Scope::Key(key) => held.contains_key(key),
        });
        cx.publish(concerned.map(|(_, watcher)| *watcher), &MapEvent::Cleared);
    }
}

impl Apply<Watch> for MapState {
    fn apply(&mut self, cx: &mut CommandContext<'_>, watch: Watch) -> Result<Option<Entry>, MapRefusal> {
        let held = match &watch.scope {
            Scope::All => None,
            Scope::Key(key) => {
                check(key)?;
                self.entries.get(key).cloned()
            }
        };
        self.watches.add(cx.caller(), watch.scope)?;
        Ok(held)
    }
}

impl Apply<Unwatch> for MapState {
    fn apply(&mut self, cx: &mut CommandContext<'_>, unwatch: Unwatch) {
        self.watches.remove(Caller { sequence: unwatch.watch, ..cx.caller() });
    }
}

impl Answer<Get> for MapState {
    fn answer(&self, _: &QueryContext, get: Get) -> Option<Entry> {
        self.entries.get(&get.key).cloned()
    }
}

impl Answer<ContainsKey> for MapState {
    fn answer(&self, _: &QueryContext, contains: ContainsKey) -> bool {
        self.entries.contains_key(&contains.key)
    }
}

impl Answer<Len> for MapState {
    fn answer(&self, _: &QueryContext, Len: Len) -> u64 {
        self.entries.len() as u64
    }
}

impl Answer<Entries> for MapState {
    fn answer(&self, _: &QueryContext, Entries { after }: Entries) -> Page {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let mut rest = self.entries.range::<_, Bytes>((from, Bound::Unbounded));
        let mut page = Page { entries: Vec::new(), more: false };
        let mut bytes = 0;
        while bytes < PAGE_BYTES {
            let Some((key, entry)) = rest.next() else { return page };
            bytes += key.len() + entry.value.len() + ENTRY_BYTES;
            page.entries.push((key.clone(), entry.clone()));
        }
        page.more = rest.next().is_some();
        page
    }
}
