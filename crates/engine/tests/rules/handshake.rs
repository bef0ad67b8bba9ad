//! I5.

use std::time::Duration;

use atomix_engine::{Input, Output, StopReason};
use atomix_protocol::codec::Frame;
use atomix_protocol::handshake::{Hello, Refusal, RefusalReason, Role};
use atomix_protocol::{BootNonce, ClusterId, GroupId, Incarnation, LinkId, ServerId};

use crate::solo::{CLUSTER, Solo, address, client, incarnation, peer};
use crate::world::World;

/// What a member of three answers to a first frame.
#[track_caller]
fn check(hello: Hello, expected: Result<Role, RefusalReason>) {
    let mut solo = Solo::member(3);
    let link = solo.greeted_by(hello.clone());
    match (expected, &solo.sent(link)[..]) {
        // Behind it a client is told where the servers are.
        (Ok(role), [Frame::Hello(answer)] | [Frame::Hello(answer), Frame::Response(_)]) => {
            assert_eq!(answer.role, role);
            assert_eq!((answer.cluster, answer.server), (Some(CLUSTER), Some(ServerId(1))));
            assert_eq!((answer.incarnation, answer.boot_nonce), (incarnation(1), BootNonce(1)));
            assert!(!solo.is_closed(link));
        }
        (Err(reason), [Frame::Refusal(refusal)]) => {
            assert_eq!(refusal.reason, reason, "{hello:?}");
            assert!(!refusal.detail.is_empty());
            assert!(solo.is_closed(link));
            assert_eq!(solo.engine.status(solo.now).counters.frames_refused, 1);
        }
        (expected, sent) => panic!("{hello:?}: {sent:?} instead of {expected:?}"),
    }
}

#[test]
fn i5_every_first_frame_is_judged() {
    check(peer(2), Ok(Role::Peer));
    check(client(None), Ok(Role::Server));
    check(client(Some(CLUSTER)), Ok(Role::Server));
    check(Hello { versions: (0, u16::MAX), ..peer(2) }, Ok(Role::Peer));
    check(Hello { cluster: None, server: None, ..peer(2) }, Ok(Role::Peer));
    check(Hello { cluster: None, server: None, ..peer(9) }, Ok(Role::Peer));

    check(Hello { magic: 1, ..peer(2) }, Err(RefusalReason::Version));
    check(Hello { versions: (2, 9), ..peer(2) }, Err(RefusalReason::Version));
    check(Hello { versions: (0, 0), ..peer(2) }, Err(RefusalReason::Version));
    check(Hello { versions: (9, 0), ..client(None) }, Err(RefusalReason::Version));
    check(Hello { group: GroupId(1), ..peer(2) }, Err(RefusalReason::UnknownGroup));
    check(Hello { role: Role::Server, ..peer(2) }, Err(RefusalReason::WrongRole));
    check(Hello { cluster: Some(ClusterId(8)), ..peer(2) }, Err(RefusalReason::ForeignCluster));
    check(client(Some(ClusterId(8))), Err(RefusalReason::ForeignCluster));
    check(Hello { incarnation: incarnation(9), ..peer(2) }, Err(RefusalReason::NotAMember));
    check(Hello { server: Some(ServerId(4)), ..peer(2) }, Err(RefusalReason::NotAMember));
    check(Hello { server: None, ..peer(2) }, Err(RefusalReason::NotAMember));
    check(Hello { boot_nonce: BootNonce(2), ..peer(1) }, Err(RefusalReason::DuplicateIdentity));
    check(Hello { boot_nonce: BootNonce(1), ..peer(1) }, Err(RefusalReason::WrongRole));
    let pretender = Hello { cluster: None, server: None, incarnation: incarnation(1), ..peer(2) };
    check(pretender, Err(RefusalReason::DuplicateIdentity));
}

#[test]
fn i5_the_one_who_dials_speaks_first() {
    let mut solo = Solo::member(3);
    let accepted = solo.accept();
    assert_eq!(solo.sent(accepted), []);
    let dialed = solo.dialed(&address(2));
    let [Frame::Hello(hello)] = &solo.sent(dialed)[..] else { panic!("{:?}", solo.sent(dialed)) };
    assert_eq!((hello.role, hello.server), (Role::Peer, Some(ServerId(1))));
}

#[test]
fn i5_a_dialled_server_must_be_the_one_meant() {
    let wrong = [
        Hello { role: Role::Server, ..peer(2) },
        Hello { role: Role::Client, ..peer(2) },
        peer(3),
        Hello { cluster: Some(ClusterId(8)), ..peer(2) },
    ];
    for hello in wrong {
        let mut solo = Solo::member(3);
        let link = solo.dialed(&address(2));
        solo.hear(link, &Frame::Hello(hello.clone()));
        assert!(solo.is_closed(link), "{hello:?}");
    }
    let mut solo = Solo::member(3);
    let link = solo.dialed(&address(2));
    solo.hear(link, &Frame::Hello(peer(2)));
    assert!(!solo.is_closed(link));
}

