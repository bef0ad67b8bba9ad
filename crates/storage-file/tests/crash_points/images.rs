//! What a power cut may leave on the disk.

use std::collections::{BTreeSet, HashMap, HashSet};

use crate::crash_disk::{CrashPoint, Fate, Image, Operation, SECTOR};

/// Operations that are not durable, the last ones, of which every combination of all fates is tried.
const COMBINED: usize = 3;
/// The same, of which every combination of kept and dropped is tried.
const WINDOW: usize = 7;

/// A number that looks random.
pub(crate) fn salt(of: usize) -> u64 {
    let mixed = (of as u64 + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    mixed ^ mixed >> 29
}

/// Images that were met before.
#[derive(Debug, Default)]
pub(crate) struct Seen(HashSet<u64>);

impl Seen {
    /// Whether it is the first with that fingerprint.
    pub(crate) fn is_new(&mut self, fingerprint: u64) -> bool {
        self.0.insert(fingerprint)
    }

    pub(crate) fn extend(&mut self, other: Seen) {
        self.0.extend(other.0);
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }
}

/// Numbers that are the same for images whose files have the same names, lengths and contents; for two others, as good as never.
#[derive(Debug)]
pub(crate) struct Fingerprints<'a> {
    /// Those of files that most images share.
    known: HashMap<*const Vec<u8>, u64>,
    point: &'a CrashPoint,
}

impl<'a> Fingerprints<'a> {
    /// Of images at one moment.
    pub(crate) fn new(point: &'a CrashPoint) -> Fingerprints<'a> {
        let files = point.durable.names().into_iter();
        let known = files.map(|name| (point.durable.share(&name), content(point.durable.file(&name))));
        Fingerprints { known: known.collect(), point }
    }

    pub(crate) fn image(&self, fate: impl Fn(usize) -> Fate) -> (u64, Image) {
        let image = self.point.image(fate);
        let mut fingerprint = 0;
        for name in image.names() {
            let known = self.known.get(&image.share(&name)).copied();
            let file = known.unwrap_or_else(|| content(image.file(&name)));
            fingerprint = mix(mix(fingerprint, content(name.as_bytes())), file);
        }
        (fingerprint, image)
    }
}

fn content(bytes: &[u8]) -> u64 {
    let zeros = bytes.rchunks(SECTOR).take_while(|piece| **piece == [0; SECTOR][..piece.len()]);
    let used = bytes.len() - zeros.map(<[u8]>::len).sum::<usize>();
    let (words, rest) = bytes[..used].as_chunks();
    let mut last = [0; 8];
    last[..rest.len()].copy_from_slice(rest);
    let words = words.iter().copied().chain([last]);
    words.map(u64::from_le_bytes).fold(mix(0, bytes.len() as u64), mix)
}

fn mix(hash: u64, word: u64) -> u64 {
    let hash = (hash ^ word).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    hash ^ hash >> 32
}

/// The images that a power cut at one moment may leave, those that differ, with the fates that made them:
/// - of the last [`COMBINED`] operations that are not durable every combination of fates, the others all kept or all dropped;
/// - of the last [`WINDOW`] every combination of kept and dropped, the others all kept or all dropped;
/// - of each one before the last [`COMBINED`] every way to tear it, the others all kept or all dropped.
///
/// Returns how many were drawn, with those that are the same.
pub(crate) fn each_image(
    point: &CrashPoint,
    seed: usize,
    seen: &mut Seen,
    mut check: impl FnMut(u64, Image, &dyn Fn() -> String),
) -> usize {
    let pending = point.pending.len();
    let fates: Vec<Vec<Fate>> = (0..pending).map(|place| fates(point, place, salt(seed + place))).collect();
    let (fingerprints, mut drawn) = (Fingerprints::new(point), 0);
    let mut draw = |chosen: &[Fate]| {
        drawn += 1;
        let (fingerprint, image) = fingerprints.image(|place| chosen[place]);
        if seen.is_new(fingerprint) {
            check(fingerprint, image, &|| format!("{chosen:?}"));
        }
    };
    for others in [Fate::Kept, Fate::Dropped] {
        for (last, of) in [(COMBINED, usize::MAX), (WINDOW, 2)] {
            if others == Fate::Dropped && pending <= last {
                // There are no others.
                continue;
            }
            let free: Vec<&[Fate]> = fates[pending.saturating_sub(last)..]
                .iter()
                .map(|fates| &fates[..fates.len().min(of)])
                .collect();
            for combination in 0..free.iter().map(|fates| fates.len()).product() {
                let mut rest = combination;
                let mut chosen = vec![others; pending - free.len()];
                for fates in &free {
                    chosen.push(fates[rest % fates.len()]);
                    rest /= fates.len();
                }
                draw(&chosen);
            }
        }
        for (place, fates) in fates[..pending.saturating_sub(COMBINED)].iter().enumerate() {
            for fate in &fates[2..] {
                let mut chosen = vec![others; pending];
                chosen[place] = *fate;
                draw(&chosen);
            }
        }
    }
    drawn
}

/// What a crash may do to an operation that is not durable: it is kept, dropped, or torn. `salt` chooses some of the places where long
/// ones are torn.
fn fates(point: &CrashPoint, place: usize, salt: u64) -> Vec<Fate> {
    let mut fates = vec![Fate::Kept, Fate::Dropped];
    match point.operation(place) {
        // Only one that is still being made, or is made beside: the others have synced their zeros.
        Operation::Allocate { length, .. } if *length > 0 && point.is_unfinished(place) => {
            let lengths = [0, 40, *length / 2, salt as usize % *length];
            fates.extend(lengths.into_iter().filter(|made| made < length).map(Fate::FirstBytes));
        }
        Operation::Write { offset, bytes, .. } => fates.extend(tears(*offset, bytes.len(), salt)),
        _ => {}
    }
    fates
}

/// Ways to tear a write: between sectors, of which any may be missing, and at bytes.
fn tears(offset: usize, length: usize, salt: u64) -> Vec<Fate> {
    let sectors = (offset + length).div_ceil(SECTOR) - offset / SECTOR;
    let all = u64::MAX >> (64 - sectors.clamp(1, 64));
    let mut masks: Vec<u64> = if sectors <= 3 {
        (1..all).collect()
    } else {
        vec![1, 3, all & !1, all >> 1, 0x5555 & all, 0xAAAA & all, salt & all, (salt >> 20) & all]
    };
    masks.retain(|mask| *mask != 0 && *mask != all);
    // In and around the header at the beginning, and the trailer with its header at the end; and anywhere.
    let anywhere = [salt, salt >> 16, salt >> 32].map(|at| at as usize % length.max(1));
    let ends = [1, 8, 63, 64, 65, 128].into_iter();
    let mut cuts: Vec<usize> =
        ends.chain([1, 8, 9, 72, 73].map(|left| length.saturating_sub(left))).chain(anywhere).collect();
    cuts.retain(|cut| *cut > 0 && *cut < length && !(offset + cut).is_multiple_of(SECTOR));
    if length <= SECTOR / 8 {
        // The mark, or a header: one piece.
        cuts = vec![1, length / 2, length - 1];
    }
    let (masks, cuts) = (BTreeSet::from_iter(masks), BTreeSet::from_iter(cuts));
    masks.into_iter().map(Fate::Sectors).chain(cuts.into_iter().map(Fate::FirstBytes)).collect()
}
