//! The core against crafted frames: what no server of ours would send in that order.

use atomix_protocol::client::{
    AnswerHeader, Attach, Attached, ClientResponse, EndReason, EventHeader, NotLogged, Opened, ReplyHeader,
    ReplyOutcome,
};
use atomix_protocol::codec::Frame;
use atomix_protocol::envelope::{Envelope, Operation};
use atomix_protocol::handshake::{Hello, Role};
use atomix_protocol::session::SessionEntry;
use atomix_protocol::{BootNonce, GroupId, Incarnation, ServerId};

use super::*;

const SESSION: SessionId = SessionId(3);
const TIMEOUT_MS: u64 = 3_000;
const MAIN: LinkId = LinkId(1);
const READER: LinkId = LinkId(2);

/// A core whose links are ours to answer.
struct Rig {
    core: Core,
    now: LocalTime,
}

impl Rig {
    fn new(read_from: Option<Address>) -> Self {
        let options = Options {
            client: ClientId(1),
            key: SessionKey(2),
            attempt: 4,
            servers: vec!["leader".into()],
            session_timeout: Duration::from_millis(TIMEOUT_MS),
            connect_timeout: Duration::from_secs(10),
            handshake_timeout: Duration::from_secs(5),
            window: 16,
            reserve: 4,
            command_bytes: 1_000,
            clock_drift: 0.05,
            read_from,
        };
        let now = LocalTime::from_millis(1_000);
        Rig { core: Core::new(options, 1, now), now }
    }

    /// A session on its first link.
    fn connected() -> Self {
        let mut rig = Rig::new(None);
        rig.open();
        rig
    }

    /// One with a read link beside it.
    fn with_reader() -> Self {
        let mut rig = Rig::new(Some("follower".into()));
        rig.open();
        rig.greet(READER);
        rig.respond(READER, attached());
        rig.drain();
        rig
    }

    fn open(&mut self) {
        self.greet(MAIN);
        self.respond(
            MAIN,
            ClientResponse::Opened(Opened { attempt: 4, session: SESSION, timeout_ms: TIMEOUT_MS }),
        );
        self.respond(MAIN, ClientResponse::Confirmed { contact: 1 });
        self.drain();
        assert_eq!(self.core.state(), SessionState::Connected);
    }

    fn greet(&mut self, link: LinkId) {
        let hello = Hello {
            role: Role::Server,
            server: Some(ServerId(1)),
            incarnation: Incarnation(1),
            ..Hello::of_client(Some(ClusterId(1)), BootNonce(1))
        };
        self.core.step(self.now, Input::Dialed(link));
        self.core.step(self.now, Input::Frame(link, Frame::Hello(hello).encode(GroupId::DEFAULT)));
    }

    fn respond(&mut self, link: LinkId, response: ClientResponse) {
        let frame = Frame::Response(response).encode(GroupId::DEFAULT);
        self.core.step(self.now, Input::Frame(link, frame));
    }

    /// An event for each of some instances, each with a body of its own.
    fn event(&mut self, index: u64, previous: u64, instances: &[u64]) {
        self.respond(MAIN, event(index, previous, instances, false));
    }

    fn reply(&mut self, sequence: u64, index: u64, event_index: u64) {
        let header = ReplyHeader {
            sequence: Sequence(sequence),
            index: Index(index),
            event_index: Index(event_index),
            outcome: ReplyOutcome::Applied,
        };
        self.respond(MAIN, ClientResponse::Reply(header, Bytes::new()));
    }

    fn answer(&mut self, link: LinkId, ticket: u64, index: u64, event_index: u64) {
        let header = AnswerHeader { ticket, index: Index(index), event_index: Index(event_index) };
        self.respond(link, ClientResponse::Answer(header, Bytes::new()));
    }

    /// A command of an instance.
    fn submit(&mut self, instance: u64) -> Sequence {
        let operation = Operation { instance: InstanceId(instance), number: 1 };
        let command = Envelope::Operation(operation, Bytes::new()).encode();
        self.core.submit(self.now, command, None).expect("there is room")
    }

