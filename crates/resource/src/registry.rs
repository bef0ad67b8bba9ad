//! Many resources in one state machine (M1): paths lead to resources, instances are sessions' openings of them.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use atomix_protocol::envelope::{
    self, DeleteReply, DeleteResource, Envelope, OpenReply, OpenResource, OperationStatus, Sharing,
};
use atomix_protocol::mutant::Mutant;
use atomix_protocol::{Index, InstanceId, ResourceId, SessionId, codec};
use atomix_session::{
    Context as EntryContext, KindLevel, QueryContext as EntryQueryContext, RestoreError, Slice,
    SnapshotSource, StateMachine, TimerId,
};
use bytes::Bytes;

use crate::context::{Caller, CommandContext, QueryContext};
use crate::machine::Kind;
use crate::operation::Reply;
use crate::path::is_valid_path;
use crate::resource::{Deletion, Resource};
use crate::state::{Instance, Slot, State};

/// Most steps of one slice of cleaning up (S9): a resource told, or an instance removed.
const STEPS_PER_SLICE: usize = 128;

/// The kinds of resources that a program knows, and all resources that there are.
///
/// What may be applied is what all servers have: the committed levels say so (M3). An operation above its kind's level is refused,
/// and so is a kind without one. At or below the level, what this program lacks makes it panic, so that its replica stops before
/// it differs from the others (M2).
///
/// Kinds are added once, by [`Registry::with`]; a family has a function that adds its own. What is registered makes no
/// difference to what is there: resources come into being when they are opened.
#[derive(Default)]
pub struct Registry {
    kinds: BTreeMap<&'static str, Kind>,
    state: State,
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

    /// As a binary of an earlier version would be, which knows the operations of a kind through `level` only; zero: not the kind.
    #[doc(hidden)]
    #[must_use]
    pub fn as_of(mut self, kind: &str, level: u16) -> Self {
        if level == 0 {
            self.kinds.remove(kind);
        }
        if let Some(kind) = self.kinds.get_mut(kind) {
            kind.level = level.min(kind.level);
        }
        self
    }

    /// Whether it remembers nobody: no instance, no timer, no session.
    #[cfg(test)]
    pub(crate) fn remembers_nobody(&self) -> bool {
        let State { resources: _, paths: _, alive: _, instances, opened, shared, timers, ending } =
            &self.state;
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
        let level = cx.level(&open.kind);
        if level == 0 {
            return OpenReply::UnknownKind;
        }
        let Some(kind) = self.kinds.get(open.kind.as_str()) else {
            panic!(
                "index {}: a {} of level {level} is opened: this binary lacks the kind",
                cx.index(),
                open.kind
            );
        };
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
        if let Some(found) = self.state.resources.get(&resource).filter(|found| found.kind != kind.name) {
            return OpenReply::WrongKind(found.kind.into());
        }
        if open.sharing == Sharing::Shared
            && let Some(instance) = self.state.shared.get(&(session, resource))
        {
            return OpenReply::Opened { instance: *instance, resource };
        }
        let instance = InstanceId(cx.index().0);
        self.state.admit(instance, Instance { session, resource, sharing: open.sharing });
        OpenReply::Opened { instance, resource }
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
        if let Some(slot) = self.state.resources.get(&resource) {
            let level = cx.level(slot.kind);
            if number > level {
                return Reply::refused(OperationStatus::UnknownOperation);
            }
            self.expect_known(cx.index(), slot.kind, level, number);
        }
        let caller = Caller { session, instance, sequence: cx.sequence() };
        let reply = self.state.change(cx, resource, |machine, context| {
            machine.command(&mut CommandContext { context, caller }, number, body)
        });
        reply.unwrap_or_else(|| Reply::refused(OperationStatus::Deleted))
    }

