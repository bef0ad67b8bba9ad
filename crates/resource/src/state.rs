//! Everything that a registry replicates, and how it becomes bytes and back.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::sync::Arc;

use atomix_protocol::envelope::Sharing;
use atomix_protocol::{InstanceId, ResourceId, SessionId, codec};
use atomix_session::{Context as EntryContext, RestoreError, SnapshotSource, TimerId};
use bytes::Bytes;
use imbl::{OrdMap, OrdSet};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::context::Context;
use crate::machine::{AnyMachine, Kind, Machine, unshared};
use crate::path::is_valid_path;
use crate::snapshot::{read_exact, read_part, write_part, write_value};

/// Everything replicated. Persistent maps all the way down: a clone is a snapshot, and costs nothing.
#[derive(Clone, Default)]
pub(crate) struct State {
    /// All resources.
    pub(crate) resources: OrdMap<ResourceId, Slot>,
    /// Where they live. Invariant: derived from `resources`, one to one.
    pub(crate) paths: OrdMap<Arc<str>, ResourceId>,
    /// Which there are. Invariant: derived from `resources`; apart from it, so that one resource can ask for another while it changes.
    pub(crate) alive: OrdSet<ResourceId>,
    /// Who has opened what. Those that lead to no resource had opened one that was deleted: they stay until their session ends, so
    /// that they never lead to a later one at the same path (M1).
    pub(crate) instances: OrdMap<InstanceId, Instance>,
    /// The same by session. Invariant: derived from `instances`, one to one.
    pub(crate) opened: OrdSet<(SessionId, ResourceId, InstanceId)>,
    /// The shared instance of a session at a resource. Invariant: derived from `instances`.
    pub(crate) shared: OrdMap<(SessionId, ResourceId), InstanceId>,
    /// Whose each pending timer is. Invariant: exactly the pending timers of the session table.
    pub(crate) timers: OrdMap<TimerId, ResourceId>,
    /// Sessions that have ended and are not cleaned up yet, with the last resource that is done with it.
    pub(crate) ending: OrdMap<SessionId, Option<ResourceId>>,
}

/// A resource in its place.
#[derive(Clone)]
pub(crate) struct Slot {
    pub(crate) path: Arc<str>,
    pub(crate) kind: &'static str,
    pub(crate) machine: AnyMachine,
}

/// A session's opening of a resource.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Instance {
    pub(crate) session: SessionId,
    pub(crate) resource: ResourceId,
    pub(crate) sharing: Sharing,
}

impl State {
    pub(crate) fn place(&mut self, resource: ResourceId, slot: Slot) -> ResourceId {
        self.paths.insert(slot.path.clone(), resource);
        self.alive.insert(resource);
        self.resources.insert(resource, slot);
        resource
    }

    /// A resource is no more. Its timers, should any be pending, find nobody.
    pub(crate) fn remove(&mut self, resource: ResourceId) {
        if let Some(slot) = self.resources.remove(&resource) {
            self.paths.remove(&slot.path);
            self.alive.remove(&resource);
        }
    }

    pub(crate) fn admit(&mut self, id: InstanceId, instance: Instance) {
        let Instance { session, resource, sharing } = instance;
        self.instances.insert(id, instance);
        self.opened.insert((session, resource, id));
        if sharing == Sharing::Shared {
            self.shared.insert((session, resource), id);
        }
    }

    pub(crate) fn dismiss(&mut self, id: InstanceId) {
        let Some(Instance { session, resource, sharing }) = self.instances.remove(&id) else { return };
        self.opened.remove(&(session, resource, id));
        if sharing == Sharing::Shared {
            self.shared.remove(&(session, resource));
        }
    }

    /// The resource behind an instance, if it is one of this session's.
    pub(crate) fn instance_of(&self, session: SessionId, instance: InstanceId) -> Option<ResourceId> {
        self.instances.get(&instance).filter(|found| found.session == session).map(|found| found.resource)
    }

    pub(crate) fn first_opened(&self, session: SessionId) -> Option<(ResourceId, InstanceId)> {
        let first = (session, ResourceId(0), InstanceId(0));
        let (owner, resource, instance) = self.opened.range(first..).next()?;
        (*owner == session).then_some((*resource, *instance))
    }