    fn query(&mut self) -> u64 {
        self.core.query(self.now, Bytes::new(), Consistency::Sequential, None).expect("there is room")
    }

    /// Time passes up to whatever is due next.
    fn pass(&mut self) {
        self.now = self.core.next_deadline().expect("something is due");
        self.core.step(self.now, Input::Tick);
    }

    fn drain(&mut self) -> Vec<Output> {
        self.core.drain(self.now)
    }

    /// What the user was told, in few words.
    fn told(&mut self) -> Vec<String> {
        self.drain().iter().filter_map(in_words).collect()
    }

    fn requests(&mut self) -> Vec<ClientRequest> {
        self.drain().into_iter().filter_map(request).collect()
    }

    /// The acknowledgements that were sent, each in a frame of its own.
    fn acknowledgements(&mut self) -> Vec<u64> {
        let acknowledged = |request| match request {
            ClientRequest::Acknowledge { event } => Some(event.0),
            _ => None,
        };
        self.requests().into_iter().filter_map(acknowledged).collect()
    }

    /// The link is left for another one; what that states when it is attached (E4).
    fn attach_again(&mut self) -> (LinkId, Index) {
        loop {
            let dialed = |output| match output {
                Output::Dial(link, _) => Some(link),
                _ => None,
            };
            if let Some(link) = self.drain().into_iter().find_map(dialed) {
                self.greet(link);
                let attach = |request| match request {
                    ClientRequest::Attach(Attach { last_event, .. }) => Some(last_event),
                    _ => None,
                };
                let last_event = self.requests().into_iter().find_map(attach).expect("it attaches");
                self.respond(link, attached());
                return (link, last_event);
            }
            self.pass();
        }
    }
}

fn attached() -> ClientResponse {
    let last_sequence = Sequence::ZERO;
    ClientResponse::Attached(Attached { session: SESSION, timeout_ms: TIMEOUT_MS, last_sequence })
}

fn event(index: u64, previous: u64, instances: &[u64], atomic: bool) -> ClientResponse {
    let bodies: Vec<String> = instances.iter().map(|instance| format!("{index} for {instance}")).collect();
    let parts = instances.iter().zip(0..).map(|(instance, body)| (InstanceId(*instance), body)).collect();
    let lengths = bodies.iter().map(|body| body.len() as u32).collect();
    let (index, previous) = (Index(index), Index(previous));
    let header = EventHeader { index, previous, atomic, bodies: lengths, parts };
    ClientResponse::Event(header, Bytes::from(bodies.concat()))
}

fn in_words(output: &Output) -> Option<String> {
    match output {
        Output::Event { instance, index, body } => {
            let body = String::from_utf8_lossy(body);
            assert_eq!(body, format!("{index} for {instance}"));
            Some(format!("event {body}"))
        }
        Output::Completed(sequence, Ok(outcome)) => Some(format!("reply {sequence} at {}", outcome.index)),
        Output::Answered(number, Ok(outcome)) => Some(format!("answer {number} at {}", outcome.index)),
        Output::Completed(..) | Output::Answered(..) => Some("failure".into()),
        Output::State(state) => Some(format!("{state:?}")),
        _ => None,
    }
}

fn request(output: Output) -> Option<ClientRequest> {
    let Output::Send(_, frame) = output else { return None };
    match Frame::decode(&frame) {
        Ok(Frame::Request(request)) => Some(request),
        _ => None,
    }
}

/// The ticket under which the last query was asked.
fn ticket(rig: &mut Rig) -> u64 {
    let ticket = |request| match request {
        ClientRequest::Query(header, _) => Some(header.ticket),
        _ => None,
    };
    rig.requests().into_iter().filter_map(ticket).next_back().expect("it was asked")
}

