//! What came of it all, in figures.

use std::collections::BTreeMap;
use std::time::Duration;

use super::layout::{Class, Effect, Side};

/// How what was missing came back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Repair {
    /// Nothing was missing.
    None,
    /// Entries of a leader.
    Entries,
    /// A leader's snapshot.
    Snapshot,
}

/// What came of all flips.
#[derive(Debug, Default)]
pub(super) struct Tally {
    pub(super) flips: BTreeMap<(Class, Side, Effect), u64>,
    pub(super) repairs: BTreeMap<Repair, u64>,
    /// The longest time that a server abstained while it could reach the others.
    pub(super) longest: Duration,
    /// Abstaining servers that were watched alone, and with one other, for several election timeouts.
    pub(super) alone: u64,
    pub(super) pairs: u64,
    /// Those that were damaged again meanwhile.
    pub(super) twice: u64,
    /// Values that were read one by one from damaged servers meanwhile.
    pub(super) read: u64,
    pub(super) acknowledged: u64,
    pub(super) running: BTreeMap<&'static str, u64>,
    pub(super) refused: u64,
    pub(super) compared: u64,
    /// Flips that were named when the stopped directory was looked at.
    pub(super) verified: u64,
    /// Damage that was not named by its file.
    pub(super) unnamed: Vec<String>,
}

impl Tally {
    /// Those in bytes that a start has no need of, and those in bytes that mean nothing.
    fn beside(&self) -> (u64, u64) {
        let quiet = self.flips.iter().filter(|((.., effect), _)| *effect == Effect::None);
        let (meant, idle): (Vec<_>, Vec<_>) = quiet.partition(|((class, ..), _)| class.means_something());
        (meant.into_iter().map(|(_, times)| times).sum(), idle.into_iter().map(|(_, times)| times).sum())
    }

    fn with(&self, effect: Effect) -> u64 {
        self.flips.iter().filter(|((.., of), _)| *of == effect).map(|(_, times)| times).sum()
    }

    pub(super) fn add(&mut self, other: Tally) {
        for (key, times) in other.flips {
            *self.flips.entry(key).or_default() += times;
        }
        for (key, times) in other.repairs {
            *self.repairs.entry(key).or_default() += times;
        }
        for (key, times) in other.running {
            *self.running.entry(key).or_default() += times;
        }
        self.longest = self.longest.max(other.longest);
        self.alone += other.alone;
        self.pairs += other.pairs;
        self.twice += other.twice;
        self.read += other.read;
        self.acknowledged += other.acknowledged;
        self.refused += other.refused;
        self.compared += other.compared;
        self.verified += other.verified;
        self.unnamed.extend(other.unnamed);
    }

    pub(super) fn print(&self) {
        println!(
            "  {:<22} {:<8} {:>6} {:>7} {:>8} {:>9}",
            "bytes", "", "flips", "mended", "abstains", "no need"
        );
        let mut rows: BTreeMap<(Class, Side), [u64; 3]> = BTreeMap::new();
        for ((class, side, effect), times) in &self.flips {
            let column = match effect {
                Effect::Mended => 0,
                Effect::Abstains => 1,
                Effect::None => 2,
            };
            rows.entry((*class, *side)).or_default()[column] += times;
        }
        for ((class, side), [mended, abstains, harmless]) in rows {
            let (name, side, all) = (name(class), side_name(side), mended + abstains + harmless);
            println!("  {name:<22} {side:<8} {all:>6} {mended:>7} {abstains:>8} {harmless:>9}");
        }
        let repaired = |repair| self.repairs.get(&repair).copied().unwrap_or(0);
        let (mended, abstained) = (self.with(Effect::Mended), self.with(Effect::Abstains));
        let (meant, idle) = self.beside();
        println!(
            "flips: {} flips in bytes that a start looks at: {0} detected; {mended} of them mended by the server itself, \
             {} repaired by entries, {} by a snapshot; 0 served, 0 lost",
            mended + abstained,
            repaired(Repair::Entries),
            repaired(Repair::Snapshot),
        );
        println!(
            "flips: beside these {meant} in bytes that a start has no need of, and {idle} in bytes that mean nothing; \
             of the stopped directories `log verify` named {} flips, all that mean anything, files in use included",
            self.verified,
        );
        println!(
            "flips: abstaining, the longest {} ms with the others in reach; {} were watched alone and {} with one other: no vote, no leader; \
             {} were damaged again meanwhile",
            self.longest.as_millis(),
            self.alone,
            self.pairs,
            self.twice,
        );
        println!(
            "flips: in files in use: {}; both manifests: {} refused, wiped and joined again",
            self.running.iter().map(|(how, times)| format!("{times} {how}")).collect::<Vec<_>>().join(", "),
            self.refused,
        );
        println!(
            "flips: {} writes acknowledged; {} values read one by one, answered by damaged servers; {} entries compared between logs at the end",
            self.acknowledged, self.read, self.compared,
        );
    }

    /// What should have happened at least once, and did not.
    pub(super) fn missing(&self) -> Vec<String> {
        let mut missing = Vec::new();
        for effect in [Effect::None, Effect::Mended, Effect::Abstains] {
            if self.with(effect) == 0 {
                missing.push(format!("{effect:?}"));
            }
        }
        for repair in [Repair::Entries, Repair::Snapshot] {
            if !self.repairs.contains_key(&repair) {
                missing.push(format!("a repair by {repair:?}"));
            }
        }
        let hit = |class| self.flips.keys().any(|(of, ..)| *of == class);
        let classes = [
            Class::ManifestHeader,
            Class::ManifestPayload,
            Class::SegmentHeader,
            Class::RecordHeader,
            Class::Payload,
            Class::TrailerHeader,
            Class::TrailerCount,
            Class::SnapshotHeader,
            Class::SnapshotData,
            Class::SnapshotDescription,
            Class::OlderSnapshot,
            Class::NewerMark,
            Class::OlderMark,
        ];
        missing.extend(classes.into_iter().filter(|class| !hit(*class)).map(|class| name(class).to_owned()));
        missing
    }
}

fn side_name(side: Side) -> &'static str {
    match side {
        Side::Before => "covered",
        Side::Behind => "behind",
        Side::Last => "last",
        Side::Neither => "",
    }
}

fn name(class: Class) -> &'static str {
    match class {
        Class::ManifestHeader => "manifest, header",
        Class::ManifestPayload => "manifest, payload",
        Class::SegmentHeader => "segment header",
        Class::RecordHeader => "record header",
        Class::Payload => "record payload",
        Class::TrailerHeader => "trailer header",
        Class::TrailerCount => "trailer count",
        Class::SnapshotHeader => "snapshot, header",
        Class::SnapshotData => "snapshot, data",
        Class::SnapshotDescription => "snapshot, description",
        Class::OlderSnapshot => "older snapshot",
        Class::NewerMark => "the mark",
        Class::OlderMark => "the mark before",
        Class::Alignment => "alignment",
        Class::Unused => "unused",
        Class::UnusedSegment => "unused segment",
    }
}
