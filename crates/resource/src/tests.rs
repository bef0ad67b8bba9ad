//! The registry and the handle, by a resource that does a little of everything.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use atomix_protocol::envelope::{self, Envelope, OpenReply, OpenResource};
use atomix_protocol::{ClusterTime, Index, InstanceId, Sequence, SessionId, codec, limits};
use atomix_session::{
    Context as EntryContext, Levels, NotDone, Published, QueryContext as EntryQueryContext, RestoreError,
    StateMachine, Timers,
};
use atomix_testkit::loopback::{Loopback, ready};
use proptest::prelude::*;
use rand::Rng;
use serde::{Deserialize, Serialize};

use crate::*;

/// A desk with a few seats: who finds none waits for one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Desk {
    seats: u8,
    seated: BTreeSet<Caller>,
    waiting: Vec<Caller>,
    reminders: u32,
    goodbyes: u32,
}

/// Takes a seat; the reply is whether there was one.
#[derive(Serialize, Deserialize)]
struct Sit;
/// Asks to be reminded after so many milliseconds.
#[derive(Serialize, Deserialize)]
struct Remind(u64);
/// Asks not to be.
#[derive(Serialize, Deserialize)]
struct Forget(TimerId);
/// Draws a number.
#[derive(Serialize, Deserialize)]
struct Draw;
/// Refuses to be encoded for one value.
#[derive(Deserialize)]
struct Shy(bool);
/// All of it.
#[derive(Serialize, Deserialize)]
struct Look;

impl Serialize for Shy {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            true => Err(serde::ser::Error::custom("shy")),
            false => serializer.serialize_bool(false),
        }
    }
}

operations! {
    /// What can be asked of a desk.
    struct DeskOperations;
    commands {
        1: Sit -> bool,
        2: Remind -> TimerId,
        3: Forget -> bool,
        4: Draw -> u64,
        5: Shy -> (),
    }
    queries { 32: Look -> Desk }
}

impl Resource for Desk {
    const KIND: &'static str = "desk";
    type Operations = DeskOperations;
    type Configuration = Option<u8>;
    type Event = NoEvent;

    fn create(seats: Option<u8>) -> Result<Self, BadConfiguration> {
        match seats.unwrap_or(1) {
            0 => Err(BadConfiguration),
            seats => {
                Ok(Desk { seats, seated: BTreeSet::new(), waiting: Vec::new(), reminders: 0, goodbyes: 0 })
            }
        }
    }

    /// One caller a slice, so that there are many.
    fn session_ended(&mut self, cx: &mut Context<'_>, session: SessionId) -> Slice {
        let of_session = |caller: &Caller| caller.session == session;
        let Some(caller) = self.seated.iter().find(|caller| of_session(caller)).copied() else {
            self.waiting.retain(|caller| !of_session(caller));
            self.goodbyes += 1;
            return Slice::Done;
        };
        self.seated.remove(&caller);
        if let Some(next) = self.waiting.iter().position(|caller| !cx.has_ended(caller.session)) {
            self.seated.insert(self.waiting.remove(next));
        }
        Slice::More
    }

    fn timer_fired(&mut self, _: &mut Context<'_>, _: TimerId) {
        self.reminders += 1;
    }
}

impl Apply<Sit> for Desk {
    fn apply(&mut self, cx: &mut CommandContext<'_>, Sit: Sit) -> bool {
        let free = self.seated.len() < self.seats.into();
        match free {
            true => drop(self.seated.insert(cx.caller())),
            false => self.waiting.push(cx.caller()),
        }
        free
    }
}

impl Apply<Remind> for Desk {
    fn apply(&mut self, cx: &mut CommandContext<'_>, Remind(millis): Remind) -> TimerId {
        cx.set_timer_after(Duration::from_millis(millis))
    }
}

impl Apply<Forget> for Desk {
    fn apply(&mut self, cx: &mut CommandContext<'_>, Forget(timer): Forget) -> bool {
        cx.cancel_timer(timer)
    }
}