#[test]
fn i5_nothing_else_is_parsed_before_the_handshake() {
    let valid = Frame::Ping(1).encode(GroupId::DEFAULT);
    let mut other_group = Frame::Hello(peer(2)).encode(GroupId::DEFAULT).to_vec();
    other_group[1] = 9;
    for bytes in [&valid[..], b"GET / HTTP/1.1\r\n\r\n", b"", &[1; 3], &[40; 400]] {
        let mut solo = Solo::member(3);
        let link = solo.accept();
        solo.hear_bytes(link, bytes);
        assert!(solo.is_closed(link));
        assert_eq!(solo.sent(link), []);
    }
    let mut solo = Solo::member(3);
    let link = solo.accept();
    solo.hear_bytes(link, &other_group);
    assert!(matches!(&solo.sent(link)[..], [Frame::Refusal(r)] if r.reason == RefusalReason::UnknownGroup));
}

#[test]
fn i5_a_link_without_a_handshake_closes_in_time() {
    let mut solo = Solo::member(3);
    let (accepted, dialed) = (solo.accept(), solo.dialed(&address(2)));
    solo.wait(Duration::from_millis(4_900));
    assert!(!solo.is_closed(accepted) && !solo.is_closed(dialed));
    solo.wait(Duration::from_millis(200));
    assert!(solo.is_closed(accepted) && solo.is_closed(dialed));
}

#[test]
fn i5_too_many_links_are_refused_as_busy() {
    let mut solo = Solo::member(1);
    for _ in 0..10_000 {
        solo.accept();
    }
    solo.outputs.clear();
    let link = solo.accept();
    assert!(matches!(&solo.sent(link)[..], [Frame::Refusal(r)] if r.reason == RefusalReason::Busy));
    assert!(solo.is_closed(link));
}

#[test]
fn i5_clients_leave_room_for_servers() {
    let mut solo = Solo::member(3);
    let refused = |solo: &Solo, link| matches!(solo.sent(link).last(), Some(Frame::Refusal(_)));
    let last = (0..10_000).map(|_| solo.greeted_by(client(None))).last().expect("many");
    assert!(refused(&solo, last) && solo.is_closed(last));
    let server = solo.greeted_by(peer(2));
    assert!(matches!(solo.sent(server)[..], [Frame::Hello(_)]) && !solo.is_closed(server));
}

fn again(server: u64) -> Hello {
    Hello { boot_nonce: BootNonce(server * 10 + 1), ..peer(server) }
}

fn probe_on(solo: &Solo, link: LinkId) -> u64 {
    let pings = solo.sent(link).into_iter().filter_map(|frame| match frame {
        Frame::Ping(token) => Some(token),
        _ => None,
    });
    pings.last().expect("a probe")
}

#[test]
fn i5_the_later_of_two_live_processes_is_refused() {
    let mut solo = Solo::member(3);
    let older = solo.greeted_by(peer(2));
    let newer = solo.greeted_by(again(2));
    assert_eq!(solo.sent(newer), [], "nothing is said before it is known which one stays");
    let probe = probe_on(&solo, older);
    solo.hear(older, &Frame::Pong(probe));
    assert!(
        matches!(&solo.sent(newer)[..], [Frame::Refusal(r)] if r.reason == RefusalReason::DuplicateIdentity)
    );
    assert!(solo.is_closed(newer) && !solo.is_closed(older));
    assert_eq!(solo.engine.marks().duplicate_refused, 1);
}

#[test]
fn i5_an_older_process_that_does_not_answer_goes() {
    let mut solo = Solo::member(3);
    let older = solo.greeted_by(peer(2));
    let newer = solo.greeted_by(again(2));
    solo.wait(Duration::from_millis(900));
    assert!(!solo.is_closed(older));
    solo.wait(Duration::from_millis(200));
    assert!(solo.is_closed(older) && !solo.is_closed(newer));
    assert!(matches!(&solo.sent(newer)[..], [Frame::Hello(_)]));
    // An answer that comes now, on a link that is gone, changes nothing.
    let probe = probe_on(&solo, older);
    solo.hear(older, &Frame::Pong(probe));
    assert!(!solo.is_closed(newer));
}

#[test]
fn i5_an_older_process_whose_links_close_makes_room_at_once() {
    let mut solo = Solo::member(3);
    let older = solo.greeted_by(peer(2));
    let newer = solo.greeted_by(again(2));
    solo.step(Input::Closed(older));
    assert!(matches!(&solo.sent(newer)[..], [Frame::Hello(_)]));
}

