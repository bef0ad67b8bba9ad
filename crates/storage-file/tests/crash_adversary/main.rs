//! Whatever consensus asks for, with restarts, power cuts, full disks, other options and damage between, in any order: what was
//! acknowledged is there, or the server abstains until a leader has given it again; what was never written is never handed out.

#![allow(clippy::unwrap_used, reason = "a test that can't go on fails")]

#[path = "../crash_disk/mod.rs"]
mod crash_disk;
mod moves;
mod oracle;
mod owed;
mod player;

use std::cell::RefCell;

use moves::{Move, moves};
use player::Player;
use proptest::prelude::*;
use proptest::test_runner::TestRunner;

/// What a run has met.
#[derive(Debug, Default)]
struct Met {
    abstained: usize,
    repaired: usize,
    mended: usize,
    unfinished: usize,
    recycled: usize,
    /// Starts after which abstention was not durable, for want of room.
    owed: usize,
}

impl Met {
    fn add(&mut self, other: &Met) {
        self.abstained += other.abstained;
        self.repaired += other.repaired;
        self.mended += other.mended;
        self.unfinished += other.unfinished;
        self.recycled += other.recycled;
        self.owed += other.owed;
    }
}

fn check(segment_bytes: u64, moves: &[Move]) -> Met {
    let mut player = Player::new(segment_bytes);
    for next in moves {
        player.play(next);
    }
    player.ends();
    player.met
}

#[test]
fn nothing_is_lost_in_silence() {
    let met = RefCell::new(Met::default());
    let cases = std::env::var("PROPTEST_CASES").map_or(3_000, |cases| cases.parse().unwrap());
    let config = ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(cases) };
    let run = |(segment_bytes, moves): (u64, Vec<Move>)| {
        met.borrow_mut().add(&check(segment_bytes, &moves));
        Ok(())
    };
    let result = TestRunner::new(config).run(&(512..4_000u64, moves()), run);
    result.unwrap_or_else(|error| panic!("{error}"));
    let met = met.into_inner();
    println!("{met:?}");
    assert!(met.abstained.min(met.repaired).min(met.unfinished).min(met.recycled) > 500);
    assert!(met.mended > 30 && met.owed > 10);
}
