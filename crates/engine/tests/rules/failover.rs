//! Events through the loss of leaders, with real clients (E1–E6).

use std::time::Duration;

use atomix_engine::Marks;
use rand::rngs::Xoshiro256PlusPlus;
use rand::{Rng, SeedableRng};

use crate::world::World;

/// A cluster with a small outbox, a writer and watchers.
fn world(seed: u64) -> (World, usize, Vec<usize>) {
    let mut world = World::new(3).seeded(seed + 1);
    world.options = |options| {
        options.outbox_events = 400;
        options.snapshot_log_bytes = 4_096;
        options.raft.snapshot_chunk_bytes = 500;
    };
    world.start_all();
    world.until("a leader", |world| world.leader().is_some());
    let writer = world.client(None);
    let watchers: Vec<usize> = (0..2).map(|_| world.client(None)).collect();
    for watcher in &watchers {
        world.write(*watcher, "watch");
    }
    (world, writer, watchers)
}

fn disturb(world: &mut World, random: &mut Xoshiro256PlusPlus, watchers: &[usize]) {
    let leader = world.leader();
    match (random.next_u64() % 8, leader) {
        (0, Some(leader)) => world.crash(leader),
        (1, Some(leader)) => world.isolate(leader),
        (2, _) => world.cut_off(watchers[0]),
        (3, _) => world.heal(),
        _ => {
            world.heal();
            for index in 0..3 {
                if world.servers[index].engine.is_none() {
                    world.start(index);
                }
            }
        }
    }
}

fn run(seed: u64) -> Vec<Marks> {
    let mut random = Xoshiro256PlusPlus::seed_from_u64(seed);
    let (mut world, writer, watchers) = world(seed);
    let mut marks = Vec::new();
    let mut told = 0;
    for _ in 0..30 {
        marks.extend(world.servers.iter().filter_map(|server| Some(*server.engine.as_ref()?.marks())));
        disturb(&mut world, &mut random, &watchers);
        for _ in 0..random.next_u64() % 20 {
            told += 1;
            let hold = if random.next_u64().is_multiple_of(4) { "!" } else { "" };
            world.submit(writer, &format!("{hold}tell {told}"));
        }
        world.run(Duration::from_micros(random.next_u64() % 300_000));
    }
    world.heal();
    for index in 0..3 {
        if world.servers[index].engine.is_none() {
            world.start(index);
        }
    }
    let all = |world: &World| watchers.iter().all(|watcher| world.clients[*watcher].events.len() >= told);
    world.until("all events", all);
    world.until("all replies", |world| world.clients[writer].endings.len() == told);
    assert!(world.clients[writer].endings.values().all(Result::is_ok), "seed {seed}");
    let expected: Vec<String> = (1..=told).map(|number| number.to_string()).collect();
    for watcher in &watchers {
        let events = &world.clients[*watcher].events;
        let texts: Vec<String> = events.iter().map(|(_, text)| text.clone()).collect();
        assert_eq!(texts, expected, "seed {seed}: each once, in order, none missing");
        assert!(events.is_sorted_by(|a, b| a.0 < b.0));
    }
    let digest = |world: &World, index: usize| world.engine(index).table().digest();
    world.until("one state", |world| (1..3).all(|index| digest(world, index) == digest(world, 0)));
    marks.extend((0..3).map(|index| *world.engine(index).marks()));
    marks
}

#[test]
fn e4_each_event_once_and_in_order_through_everything() {
    let marks: Vec<Marks> = (0..25).flat_map(run).collect();
    let met = |mark: fn(&Marks) -> u64| marks.iter().any(|marks| mark(marks) > 0);
    assert!(met(|marks| marks.events_resent), "vacuous");
    assert!(met(|marks| marks.acknowledge_entries), "vacuous");
    assert!(met(|marks| marks.replies_held), "vacuous");
    assert!(!met(|marks| marks.overflows) && !met(|marks| marks.sessions_expired));
}
