//! A lock against its naive twin, and the bytes that it promises. What its users see of it is tested in the crate's `tests/`.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use atomix_resource::{Consistency, Handle, Index, Operation, Registry, Sequence, SessionId, Sharing};
use atomix_testkit::loopback::{Loopback, ready};
use proptest::{collection::vec, prelude::*};

use super::{op::*, *};

#[derive(Clone, Debug)]
enum Step {
    Acquire(Wait),
    Release,
    Cancel(usize),
    EndSession,
}

fn step() -> impl Strategy<Value = Step> {
    let wait = prop_oneof![Just(Wait::No), Just(Wait::Forever), (0u64..40).prop_map(Wait::Milliseconds)];
    let leave = prop_oneof![4 => Just(Step::Release), 4 => (0usize..3).prop_map(Step::Cancel), 1 => Just(Step::EndSession)];
    prop_oneof![wait.prop_map(Step::Acquire), leave]
}

/// Client, contender, and when its time is up.
type Name = (usize, Sequence, u64);

/// A lock that a child could write: who stands first has it, with the token. And what it told whom.
#[derive(Default)]
struct Twin {
    queue: Vec<Name>,
    token: Index,
    told: [Vec<LockEvent>; 3],
}

impl Twin {
    fn acquire(&mut self, name: Name, now: u64, index: Index) -> Acquired {
        match self.queue.len() {
            0 => self.token = index,
            _ if name.2 <= now => return Acquired::Held,
            _ => {}
        }
        self.queue.push(name);
        if self.queue.len() > 1 { Acquired::Waiting } else { Acquired::Granted { token: index } }
    }

    fn leave(&mut self, index: Index, leaves: impl Fn(&Name) -> bool) {
        let before = self.queue.first().copied();
        self.queue.retain(|name| !leaves(name));
        if let Some((client, contender, _)) = self.queue.first().filter(|first| Some(**first) != before) {
            self.token = index;
            self.told[*client].push(LockEvent::Granted { contender: *contender, token: index });
        }
    }

    fn pass(&mut self, now: u64) {
        let waiting = self.queue.len().min(1)..;
        let mut over: Vec<_> = self.queue.extract_if(waiting, |name| name.2 <= now).collect();
        over.sort_by_key(|name| name.2);
        over.iter().for_each(|name| self.told[name.0].push(LockEvent::TimedOut { contender: name.1 }));
    }
}

/// Opens the lock in a new session, and writes down what it is told.
fn open(loopback: &Loopback, client: usize, told: &Arc<Mutex<[Vec<LockEvent>; 3]>>) -> Handle<LockState> {
    let lock = ready(Handle::<LockState>::open(&loopback.session(), "/l", &(), Sharing::Shared)).unwrap();
    let told = told.clone();
    std::mem::forget(lock.events(move |_, event| told.lock().unwrap()[client].push(event.unwrap())));
    lock
}

proptest! {
    #[test]
    fn a_lock_does_what_its_twin_does(steps in vec((0usize..3, step(), 0u64..20), 1..80)) {
        let loopback = Loopback::new(crate::register(Registry::new()));
        let (mut twin, told) = (Twin::default(), Arc::default());
        let mut locks = [0, 1, 2].map(|client| open(&loopback, client, &told));
        for (client, step, pause) in steps {
            let lock = &locks[client];
            let now = lock.session().now().0 / 1_000;
            match step {
                Step::Acquire(wait) => {
                    let mut contender = Sequence::ZERO;
                    let (index, reply) = ready(lock.command_numbered(&Acquire { wait }, |name| contender = name)).unwrap();
                    let limit = match wait { Wait::No => 0, Wait::Milliseconds(limit) => limit, Wait::Forever => 1 << 60 };
                    prop_assert_eq!(reply, twin.acquire((client, contender, now + limit), now, index));
                }
                Step::Release => {
                    let holder = twin.queue.first().filter(|name| name.0 == client).copied();
                    let (index, released) = ready(lock.command(&Release { token: twin.token })).unwrap();
                    prop_assert_eq!(released, holder.is_some());
                    twin.leave(index, |name| Some(*name) == holder);
                }
                Step::Cancel(nth) => {
                    let name = twin.queue.iter().filter(|name| name.0 == client).nth(nth).copied();
                    let contender = name.map_or(Sequence(1), |name| name.1);
                    let (index, ()) = ready(lock.command(&Cancel { contender })).unwrap();
                    twin.leave(index, |queued| Some(*queued) == name);
                }
                Step::EndSession => {
                    loopback.close(lock.session().id());
                    twin.leave(loopback.applied().0, |name| name.0 == client);
                    locks[client] = open(&loopback, client, &told);
                }
            }
            loopback.snapshot_and_restore(crate::register(Registry::new()));
            loopback.advance(Duration::from_millis(pause));
            twin.pass(now + pause);
            let (_, inspection) = ready(locks[client].query(&Inspect, Consistency::Linearizable)).unwrap();
            let holder = twin.queue.first().map(|name| (locks[name.0].session().id(), twin.token));
            prop_assert_eq!(inspection, Inspection { holder, waiting: twin.queue.len().saturating_sub(1) as u64 });
            prop_assert_eq!(&*told.lock().unwrap(), &twin.told);
        }
    }
}

#[test]
fn golden_bytes() {
    let (contender, token, holder) = (Sequence(7), Index(300), Some((SessionId(9), Index(300))));
    let wait = [Wait::No, Wait::Milliseconds(300), Wait::Forever].map(|wait| Acquire { wait });
    let asked = postcard::to_allocvec(&(wait, Release { token }, Cancel { contender }, Inspect)).unwrap();
    assert_eq!(asked, b"\0\x01\xac\x02\x02\xac\x02\x07");
    assert_eq!([Acquire::NUMBER, Release::NUMBER, Cancel::NUMBER, Inspect::NUMBER], [1, 2, 3, 32]);
    use {Acquired as A, LockEvent as E};
    let acquired = [A::Granted { token }, A::Waiting, A::Held, A::QueueFull, A::Deleting];
    let replies = postcard::to_allocvec(&(acquired, Inspection { holder, waiting: 5 })).unwrap();
    assert_eq!(replies, b"\0\xac\x02\x01\x02\x03\x04\x01\x09\xac\x02\x05");
    let named = [E::Granted { contender, token }, E::TimedOut { contender }, E::Deleted { contender }];
    let events = postcard::to_allocvec(&(named, E::Revoked { token })).unwrap();
    assert_eq!(events, b"\0\x07\xac\x02\x01\x07\x02\x07\x03\xac\x02");
}
