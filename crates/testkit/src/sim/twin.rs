//! The twin of all resources: paths, instances, timers, and what is published, as plain containers.

use std::collections::{BTreeMap, BTreeSet};

use atomix_protocol::envelope::DeleteReply;
use atomix_protocol::{ClusterTime, Index, InstanceId, ResourceId, Sequence, SessionId, Term};
use bytes::Bytes;

use super::operation::{self, Command, Place, Query};
use super::twin_lock::LockTwin;
use super::twin_map::MapTwin;
use super::versions::LevelTwin;

/// Whose command: session, its opening of the resource, and the command's place in the session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Who {
    pub(super) session: SessionId,
    pub(super) instance: InstanceId,
    pub(super) sequence: Sequence,
}

/// Deadline, and which of all timers.
pub(super) type Timer = (ClusterTime, u64);

/// What is published: to whom, and what it says.
pub(super) type Published = Vec<(BTreeSet<(SessionId, InstanceId)>, Bytes)>;

/// Where an entry stands.
#[derive(Clone, Copy, Debug)]
pub(super) struct Moment {
    pub(super) index: Index,
    pub(super) time: ClusterTime,
    pub(super) term: Term,
}

/// An entry as one resource sees it.
pub(super) struct Applying<'a> {
    pub(super) index: Index,
    pub(super) term: Term,
    /// The session that ends with this call.
    pub(super) ended: Option<SessionId>,
    /// A lock has another holder, or none.
    pub(super) passed: &'a mut bool,
    /// The resource goes.
    pub(super) finished: &'a mut bool,
    pub(super) alive: &'a BTreeSet<ResourceId>,
    time: ClusterTime,
    resource: ResourceId,
    timers: &'a mut Timers,
    published: &'a mut Published,
}

#[derive(Debug, Default)]
pub(super) struct Timers {
    pending: BTreeMap<Timer, (ResourceId, Who)>,
    set: u64,
}

impl Applying<'_> {
    pub(super) fn publish(&mut self, to: impl IntoIterator<Item = Who>, event: Bytes) {
        let to = to.into_iter().map(|who| (who.session, who.instance)).collect();
        self.published.push((to, event));
    }

    pub(super) fn set_timer(&mut self, millis: u64, who: Who) -> Timer {
        let timer = (ClusterTime(self.time.0 + millis), self.timers.set);
        self.timers.set += 1;
        self.timers.pending.insert(timer, (self.resource, who));
        timer
    }

    pub(super) fn cancel_timer(&mut self, timer: Option<Timer>) {
        if let Some(timer) = timer {
            self.timers.pending.remove(&timer);
        }
    }
}

/// One resource, for ever: what it was is asked for after it is gone.
#[derive(Debug)]
struct Resource {
    place: Place,
    gone: Option<Index>,
    body: Body,
}

#[derive(Debug)]
enum Body {
    Map(MapTwin),
    Lock(LockTwin),
}

/// All resources.
#[derive(Debug, Default)]
pub(super) struct Resources {
    paths: BTreeMap<Place, ResourceId>,
    resources: BTreeMap<ResourceId, Resource>,
    alive: BTreeSet<ResourceId>,
    instances: BTreeMap<InstanceId, (SessionId, ResourceId)>,
    opened: BTreeMap<(SessionId, ResourceId), InstanceId>,
    timers: Timers,
    pub(super) levels: LevelTwin,
    /// With this entry.
    published: Published,
    passed: bool,
    refused: bool,
}

