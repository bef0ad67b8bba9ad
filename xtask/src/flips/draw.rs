//! What is drawn, from a seed.

use super::layout::{Class, Effect, Layout, Part, Side};

/// Steps of a generator of random numbers.
pub(super) fn mixed(state: u64) -> u64 {
    let mut z = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// A generator of random numbers.
#[derive(Clone, Debug)]
pub(super) struct Draw(u64);

impl Draw {
    pub(super) fn new(seed: u64, cluster: u64) -> Self {
        Draw(mixed(seed ^ mixed(cluster)))
    }

    /// Below a bound.
    pub(super) fn below(&mut self, bound: usize) -> usize {
        self.0 = mixed(self.0);
        (self.0 % bound.max(1) as u64) as usize
    }

    /// True once in so many times.
    pub(super) fn once_in(&mut self, times: usize) -> bool {
        self.below(times) == 0
    }

    pub(super) fn pick<'a, T>(&mut self, from: &'a [T]) -> Option<&'a T> {
        from.get(self.below(from.len()))
    }
}

/// What is aimed at: bytes of a class, and how often. A file holds few bytes of some classes, and they are to be hit as well.
type Aims = [(u32, Class, Option<Side>)];

/// Bytes that a start looks at.
const LOOKED_AT: &Aims = &[
    (6, Class::ManifestHeader, None),
    (8, Class::ManifestPayload, None),
    (4, Class::SegmentHeader, Some(Side::Before)),
    (5, Class::SegmentHeader, Some(Side::Behind)),
    (4, Class::RecordHeader, Some(Side::Before)),
    (8, Class::RecordHeader, Some(Side::Behind)),
    (4, Class::RecordHeader, Some(Side::Last)),
    (5, Class::Payload, Some(Side::Before)),
    (10, Class::Payload, Some(Side::Behind)),
    (3, Class::Payload, Some(Side::Last)),
    (2, Class::TrailerHeader, Some(Side::Before)),
    (4, Class::TrailerHeader, Some(Side::Behind)),
    (2, Class::TrailerHeader, Some(Side::Last)),
    (2, Class::TrailerCount, Some(Side::Before)),
    (3, Class::TrailerCount, Some(Side::Behind)),
    (1, Class::TrailerCount, Some(Side::Last)),
    (4, Class::SnapshotHeader, None),
    (6, Class::SnapshotData, None),
    (4, Class::SnapshotDescription, None),
];

/// Bytes that a start has no need of, or that decide nothing.
const BESIDE: &Aims = &[
    (4, Class::OlderSnapshot, None),
    (3, Class::NewerMark, None),
    (3, Class::OlderMark, None),
    (3, Class::Alignment, None),
    (2, Class::Unused, None),
    (2, Class::UnusedSegment, None),
];

/// One bit of one file.
#[derive(Clone, Debug)]
pub(super) struct Flip {
    pub(super) part: Part,
    pub(super) at: usize,
    pub(super) bit: u8,
}

/// Draws a bit of a directory, of those that a start must speak of, or of the others.
pub(super) fn flip(draw: &mut Draw, layout: &Layout, looked_at: bool) -> Option<Flip> {
    let aims = if looked_at { LOOKED_AT } else { BESIDE };
    let all: u32 = aims.iter().map(|(weight, ..)| weight).sum();
    // What a directory has nothing of at the moment is drawn again.
    for _ in 0..100 {
        let mut left = draw.below(all as usize) as u32;
        let aim = aims.iter().find(|(weight, ..)| {
            let hit = left < *weight;
            left = left.saturating_sub(*weight);
            hit
        });
        let Some((_, class, side)) = aim else { continue };
        let fits = |part: &&Part| {
            let right = (part.effect != Effect::None) == looked_at;
            right && part.class == *class && side.is_none_or(|side| part.side == side)
        };
        let parts: Vec<&Part> = layout.parts.iter().filter(fits).collect();
        if let Some(part) = draw.pick(&parts) {
            let at = part.bytes.start + draw.below(part.bytes.len());
            return Some(Flip { part: (*part).clone(), at, bit: draw.below(8) as u8 });
        }
    }
    None
}
