//! What may happen to a server and its disk.

use proptest::collection::vec;
use proptest::prelude::*;

use crate::crash_disk::Image;

/// What is whole while the mark is lost.
pub(crate) const BESIDE_THE_MARK: &[&str] = &["log", "snap", "manifest"];

#[derive(Clone, Debug)]
pub(crate) enum Move {
    Append {
        raise: u64,
        lengths: Vec<usize>,
    },
    /// Keeps this many thousandths of the log.
    Truncate {
        keep: usize,
        lengths: Vec<usize>,
    },
    /// A vote and entries in one batch.
    Both {
        lengths: Vec<usize>,
    },
    Vote,
    Configure,
    /// Takes a snapshot at this many thousandths of the log.
    Snapshot(usize),
    /// Installs a snapshot from beyond the log.
    Install {
        ahead: u64,
    },
    Compact,
    Restart,
    /// The power fails so many operations ago, at most in the last step. Each bit pair is the fate of an operation that was not synced.
    Crash {
        back: usize,
        fates: u64,
    },
    /// The process dies so many operations ago, at most in the last step.
    Kill {
        back: usize,
    },
    Damage(Vec<Damage>),
    /// Other length of segments from the next start on.
    Options(u64),
    Full(bool),
    HasRoom,
    /// The leader gives so many entries again that this server lacks.
    Repair(usize),
    /// The leader gives everything again, and abstention ends.
    RepairAll,
}

#[derive(Clone, Debug)]
pub(crate) struct Damage {
    /// Which file, in thousandths.
    pub(crate) file: usize,
    /// Where in what is used of it, in thousandths.
    pub(crate) at: usize,
    pub(crate) how: How,
}

#[derive(Clone, Debug)]
pub(crate) enum How {
    Flip(u32),
    Fill(usize, u8),
    Cut,
    Lose,
    /// The sector is that of another file, at this place in thousandths.
    Misdirect(usize, usize),
}

pub(crate) fn moves() -> impl Strategy<Value = Vec<Move>> {
    let lengths = || vec(prop_oneof![Just(0), 1..80usize, 300..900usize], 1..5);
    let how = prop_oneof![
        3 => (0..8u32).prop_map(How::Flip),
        2 => (1..600usize, prop_oneof![Just(0u8), Just(0xFF)]).prop_map(|(length, fill)| How::Fill(length, fill)),
        1 => Just(How::Cut),
        2 => Just(How::Lose),
        1 => (0..1_000usize, 0..1_000usize).prop_map(|(file, at)| How::Misdirect(file, at)),
    ];
    let damage = (0..1_000usize, 0..1_000usize, how).prop_map(|(file, at, how)| Damage { file, at, how });
    let damage = vec(damage, 1..3).prop_map(Move::Damage);
    let one = prop_oneof![
        8 => (0..2u64, lengths()).prop_map(|(raise, lengths)| Move::Append { raise, lengths }),
        2 => (0..1_000usize, lengths()).prop_map(|(keep, lengths)| Move::Truncate { keep, lengths }),
        1 => lengths().prop_map(|lengths| Move::Both { lengths }),
        1 => Just(Move::Vote),
        1 => Just(Move::Configure),
        2 => (0..1_000usize).prop_map(Move::Snapshot),
        1 => (1..9u64).prop_map(|ahead| Move::Install { ahead }),
        2 => Just(Move::Compact),
        2 => Just(Move::Restart),
        3 => (0..12usize, any::<u64>()).prop_map(|(back, fates)| Move::Crash { back, fates }),
        2 => (0..12usize).prop_map(|back| Move::Kill { back }),
        3 => damage,
        1 => prop_oneof![Just(512u64), Just(1_024), Just(2_000), Just(6_000)].prop_map(Move::Options),
        1 => any::<bool>().prop_map(Move::Full),
        1 => Just(Move::HasRoom),
        2 => (0..4usize).prop_map(Move::Repair),
        2 => Just(Move::RepairAll),
    ];
    vec(one, 1..50)
}
/// False if there is nothing to damage. What can't be noticed if it comes together is kept apart: the two copies of the manifest, and
/// the mark and anything else.
pub(crate) fn inflict(image: &mut Image, damage: &Damage, spared: &mut Vec<&'static str>) -> bool {
    let mut names: Vec<String> = image.names();
    if names.iter().filter(|name| name.starts_with("manifest")).count() < 2 {
        // The other was lost, and there was no room for it since.
        spared.push("manifest");
    }
    names.retain(|name| !spared.iter().any(|spared| name.starts_with(spared)));
    let Some(name) = names.get(damage.file * names.len() / 1_000).cloned() else { return false };
    let used = image.file(&name).iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    if used == 0 {
        return false;
    }
    let at = damage.at * used / 1_000;
    let before = image.clone();
    match damage.how {
        How::Flip(bit) => image.file_mut(&name)[at] ^= 1 << bit,
        How::Fill(length, fill) => image.file_mut(&name)[at..used.min(at + length)].fill(fill),
        How::Cut => image.file_mut(&name).truncate(at),
        How::Lose => image.remove(&name),
        How::Misdirect(other, from) => misdirect(image, &name, at, other, from),
    }
    spared.extend(if name == "mark" { BESIDE_THE_MARK } else { &["mark"] });
    if name.starts_with("manifest") {
        spared.push("manifest");
    }
    *image != before
}

/// A sector of another file comes to where this one's was.
fn misdirect(image: &mut Image, name: &str, at: usize, other: usize, from: usize) {
    let others = image.names();
    let from_name = others[other * others.len() / 1_000].clone();
    let from = (from * image.file(&from_name).len() / 1_000) / 512 * 512;
    let piece = image.file(&from_name)[from..].iter().copied().take(512).collect::<Vec<u8>>();
    let file = image.file_mut(name);
    let at = at / 512 * 512;
    let end = file.len().min(at + piece.len());
    file[at..end].copy_from_slice(&piece[..end - at]);
}
