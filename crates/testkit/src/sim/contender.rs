//! A user of locks: asks, waits, gives up at random points, holds, writes to what the lock guards, gives back.
//!
//! It knows only what it is told. That it holds a lock it believes from being told so until it gives it back, is told that it has
//! lost it, or nothing promises it any more (L2).

use std::collections::BTreeMap;
use std::time::Duration;

use atomix_coordination::lock::op::{Acquired, LockEvent, Wait};
use atomix_protocol::{Index, LocalTime, ResourceId, Sequence};

use super::coverage::{Coverage, Mark};
use super::operation::{LockCommand, Place};
use super::random::{Component, Random};
use super::settings::{MILLISECOND, Settings};

/// Of how many attempts at one lock one user goes on at once.
const ATTEMPTS: usize = 2;

/// A lock as this user has it open.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Lock {
    pub(super) place: Place,
    pub(super) resource: ResourceId,
}

/// What it was told to have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Guard {
    pub(super) lock: Lock,
    pub(super) token: Index,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// Asked for; perhaps it waits.
    Wanted,
    Held {
        token: Index,
        until: LocalTime,
    },
    /// Given up: whatever comes is not wanted.
    Cancelled,
}

/// Something that it wants done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wish {
    Command(Lock, LockCommand),
    Inspect(Lock),
    /// What the lock guards is to be written: outside, or in the map.
    Write(Guard),
    FencedPut(Guard),
}

/// The user of locks of one client.
#[derive(Debug)]
pub(super) struct Contender {
    random: Random,
    attempts: BTreeMap<(Lock, Sequence), Stage>,
    /// Cancels under way, and of which attempt.
    cancels: BTreeMap<Sequence, (Lock, Sequence)>,
    /// To be given back; there was no room for it yet.
    owed: Vec<(Lock, LockCommand)>,
}

impl Contender {
    pub(super) fn new(seed: u64, client: usize) -> Self {
        Contender {
            random: Random::stream(seed, Component::Contender, client as u64),
            attempts: BTreeMap::new(),
            cancels: BTreeMap::new(),
            owed: Vec::new(),
        }
    }

    /// The process, or its session, is gone.
    pub(super) fn forget(&mut self) {
        self.attempts.clear();
        self.cancels.clear();
        self.owed.clear();
    }

    /// A lock was deleted.
    pub(super) fn forget_lock(&mut self, resource: ResourceId) {
        self.attempts.retain(|(lock, _), _| lock.resource != resource);
        self.cancels.retain(|_, (lock, _)| lock.resource != resource);
        self.owed.retain(|(lock, _)| lock.resource != resource);
    }

    /// Whether it asked for a lock that it does not have yet.
    pub(super) fn waits(&self) -> bool {
        self.attempts.values().any(|stage| matches!(stage, Stage::Wanted | Stage::Cancelled))
    }