    /// Lets a resource change, if it is there, and removes it if that was its wish.
    pub(crate) fn change<T>(
        &mut self,
        entry: &mut EntryContext<'_>,
        resource: ResourceId,
        change: impl FnOnce(&mut dyn Machine, Context<'_>) -> T,
    ) -> Option<T> {
        let slot = self.resources.get_mut(&resource)?;
        let mut finished = false;
        let context = Context {
            entry,
            resource,
            alive: &self.alive,
            timers: &mut self.timers,
            ending: &self.ending,
            finished: &mut finished,
        };
        let result = change(unshared(&mut slot.machine), context);
        if finished {
            self.remove(resource);
        }
        Some(result)
    }
}

// The parts of a snapshot, in this order; behind their number one `resource` for each.
const INSTANCES: &str = "instances";
const TIMERS: &str = "timers";
const ENDING: &str = "ending";
const RESOURCES: &str = "resources";
const RESOURCE: &str = "resource";
/// Version of the first four parts; a resource's part has that of its kind.
const VERSION: u16 = 1;

/// What precedes a resource's own state in its part.
#[derive(Serialize, Deserialize)]
struct Placed {
    id: ResourceId,
    path: String,
    kind: String,
}

#[derive(Serialize, Deserialize)]
struct Ordered<K: Ord + Clone, V: Clone>(
    #[serde(
        with = "crate::ordered",
        bound(
            serialize = "K: Ord + Serialize, V: Serialize",
            deserialize = "K: Ord + Clone + Deserialize<'de>, V: Clone + Deserialize<'de>"
        )
    )]
    OrdMap<K, V>,
);

impl SnapshotSource for State {
    fn write_to(&mut self, out: &mut dyn Write) -> io::Result<()> {
        let (instances, timers, ending) =
            (Ordered(self.instances.clone()), Ordered(self.timers.clone()), Ordered(self.ending.clone()));
        write_part(out, INSTANCES, VERSION, &|out| write_value(&instances, out))?;
        write_part(out, TIMERS, VERSION, &|out| write_value(&timers, out))?;
        write_part(out, ENDING, VERSION, &|out| write_value(&ending, out))?;
        let count = self.resources.len() as u64;
        write_part(out, RESOURCES, VERSION, &|out| write_value(&count, out))?;
        for (id, slot) in &self.resources {
            let placed = Placed { id: *id, path: slot.path.to_string(), kind: slot.kind.into() };
            write_part(out, RESOURCE, slot.machine.version(), &|out| {
                out.write_all(&codec::to_bytes(&placed))?;
                slot.machine.write(out)
            })?;
        }
        Ok(())
    }
}

impl State {
    pub(crate) fn read(kinds: &BTreeMap<&'static str, Kind>, mut bytes: Bytes) -> Result<Self, RestoreError> {
        let instances = read_ordered::<InstanceId, Instance>(INSTANCES, &mut bytes)?;
        let timers = read_ordered(TIMERS, &mut bytes)?;
        let ending = read_ordered(ENDING, &mut bytes)?;
        let mut state = State { timers, ending, ..State::default() };
        let count: u64 = read_one(RESOURCES, &mut bytes)?;
        for _ in 0..count {
            let (version, body) = read_part(&mut bytes)?.named(RESOURCE)?;
            state.read_resource(kinds, version, &body)?;
        }
        if !bytes.is_empty() {
            return Err(RestoreError("more than its resources".into()));
        }
        for (id, instance) in &instances {
            let twice = instance.sharing == Sharing::Shared
                && state.shared.contains_key(&(instance.session, instance.resource));
            if twice {
                return Err(RestoreError(format!("instance {id} does not belong")));
            }
            state.admit(*id, *instance);
        }
        Ok(state)
    }

    fn read_resource(
        &mut self,
        kinds: &BTreeMap<&'static str, Kind>,
        version: u16,
        body: &Bytes,
    ) -> Result<(), RestoreError> {
        let (placed, state) = codec::take_from_bytes::<Placed>(body)
            .map_err(|error| RestoreError(format!("place of a resource: {error}")))?;
        let Placed { id, path, kind } = placed;
        let Some(kind) = kinds.get(kind.as_str()) else {
            return Err(RestoreError(format!("{path} is a {kind}, which this binary does not know")));
        };
        let ascends = self.resources.get_max().is_none_or(|(last, _)| *last < id);
        if !ascends || !is_valid_path(&path) || self.paths.contains_key(path.as_str()) {
            return Err(RestoreError(format!("resource {id:?} at {path:?} does not belong")));
        }
        let machine = (kind.restore)(version, &state)?;
        self.place(id, Slot { path: path.into(), kind: kind.name, machine });
        Ok(())
    }
}

fn read_ordered<K, V>(name: &str, bytes: &mut Bytes) -> Result<OrdMap<K, V>, RestoreError>
where
    K: Ord + Clone + Serialize + for<'de> Deserialize<'de>,
    V: Clone + Serialize + for<'de> Deserialize<'de>,
{
    let Ordered(map) = read_one(name, bytes)?;
    Ok(map)
}

fn read_one<T: Serialize + DeserializeOwned>(name: &str, bytes: &mut Bytes) -> Result<T, RestoreError> {
    let (version, body) = read_part(bytes)?.named(name)?;
    if version != VERSION {
        return Err(RestoreError(format!("part {name} of version {version}, known is {VERSION}")));
    }
    read_exact(&body).map_err(|reason| RestoreError(format!("part {name}: {reason}")))
}
