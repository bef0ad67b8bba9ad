//! Q1–Q4.

use std::time::Duration;

use atomix_protocol::client::Consistency;

use crate::world::{World, words};

#[test]
fn q3_a_linearizable_read_sees_what_completed_before() {
    let mut world = World::formed(3);
    let (writer, reader) = (world.client(None), world.client(None));
    world.session(reader);
    for number in 1..=5 {
        world.write(writer, &number.to_string());
        let expected: Vec<String> = (1..=number).map(|number| number.to_string()).collect();
        assert_eq!(world.read(reader, Consistency::Linearizable), expected.join(","));
    }
    let leader = world.leader().expect("one");
    assert_eq!(world.status(leader).counters.queries_answered, 5);
}

#[test]
fn q3_a_leader_without_a_majority_answers_no_linearizable_read() {
    let mut world = World::formed(3);
    let client = world.client(None);
    assert_eq!(world.write(client, "a"), "1");
    let leader = world.leader().expect("one");
    for other in (0..3).filter(|other| *other != leader) {
        world.cut(leader, other);
    }
    let number = world.ask(client, Consistency::Linearizable);
    let before = world.status(leader).counters.queries_answered;
    world.until("an answer", |world| world.clients[client].answers.contains_key(&number));
    assert_eq!(world.status(leader).counters.queries_answered, before, "the old leader answered");
    assert_eq!(words(&world.clients[client].answers[&number]), "a");
}

#[test]
fn q1_a_read_sees_the_commands_submitted_before_it() {
    for consistency in [Consistency::Linearizable, Consistency::Sequential] {
        let mut world = World::formed(3);
        let client = world.client(None);
        world.session(client);
        world.submit(client, "a");
        world.submit(client, "b");
        assert_eq!(world.read(client, consistency), "a,b", "{consistency:?}");
    }
}

#[test]
fn q4_a_follower_serves_sequential_reads_of_a_session_it_knows() {
    let mut world = World::formed(3);
    let follower = (world.leader().expect("one") + 1) % 3;
    let client = world.client(Some(follower));
    for number in 1..=10 {
        assert_eq!(world.write(client, "x"), number.to_string());
        let seen = world.read(client, Consistency::Sequential);
        assert_eq!(seen.split(',').count(), number, "a session sees what it wrote");
    }
    assert!(world.status(follower).counters.queries_answered > 0, "{}", world.describe());
}

#[test]
fn q4_a_follower_that_hears_no_leader_redirects() {
    let mut world = World::formed(3);
    let leader = world.leader().expect("one");
    let follower = (leader + 1) % 3;
    let client = world.client(Some(follower));
    assert_eq!(world.write(client, "a"), "1");
    assert_eq!(world.read(client, Consistency::Causal), "a");
    for other in (0..3).filter(|other| *other != follower) {
        world.cut(follower, other);
    }
    world.run(Duration::from_millis(200));
    let before = world.status(follower).counters.queries_answered;
    assert_eq!(world.read(client, Consistency::Causal), "a");
    assert_eq!(world.status(follower).counters.queries_answered, before);
}