#[test]
fn i5_a_stranger_can_not_answer_for_the_older_process() {
    let mut solo = Solo::member(3);
    let older = solo.greeted_by(peer(2));
    let newer = solo.greeted_by(again(2));
    let (bystander, client) = (solo.greeted_by(peer(3)), solo.greeted_by(client(None)));
    let probe = probe_on(&solo, older);
    for link in [bystander, client, newer] {
        solo.hear(link, &Frame::Pong(probe));
    }
    assert!(!solo.is_closed(newer));
    solo.wait(Duration::from_millis(1_100));
    assert!(solo.is_closed(older) && !solo.is_closed(newer));
}

#[test]
fn i5_a_later_process_that_is_dialled_is_refused_too() {
    let mut solo = Solo::member(3);
    let older = solo.greeted_by(peer(2));
    let newer = solo.dialed(&address(2));
    solo.hear(newer, &Frame::Hello(again(2)));
    let probe = probe_on(&solo, older);
    solo.hear(older, &Frame::Pong(probe));
    let sent = solo.sent(newer);
    assert!(
        matches!(&sent[..], [Frame::Hello(_), Frame::Refusal(r)] if r.reason == RefusalReason::DuplicateIdentity)
    );
    assert!(solo.is_closed(newer));
}

/// Two wait for one that is silent. The first takes its place, and the second waits for that one then.
#[test]
fn i5_no_process_goes_that_was_not_asked_whether_it_lives() {
    for lives in [true, false] {
        let mut solo = Solo::member(3);
        let oldest = solo.greeted_by(peer(2));
        let older = solo.greeted_by(again(2));
        solo.wait(Duration::from_millis(500));
        let newest = solo.greeted_by(Hello { boot_nonce: BootNonce(77), ..peer(2) });
        solo.wait(Duration::from_millis(600));
        assert!(solo.is_closed(oldest) && !solo.is_closed(older) && !solo.is_closed(newest));
        let probe = probe_on(&solo, older);
        solo.wait(Duration::from_millis(500));
        assert!(!solo.is_closed(older) && !solo.is_closed(newest), "it has its second from then on");
        if lives {
            solo.hear(older, &Frame::Pong(probe));
        }
        solo.wait(Duration::from_millis(500));
        assert_eq!((solo.is_closed(older), solo.is_closed(newest)), (!lives, lives));
    }
}

#[test]
fn i5_a_process_that_dials_anew_replaces_its_own_link() {
    let mut solo = Solo::member(3);
    let older = solo.greeted_by(peer(2));
    let newer = solo.greeted_by(peer(2));
    assert!(solo.is_closed(older) && !solo.is_closed(newer));
    assert!(matches!(&solo.sent(newer)[..], [Frame::Hello(_)]));
}

fn refusal(reason: RefusalReason) -> Frame {
    Frame::Refusal(Refusal { reason, detail: "because".into() })
}

fn stopped(solo: &Solo) -> Option<&StopReason> {
    let reasons = solo.outputs.iter().map(|output| match output {
        Output::Stop(reason) => Some(reason),
        _ => None,
    });
    reasons.last().flatten()
}

#[test]
fn i5_a_server_refused_as_a_duplicate_stops() {
    let mut dialed = Solo::member(3);
    let link = dialed.dialed(&address(2));
    dialed.hear(link, &refusal(RefusalReason::DuplicateIdentity));
    assert!(matches!(stopped(&dialed), Some(StopReason::DuplicateIdentity(_))));
    dialed.wait(Duration::from_secs(1));
    assert!(stopped(&dialed).is_some(), "nothing follows a stop");

    let mut accepted = Solo::member(3);
    let link = accepted.greeted_by(peer(2));
    accepted.hear(link, &refusal(RefusalReason::DuplicateIdentity));
    assert!(matches!(stopped(&accepted), Some(StopReason::DuplicateIdentity(_))));
}

#[test]
fn i5_a_client_can_not_stop_a_server() {
    let mut solo = Solo::member(3);
    let (link, silent) = (solo.greeted_by(client(None)), solo.accept());
    for link in [link, silent] {
        solo.hear(link, &refusal(RefusalReason::DuplicateIdentity));
        assert!(solo.is_closed(link));
    }
    assert_eq!(stopped(&solo), None);
}

#[test]
fn i5_a_server_without_a_cluster_can_not_stop_another() {
    let strangers = [Solo::member(3), Solo::empty(3)];
    for mut solo in strangers {
        let link = solo.greeted_by(Hello { cluster: None, server: None, ..peer(2) });
        solo.hear(link, &refusal(RefusalReason::DuplicateIdentity));
        assert_eq!(stopped(&solo), None);
        assert!(solo.is_closed(link));
    }
}

