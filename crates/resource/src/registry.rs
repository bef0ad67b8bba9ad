//! Many resources in one state machine (M1): paths lead to resources, instances are sessions' openings of them.

use std::collections::BTreeMap;
use std::fmt;
use std::io::{self, Write};
use std::sync::Arc;

use atomix_protocol::envelope::{self, Envelope, OpenReply, OpenResource, OperationStatus, Sharing};
use atomix_protocol::{InstanceId, SessionId, codec};
use atomix_session::{
    Context as EntryContext, KindLevel, QueryContext as EntryQueryContext, RestoreError, Slice,
    SnapshotSource, StateMachine, TimerId,
};
use bytes::Bytes;
use imbl::{OrdMap, OrdSet};
use serde::{Deserialize, Serialize};

use crate::context::{Caller, CommandContext, Context, QueryContext};
use crate::machine::{AnyMachine, Kind, Machine, unshared};
use crate::operation::Reply;
use crate::path::is_valid_path;
use crate::resource::Resource;
use crate::snapshot::{read_exact, read_part, write_part, write_value};

/// Most steps of one slice of cleaning up (S9): a resource told, or an instance removed.
const STEPS_PER_SLICE: usize = 128;

/// The kinds of resources that a program knows, and all resources that there are.
///
/// Kinds are added once, by [`Registry::with`]; a family has a function that adds its own. What is registered makes no
/// difference to what is there: resources come into being when they are opened.
#[derive(Default)]
pub struct Registry {
    kinds: BTreeMap<&'static str, Kind>,
    state: State,
}

/// Names a resource: index of the entry that created it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct ResourceId(u64);

/// Everything replicated. Persistent maps all the way down: a clone is a snapshot, and costs nothing.
#[derive(Clone, Default)]
struct State {
    /// All resources.
    resources: OrdMap<ResourceId, Slot>,
    /// Where they live. Invariant: derived from `resources`, one to one.
    paths: OrdMap<Arc<str>, ResourceId>,
    /// Who has opened what. Invariant: each leads to a resource.
    instances: OrdMap<InstanceId, Instance>,
    /// The same by session. Invariant: derived from `instances`, one to one.
    opened: OrdSet<(SessionId, ResourceId, InstanceId)>,
    /// The shared instance of a session at a resource. Invariant: derived from `instances`.
    shared: OrdMap<(SessionId, ResourceId), InstanceId>,
    /// Whose each pending timer is. Invariant: exactly the pending timers of the session table.
    timers: OrdMap<TimerId, ResourceId>,
    /// Sessions that have ended and are not cleaned up yet, with the last resource that is done with it.
    ending: OrdMap<SessionId, Option<ResourceId>>,
}

/// A resource in its place.
#[derive(Clone)]
struct Slot {
    path: Arc<str>,
    kind: &'static str,
    machine: AnyMachine,
}

/// A session's opening of a resource.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Instance {
    session: SessionId,
    resource: ResourceId,
    sharing: Sharing,
}

impl Registry {
    /// A registry that knows no kind.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a kind. All servers of a cluster should know the same.
    ///
    /// # Panics
    /// If the kind is there already, or its name is empty.
    #[must_use]
    pub fn with<R: Resource>(mut self) -> Self {
        assert!(!R::KIND.is_empty(), "a kind of resource needs a name");
        let earlier = self.kinds.insert(R::KIND, Kind::of::<R>());
        assert!(earlier.is_none(), "two kinds of resources are named {:?}", R::KIND);
        self
    }

    /// Whether it remembers nobody: no instance, no timer, no session.
    #[cfg(test)]
    pub(crate) fn remembers_nobody(&self) -> bool {
        let State { resources: _, paths: _, instances, opened, shared, timers, ending } = &self.state;
        instances.is_empty()
            && opened.is_empty()
            && shared.is_empty()
            && timers.is_empty()
            && ending.is_empty()
    }