    fn answer(&self, cx: &EntryQueryContext<'_>, operation: envelope::Operation, body: &Bytes) -> Reply {
        let envelope::Operation { instance, number } = operation;
        let EntryQueryContext { index, time, session, .. } = *cx;
        let Some(resource) = self.state.instance_of(session, instance) else {
            return Reply::refused(OperationStatus::UnknownInstance);
        };
        let Some(slot) = self.state.resources.get(&resource) else {
            return Reply::refused(OperationStatus::Deleted);
        };
        let level = cx.level(slot.kind);
        if number > level {
            return Reply::refused(OperationStatus::UnknownOperation);
        }
        self.expect_known(index, slot.kind, level, number);
        slot.machine.query(&QueryContext { index, time, session, instance }, number, body)
    }

    /// M2: what may be used, by the kind's level, and this binary lacks stops this replica. Commands and queries share one space of
    /// numbers, and one level.
    fn expect_known(&self, index: Index, kind: &str, level: u16, number: u16) {
        let known = self.kinds.get(kind).map_or(0, |kind| kind.level);
        assert!(
            number <= known,
            "index {index}: operation {number} of a {kind} of level {level}: this binary knows {known}"
        );
    }

    /// M1, L3.
    fn delete(&mut self, cx: &mut EntryContext<'_>, delete: &DeleteResource) -> DeleteReply {
        let Some(resource) = self.state.paths.get(delete.path.as_str()).copied() else {
            return DeleteReply::NotThere;
        };
        if Mutant::C11.active() {
            return self.empty(resource);
        }
        let deletion = self
            .state
            .change(cx, resource, |machine, mut context| machine.delete(&mut context, delete.force));
        match deletion {
            Some(Deletion::InUse) => DeleteReply::InUse,
            Some(Deletion::Later) if self.state.alive.contains(&resource) => DeleteReply::Revoking,
            _ => {
                self.state.remove(resource);
                DeleteReply::Deleted
            }
        }
    }

    /// What the mutant C11 takes for a deletion: old handles go on with what comes next at the path.
    fn empty(&mut self, resource: ResourceId) -> DeleteReply {
        if let Some(slot) = self.state.resources.get_mut(&resource)
            && let Some(kind) = self.kinds.get(slot.kind)
            && let Ok(machine) = (kind.create)(&Bytes::new())
        {
            slot.machine = machine;
        }
        DeleteReply::Deleted
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
            Ok(Envelope::Delete(delete)) => codec::to_bytes(&self.delete(cx, &delete)),
            // Asking changes nothing: it is a query.
            Ok(Envelope::Exists(_)) | Err(_) => Reply::refused(OperationStatus::Malformed).into_bytes(),
        }
    }

    fn query(&self, cx: &EntryQueryContext<'_>, query: &Bytes) -> Bytes {
        match Envelope::decode(query) {
            Ok(Envelope::Operation(operation, body)) => self.answer(cx, operation, &body).into_bytes(),
            Ok(Envelope::Exists(path)) => {
                let found = self.state.paths.get(path.as_str());
                let slot = found.and_then(|resource| self.state.resources.get(resource));
                codec::to_bytes(&slot.map(|slot| slot.kind))
            }
            // Opening and deleting change the state: they are commands.
            Ok(Envelope::Open(_) | Envelope::Delete(_)) | Err(_) => {
                Reply::refused(OperationStatus::Malformed).into_bytes()
            }
        }
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
            let slice = self
                .state
                .change(cx, resource, |machine, mut context| machine.end_session(&mut context, session));
            if slice == Some(Slice::More) {
                return Slice::More;
            }
            told = Some(resource);
            self.state.ending.insert(session, told);
        }
        Slice::More
    }

    fn timer_fired(&mut self, cx: &mut EntryContext<'_>, timer: TimerId) {
        // A timer without an owner, or whose owner was deleted, is so on every replica: passed over, not a reason to stop.
        if let Some(resource) = self.state.timers.remove(&timer) {
            self.state.change(cx, resource, |machine, mut context| machine.fire_timer(&mut context, timer));
        }
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

    fn fresh(&self) -> Option<Box<dyn StateMachine>> {
        Some(Box::new(Registry { kinds: self.kinds.clone(), state: State::default() }))
    }
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