impl Apply<Draw> for Desk {
    fn apply(&mut self, cx: &mut CommandContext<'_>, Draw: Draw) -> u64 {
        cx.random().next_u64()
    }
}

impl Apply<Shy> for Desk {
    fn apply(&mut self, _: &mut CommandContext<'_>, _: Shy) {}
}

impl Answer<Look> for Desk {
    fn answer(&self, _: &QueryContext, Look: Look) -> Desk {
        self.clone()
    }
}

/// Another kind, with nothing to it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Nothing;

operations! {
    /// What can be asked of nothing.
    struct NoOperations;
    commands {}
    queries {}
}

impl Resource for Nothing {
    const KIND: &'static str = "nothing";
    const VERSION: u16 = 7;
    type Operations = NoOperations;
    type Configuration = ();
    type Event = NoEvent;

    fn create((): ()) -> Result<Self, BadConfiguration> {
        Ok(Nothing)
    }
}

fn registry() -> Registry {
    Registry::new().with::<Desk>().with::<Nothing>()
}

/// A registry without sessions or handles: entries by hand.
struct Bare {
    registry: Registry,
    levels: Levels,
    timers: Timers,
    published: Published,
    index: Index,
}

const ADA: SessionId = SessionId(1);
const BOB: SessionId = SessionId(2);

impl Bare {
    fn new() -> Self {
        Bare {
            registry: registry(),
            levels: registry().kinds().into_iter().collect(),
            timers: Timers::default(),
            published: Published::default(),
            index: Index(100),
        }
    }

