//! What a leader keeps of events beside the log: one test per rule.

use atomix_protocol::session::{Acknowledged, SessionEntry};
use atomix_protocol::{Index, Sequence, SessionId};
use atomix_session::deliveries::Deliveries;
use atomix_session::table::Backlog;

use crate::replica::{Replica, TERM};

const ONE: SessionId = SessionId(1);
const MOST: Backlog = Backlog { events: 40, bytes: 1 << 20 };

/// A leader's table with two sessions, of which the first has a link.
struct Leader {
    replica: Replica,
    deliveries: Deliveries,
}

impl Leader {
    fn new() -> Self {
        let (replica, mut deliveries) = (Replica::with_sessions(2), Deliveries::new(MOST));
        assert!(!deliveries.attached(&replica.table, ONE, Index::ZERO));
        Leader { replica, deliveries }
    }

    /// Publishes to session 1; returns the index.
    fn publish(&mut self, order: &str) -> u64 {
        self.replica.command(2, order);
        self.replica.index().0
    }

    fn send(&mut self) -> Vec<u64> {
        self.send_through(0)
    }

    fn send_through(&mut self, at_least: u64) -> Vec<u64> {
        let parcels = self.deliveries.send(&self.replica.table, ONE, Index(at_least));
        parcels.iter().map(|parcel| parcel.header.index.0).collect()
    }

    fn acknowledge(&mut self, event: u64) -> bool {
        self.deliveries.acknowledged(&self.replica.table, ONE, Index(event), None)
    }

    fn attach(&mut self, last_event: u64) -> bool {
        self.deliveries.attached(&self.replica.table, ONE, Index(last_event))
    }

    fn overflows(&self) -> bool {
        self.deliveries.overflowing(&self.replica.table, ONE)
    }

    fn wants_fold(&mut self) -> bool {
        self.deliveries.wants_fold(&self.replica.table)
    }

    /// Logs what is to be folded; says what it was.
    fn fold(&mut self) -> Vec<(u64, u64, u64)> {
        let said = self.deliveries.fold(&self.replica.table);
        let short = |said: &Acknowledged| (said.session.0, said.event.0, said.lowest_unanswered.0);
        let folded = said.iter().map(short).collect();
        self.replica.apply(&SessionEntry::Acknowledge(said));
        folded
    }
}

#[test]
fn rule_e1_what_travels_says_what_it_is() {
    let mut leader = Leader::new();
    let first = leader.publish("send 1 a");
    let second = leader.publish("!send 1 bc;send 1,1 def;send 1 bc");
    let parcels = leader.deliveries.send(&leader.replica.table, ONE, Index::ZERO);
    let [one, two] = &parcels[..] else { panic!("{parcels:?}") };
    assert_eq!((one.header.index.0, one.header.previous.0, one.header.atomic), (first, 0, false));
    assert_eq!((&one.header.bodies[..], &one.bodies[..]), (&[1][..], &b"a"[..]));
    assert_eq!((two.header.index.0, two.header.previous.0, two.header.atomic), (second, first, true));
    assert_eq!((&two.header.bodies[..], &two.bodies[..]), (&[2, 3][..], &b"bcdef"[..]));
    let parts: Vec<_> = two.header.parts.iter().map(|(instance, body)| (instance.0, *body)).collect();
    assert_eq!(parts, [(1, 0), (1, 1), (1, 1), (1, 0)]);
    assert!(!one.again && !two.again);
}

#[test]
fn rule_e1_events_are_sent_once_and_in_order() {
    let mut leader = Leader::new();
    let indexes: Vec<u64> = (0..3).map(|_| leader.publish("send 1 a")).collect();
    assert_eq!(leader.send(), indexes);
    assert_eq!(leader.send(), [0; 0]);
    leader.deliveries.detached(ONE);
    leader.publish("send 1 a");
    assert_eq!(leader.send(), [0; 0], "no link, nothing sent");
    assert_eq!(leader.deliveries.send(&leader.replica.table, SessionId(2), Index::ZERO), []);
}