impl Resources {
    /// Lets a resource that is there change.
    fn change<T>(
        &mut self,
        moment: Moment,
        resource: ResourceId,
        ended: Option<SessionId>,
        change: impl FnOnce(&mut Body, &mut Applying<'_>) -> T,
    ) -> Option<T> {
        let found = self.resources.get_mut(&resource).filter(|found| found.gone.is_none())?;
        let mut finished = false;
        let mut cx = Applying {
            index: moment.index,
            term: moment.term,
            ended,
            passed: &mut self.passed,
            finished: &mut finished,
            alive: &self.alive,
            time: moment.time,
            resource,
            timers: &mut self.timers,
            published: &mut self.published,
        };
        let result = change(&mut found.body, &mut cx);
        if finished {
            found.gone = Some(moment.index);
            self.paths.remove(&found.place);
            self.alive.remove(&resource);
        }
        Some(result)
    }

    /// What time alone does (T2): timers that were pending before, in order.
    pub(super) fn pass_time(&mut self, moment: Moment) {
        let due: Vec<Timer> =
            self.timers.pending.keys().take_while(|(at, _)| *at <= moment.time).copied().collect();
        for timer in due {
            if let Some((resource, who)) = self.timers.pending.remove(&timer) {
                self.change(moment, resource, None, |body, cx| {
                    if let Body::Lock(lock) = body {
                        lock.timed_out(cx, who);
                    }
                });
            }
        }
    }

    /// What a command does, and its reply. `instance` is whom it was sent to.
    pub(super) fn apply(&mut self, moment: Moment, who: Who, command: &Command) -> Bytes {
        match command {
            Command::Open(place) if self.levels.latest(place.kind()) == 0 => operation::unknown_kind(),
            Command::Open(place) => self.open(moment.index, who.session, *place),
            Command::Delete(place, force) => operation::deletion(self.delete(moment, *place, *force)),
            _ => {
                let Some((_, resource)) =
                    self.instances.get(&who.instance).copied().filter(|(session, _)| *session == who.session)
                else {
                    return operation::unknown_instance();
                };
                if self.is_above(resource, command.number(), moment.index) {
                    self.refused = true;
                    return operation::unknown_operation();
                }
                let reply = self.change(moment, resource, None, |body, cx| match (body, command) {
                    (Body::Map(map), Command::Map(command)) => map.apply(cx, who, command),
                    (Body::Lock(lock), Command::Lock(command)) => lock.apply(cx, who, *command),
                    _ => command.refusal().unwrap_or_default(),
                });
                reply.unwrap_or_else(operation::deleted)
            }
        }
    }

    /// M2, M3: whether an operation must not be used yet behind an index, of a resource that was there.
    fn is_above(&self, resource: ResourceId, number: u16, index: Index) -> bool {
        let found = self.resources.get(&resource);
        found
            .filter(|found| found.gone.is_none_or(|gone| gone > index))
            .is_some_and(|found| number > self.levels.at(found.place.kind(), index))
    }

    fn open(&mut self, index: Index, session: SessionId, place: Place) -> Bytes {
        let resource = *self.paths.entry(place).or_insert_with(|| {
            let resource = ResourceId(index.0);
            let body = match place {
                Place::Map => Body::Map(MapTwin::default()),
                Place::Lock(_) => Body::Lock(LockTwin::default()),
            };
            self.resources.insert(resource, Resource { place, gone: None, body });
            self.alive.insert(resource);
            resource
        });
        let instance = *self.opened.entry((session, resource)).or_insert(InstanceId(index.0));
        self.instances.insert(instance, (session, resource));
        operation::opened(instance, resource)
    }

    fn delete(&mut self, moment: Moment, place: Place, force: bool) -> DeleteReply {
        let Some(resource) = self.paths.get(&place).copied() else { return DeleteReply::NotThere };
        let reply = self.change(moment, resource, None, |body, cx| match body {
            Body::Map(map) => {
                map.delete(cx);
                DeleteReply::Deleted
            }
            Body::Lock(lock) => lock.delete(cx, force),
        });
        reply.unwrap_or(DeleteReply::NotThere)
    }

    /// Resources that the session had opened are told in order of their creation.
    pub(super) fn session_ended(&mut self, moment: Moment, session: SessionId) {
        let first = (session, ResourceId(0));
        let last = (session, ResourceId(u64::MAX));
        let opened: Vec<ResourceId> =
            self.opened.range(first..=last).map(|((_, resource), _)| *resource).collect();
        for resource in opened {
            self.opened.remove(&(session, resource));
            self.change(moment, resource, Some(session), |body, cx| match body {
                Body::Map(map) => map.session_ended(session),
                Body::Lock(lock) => lock.session_ended(cx, session),
            });
        }
    }

    /// What was published with this entry.
    pub(super) fn take_published(&mut self) -> Published {
        std::mem::take(&mut self.published)
    }

    /// Whether a lock has passed on since the last call.
    pub(super) fn take_passed(&mut self) -> bool {
        std::mem::take(&mut self.passed)
    }

    /// Whether an operation was refused for its level since the last call.
    pub(super) fn take_refused(&mut self) -> bool {
        std::mem::take(&mut self.refused)
    }

    fn locks(&self) -> impl Iterator<Item = &LockTwin> + '_ {
        let alive = self.alive.iter().filter_map(|resource| self.resources.get(resource));
        alive.filter_map(|resource| match &resource.body {
            Body::Lock(lock) => Some(lock),
            Body::Map(_) => None,
        })
    }

    /// Whether a session holds a lock, and whether it waits for one.
    pub(super) fn contends(&self, session: SessionId) -> (bool, bool) {
        let holds = self.locks().any(|lock| lock.holder().is_some_and(|(holder, _)| holder == session));
        (holds, self.locks().any(|lock| lock.is_awaited_by(session)))
    }

    /// The lock with that name, even if it is gone.
    pub(super) fn lock(&self, resource: ResourceId) -> Option<&LockTwin> {
        match &self.resources.get(&resource)?.body {
            Body::Lock(lock) => Some(lock),
            Body::Map(_) => None,
        }
    }

    /// What is left of anybody: holders, waiters, watches.
    pub(super) fn left(&self) -> Vec<String> {
        let left = |(id, resource): (&ResourceId, &Resource)| {
            let left = match &resource.body {
                Body::Map(map) => map.watches() > 0,
                Body::Lock(lock) => lock.answer(Index(u64::MAX)) != LockTwin::default().answer(Index::ZERO),
            };
            (left && resource.gone.is_none()).then(|| format!("{:?} ({})", resource.place, id.0))
        };
        self.resources.iter().filter_map(left).collect()
    }

    /// Resources that were there behind an index, with the openings of each.
    pub(super) fn openings(
        &self,
        index: Index,
    ) -> impl Iterator<Item = (ResourceId, SessionId, InstanceId)> + '_ {
        let by_then = self.instances.range(..=InstanceId(index.0));
        let found = by_then.map(|(instance, (session, resource))| (*resource, *session, *instance));
        found.filter(move |(resource, ..)| {
            self.resources.get(resource).is_some_and(|found| found.gone.is_none_or(|gone| gone > index))
        })
    }

    /// What a query must answer behind an index.
    pub(super) fn answer(&self, instance: InstanceId, query: &Query, index: Index) -> Bytes {
        let Some((_, resource)) = self.instances.get(&instance) else {
            return operation::unknown_instance();
        };
        if self.is_above(*resource, query.number(), index) {
            return operation::unknown_operation();
        }
        match self.resources.get(resource) {
            Some(found) if found.gone.is_none_or(|gone| gone > index) => match (&found.body, query) {
                (Body::Map(map), Query::Map(query)) => map.answer(query, index),
                (Body::Lock(lock), Query::Inspect) => lock.answer(index),
                _ => Bytes::new(),
            },
            _ => operation::deleted(),
        }
    }
}