#[test]
fn e4_events_are_delivered_once_in_order_and_before_what_came_behind_them() {
    let mut rig = Rig::connected();
    let sequence = rig.submit(5);
    rig.event(10, 0, &[5, 6]);
    rig.event(12, 10, &[6]);
    rig.reply(sequence.0, 12, 12);
    rig.event(13, 12, &[5]);
    assert_eq!(
        rig.told(),
        ["event 10 for 5", "event 10 for 6", "event 12 for 6", "reply 1 at 12", "event 13 for 5"]
    );
    rig.event(12, 10, &[6]);
    rig.event(13, 12, &[5]);
    rig.event(14, 13, &[5]);
    assert_eq!(rig.told(), ["event 14 for 5"]);
    assert_eq!(rig.core.events_deduplicated(), 2);
}

#[test]
fn e4_duplicates_are_acknowledged_again_at_once_and_together() {
    let mut rig = Rig::connected();
    rig.event(10, 0, &[5]);
    assert_eq!(rig.acknowledgements(), [0; 0], "nobody waits for it");
    rig.event(10, 0, &[5]);
    rig.event(10, 0, &[5]);
    assert_eq!(rig.acknowledgements(), [10]);
    assert_eq!(rig.acknowledgements(), [0; 0]);
}

#[test]
fn e4_the_first_gap_is_asked_for_again_and_the_second_ends_the_session() {
    let mut rig = Rig::connected();
    rig.event(10, 0, &[5]);
    rig.event(14, 12, &[5]);
    let outputs = rig.drain();
    assert_eq!(outputs.iter().filter_map(in_words).collect::<Vec<_>>(), ["event 10 for 5", "Suspended"]);
    assert!(outputs.contains(&Output::Close(MAIN)));

    let (link, last_event) = rig.attach_again();
    assert_eq!(last_event, Index(10));
    rig.respond(link, event(12, 10, &[5], false));
    rig.respond(link, event(14, 12, &[5], false));
    assert_eq!(rig.told(), ["event 12 for 5", "event 14 for 5"]);

    let waiting = rig.submit(5);
    rig.respond(link, event(20, 18, &[5], false));
    let (link, last_event) = rig.attach_again();
    assert_eq!(last_event, Index(14));
    rig.drain();
    rig.respond(link, event(20, 18, &[5], false));
    assert_eq!(rig.told(), ["failure", "Expired"], "command {waiting} is unknown");
    assert_eq!(rig.core.next_deadline(), None);
}

#[test]
fn e4_a_lost_link_is_followed_by_one_that_states_the_last_event() {
    let mut rig = Rig::connected();
    rig.event(10, 0, &[5]);
    rig.core.step(rig.now, Input::Closed(MAIN));
    let (link, last_event) = rig.attach_again();
    assert_eq!(last_event, Index(10));
    let acknowledged = rig.requests().into_iter().find_map(|request| match request {
        ClientRequest::KeepAlive(keep_alive) => Some(keep_alive.acknowledged_event),
        _ => None,
    });
    assert_eq!(acknowledged, Some(Index(10)));
    // What is still under way on the old link is nobody's.
    rig.event(12, 10, &[5]);
    rig.respond(link, event(12, 10, &[5], false));
    assert_eq!(rig.told(), ["event 12 for 5"]);
}

#[test]
fn a_malformed_event_costs_its_link_and_nothing_is_delivered() {
    let whole = |change: fn(&mut EventHeader)| {
        let ClientResponse::Event(mut header, body) = event(10, 0, &[5, 6], false) else {
            panic!("an event")
        };
        change(&mut header);
        ClientResponse::Event(header, body)
    };
    let malformed: [fn(&mut EventHeader); 4] = [
        |header| header.bodies[0] += 1,
        |header| header.bodies[1] -= 1,
        |header| header.bodies[1] = u32::MAX,
        |header| header.parts[1].1 = 2,
    ];
    for change in malformed {
        let mut rig = Rig::connected();
        rig.respond(MAIN, whole(change));
        assert_eq!(rig.told(), ["Suspended"]);
        let (link, last_event) = rig.attach_again();
        assert_eq!(last_event, Index::ZERO);
        rig.respond(link, whole(|header| header.parts[1].1 = 0));
        assert_eq!(rig.drain().iter().filter(|output| matches!(output, Output::Event { .. })).count(), 2);
    }
}