#[test]
fn i5_a_server_that_nobody_knows_can_not_stop_another() {
    let mut solo = Solo::member(3);
    let link = solo.greeted_by(peer(9));
    assert!(!solo.is_closed(link), "it may be newer than what is known");
    solo.hear(link, &refusal(RefusalReason::DuplicateIdentity));
    assert_eq!(stopped(&solo), None);
    assert!(solo.is_closed(link));
}

#[test]
fn i5_other_refusals_are_tried_again_later() {
    for reason in
        [RefusalReason::Busy, RefusalReason::NotAMember, RefusalReason::Version, RefusalReason::WrongRole]
    {
        let mut solo = Solo::member(3);
        let link = solo.dialed(&address(2));
        solo.hear(link, &refusal(reason));
        solo.outputs.clear();
        solo.wait(Duration::from_millis(200));
        let dials =
            |solo: &Solo| solo.outputs.iter().any(|o| matches!(o, Output::Dial(_, to) if *to == address(2)));
        assert!(!dials(&solo), "slowly: {reason:?}");
        solo.wait(Duration::from_millis(400));
        assert!(dials(&solo), "{reason:?}");
    }
}

#[test]
fn i5_a_directory_among_strangers_stops() {
    let mut solo = Solo::member(3);
    for server in [2, 3] {
        assert_eq!(stopped(&solo), None, "one stranger proves nothing");
        let link = solo.dialed(&address(server));
        solo.hear(link, &refusal(RefusalReason::ForeignCluster));
    }
    assert!(matches!(stopped(&solo), Some(StopReason::ForeignCluster(_))));
}

#[test]
fn i5_a_stranger_does_not_stop_a_server_that_met_its_own() {
    let mut solo = Solo::listed(3, vec![address(1), address(2), address(3), address(4), address(5)]);
    let link = solo.dialed(&address(2));
    solo.hear(link, &Frame::Hello(peer(2)));
    for server in [3, 4, 5] {
        let link = solo.dialed(&address(server));
        solo.hear(link, &refusal(RefusalReason::ForeignCluster));
    }
    assert_eq!(stopped(&solo), None);
}

#[test]
fn i5_an_empty_server_among_strangers_does_not_stop() {
    let mut solo = Solo::empty(3);
    for server in [2, 3] {
        let link = solo.dialed(&address(server));
        solo.hear(link, &refusal(RefusalReason::ForeignCluster));
    }
    assert_eq!(stopped(&solo), None);
}

#[test]
fn i5_a_directory_of_another_cluster_stops_and_the_cluster_goes_on() {
    let mut world = World::formed(3);
    let mut other = World::formed(3);
    other.until("all", |world| (0..3).all(|index| world.servers[index].disk.configuration.is_some()));
    let mut foreign = other.servers[2].disk.clone();
    // Both worlds draw the same numbers: make it another cluster.
    if let Some(configuration) = &mut foreign.configuration {
        configuration.cluster = ClusterId(99);
    }
    foreign.identity = foreign.identity.map(|mut identity| {
        identity.incarnation = Incarnation(99);
        identity
    });
    if let Some(configuration) = &mut foreign.configuration {
        configuration.members[2].incarnation = Incarnation(99);
    }
    foreign.entries.clear();
    world.crash(2);
    world.servers[2].disk = foreign;
    world.start(2);
    world.until("its end", |world| world.servers[2].stopped.is_some());
    assert!(matches!(world.servers[2].stopped, Some(StopReason::ForeignCluster(_))));
    world.run(Duration::from_secs(5));
    assert!(world.leader().is_some() && world.servers[..2].iter().all(|server| server.stopped.is_none()));
}

#[test]
fn i5_a_copied_directory_started_beside_its_original_stops() {
    let mut world = World::formed(3);
    let client = world.client(None);
    assert_eq!(world.write(client, "a"), "1");
    // The copy runs at an address of its own, told of the same servers.
    let mut copy = World::new(4);
    copy.servers[3].disk = world.servers[2].disk.clone();
    let mut server = copy.servers.pop().expect("four");
    server.list = world.servers[2].list.clone();
    world.servers.push(server);
    world.start(3);
    world.until("its end", |world| world.servers[3].stopped.is_some());
    assert!(matches!(world.servers[3].stopped, Some(StopReason::DuplicateIdentity(_))));
    world.run(Duration::from_secs(3));
    assert!(world.servers[..3].iter().all(|server| server.stopped.is_none()));
    assert_eq!(world.write(client, "b"), "2");
}