#[test]
fn rule_e3_so_much_is_under_way_and_more_with_acknowledgements() {
    let mut leader = Leader::new();
    let first = leader.publish("send 1 a");
    (1..600).for_each(|_| assert!(leader.publish("send 1 a") > first));
    assert_eq!(leader.send(), (first..first + 256).collect::<Vec<_>>());
    assert!(leader.acknowledge(first + 9));
    assert_eq!(leader.send(), (first + 256..first + 266).collect::<Vec<_>>());
    assert!(leader.acknowledge(first + 265));
    assert_eq!(leader.send().len(), 256);
    // Logged acknowledgements change nothing about what is under way.
    leader.fold();
    assert_eq!(leader.send(), [0; 0]);
    assert_eq!(leader.replica.events(1).len(), 600 - 266);

    let mut leader = Leader::new();
    let large: Vec<u64> = (0..4).map(|_| leader.publish("fill 2000000 1")).collect();
    assert_eq!(leader.send(), large[..1], "one at a time if it is large, but one");
    assert!(leader.acknowledge(large[0]));
    assert_eq!(leader.send(), large[1..2]);
}

#[test]
fn rule_e5_what_a_reply_names_goes_before_it_however_much_is_under_way() {
    let mut leader = Leader::new();
    let large: Vec<u64> = (0..4).map(|_| leader.publish("fill 2000000 1")).collect();
    leader.send();
    assert_eq!(leader.send_through(large[2]), large[1..3]);
    assert_eq!(leader.send_through(large[2]), [0; 0]);
    leader.acknowledge(large[2]);
    assert_eq!(leader.send(), large[3..]);
}

#[test]
fn rule_e4_a_link_goes_on_where_its_client_says() {
    let mut leader = Leader::new();
    let indexes: Vec<u64> = (0..4).map(|_| leader.publish("send 1 a")).collect();
    leader.send();
    leader.deliveries.detached(ONE);
    assert!(leader.attach(indexes[1]), "that it has them is news");
    let later = leader.publish("send 1 b");
    let parcels = leader.deliveries.send(&leader.replica.table, ONE, Index::ZERO);
    let sent: Vec<_> = parcels.iter().map(|parcel| (parcel.header.index.0, parcel.again)).collect();
    assert_eq!(sent, [(indexes[2], true), (indexes[3], true), (later, false)]);
    // What it can't have is not believed: it is sent what it has not acknowledged.
    assert!(!leader.attach(u64::MAX));
    assert_eq!(leader.send(), [indexes[2], indexes[3], later]);
    // Another leader knows nothing, and need not.
    leader.deliveries.deposed();
    assert_eq!(leader.send(), [0; 0]);
    leader.attach(indexes[3]);
    assert_eq!(leader.send(), [later]);
}

#[test]
fn rule_e2_acknowledgements_only_move_forward_and_only_to_what_exists() {
    let mut leader = Leader::new();
    let (first, second) = (leader.publish("send 1 a"), leader.publish("send 1 a"));
    assert!(!leader.acknowledge(second + 1) && !leader.acknowledge(u64::MAX));
    assert!(leader.acknowledge(second));
    assert!(!leader.acknowledge(second) && !leader.acknowledge(first));
    let Leader { replica, deliveries } = &mut leader;
    assert!(!deliveries.acknowledged(&replica.table, SessionId(99), Index(first), None));
    assert_eq!(deliveries.last_acknowledged(ONE), Index(second));
    assert_eq!(deliveries.last_acknowledged(SessionId(99)), Index::ZERO);
}

#[test]
fn rule_e2_much_that_is_acknowledged_and_not_trimmed_wants_an_entry() {
    let mut leader = Leader::new();
    let first = leader.publish("send 1 a");
    for _ in 0..20 {
        leader.publish("send 1 a");
    }
    leader.acknowledge(first + 9);
    assert!(!leader.wants_fold(), "a quarter of 40");
    leader.acknowledge(first + 10);
    assert!(leader.wants_fold() && leader.wants_fold());
    assert_eq!(leader.fold(), [(1, first + 10, 0)]);
    assert!(!leader.wants_fold());
    assert_eq!(leader.replica.events(1)[0], first + 11);
    assert_eq!(leader.fold(), []);

    let mut leader = Leader::new();
    let large = leader.publish("fill 262000 1");
    leader.acknowledge(large);
    assert!(!leader.wants_fold(), "a quarter of 1 MiB");
    let small = leader.publish("send 1 a");
    leader.acknowledge(small);
    assert!(leader.wants_fold());
    // A command may bring it into the log before any entry of its own.
    leader.replica.command_having(1, small, "x");
    assert!(!leader.wants_fold());
    assert_eq!(leader.fold(), []);
}