    fn open(&mut self, cx: &EntryContext<'_>, session: SessionId, open: &OpenResource) -> OpenReply {
        if !is_valid_path(&open.path) {
            return OpenReply::BadPath;
        }
        let Some(kind) = self.kinds.get(open.kind.as_str()) else { return OpenReply::UnknownKind };
        let resource = match self.state.paths.get(open.path.as_str()) {
            Some(found) => *found,
            None => {
                let Ok(machine) = (kind.create)(&open.configuration) else {
                    return OpenReply::BadConfiguration;
                };
                let path: Arc<str> = open.path.as_str().into();
                self.state.place(ResourceId(cx.index().0), Slot { path, kind: kind.name, machine })
            }
        };
        let found = self.state.slot(resource).kind;
        if found != kind.name {
            return OpenReply::WrongKind(found.into());
        }
        if open.sharing == Sharing::Shared
            && let Some(instance) = self.state.shared.get(&(session, resource))
        {
            return OpenReply::Opened(*instance);
        }
        let instance = InstanceId(cx.index().0);
        self.state.admit(instance, Instance { session, resource, sharing: open.sharing });
        OpenReply::Opened(instance)
    }

    fn command(
        &mut self,
        cx: &mut EntryContext<'_>,
        session: SessionId,
        operation: envelope::Operation,
        body: &Bytes,
    ) -> Reply {
        let envelope::Operation { instance, number } = operation;
        let Some(resource) = self.state.instance_of(session, instance) else {
            return Reply::refused(OperationStatus::UnknownInstance);
        };
        let caller = Caller { session, instance, sequence: cx.sequence() };
        let (machine, context) = self.state.machine_and_context(cx, resource);
        machine.command(&mut CommandContext { context, caller }, number, body)
    }
}

impl StateMachine for Registry {
    fn apply(&mut self, cx: &mut EntryContext<'_>, command: &Bytes) -> Bytes {
        let Some(session) = cx.session() else {
            return Reply::refused(OperationStatus::UnknownInstance).into_bytes();
        };
        match Envelope::decode(command) {
            Ok(Envelope::Open(open)) => codec::to_bytes(&self.open(cx, session, &open)),
            Ok(Envelope::Operation(operation, body)) => {
                self.command(cx, session, operation, &body).into_bytes()
            }
            Err(_) => Reply::refused(OperationStatus::Malformed).into_bytes(),
        }
    }

    fn query(&self, cx: &EntryQueryContext, query: &Bytes) -> Bytes {
        let reply = match Envelope::decode(query) {
            Ok(Envelope::Operation(envelope::Operation { instance, number }, body)) => {
                let EntryQueryContext { index, time, session } = *cx;
                match self.state.instance_of(session, instance) {
                    Some(resource) => {
                        let cx = QueryContext { index, time, session, instance };
                        self.state.slot(resource).machine.query(&cx, number, &body)
                    }
                    None => Reply::refused(OperationStatus::UnknownInstance),
                }
            }
            // Opening changes the state: it is a command.
            Ok(Envelope::Open(_)) | Err(_) => Reply::refused(OperationStatus::Malformed),
        };
        reply.into_bytes()
    }

    fn session_ended(&mut self, cx: &mut EntryContext<'_>, session: SessionId) -> Slice {
        // From here on every resource finds it ended, told or not (S9).
        let mut told = self.state.ending.get(&session).copied().flatten();
        self.state.ending.insert(session, told);
        for _ in 0..STEPS_PER_SLICE {
            let Some((resource, instance)) = self.state.first_opened(session) else {
                self.state.ending.remove(&session);
                return Slice::Done;
            };
            if told == Some(resource) {
                self.state.dismiss(instance);
                continue;
            }
            let (machine, mut context) = self.state.machine_and_context(cx, resource);
            if machine.end_session(&mut context, session) == Slice::More {
                return Slice::More;
            }
            told = Some(resource);
            self.state.ending.insert(session, told);
        }
        Slice::More
    }

    fn timer_fired(&mut self, cx: &mut EntryContext<'_>, timer: TimerId) {
        // All timers are some resource's. One that is not would be the same on every replica: passed over, not a reason to stop.
        let Some(resource) = self.state.timers.remove(&timer) else { return };
        let (machine, mut context) = self.state.machine_and_context(cx, resource);
        machine.fire_timer(&mut context, timer);
    }

    fn kinds(&self) -> Vec<KindLevel> {
        self.kinds.values().map(|kind| KindLevel { kind: kind.name.into(), level: kind.level }).collect()
    }

    fn snapshot(&self) -> Box<dyn SnapshotSource> {
        Box::new(self.state.clone())
    }

