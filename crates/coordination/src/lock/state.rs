//! The replicated state of a lock: deterministic, and nothing but what the commands say.

#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::time::Duration;

use atomix_resource::{
    Answer, Apply, BadConfiguration, Caller, CommandContext, Context, Deletion, Index, InstanceId, Mutant,
    QueryContext, Resource, Sequence, SessionId, Slice, TimerId, limits,
};
use imbl::OrdMap;
use serde::{Deserialize, Serialize};

use super::op::{Acquire, Acquired, Cancel, Inspect, Inspection, LockEvent, LockOperations, Release, Wait};

/// Most waiters of an ended session that one slice removes (S9).
const WAITERS_PER_SLICE: usize = 128;

/// Who has a lock, and who waits for it. A contender is the command that asked for it (L4).
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct LockState {
    /// Who has it, and the token. Invariant: while nobody has it nobody waits, and it is not being deleted.
    holder: Option<(Caller, Index)>,
    /// Who waits, by the index of the command: first come, first served (L1).
    #[serde(with = "atomix_resource::ordered")]
    queue: OrdMap<Index, Caller>,
    /// Where in the queue each is, and the timer of its time limit. Invariant: one to one with `queue`.
    #[serde(with = "atomix_resource::ordered")]
    waiting: OrdMap<Caller, (Index, Option<TimerId>)>,
    /// Those of them with a time limit. Invariant: one to one with the timers in `waiting`.
    #[serde(with = "atomix_resource::ordered")]
    limited: OrdMap<TimerId, Caller>,
    /// Somebody has forced its deletion: it goes with its holder (L3).
    deleting: bool,
    /// Of the mutant B30 alone: how many grants there were, which no snapshot tells.
    #[serde(skip)]
    grants: u64,
}

impl LockState {
    fn grant(&mut self, cx: &Context<'_>, contender: Caller) -> Index {
        let mut token = cx.index();
        if Mutant::B30.active() {
            self.grants += 1;
            token = Index(cx.resource().0 + self.grants);
        }
        self.holder = Some((contender, token));
        token
    }

    /// If it is this one who holds the lock: it goes, or the first who waits has it in the same entry (L1).
    fn hand_over(&mut self, cx: &mut Context<'_>, holds: impl FnOnce((Caller, Index)) -> bool) -> bool {
        if !self.holder.is_some_and(holds) {
            return false;
        }
        self.holder = None;
        if self.deleting {
            cx.finish_deletion();
        }
        while let Some((_, next)) = self.queue.get_min().copied() {
            self.leave(cx, next);
            // One that has ended and is not cleaned up yet gets nothing more (S9).
            if !cx.has_ended(next.session) || Mutant::B29.active() {
                let token = self.grant(cx, next);
                cx.publish([next], &LockEvent::Granted { contender: next.sequence, token });
                break;
            }
        }
        true
    }

    /// Takes a contender out of the queue. Returns whether it was there.
    fn leave(&mut self, cx: &mut Context<'_>, contender: Caller) -> bool {
        let Some((index, timer)) = self.waiting.remove(&contender) else { return false };
        self.queue.remove(&index);
        if let Some(timer) = timer {
            self.limited.remove(&timer);
            cx.cancel_timer(timer);
        }
        true
    }
}

impl Resource for LockState {
    const KIND: &'static str = "lock";
    type Operations = LockOperations;
    type Configuration = ();
    type Event = LockEvent;

    fn create((): ()) -> Result<Self, BadConfiguration> {
        Ok(Self::default())
    }

    fn session_ended(&mut self, cx: &mut Context<'_>, session: SessionId) -> Slice {
        self.hand_over(cx, |(holder, _)| holder.session == session);
        let lowest = Caller { session, instance: InstanceId(0), sequence: Sequence::ZERO };
        for _ in 0..WAITERS_PER_SLICE {
            let first = self.waiting.range(lowest..).next().map(|(contender, _)| *contender);
            let its = first.filter(|first| first.session == session && !Mutant::B29.active());
            let Some(contender) = its else { return Slice::Done };
            self.leave(cx, contender);
        }
        Slice::More
    }

    fn timer_fired(&mut self, cx: &mut Context<'_>, timer: TimerId) {
        if let Some(contender) = self.limited.get(&timer).copied() {
            self.leave(cx, contender);
            cx.publish([contender], &LockEvent::TimedOut { contender: contender.sequence });
        }
    }

    fn deletion_asked(&mut self, cx: &mut Context<'_>, force: bool) -> Deletion {
        let Some((holder, token)) = self.holder else { return Deletion::Now };
        if !force {
            return Deletion::InUse;
        }
        self.deleting = true;
        while let Some((_, contender)) = self.queue.get_min().copied() {
            self.leave(cx, contender);
            cx.publish([contender], &LockEvent::Deleted { contender: contender.sequence });
        }
        cx.publish([holder], &LockEvent::Revoked { token });
        Deletion::Later
    }
}

impl Apply<Acquire> for LockState {
    fn apply(&mut self, cx: &mut CommandContext<'_>, Acquire { wait }: Acquire) -> Acquired {
        let contender = cx.caller();
        let timer = match wait {
            _ if self.deleting => return Acquired::Deleting,
            _ if self.holder.is_none() => return Acquired::Granted { token: self.grant(cx, contender) },
            Wait::No | Wait::Milliseconds(0) => return Acquired::Held,
            _ if self.queue.len() >= limits::LOCK_WAITERS => return Acquired::QueueFull,
            Wait::Milliseconds(limit) => Some(cx.set_timer_after(Duration::from_millis(limit))),
            Wait::Forever => None,
        };
        self.queue.insert(cx.index(), contender);
        self.waiting.insert(contender, (cx.index(), timer));
        self.limited.extend(timer.map(|timer| (timer, contender)));
        Acquired::Waiting
    }
}

impl Apply<Release> for LockState {
    fn apply(&mut self, cx: &mut CommandContext<'_>, release: Release) -> bool {
        let Caller { session, .. } = cx.caller();
        self.hand_over(cx, |(holder, token)| holder.session == session && token == release.token)
    }
}

impl Apply<Cancel> for LockState {
    fn apply(&mut self, cx: &mut CommandContext<'_>, Cancel { contender }: Cancel) {
        let contender = Caller { sequence: contender, ..cx.caller() };
        if !self.leave(cx, contender) {
            self.hand_over(cx, |(holder, _)| holder == contender);
        }
    }
}

impl Answer<Inspect> for LockState {
    fn answer(&self, _: &QueryContext, Inspect: Inspect) -> Inspection {
        let holder = self.holder.map(|(holder, token)| (holder.session, token));
        Inspection { holder, waiting: self.queue.len() as u64 }
    }
}