#[test]
fn e6_an_atomic_event_is_acknowledged_at_once_in_a_frame_of_its_own() {
    let mut rig = Rig::connected();
    rig.event(10, 0, &[5]);
    rig.respond(MAIN, event(11, 10, &[5], true));
    rig.event(12, 11, &[5]);
    rig.submit(5);
    assert_eq!(rig.acknowledgements(), [12]);
}

#[test]
fn e3_acknowledgements_follow_deliveries_at_a_bounded_distance() {
    let mut rig = Rig::connected();
    for index in 1..=63 {
        rig.event(index, index - 1, &[5]);
        assert_eq!(rig.acknowledgements(), [0; 0]);
    }
    rig.event(64, 63, &[5]);
    assert_eq!(rig.acknowledgements(), [64]);
    for index in 65..=127 {
        rig.event(index, index - 1, &[5]);
    }
    // A command carries it as well.
    rig.submit(5);
    let acknowledged = rig.requests().into_iter().find_map(|request| match request {
        ClientRequest::Command(entry) => match SessionEntry::decode(&entry) {
            Ok(SessionEntry::Command(header, _)) => Some(header.acknowledged_event),
            _ => None,
        },
        _ => None,
    });
    assert_eq!(acknowledged, Some(Index(127)));
    rig.event(128, 127, &[5]);
    assert_eq!(rig.acknowledgements(), [0; 0]);

    let large = |index: u64| {
        let (index, previous, length) = (Index(index), Index(index - 1), 40 << 10);
        let parts = vec![(InstanceId(5), 0)];
        let header = EventHeader { index, previous, atomic: false, bodies: vec![length], parts };
        ClientResponse::Event(header, Bytes::from(vec![0; length as usize]))
    };
    rig.respond(MAIN, large(129));
    assert_eq!(rig.acknowledgements(), [0; 0]);
    rig.respond(MAIN, large(130));
    assert_eq!(rig.acknowledgements(), [130]);
}

#[test]
fn e3_a_keep_alive_acknowledges_what_nobody_has_read_yet() {
    let mut rig = Rig::connected();
    rig.event(10, 0, &[5]);
    rig.drain();
    for _ in 0..9 {
        rig.pass();
        for request in rig.requests() {
            if let ClientRequest::KeepAlive(keep_alive) = request {
                return assert_eq!(keep_alive.acknowledged_event, Index(10));
            }
        }
    }
    panic!("no keep-alive");
}

#[test]
fn q2_a_reply_and_an_answer_ahead_of_their_events_wait_for_them() {
    let mut rig = Rig::with_reader();
    let (sequence, number) = (rig.submit(5), rig.query());
    let ticket = ticket(&mut rig);
    rig.reply(sequence.0, 12, 12);
    rig.answer(READER, ticket, 14, 13);
    assert_eq!(rig.told(), [""; 0]);
    // The link that brought it does not matter any more.
    rig.core.step(rig.now, Input::Closed(READER));
    rig.event(12, 0, &[5]);
    assert_eq!(rig.told(), ["event 12 for 5", "reply 1 at 12"]);
    rig.event(13, 12, &[5]);
    assert_eq!(rig.told(), ["event 13 for 5".to_string(), format!("answer {number} at 14")]);
}

#[test]
fn q2_a_read_from_before_an_event_is_repeated() {
    let mut rig = Rig::with_reader();
    let number = rig.query();
    let first = ticket(&mut rig);
    rig.event(12, 0, &[5]);
    rig.answer(READER, first, 11, 0);
    let second = ticket(&mut rig);
    rig.answer(READER, second, 12, 12);
    assert_eq!(rig.told(), [format!("answer {number} at 12")]);
}