    fn restore(&mut self, snapshot: Bytes) -> Result<(), RestoreError> {
        self.state = State::read(&self.kinds, snapshot)?;
        Ok(())
    }
}

impl State {
    fn place(&mut self, resource: ResourceId, slot: Slot) -> ResourceId {
        self.paths.insert(slot.path.clone(), resource);
        self.resources.insert(resource, slot);
        resource
    }

    fn admit(&mut self, id: InstanceId, instance: Instance) {
        let Instance { session, resource, sharing } = instance;
        self.instances.insert(id, instance);
        self.opened.insert((session, resource, id));
        if sharing == Sharing::Shared {
            self.shared.insert((session, resource), id);
        }
    }

    fn dismiss(&mut self, id: InstanceId) {
        let Some(Instance { session, resource, sharing }) = self.instances.remove(&id) else { return };
        self.opened.remove(&(session, resource, id));
        if sharing == Sharing::Shared {
            self.shared.remove(&(session, resource));
        }
    }

    /// The resource behind an instance, if it is one of this session's.
    fn instance_of(&self, session: SessionId, instance: InstanceId) -> Option<ResourceId> {
        self.instances.get(&instance).filter(|found| found.session == session).map(|found| found.resource)
    }

    fn first_opened(&self, session: SessionId) -> Option<(ResourceId, InstanceId)> {
        let first = (session, ResourceId(0), InstanceId(0));
        let (owner, resource, instance) = self.opened.range(first..).next()?;
        (*owner == session).then_some((*resource, *instance))
    }

    fn slot(&self, resource: ResourceId) -> &Slot {
        self.resources.get(&resource).unwrap_or_else(|| panic!("resource {resource:?} is not there"))
    }

    fn machine_and_context<'a>(
        &'a mut self,
        entry: &'a mut EntryContext<'_>,
        resource: ResourceId,
    ) -> (&'a mut dyn Machine, Context<'a>) {
        let index = entry.index();
        let slot = self.resources.get_mut(&resource);
        let slot = slot.unwrap_or_else(|| panic!("index {index}: resource {resource:?} is not there"));
        let context = Context { entry, resource, timers: &mut self.timers, ending: &self.ending };
        (unshared(&mut slot.machine), context)
    }
}

// The parts of a snapshot, in this order; one `resource` for each.
const INSTANCES: &str = "instances";
const TIMERS: &str = "timers";
const ENDING: &str = "ending";
const RESOURCE: &str = "resource";
/// Version of the first three parts; a resource's part has that of its kind.
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
    fn read(kinds: &BTreeMap<&'static str, Kind>, mut bytes: Bytes) -> Result<Self, RestoreError> {
        let instances = read_ordered::<InstanceId, Instance>(INSTANCES, &mut bytes)?;
        let timers = read_ordered(TIMERS, &mut bytes)?;
        let ending = read_ordered(ENDING, &mut bytes)?;
        let mut state = State { timers, ending, ..State::default() };
        while !bytes.is_empty() {
            let (version, body) = read_part(&mut bytes)?.named(RESOURCE)?;
            state.read_resource(kinds, version, &body)?;
        }
        for (id, instance) in &instances {
            let twice = instance.sharing == Sharing::Shared
                && state.shared.contains_key(&(instance.session, instance.resource));
            if twice || !state.resources.contains_key(&instance.resource) {
                return Err(RestoreError(format!("instance {id} does not belong")));
            }
            state.admit(*id, *instance);
        }
        match state.timers.values().find(|owner| !state.resources.contains_key(*owner)) {
            None => Ok(state),
            Some(owner) => Err(RestoreError(format!("a timer of resource {owner:?}, which is not there"))),
        }
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
    let (version, body) = read_part(bytes)?.named(name)?;
    if version != VERSION {
        return Err(RestoreError(format!("part {name} of version {version}, known is {VERSION}")));
    }
    let Ordered(map) = read_exact(&body).map_err(|reason| RestoreError(format!("part {name}: {reason}")))?;
    Ok(map)
}

impl From<Registry> for Box<dyn StateMachine> {
    fn from(registry: Registry) -> Self {
        Box::new(registry)
    }
}

impl fmt::Debug for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Registry")
            .field("kinds", &self.kinds.keys())
            .field("resources", &self.state.resources.len())
            .field("instances", &self.state.instances.len())
            .finish_non_exhaustive()
    }
}
