//! M2, M3: what is not committed for all is refused the same everywhere; what is, and is lacking here, stops this replica.

mod desk;

use atomix_protocol::envelope::{self, Envelope, OpenReply, OpenResource, OperationStatus, Sharing};
use atomix_protocol::{ClusterTime, Index, InstanceId, Sequence, SessionId, codec};
use atomix_resource::{Registry, Resource};
use atomix_session::{Context, KindLevel, Levels, Published, QueryContext, StateMachine, Timers};
use bytes::Bytes;
use desk::Desk;

const SESSION: SessionId = SessionId(1);

/// One replica: its binary, and what is committed.
struct Replica {
    registry: Registry,
    levels: Levels,
    timers: Timers,
    index: u64,
}

impl Replica {
    /// A binary that knows the desk through operation `known`, where its committed level is `level`.
    fn new(known: u16, level: u16) -> Self {
        let levels = [KindLevel { kind: Desk::KIND.into(), level }].into_iter().collect();
        let registry = Registry::new().with::<Desk>().as_of(Desk::KIND, known);
        Replica { registry, levels, timers: Timers::default(), index: 0 }
    }

    fn apply(&mut self, command: &Bytes) -> Bytes {
        self.index += 1;
        let mut published = Published::default();
        let mut cx = Context::new(
            Index(self.index),
            ClusterTime(0),
            Some(SESSION),
            Sequence(self.index),
            &self.levels,
            &mut self.timers,
            &mut published,
        );
        self.registry.apply(&mut cx, command)
    }

    fn open(&mut self) -> OpenReply {
        let (path, kind, configuration) = ("/desk".into(), Desk::KIND.into(), Bytes::new());
        let open = Envelope::Open(OpenResource { path, kind, configuration, sharing: Sharing::Own });
        codec::from_bytes(&self.apply(&open.encode())).expect("a reply to an opening")
    }

    /// The status of the reply to an operation without a body, on the instance that the first entry opened.
    fn operate(&mut self, number: u16) -> OperationStatus {
        let operation = envelope::Operation { instance: InstanceId(1), number };
        let reply = self.apply(&Envelope::Operation(operation, Bytes::new()).encode());
        codec::take_from_bytes(&reply).expect("a status").0
    }

    /// The same of a query.
    fn ask(&self, number: u16) -> OperationStatus {
        let operation = envelope::Operation { instance: InstanceId(1), number };
        let (index, time, levels) = (Index(self.index), ClusterTime(0), &self.levels);
        let cx = QueryContext { index, time, session: SESSION, levels };
        let reply = self.registry.query(&cx, &Envelope::Operation(operation, Bytes::new()).encode());
        codec::take_from_bytes(&reply).expect("a status").0
    }

    fn snapshot(&self) -> Vec<u8> {
        let mut out = Vec::new();
        self.registry.snapshot().write_to(&mut out).expect("memory takes everything");
        out
    }
}

#[test]
fn without_a_level_nothing_is_created_whatever_the_binary() {
    for known in [0, 3, u16::MAX] {
        let mut replica = Replica::new(known, 0);
        let empty = replica.snapshot();
        assert_eq!(replica.open(), OpenReply::UnknownKind);
        assert_eq!(replica.snapshot(), empty);
    }
}

#[test]
fn above_the_level_every_binary_refuses_alike() {
    let (mut old, mut new) = (Replica::new(3, 3), Replica::new(u16::MAX, 3));
    for replica in [&mut old, &mut new] {
        assert!(matches!(replica.open(), OpenReply::Opened { .. }));
        assert_eq!(replica.operate(3), OperationStatus::Ok);
        assert_eq!(replica.operate(4), OperationStatus::UnknownOperation);
        assert_eq!(replica.operate(u16::MAX), OperationStatus::UnknownOperation);
    }
    assert_eq!(old.snapshot(), new.snapshot());
    new.levels.raise(Desk::KIND.into(), 5);
    assert_ne!(new.operate(4), OperationStatus::UnknownOperation);
}

#[test]
fn rule_m2_queries_have_the_level_of_their_kind_too() {
    let (mut old, mut new) = (Replica::new(31, 31), Replica::new(u16::MAX, 31));
    for replica in [&mut old, &mut new] {
        replica.open();
        assert_eq!(replica.ask(32), OperationStatus::UnknownOperation);
    }
    new.levels.raise(Desk::KIND.into(), 32);
    assert_eq!(new.ask(32), OperationStatus::Ok);
}

#[test]
#[should_panic(expected = "index 1: operation 32 of a test/desk of level 32: this binary knows 31")]
fn a_binary_that_lacks_a_committed_query_stops() {
    let mut replica = Replica::new(31, 32);
    replica.open();
    replica.ask(32);
}

#[test]
#[should_panic(expected = "index 2: operation 4 of a test/desk of level 5: this binary knows 3")]
fn a_binary_that_lacks_a_committed_operation_stops() {
    let mut replica = Replica::new(3, 5);
    replica.open();
    replica.operate(4);
}

#[test]
#[should_panic(expected = "index 1: a test/desk of level 5 is opened: this binary lacks the kind")]
fn a_binary_that_lacks_a_committed_kind_stops() {
    Replica::new(0, 5).open();
}