    fn entry<T>(
        &mut self,
        session: Option<SessionId>,
        change: impl FnOnce(&mut Registry, &mut EntryContext<'_>) -> T,
    ) -> T {
        self.index = self.index.next();
        let time = ClusterTime(self.index.0);
        let mut cx = EntryContext::new(
            self.index,
            time,
            session,
            Sequence(self.index.0),
            &self.levels,
            &mut self.timers,
            &mut self.published,
        );
        change(&mut self.registry, &mut cx)
    }

    fn command(&mut self, session: SessionId, command: &Bytes) -> Bytes {
        self.entry(Some(session), |registry, cx| registry.apply(cx, command))
    }

    fn query(&self, session: SessionId, query: &Bytes) -> Bytes {
        let (index, time) = (self.index, ClusterTime(self.index.0));
        let cx = EntryQueryContext { index, time, session, levels: &self.levels };
        self.registry.query(&cx, query)
    }

    fn open(&mut self, session: SessionId, path: &str, kind: &str, sharing: Sharing) -> OpenReply {
        let open =
            OpenResource { path: path.into(), kind: kind.into(), configuration: Bytes::new(), sharing };
        codec::from_bytes(&self.command(session, &Envelope::Open(open).encode())).unwrap()
    }

    fn desk(&mut self, session: SessionId, path: &str) -> InstanceId {
        self.opened(session, path, Sharing::Own)
    }

    fn opened(&mut self, session: SessionId, path: &str, sharing: Sharing) -> InstanceId {
        match self.open(session, path, Desk::KIND, sharing) {
            OpenReply::Opened { instance, .. } => instance,
            other => panic!("{other:?}"),
        }
    }

    fn end(&mut self, session: SessionId) -> Slice {
        self.entry(None, |registry, cx| registry.session_ended(cx, session))
    }

    fn snapshot(&self) -> Bytes {
        written(&mut *self.registry.snapshot())
    }

    fn restored(&self, snapshot: Bytes) -> Result<Bare, RestoreError> {
        let mut restored = registry();
        restored.restore(snapshot)?;
        Ok(Bare {
            registry: restored,
            levels: self.levels.clone(),
            timers: self.timers.clone(),
            published: Published::default(),
            index: self.index,
        })
    }
}

fn written(source: &mut dyn atomix_session::SnapshotSource) -> Bytes {
    let mut out = Vec::new();
    source.write_to(&mut out).unwrap();
    out.into()
}

fn operation(instance: InstanceId, number: u16, body: &'static [u8]) -> Bytes {
    Envelope::Operation(envelope::Operation { instance, number }, Bytes::from_static(body)).encode()
}

fn status(reply: &Bytes) -> OperationStatus {
    codec::take_from_bytes(reply).unwrap().0
}

// Opening (M1).

#[test]
fn opening_is_refused_by_path_kind_and_configuration() {
    let mut bare = Bare::new();
    let before = bare.snapshot();
    assert_eq!(bare.open(ADA, "desk", Desk::KIND, Sharing::Own), OpenReply::BadPath);
    assert_eq!(bare.open(ADA, "/desk", "sofa", Sharing::Own), OpenReply::UnknownKind);
    for configuration in [&[1u8, 0][..], &[1], &[1, 5, 5], &[2]] {
        let open = OpenResource {
            path: "/desk".into(),
            kind: Desk::KIND.into(),
            configuration: Bytes::copy_from_slice(configuration),
            sharing: Sharing::Own,
        };
        let reply = bare.command(ADA, &Envelope::Open(open).encode());
        assert_eq!(codec::from_bytes(&reply), Ok(OpenReply::BadConfiguration), "{configuration:?}");
    }
    assert_eq!(bare.snapshot(), before, "what is refused leaves nothing behind");

    bare.desk(ADA, "/desk");
    let before = bare.snapshot();
    let wrong = OpenReply::WrongKind(Desk::KIND.into());
    assert_eq!(bare.open(ADA, "/desk", Nothing::KIND, Sharing::Own), wrong);
    assert_eq!(bare.snapshot(), before);
}

#[test]
fn a_shared_instance_is_one_for_a_session_and_an_own_one_is_always_new() {
    let mut bare = Bare::new();
    let own = bare.opened(ADA, "/desk", Sharing::Own);
    assert_eq!(own.0, bare.index.0, "an instance is named by the entry that opened it");
    let shared = bare.opened(ADA, "/desk", Sharing::Shared);
    assert_ne!(shared, own, "an own instance stays its owner's");
    assert_eq!(bare.opened(ADA, "/desk", Sharing::Shared), shared);
    let another = bare.opened(ADA, "/desk", Sharing::Own);
    assert!(another != own && another != shared);
    assert_ne!(bare.opened(BOB, "/desk", Sharing::Shared), shared);
    assert_ne!(bare.opened(ADA, "/other", Sharing::Shared), shared);
    assert_eq!(status(&bare.query(ADA, &operation(own, 32, &[]))), OperationStatus::Ok);
    assert_eq!(status(&bare.query(ADA, &operation(shared, 32, &[]))), OperationStatus::Ok);
}

#[test]
fn kinds_are_reported_with_their_highest_operation() {
    let kinds = registry().kinds();
    let kinds: Vec<_> = kinds.iter().map(|level| (level.kind.as_str(), level.level)).collect();
    assert_eq!(kinds, [("desk", 32), ("nothing", 1)]);
}

#[test]
#[should_panic(expected = "two kinds of resources are named \"desk\"")]
fn a_kind_is_registered_once() {
    let _ = registry().with::<Desk>();
}

// Decoding is total (M2).

#[test]
fn what_cannot_be_carried_out_is_refused_and_changes_nothing() {
    let mut bare = Bare::new();
    let desk = bare.desk(ADA, "/desk");
    let stranger = InstanceId(77);
    let commands = [
        (operation(stranger, 1, &[]), OperationStatus::UnknownInstance, "never opened"),
        (operation(desk, 9, &[]), OperationStatus::UnknownOperation, "not in the list"),
        (operation(desk, 32, &[]), OperationStatus::UnknownOperation, "a query's number"),
        (operation(desk, 0, &[]), OperationStatus::UnknownOperation, "no number at all"),
        (operation(desk, 1, &[0]), OperationStatus::Malformed, "left-over bytes"),
        (operation(desk, 2, &[]), OperationStatus::Malformed, "truncated"),
        (operation(desk, 2, &[0x80]), OperationStatus::Malformed, "half a number"),
        (Bytes::new(), OperationStatus::Malformed, "nothing"),
        (Bytes::from_static(&[9, 9]), OperationStatus::Malformed, "no such envelope"),
        (Bytes::from_static(&[2, 1]), OperationStatus::Malformed, "half an envelope"),
    ];
    for (command, refusal, why) in commands {
        let before = bare.snapshot();
        assert_eq!(bare.command(ADA, &command), codec::to_bytes(&refusal), "{why}");
        assert_eq!(bare.snapshot(), before, "{why}");
    }
    let foreign = bare.command(BOB, &operation(desk, 1, &[]));
    assert_eq!(status(&foreign), OperationStatus::UnknownInstance, "another session's");

    let open = OpenResource {
        path: "/new".into(),
        kind: Desk::KIND.into(),
        configuration: Bytes::new(),
        sharing: Sharing::Own,
    };
    let queries = [
        (operation(stranger, 32, &[]), OperationStatus::UnknownInstance, "never opened"),
        (operation(desk, 1, &[]), OperationStatus::UnknownOperation, "a command's number"),
        (operation(desk, 32, &[1]), OperationStatus::Malformed, "left-over bytes"),
        (Envelope::Open(open).encode(), OperationStatus::Malformed, "opening is a command"),
        (Bytes::new(), OperationStatus::Malformed, "nothing"),
    ];
    for (query, refusal, why) in queries {
        assert_eq!(bare.query(ADA, &query), codec::to_bytes(&refusal), "{why}");
    }
}

proptest! {
    #[test]
    fn whatever_bytes_arrive_there_is_a_reply_and_a_refusal_changes_nothing(
        random in proptest::collection::vec(any::<u8>(), 0..40),
        number in 0u16..40,
        framed in any::<bool>(),
    ) {
        let mut bare = Bare::new();
        let desk = bare.desk(ADA, "/desk");
        let random = Bytes::from(random);
        let bytes = match framed {
            true => Envelope::Operation(envelope::Operation { instance: desk, number }, random).encode(),
            false => random,
        };
        let before = bare.snapshot();
        bare.query(ADA, &bytes);
        let reply = bare.command(ADA, &bytes);
        if framed && status(&reply) != OperationStatus::Ok {
            prop_assert_eq!(bare.snapshot(), before);
        }
    }

    #[test]
    fn a_damaged_snapshot_is_refused_or_is_another_snapshot(at in any::<proptest::sample::Index>(), bit in 0u8..8) {
        let bare = furnished();
        let mut damaged = bare.snapshot().to_vec();
        let at = at.index(damaged.len());
        damaged[at] ^= 1 << bit;
        let damaged = Bytes::from(damaged);
        if let Ok(restored) = bare.restored(damaged.clone()) {
            prop_assert_eq!(restored.snapshot(), damaged, "read as something that is written differently");
        }
    }
}

// Timers (T2).

#[test]
fn a_timer_fires_at_the_resource_that_set_it() {
    let loopback = Loopback::new(registry());
    let session = loopback.session();
    let [left, right] = ["/left", "/right"].map(|path| open_desk(&session, path));
    let (_, timer) = ready(left.command(&Remind(500))).unwrap();
    let (_, other) = ready(left.command(&Remind(900))).unwrap();
    assert!(!ready(right.command(&Forget(other))).unwrap().1, "another resource's timer is out of reach");

    loopback.advance(Duration::from_millis(499));
    assert_eq!(look(&left).reminders, 0);
    loopback.snapshot_and_restore(registry());
    loopback.advance(Duration::from_millis(1));
    assert_eq!((look(&left).reminders, look(&right).reminders), (1, 0));
    assert!(!ready(left.command(&Forget(timer))).unwrap().1, "it has fired");
    assert!(ready(left.command(&Forget(other))).unwrap().1);
    loopback.advance(Duration::from_secs(10));
    assert_eq!(look(&left).reminders, 1);
}

#[test]
fn nothing_is_remembered_of_what_is_over() {
    let mut bare = Bare::new();
    let desk = bare.opened(ADA, "/desk", Sharing::Shared);
    let reply = bare.command(ADA, &operation(desk, 2, &[5]));
    let (_, fired): (OperationStatus, TimerId) = codec::from_bytes(&reply).unwrap();
    bare.entry(None, |registry, cx| registry.timer_fired(cx, fired));
    bare.command(ADA, &operation(desk, 2, &[5]));
    bare.command(ADA, &operation(desk, 3, &[1]));
    assert!(!bare.registry.remembers_nobody());
    while bare.end(ADA) == Slice::More {}
    assert!(bare.registry.remembers_nobody());
    // No timer of any resource: it is passed over.
    bare.entry(None, |registry, cx| registry.timer_fired(cx, TimerId(77)));
}

#[test]
fn chance_is_the_same_on_every_replica() {
    let [first, second] = [(), ()].map(|()| {
        let session = Loopback::new(registry()).session();
        let desk = open_desk(&session, "/desk");
        [(), ()].map(|()| ready(desk.command(&Draw)).unwrap().1)
    });
    assert_eq!(first, second);
    assert_ne!(first[0], first[1]);
}

// The end of a session (S9).

#[test]
fn an_ended_session_is_cleaned_up_in_slices_and_nothing_of_others_goes() {
    let mut bare = Bare::new();
    let theirs: Vec<_> = (0..5).map(|n| bare.desk(BOB, &format!("/desk-{n}"))).collect();
    let instances: Vec<_> = (0..500).map(|n| bare.desk(ADA, &format!("/desk-{}", n % 5))).collect();
    let mut slices = 1;
    while bare.end(ADA) == Slice::More {
        slices += 1;
        assert!(slices < 100);
    }
    assert!(slices >= 4, "500 instances in {slices} slices");
    for instance in &theirs {
        let goodbyes = desk(&bare, BOB, *instance).goodbyes;
        assert_eq!(goodbyes, 1, "a resource that is done with a session is left in peace");
    }
    for instance in instances {
        let reply = bare.command(ADA, &operation(instance, 1, &[]));
        assert_eq!(status(&reply), OperationStatus::UnknownInstance);
    }
    assert_eq!(status(&bare.command(BOB, &operation(theirs[3], 1, &[]))), OperationStatus::Ok);
    assert_eq!(bare.end(SessionId(99)), Slice::Done, "a session that never opened anything");
}

#[test]
fn nothing_is_granted_to_a_session_that_ended_before_the_resource_is_told() {
    let mut bare = Bare::new();
    // Bob owns seats at a desk that comes first in the clean-up, so that the second is not told at once.
    let first = bare.desk(BOB, "/first");
    let (ada, bob) = (bare.desk(ADA, "/second"), bare.desk(BOB, "/second"));
    for (session, instance) in [(BOB, first), (ADA, ada), (BOB, bob), (ADA, ada)] {
        bare.command(session, &operation(instance, 1, &[]));
    }
    assert_eq!(bare.end(BOB), Slice::More);
    assert_eq!(desk(&bare, ADA, ada).waiting.len(), 2, "not told yet");
    assert_eq!(bare.end(ADA), Slice::More);
    let second = desk(&bare, ADA, ada);
    assert!(second.seated.is_empty(), "the seat went to an ended session: {second:?}");
}

#[test]
fn a_snapshot_in_the_middle_of_a_clean_up_goes_on_where_it_was() {
    let mut bare = Bare::new();
    for n in 0..300 {
        let instance = bare.desk(ADA, &format!("/desk-{}", n % 3));
        bare.command(ADA, &operation(instance, 1, &[]));
    }
    loop {
        let mut other = bare.restored(bare.snapshot()).unwrap();
        let (slice, restored_slice) = (bare.end(ADA), other.end(ADA));
        assert_eq!(slice, restored_slice);
        assert_eq!(bare.snapshot(), other.snapshot());
        if slice == Slice::Done {
            break;
        }
    }
}

// Snapshots (M4).

/// A little of everything.
fn furnished() -> Bare {
    let mut bare = Bare::new();
    let desk = bare.desk(ADA, "/desk");
    bare.open(ADA, "/nothing", Nothing::KIND, Sharing::Shared);
    bare.command(ADA, &operation(desk, 1, &[]));
    bare.command(ADA, &operation(desk, 2, &[5]));
    let waits = bare.desk(BOB, "/desk");
    bare.command(BOB, &operation(waits, 1, &[]));
    let bob = bare.desk(BOB, "/bob");
    bare.command(BOB, &operation(bob, 1, &[]));
    assert_eq!(bare.end(BOB), Slice::More);
    bare
}

#[test]
fn golden_bytes_of_a_snapshot() {
    let expected = [
        &[24, 0, 0, 0, 0, 0, 0, 0][..],
        b"\x09instances\x01",
        // Instance, session, resource, sharing. That of the session that is ending is half gone.
        &[3, 101, 1, 101, 1, 102, 1, 102, 0, 107, 2, 107, 1],
        &[11, 0, 0, 0, 0, 0, 0, 0],
        b"\x06timers\x01",
        &[1, 0, 101],
        &[12, 0, 0, 0, 0, 0, 0, 0],
        b"\x06ending\x01",
        &[1, 2, 1, 101],
        &[12, 0, 0, 0, 0, 0, 0, 0],
        b"\x09resources\x01",
        &[3],
        &[30, 0, 0, 0, 0, 0, 0, 0],
        b"\x08resource\x01\x65\x05/desk\x04desk",
        &[1, 1, 1, 101, 103, 0, 0, 1],
        &[28, 0, 0, 0, 0, 0, 0, 0],
        b"\x08resource\x07\x66\x08/nothing\x07nothing",
        &[26, 0, 0, 0, 0, 0, 0, 0],
        b"\x08resource\x01\x6b\x04/bob\x04desk",
        &[1, 0, 0, 0, 0],
    ]
    .concat();
    let snapshot = furnished().snapshot();
    assert_eq!(snapshot[..], expected);
}

#[test]
fn a_restored_state_is_the_same_and_a_cut_one_is_refused() {
    let bare = furnished();
    let snapshot = bare.snapshot();
    let mut restored = bare.restored(snapshot.clone()).unwrap();
    assert_eq!(restored.snapshot(), snapshot);
    let shared = restored.open(ADA, "/nothing", Nothing::KIND, Sharing::Shared);
    assert_eq!(
        shared,
        OpenReply::Opened { instance: InstanceId(102), resource: ResourceId(102) },
        "the path and the shared instance are where they were"
    );
    assert_eq!(restored.snapshot(), snapshot);

    for end in 0..snapshot.len() {
        if let Ok(shorter) = bare.restored(snapshot.slice(..end)) {
            panic!("cut at {end}, read as {:?}", shorter.registry);
        }
    }
    let longer = Bytes::from([&snapshot[..], &[0]].concat());
    assert!(bare.restored(longer).is_err(), "left-over bytes");
}

#[test]
fn a_snapshot_whose_parts_do_not_fit_together_is_refused() {
    let bare = furnished();
    let mut rest = bare.snapshot();
    let mut parts = Vec::new();
    while !rest.is_empty() {
        parts.push(codec::take_part(&mut rest).unwrap());
    }
    let (instances, timers) = (0, 1);
    let (desk, nothing) = (parts[4].clone(), parts[5].clone());
    let mut namesake = desk.to_vec();
    namesake[10] = 108;
    let mut nowhere = desk.to_vec();
    nowhere[12] = b'?';
    let check = |why: &str, change: &dyn Fn(&mut Vec<Bytes>)| {
        let mut parts = parts.clone();
        change(&mut parts);
        let mut out = bytes::BytesMut::new();
        parts.iter().for_each(|part| codec::put_part(&mut out, part));
        bare.restored(out.freeze()).map(|bare| bare.registry).map_err(|error| format!("{why}: {error}"))
    };
    let refuse = |why: &str, change: &dyn Fn(&mut Vec<Bytes>)| {
        assert!(check(why, change).is_err(), "{why}");
    };
    check("as it was", &|_| ()).unwrap();
    refuse("a part missing", &|parts| drop(parts.remove(timers)));
    refuse("parts in another order", &|parts| parts.swap(instances, timers));
    refuse("a part of another version", &|parts| parts[timers] = Bytes::from_static(b"\x06timers\x02\x00"));
    refuse("resources in another order", &|parts| parts.swap(4, 5));
    refuse("a resource twice", &|parts| parts[4] = nothing.clone());
    refuse("two resources at one path", &|parts| parts[5] = namesake.clone().into());
    refuse("a resource at no path", &|parts| parts[4] = nowhere.clone().into());
    refuse("more resources than there are", &|parts| parts.push(namesake.clone().into()));
    refuse("fewer resources than there are", &|parts| drop(parts.pop()));
    refuse("two shared instances of one session", &|parts| {
        parts[instances] = Bytes::from_static(b"\x09instances\x01\x02\x66\x01\x66\x00\x67\x01\x66\x00");
    });
}

#[test]
fn a_snapshot_is_of_the_moment_it_was_taken() {
    let mut bare = furnished();
    let before = bare.snapshot();
    let mut source = bare.registry.snapshot();
    let desk = bare.desk(ADA, "/desk");
    bare.command(ADA, &operation(desk, 1, &[]));
    bare.desk(ADA, "/later");
    assert_eq!(written(&mut *source), before);
    assert_ne!(bare.snapshot(), before);
}

#[test]
fn a_snapshot_of_an_unknown_kind_or_version_is_refused() {
    let snapshot = furnished().snapshot();
    let mut fewer = Registry::new().with::<Desk>();
    let error = fewer.restore(snapshot).unwrap_err();
    assert_eq!(error.0, "/nothing is a nothing, which this binary does not know");
    assert!(Nothing::restore(7, &Bytes::new()).is_ok());
    assert_eq!(Nothing::restore(8, &Bytes::new()).unwrap_err().0, "nothing of version 8, known is 7");
}

// Handles.

fn open_desk(session: &Arc<dyn Session>, path: &str) -> Handle<Desk> {
    ready(Handle::open(session, path, &None, Sharing::Shared)).unwrap()
}

fn look(desk: &Handle<Desk>) -> Desk {
    ready(desk.query(&Look, Consistency::Linearizable)).unwrap().1
}

fn desk(bare: &Bare, session: SessionId, instance: InstanceId) -> Desk {
    let reply = bare.query(session, &operation(instance, 32, &[]));
    codec::from_bytes::<(OperationStatus, Desk)>(&reply).unwrap().1
}

#[test]
fn commands_take_effect_in_the_order_of_calls_not_of_polls() {
    let session = Loopback::new(registry()).session();
    let desk = open_desk(&session, "/desk");
    let (first, second) = (desk.command(&Sit), desk.command(&Sit));
    drop(desk.command(&Sit));
    let (second, first) = (ready(second).unwrap(), ready(first).unwrap());
    assert!(first.1 && !second.1);
    assert_eq!(second.0, first.0.next());
    assert_eq!(look(&desk).waiting.len(), 2, "a dropped future gives up the answer only");
    desk.command_detached(&Sit);
    assert_eq!(look(&desk).waiting.len(), 3);
}

#[test]
fn configuration_decides_when_created_and_not_later() {
    let session = Loopback::new(registry()).session();
    let open = |seats| ready(Handle::<Desk>::open(&session, "/desk", &seats, Sharing::Own));
    assert_eq!(open(Some(0)).unwrap_err(), ResourceError::BadConfiguration("/desk".into()));
    assert_eq!(look(&open(Some(4)).unwrap()).seats, 4);
    assert_eq!(look(&open(Some(2)).unwrap()).seats, 4);
    assert_eq!(look(&open(Some(0)).unwrap()).seats, 4);
}

#[test]
fn errors_say_whether_it_was_done() {
    let loopback = Loopback::new(registry());
    let session = loopback.session();
    let desk = open_desk(&session, "/desk");
    let wrong = ready(Handle::<Nothing>::open(&session, "/desk", &(), Sharing::Shared)).unwrap_err();
    assert_eq!(wrong.to_string(), "/desk is a desk, not a nothing");
    assert!(wrong.is_not_done() && !wrong.is_unknown());

    let bad = ready(Handle::<Desk>::open(&session, "desk", &None, Sharing::Shared)).unwrap_err();
    assert_eq!(bad, ResourceError::BadPath("desk".into()));

    assert_eq!(ready(desk.command(&Shy(true))).unwrap_err(), ResourceError::Unencodable);
    assert!(ready(desk.command(&Shy(false))).is_ok());

    let unknown = ResourceError::Unknown("link lost".into());
    assert!(unknown.is_unknown() && !unknown.is_not_done());

    let path = "/".to_owned() + &"x".repeat(limits::COMMAND_BYTES);
    let large = ready(Handle::<Desk>::open(&session, &path, &None, Sharing::Shared)).unwrap_err();
    assert_eq!(large, ResourceError::NotDone(NotDone::TooLarge));

    loopback.expire(session.id());
    assert_eq!(session.state(), SessionState::Expired);
    let ended = ready(desk.command(&Sit)).unwrap_err();
    assert_eq!(ended, ResourceError::NotDone(NotDone::SessionEnded));
}

#[test]
fn servers_of_another_version_are_reported_as_such() {
    /// A desk whose servers know less.
    #[derive(Clone, Serialize, Deserialize)]
    struct OldDesk(u8);
    operations! {
        /// Fewer.
        struct OldOperations;
        commands {}
        queries { 32: OldLook -> u8 }
    }
    #[derive(Serialize, Deserialize)]
    struct OldLook(u8);
    impl Resource for OldDesk {
        const KIND: &'static str = Desk::KIND;
        type Operations = OldOperations;
        type Configuration = ();
        type Event = NoEvent;
        fn create((): ()) -> Result<Self, BadConfiguration> {
            Ok(OldDesk(1))
        }
    }
    impl Answer<OldLook> for OldDesk {
        fn answer(&self, _: &QueryContext, _: OldLook) -> u8 {
            self.0
        }
    }
    let session = Loopback::new(Registry::new().with::<OldDesk>()).session();
    let desk = ready(Handle::<Desk>::open(&session, "/desk", &None, Sharing::Shared));
    assert_eq!(desk.unwrap_err(), ResourceError::BadConfiguration("/desk".into()));
    let _ = ready(Handle::<OldDesk>::open(&session, "/desk", &(), Sharing::Shared)).unwrap();
    let desk = open_desk(&session, "/desk");
    let not_understood = |operation| ResourceError::NotUnderstood { kind: "desk", operation };
    assert_eq!(ready(desk.command(&Sit)).unwrap_err(), not_understood(1));
    let look = ready(desk.query(&Look, Consistency::Linearizable));
    assert_eq!(look.unwrap_err(), not_understood(32));
}
