//! The twin of a lock: who has it, and who waits for it, as a queue and nothing else (L1, L3–L5).

use std::collections::VecDeque;

use atomix_coordination::lock::op::{
    Acquire, Acquired, Cancel, Inspect, Inspection, LockEvent, Release, Wait,
};
use atomix_protocol::envelope::DeleteReply;
use atomix_protocol::{Index, SessionId, Term, codec, limits};
use bytes::Bytes;

use super::operation::{LockCommand, reply};
use super::twin::{Applying, Timer, Who};

/// A lock.
#[derive(Clone, Debug, Default)]
pub(super) struct LockTwin {
    holder: Option<(Who, Index)>,
    queue: VecDeque<Waiter>,
    deleting: bool,
    /// How it looked behind each index that changed it.
    history: Vec<(Index, Inspection)>,
    /// Every grant, in order, and whether it crossed from one term into another while it was waited for.
    grants: Vec<(Index, bool)>,
}

#[derive(Clone, Copy, Debug)]
struct Waiter {
    who: Who,
    timer: Option<Timer>,
    since: Term,
}

impl LockTwin {
    pub(super) fn apply(&mut self, cx: &mut Applying<'_>, who: Who, command: LockCommand) -> Bytes {
        let answer = match command {
            LockCommand::Acquire(wait) => reply::<Acquire>(self.acquire(cx, who, wait)),
            LockCommand::Release(token) => {
                let holds =
                    self.holder.is_some_and(|(holder, held)| held == token && holder.session == who.session);
                if holds {
                    self.hand_over(cx);
                }
                reply::<Release>(holds)
            }
            LockCommand::Cancel(contender) => {
                let contender = Who { sequence: contender, ..who };
                if self.holder.is_some_and(|(holder, _)| holder == contender) {
                    self.hand_over(cx);
                } else {
                    self.leave(cx, |waiter| waiter.who == contender);
                }
                reply::<Cancel>(())
            }
        };
        self.remember(cx.index);
        answer
    }

    fn acquire(&mut self, cx: &mut Applying<'_>, who: Who, wait: Wait) -> Acquired {
        let timer = match wait {
            _ if self.deleting => return Acquired::Deleting,
            _ if self.holder.is_none() => {
                return Acquired::Granted { token: self.grant(cx, who, cx.term) };
            }
            Wait::No | Wait::Milliseconds(0) => return Acquired::Held,
            _ if self.queue.len() >= limits::LOCK_WAITERS => return Acquired::QueueFull,
            Wait::Milliseconds(limit) => Some(cx.set_timer(limit, who)),
            Wait::Forever => None,
        };
        self.queue.push_back(Waiter { who, timer, since: cx.term });
        Acquired::Waiting
    }

    fn grant(&mut self, cx: &mut Applying<'_>, who: Who, since: Term) -> Index {
        self.holder = Some((who, cx.index));
        self.grants.push((cx.index, since != cx.term));
        *cx.passed = true;
        cx.index
    }

    fn hand_over(&mut self, cx: &mut Applying<'_>) {
        self.holder = None;
        *cx.passed = true;
        if self.deleting {
            *cx.finished = true;
            return;
        }
        while let Some(Waiter { who, timer, since }) = self.queue.pop_front() {
            cx.cancel_timer(timer);
            if Some(who.session) != cx.ended {
                let token = self.grant(cx, who, since);
                return cx
                    .publish([who], codec::to_bytes(&LockEvent::Granted { contender: who.sequence, token }));
            }
        }
    }

    fn leave(&mut self, cx: &mut Applying<'_>, leaves: impl Fn(&Waiter) -> bool) {
        self.queue.retain(|waiter| {
            let leaves = leaves(waiter);
            if leaves {
                cx.cancel_timer(waiter.timer);
            }
            !leaves
        });
    }

    fn remember(&mut self, index: Index) {
        let now = self.inspection();
        if self.history.last().is_some_and(|(_, before)| *before == now) {
            return;
        }
        self.history.push((index, now));
    }

    pub(super) fn timed_out(&mut self, cx: &mut Applying<'_>, who: Who) {
        self.leave(cx, |waiter| waiter.who == who);
        cx.publish([who], codec::to_bytes(&LockEvent::TimedOut { contender: who.sequence }));
        self.remember(cx.index);
    }

    pub(super) fn session_ended(&mut self, cx: &mut Applying<'_>, session: SessionId) {
        if self.holder.is_some_and(|(holder, _)| holder.session == session) {
            self.hand_over(cx);
        }
        self.leave(cx, |waiter| waiter.who.session == session);
        self.remember(cx.index);
    }

    pub(super) fn delete(&mut self, cx: &mut Applying<'_>, force: bool) -> DeleteReply {
        let Some((holder, token)) = self.holder else {
            *cx.finished = true;
            return DeleteReply::Deleted;
        };
        if !force {
            return DeleteReply::InUse;
        }
        self.deleting = true;
        for Waiter { who, timer, .. } in std::mem::take(&mut self.queue) {
            cx.cancel_timer(timer);
            cx.publish([who], codec::to_bytes(&LockEvent::Deleted { contender: who.sequence }));
        }
        cx.publish([holder], codec::to_bytes(&LockEvent::Revoked { token }));
        self.remember(cx.index);
        DeleteReply::Revoking
    }

    /// Whose it is, and by which token.
    pub(super) fn holder(&self) -> Option<(SessionId, Index)> {
        self.holder.map(|(who, token)| (who.session, token))
    }

    pub(super) fn is_awaited_by(&self, session: SessionId) -> bool {
        self.queue.iter().any(|waiter| waiter.who.session == session)
    }

    /// Where a token stands among all that were granted, and whether its holder waited for it across a change of term.
    pub(super) fn grant_of(&self, token: Index) -> Option<(usize, bool)> {
        let place = self.grants.binary_search_by_key(&token, |(token, _)| *token).ok()?;
        Some((place, self.grants[place].1))
    }

    fn inspection(&self) -> Inspection {
        Inspection { holder: self.holder(), waiting: self.queue.len() as u64 }
    }

    /// What it says of itself behind an index.
    pub(super) fn answer(&self, index: Index) -> Bytes {
        let count = self.history.partition_point(|(at, _)| *at <= index);
        let found = count.checked_sub(1).and_then(|last| self.history.get(last));
        let nothing = Inspection { holder: None, waiting: 0 };
        reply::<Inspect>(found.map_or(nothing, |(_, inspection)| *inspection))
    }
}
