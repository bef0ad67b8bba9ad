//! Abstention that is owed: on a full disk that has lost a copy of the manifest, what a damaged log is to be followed by can't be written
//! anywhere. It holds all the same as long as what shows the damage is there, and is durable as soon as there is room.

use crate::check;
use crate::crash_disk::workload::index;
use crate::moves::Damage;
use crate::moves::How::{Cut, Flip, Lose};
use crate::moves::Move::{self, Append, Compact, Crash, Full, HasRoom, Install, Repair, Restart, Truncate};
use crate::player::Player;

fn append(lengths: &[usize]) -> Move {
    Append { raise: 0, lengths: lengths.to_vec() }
}

fn damage<const N: usize>(damages: [Damage; N]) -> Move {
    Move::Damage(damages.to_vec())
}

/// The first of a directory's files, which is a segment.
const FIRST: usize = 0;

/// A truncation to nothing follows what is damaged in the end: then all that counts is there.
#[test]
fn it_ends_when_a_truncation_covers_the_damage() {
    let moves = [
        append(&[449]),
        append(&[33, 657, 0]),
        append(&[0, 33, 457, 0]),
        Full(true),
        Truncate { keep: 0, lengths: vec![41] },
        append(&[0]),
        Compact,
        append(&[0]),
        damage([Damage { file: FIRST, at: 27, how: Flip(0) }, Damage { file: 400, at: 0, how: Lose }]),
        damage([Damage { file: FIRST, at: 0, how: Flip(0) }]),
    ];
    let met = check(2_696, &moves);
    assert_eq!((met.owed, met.mended), (1, 1), "{met:?}");
}

/// A segment, both copies of the manifest, the mark, the reserve: the second goes, then the log is damaged.
fn owing() -> Player {
    let mut player = Player::new(3_408);
    let moves = [
        append(&[0]),
        Full(true),
        damage([Damage { file: 250, at: 0, how: Lose }]),
        damage([Damage { file: FIRST, at: 332, how: Flip(0) }]),
    ];
    moves.iter().for_each(|next| player.play(next));
    assert!(player.owed.is_some() && player.lacks_a_copy());
    assert_eq!(player.held.recovered.abstention, Some(index(1)));
    player
}

/// What shows the damage is not damaged too while nothing else says it.
#[test]
fn it_stands_on_what_shows_the_damage() {
    for lost in [&[Full(false)][..], &[]] {
        let mut player = owing();
        lost.iter().for_each(|next| player.play(next));
        player.play(&damage([Damage { file: 500, at: 0, how: Cut }]));
        assert!(player.abstains());
        player.ends();
    }
}

/// With room, the next start makes it durable: the mark may be lost then.
#[test]
fn it_is_durable_at_the_next_start_with_room() {
    let mut player = owing();
    for next in [HasRoom, Restart, Full(false), Restart] {
        assert!(player.abstains());
        player.play(&next);
    }
    assert!(player.owed.is_none() && !player.lacks_a_copy());
    let mark = player.disk.image().names().iter().position(|name| name == "mark").unwrap();
    let names = player.disk.image().names().len();
    player.play(&damage([Damage { file: (mark * 1_000).div_ceil(names), at: 0, how: Lose }]));
    assert!(player.abstains());
    player.ends();
}

/// It was owed when a repair began, and durable when that was broken off: what is damaged is beside the log by then.
#[test]
fn it_outlives_a_repair_that_is_broken_off() {
    let moves = [
        Install { ahead: 1 },
        append(&[0, 641]),
        append(&[0]),
        Restart,
        Full(true),
        damage([Damage { file: 143, at: 0, how: Lose }, Damage { file: 500, at: 0, how: Flip(0) }]),
        Repair(0),
        Crash { back: 7, fates: 0 },
    ];
    let met = check(2_080, &moves);
    assert_eq!((met.owed, met.abstained), (1, 1), "{met:?}");
}