#[test]
fn q2_what_waited_for_an_event_ends_with_the_session() {
    let mut rig = Rig::connected();
    let (done, open) = (rig.submit(5), rig.submit(6));
    let number = rig.query();
    let ticket = ticket(&mut rig);
    rig.reply(done.0, 12, 12);
    rig.answer(MAIN, ticket, 12, 12);
    assert_eq!(rig.told(), [""; 0]);
    let reason = EndReason::Expired;
    rig.respond(MAIN, ClientResponse::Ended { session: SESSION, reason });
    assert_eq!(rig.told(), ["reply 1 at 12", "failure", "failure", "Expired"], "{open}, {number}");
}

#[test]
fn s11_commands_of_different_instances_do_not_wait_for_each_other() {
    let mut rig = Rig::connected();
    let sequences: Vec<u64> = [5, 6, 5, 6].map(|instance| rig.submit(instance).0).to_vec();
    rig.reply(sequences[1], 11, 0);
    rig.reply(sequences[2], 12, 0);
    assert_eq!(rig.told(), ["reply 2 at 11"]);
    rig.reply(sequences[0], 10, 0);
    assert_eq!(rig.told(), ["reply 1 at 10", "reply 3 at 12"]);
}

#[test]
fn e6_a_leader_that_holds_a_reply_is_probed_and_not_left() {
    let mut rig = Rig::connected();
    rig.submit(5);
    rig.drain();
    let mut contacts = Vec::new();
    let held_for = Duration::from_millis(TIMEOUT_MS * 3);
    let until = rig.now + held_for;
    while rig.now < until {
        rig.pass();
        for request in rig.requests() {
            if let ClientRequest::KeepAlive(keep_alive) = request {
                contacts.push(keep_alive.contact);
                rig.respond(MAIN, ClientResponse::Confirmed { contact: keep_alive.contact });
            }
        }
        assert_eq!(rig.core.state(), SessionState::Connected);
    }
    assert!(contacts.len() > 9, "{contacts:?}");
    rig.reply(1, 10, 0);
    assert_eq!(rig.told(), ["reply 1 at 10"]);
    // One that says nothing at all is left.
    rig.submit(5);
    while !rig.drain().contains(&Output::Close(MAIN)) {
        rig.pass();
    }
}

#[test]
fn l2_a_session_that_is_being_closed_promises_nothing() {
    let mut rig = Rig::connected();
    assert!(rig.core.valid_until() > rig.now);
    let sequence = rig.submit(5);
    rig.core.close(rig.now);
    assert!(rig.core.valid_until() > rig.now, "it is not asked for before everything is answered");
    rig.reply(sequence.0, 20, 0);
    assert_eq!(rig.core.valid_until(), LocalTime::ZERO);
    assert!(rig.told().iter().any(|told| told.contains("Suspended")), "who sleeps until then is woken");
    // The server may have been too busy to log it: with the next contact it is asked again.
    assert!(!rig.requests().contains(&ClientRequest::Close), "once is enough for now");
    rig.pass();
    assert!(rig.requests().contains(&ClientRequest::Close));
    // A contact that is confirmed late changes nothing.
    rig.core.step(rig.now, Input::Tick);
    rig.respond(MAIN, ClientResponse::Confirmed { contact: 2 });
    assert_eq!(rig.core.valid_until(), LocalTime::ZERO);
}

#[test]
fn s2_what_is_submitted_from_drop_is_never_refused_for_want_of_room() {
    let mut rig = Rig::connected();
    for _ in 0..16 {
        rig.submit(5);
    }
    let from_drop = |number: u8| Bytes::from(vec![number]);
    for number in 0..9 {
        let sequence = rig.core.submit_detached(rig.now, from_drop(number));
        assert_eq!(sequence, Ok(Sequence(17 + u64::from(number))), "taken at the call");
    }
    let next = Envelope::Operation(Operation { instance: InstanceId(5), number: 1 }, Bytes::new()).encode();
    rig.drain();
    for answered in 1..=9 {
        let refused = rig.core.submit(rig.now, next.clone(), None);
        assert_eq!(refused, Err(NotDone::Busy), "nothing overtakes them");
        rig.reply(answered, 100 + answered, 0);
    }
    rig.reply(10, 110, 0);
    // Sixteen before them, and those behind the reserve as it emptied.
    let bodies = rig.requests().into_iter().filter_map(|request| match request {
        ClientRequest::Command(entry) => match SessionEntry::decode(&entry) {
            Ok(SessionEntry::Command(header, body)) => Some((header.sequence.0, body)),
            other => panic!("{other:?}"),
        },
        _ => None,
    });
    let expected: Vec<_> = (4..9).map(|number| (17 + u64::from(number), from_drop(number))).collect();
    assert_eq!(bodies.collect::<Vec<_>>(), expected);
    rig.core.submit(rig.now, next, None).expect("there is room again");
}

