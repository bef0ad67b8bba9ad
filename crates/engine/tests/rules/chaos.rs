//! Everything at once: crashes, restarts and cuts while clients write and read. A small sibling of the simulator, for this crate alone.

use std::time::Duration;

use atomix_engine::Marks;
use atomix_protocol::client::Consistency;
use rand::rngs::Xoshiro256PlusPlus;
use rand::{Rng, SeedableRng};

use crate::world::World;

fn disturb(world: &mut World, random: &mut Xoshiro256PlusPlus) {
    let count = world.servers.len();
    let victim = random.next_u64() as usize % count;
    let other = random.next_u64() as usize % count;
    match random.next_u64() % 8 {
        0 | 1 => world.crash(victim),
        2 => world.vanish(victim),
        3 => world.isolate(victim),
        4 if victim != other => world.cut(victim, other),
        5 => world.heal(),
        _ if world.servers[victim].engine.is_none() => world.start(victim),
        _ => {}
    }
}

fn mend(world: &mut World) {
    world.heal();
    for index in 0..world.servers.len() {
        assert_eq!(world.servers[index].stopped, None, "nobody has a reason to stop");
        if world.servers[index].engine.is_none() {
            world.start(index);
        }
    }
}

fn run(seed: u64) -> Vec<Marks> {
    let mut random = Xoshiro256PlusPlus::seed_from_u64(seed);
    let mut world = World::new(if seed.is_multiple_of(2) { 3 } else { 5 }).seeded(seed + 1);
    world.options = |options| {
        options.snapshot_log_bytes = 512;
        options.raft.snapshot_chunk_bytes = 300;
        options.raft.log_memory_bytes = 32_768;
    };
    world.start_all();
    let clients: Vec<usize> = (0..2).map(|number| world.client((number == 1).then_some(0))).collect();
    let mut marks = Vec::new();
    let mut written = [0u64; 2];
    for _ in 0..50 {
        disturb(&mut world, &mut random);
        for client in &clients {
            for _ in 0..random.next_u64() % 6 {
                written[*client] += 1;
                world.submit(*client, &format!("{client}-{}", written[*client]));
            }
            let consistency = [Consistency::Linearizable, Consistency::Sequential, Consistency::Causal];
            world.ask(*client, consistency[random.next_u64() as usize % 3]);
        }
        marks.extend(
            world.servers.iter().filter_map(|server| server.engine.as_ref()).map(|engine| *engine.marks()),
        );
        world.run(Duration::from_micros(random.next_u64() % 200_000));
    }
    mend(&mut world);
    for client in &clients {
        let count = written[*client];
        world.until("all replies", |world| world.clients[*client].endings.len() as u64 == count);
        assert!(world.clients[*client].endings.values().all(Result::is_ok), "seed {seed}");
    }
    let same = |world: &World| (1..world.servers.len()).all(|index| world.lines(index) == world.lines(0));
    world.until("one state", same);
    let lines = world.lines(0);
    for client in clients {
        let prefix = format!("{client}-");
        let own: Vec<&str> = lines.split(',').filter_map(|line| line.strip_prefix(&prefix)).collect();
        let expected: Vec<String> = (1..=written[client]).map(|number| number.to_string()).collect();
        assert_eq!(own, expected, "seed {seed}: once, in order, none lost");
    }
    marks.extend(marks_of(&world));
    marks
}

fn marks_of(world: &World) -> impl Iterator<Item = Marks> {
    world.servers.iter().filter_map(|server| Some(*server.engine.as_ref()?.marks()))
}

#[test]
fn s3_once_and_in_order_through_everything() {
    let marks: Vec<Marks> = (0..40).flat_map(run).collect();
    let met = |mark: fn(&Marks) -> u64| marks.iter().any(|marks| mark(marks) > 0);
    assert!(met(|marks| marks.retries_after_failover), "vacuous");
    assert!(met(|marks| marks.retries_after_restart), "vacuous");
    assert!(met(|marks| marks.deposed_in_flight), "vacuous");
    assert!(met(|marks| marks.reads_waited), "vacuous");
    assert!(met(|marks| marks.reads_redirected), "vacuous");
}