#[test]
fn rule_e2_replies_that_the_client_has_are_folded_too() {
    let mut leader = Leader::new();
    leader.replica.command(1, "a");
    leader.replica.command(1, "b");
    let Leader { replica, deliveries } = &mut leader;
    deliveries.acknowledged(&replica.table, ONE, Index::ZERO, Some(Sequence(1)));
    assert_eq!(leader.fold(), [], "the second command has said so already");
    let Leader { replica, deliveries } = &mut leader;
    // More than it can have.
    deliveries.acknowledged(&replica.table, ONE, Index::ZERO, Some(Sequence(u64::MAX)));
    assert!(!deliveries.wants_fold(&replica.table));
    assert_eq!(leader.fold(), [(1, 0, 3)]);
    assert_eq!(leader.replica.table.session(ONE).map(|info| info.replies), Some(0));
    assert_eq!(leader.fold(), []);
}

#[test]
fn rule_e2_an_entry_names_the_pressing_sessions_first() {
    let mut replica = Replica::with_sessions(100);
    let mut deliveries = Deliveries::new(MOST);
    for session in (1..=100).filter(|session| *session != 50) {
        replica.command(50, &format!("send {session} a"));
    }
    for _ in 0..11 {
        replica.command(50, "send 99 a");
    }
    for session in 1..=100 {
        let last = replica.table.session(SessionId(session)).map(|info| info.event_index).expect("open");
        deliveries.acknowledged(&replica.table, SessionId(session), last, None);
    }
    let said: Vec<u64> = deliveries.fold(&replica.table).iter().map(|said| said.session.0).collect();
    assert_eq!((said.len(), said[0], said[1]), (99, 99, 1));
    deliveries.ended(SessionId(99));
    assert_eq!(deliveries.fold(&replica.table).len(), 98);
}

#[test]
fn rule_e3_a_full_outbox_is_judged_on_what_is_not_acknowledged() {
    let mut leader = Leader::new();
    let first = leader.publish("send 1 a");
    for _ in 0..39 {
        leader.publish("send 1 a");
    }
    assert!(!leader.overflows());
    leader.acknowledge(first);
    leader.publish("send 1 a");
    assert!(!leader.overflows());
    leader.publish("send 1 a");
    assert!(leader.overflows());
    leader.acknowledge(first + 1);
    assert!(!leader.overflows());

    let mut leader = Leader::new();
    leader.publish("fill 600000 1");
    assert!(!leader.overflows());
    leader.publish("fill 600000 1");
    assert!(leader.overflows(), "bytes count too");
    leader.replica.overflow(1, TERM);
    assert!(!leader.overflows(), "it was given up");
}

#[test]
fn rule_e3_a_new_leader_does_not_take_acknowledged_events_for_unacknowledged_ones() {
    let mut leader = Leader::new();
    for _ in 0..50 {
        leader.publish("send 1 a");
    }
    assert!(leader.overflows());
    leader.deliveries.deposed();
    assert!(!leader.overflows(), "ten of them may have been acknowledged to the leader before");
    for _ in 0..11 {
        leader.publish("send 1 a");
    }
    assert!(leader.overflows(), "but not so many: it would have folded them");
    leader.attach(leader.replica.index().0);
    assert!(!leader.overflows());
}

#[test]
fn rule_e6_a_reply_is_held_while_anybody_has_not_acknowledged() {
    let mut leader = Leader::new();
    let index = Index(leader.publish("!send 1,2 a"));
    let holding = |leader: &Leader| -> Vec<u64> {
        leader.deliveries.holding(&leader.replica.table, index).map(|session| session.0).collect()
    };
    assert!(leader.deliveries.is_held(&leader.replica.table, index));
    assert_eq!(holding(&leader), [1, 2]);
    leader.acknowledge(index.0);
    assert_eq!(holding(&leader), [2]);
    // Another leader holds it too, until it is told again.
    leader.deliveries.deposed();
    assert_eq!(holding(&leader), [1, 2]);
    leader.attach(index.0);
    leader.replica.expire(2);
    assert_eq!(holding(&leader), [0; 0]);
    assert!(!leader.deliveries.is_held(&leader.replica.table, index));
}

#[test]
fn rule_e6_the_first_atomic_event_that_is_not_acknowledged() {
    let mut leader = Leader::new();
    let plain = leader.publish("send 1 a");
    let (first, second) = (leader.publish("!send 1 a"), leader.publish("!send 1 a"));
    let unacknowledged = |leader: &Leader| leader.deliveries.first_atomic(&leader.replica.table, ONE);
    assert_eq!(unacknowledged(&leader), Some(Index(first)));
    leader.acknowledge(plain);
    assert_eq!(unacknowledged(&leader), Some(Index(first)));
    leader.acknowledge(first);
    assert_eq!(unacknowledged(&leader), Some(Index(second)));
    // The log knows it as well.
    leader.replica.acknowledge(1, second);
    assert_eq!(unacknowledged(&leader), None);
}