#[test]
fn l2_who_counts_on_a_session_is_woken_by_its_close_also_when_it_was_in_doubt_before() {
    let mut rig = Rig::connected();
    rig.core.step(rig.now, Input::Closed(MAIN));
    assert_eq!(rig.core.state(), SessionState::Suspended);
    rig.core.close(rig.now);
    while rig.core.link_mut(connection::Which::Main).is_none() {
        rig.pass();
    }
    rig.drain();
    let link = LinkId(rig.core.last_link);
    rig.greet(link);
    rig.drain();
    assert!(rig.core.valid_until() > rig.now);
    rig.respond(link, attached());
    let outputs = rig.drain();
    let said = outputs.iter().position(|output| *output == Output::State(SessionState::Suspended));
    let asked =
        outputs.iter().position(|output| matches!(request(output.clone()), Some(ClientRequest::Close)));
    assert!(said.is_some() && said < asked, "first the promise is taken back, then the close is asked for");
    assert_eq!(rig.core.valid_until(), LocalTime::ZERO);
}

#[test]
fn s2_what_is_submitted_from_drop_is_not_given_up_because_a_server_is_busy_or_full() {
    let mut rig = Rig::connected();
    rig.core.submit_detached(rig.now, Bytes::from_static(b"give it back")).expect("never refused");
    for reason in [NotLogged::Busy, NotLogged::Full, NotLogged::Full] {
        rig.drain();
        rig.respond(MAIN, ClientResponse::NotLogged { sequence: Sequence(1), reason });
        let sent = loop {
            let sent = rig.requests().into_iter().find_map(|request| match request {
                ClientRequest::Command(entry) => Some(SessionEntry::decode(&entry)),
                _ => None,
            });
            match sent {
                Some(sent) => break sent,
                None => rig.pass(),
            }
        };
        assert!(matches!(&sent, Ok(SessionEntry::Command(_, body)) if body == "give it back"), "{sent:?}");
    }
}

/// A skip takes a little of the reserve: it does not come at once, and its caller learns why there is no room.
#[test]
fn d5_a_command_that_finds_the_disks_full_is_skipped_after_a_while_and_says_so() {
    let mut rig = Rig::connected();
    let sequence = rig.core.submit(rig.now, Bytes::from_static(b"write"), None).expect("room");
    rig.drain();
    rig.respond(MAIN, ClientResponse::NotLogged { sequence, reason: NotLogged::Full });
    assert_eq!(rig.requests(), [], "not at once");
    let skip = loop {
        rig.pass();
        let sent = rig.requests().into_iter().find_map(|request| match request {
            ClientRequest::Command(entry) => Some(SessionEntry::decode(&entry)),
            _ => None,
        });
        if let Some(sent) = sent {
            break sent;
        }
    };
    assert!(matches!(&skip, Ok(SessionEntry::Skip(header)) if header.sequence == sequence), "{skip:?}");
    let header =
        ReplyHeader { sequence, index: Index(9), event_index: Index::ZERO, outcome: ReplyOutcome::Skipped };
    rig.respond(MAIN, ClientResponse::Reply(header, Bytes::new()));
    let ended = rig.drain().into_iter().find_map(|output| match output {
        Output::Completed(ended, result) => Some((ended, result)),
        _ => None,
    });
    assert_eq!(ended, Some((sequence, Err(SessionError::NotDone(NotDone::Full)))));
}