    /// What it believes to hold.
    pub(super) fn guards(&self) -> impl Iterator<Item = Guard> + '_ {
        self.attempts.iter().filter_map(|((lock, _), stage)| match stage {
            Stage::Held { token, .. } => Some(Guard { lock: *lock, token: *token }),
            Stage::Wanted | Stage::Cancelled => None,
        })
    }

    /// What it does next. `valid_until` is until when its session is promised to last.
    pub(super) fn plan(
        &mut self,
        now: LocalTime,
        valid_until: LocalTime,
        locks: &[Lock],
        settings: &Settings,
    ) -> Vec<Wish> {
        self.let_go(now, valid_until);
        let mut wishes: Vec<Wish> =
            self.owed.drain(..).map(|(lock, command)| Wish::Command(lock, command)).collect();
        for guard in self.guards().collect::<Vec<_>>() {
            match self.random.below(20) {
                0..=7 => wishes.push(Wish::Write(guard)),
                8 | 9 => wishes.push(Wish::FencedPut(guard)),
                _ => {}
            }
        }
        for lock in locks {
            let under_way = self.attempts.keys().filter(|(at, _)| at == lock).count();
            if self.random.chance(0.1) {
                wishes.push(Wish::Inspect(*lock));
            }
            let eager = if under_way == 0 { 0.6 } else { 0.1 };
            if under_way < ATTEMPTS && self.random.chance(eager) {
                let wait = match self.random.below(10) {
                    0 | 1 => Wait::No,
                    2..=4 => Wait::Milliseconds(self.random.below(settings.demand.wait) / MILLISECOND),
                    _ => Wait::Forever,
                };
                wishes.push(Wish::Command(*lock, LockCommand::Acquire(wait)));
            }
        }
        wishes
    }

    /// Gives up some of what it waits for, and gives back what it has had for long enough, or can't count on any more.
    fn let_go(&mut self, now: LocalTime, valid_until: LocalTime) {
        let Contender { random, attempts, owed, .. } = self;
        attempts.retain(|(lock, sequence), stage| match *stage {
            Stage::Wanted if random.chance(0.08) => {
                owed.push((*lock, LockCommand::Cancel(*sequence)));
                *stage = Stage::Cancelled;
                true
            }
            Stage::Held { token, until } if until <= now || valid_until <= now => {
                // Who drops an acquire that has just been granted cancels it.
                if random.chance(0.2) {
                    owed.push((*lock, LockCommand::Cancel(*sequence)));
                    *stage = Stage::Cancelled;
                    return true;
                }
                owed.push((*lock, LockCommand::Release(token)));
                false
            }
            Stage::Wanted | Stage::Held { .. } | Stage::Cancelled => true,
        });
    }

    /// A command was submitted. Now and then an acquire is dropped at once.
    pub(super) fn submitted(&mut self, lock: Lock, sequence: Sequence, command: LockCommand) {
        match command {
            LockCommand::Acquire(_) => {
                let dropped = self.random.chance(0.05);
                if dropped {
                    self.owed.push((lock, LockCommand::Cancel(sequence)));
                }
                let stage = if dropped { Stage::Cancelled } else { Stage::Wanted };
                self.attempts.insert((lock, sequence), stage);
            }
            LockCommand::Cancel(contender) => {
                self.cancels.insert(sequence, (lock, contender));
            }
            LockCommand::Release(_) => {}
        }
    }

    /// There was no room for a command.
    pub(super) fn refused(&mut self, lock: Lock, command: LockCommand) {
        if !matches!(command, LockCommand::Acquire(_)) {
            self.owed.push((lock, command));
        }
    }

    /// What it was told of an acquire: a reply, or that nobody can tell.
    pub(super) fn acquired(
        &mut self,
        now: LocalTime,
        attempt: (Lock, Sequence),
        reply: Option<Acquired>,
        settings: &Settings,
        coverage: &mut Coverage,
    ) {
        match reply {
            Some(Acquired::Granted { token }) => self.granted(now, attempt, token, settings, coverage),
            Some(Acquired::Waiting) => {}
            Some(Acquired::Held | Acquired::QueueFull | Acquired::Deleting) => {
                self.attempts.remove(&attempt);
            }
            None => {
                // It may be done yet.
                if let Some(stage) = self.attempts.get_mut(&attempt).filter(|stage| **stage == Stage::Wanted)
                {
                    *stage = Stage::Cancelled;
                    self.owed.push((attempt.0, LockCommand::Cancel(attempt.1)));
                }
            }
        }
    }

    /// An acquire was certainly not done.
    pub(super) fn not_done(&mut self, lock: Lock, sequence: Sequence) {
        self.attempts.remove(&(lock, sequence));
    }

    /// A cancel was answered.
    pub(super) fn cancelled(&mut self, sequence: Sequence) {
        if let Some(attempt) = self.cancels.remove(&sequence) {
            self.attempts.remove(&attempt);
        }
    }

    /// The servers' version can't cancel yet (M3): it is asked for again.
    pub(super) fn not_cancelled(&mut self, sequence: Sequence) {
        if let Some((lock, attempt)) = self.cancels.remove(&sequence) {
            self.owed.push((lock, LockCommand::Cancel(attempt)));
        }
    }

    pub(super) fn told(
        &mut self,
        now: LocalTime,
        lock: Lock,
        event: LockEvent,
        settings: &Settings,
        coverage: &mut Coverage,
    ) {
        match event {
            LockEvent::Granted { contender, token } => {
                self.granted(now, (lock, contender), token, settings, coverage);
            }
            LockEvent::TimedOut { contender } | LockEvent::Deleted { contender } => {
                self.attempts.remove(&(lock, contender));
            }
            LockEvent::Revoked { token: revoked } => {
                coverage.mark(Mark::LockRevoked, 1);
                let owed = &mut self.owed;
                self.attempts.retain(|(at, _), stage| {
                    let is_it =
                        *at == lock && matches!(stage, Stage::Held { token, .. } if *token == revoked);
                    if is_it {
                        owed.push((*at, LockCommand::Release(revoked)));
                    }
                    !is_it
                });
            }
        }
    }

    fn granted(
        &mut self,
        now: LocalTime,
        attempt: (Lock, Sequence),
        token: Index,
        settings: &Settings,
        coverage: &mut Coverage,
    ) {
        match self.attempts.get_mut(&attempt) {
            Some(stage @ Stage::Wanted) => {
                let hold = self.random.exponential(settings.demand.hold);
                *stage = Stage::Held { token, until: now + Duration::from_micros(hold) };
            }
            Some(Stage::Cancelled) => coverage.mark(Mark::GrantCrossedCancel, 1),
            Some(Stage::Held { .. }) | None => {}
        }
    }
}
