//! The bytes of a simulated file.

use super::decay::Harm;
use super::loss::SECTOR;
use super::random::Random;

/// Bytes past `data`, up to `length`, are zero.
#[derive(Clone, Debug, Default)]
pub(super) struct File {
    pub(super) data: Vec<u8>,
    pub(super) length: u64,
}

impl File {
    pub(super) fn put(&mut self, offset: u64, data: &[u8]) {
        let start = offset as usize;
        let end = start + data.len();
        if self.data.len() < end {
            self.data.resize(end, 0);
        }
        self.data[start..end].copy_from_slice(data);
        self.length = self.length.max(end as u64);
    }

    pub(super) fn bytes(&self, offset: u64, length: usize) -> Vec<u8> {
        let mut out = vec![0; length.min(self.length.saturating_sub(offset) as usize)];
        self.copy_to(offset, &mut out);
        out
    }

    pub(super) fn copy_to(&self, offset: u64, out: &mut [u8]) {
        let start = (offset as usize).min(self.data.len());
        let have = (self.data.len() - start).min(out.len());
        out[..have].copy_from_slice(&self.data[start..start + have]);
        out[have..].fill(0);
    }

    pub(super) fn set_length(&mut self, length: u64) {
        self.length = length;
        self.data.truncate(length as usize);
    }

    /// Where bytes were changed, if there are any that hold something.
    pub(super) fn rot(&mut self, harm: Harm, random: &mut Random) -> Option<u64> {
        let length = self.data.len() as u64;
        if length == 0 {
            return None;
        }
        let mut at = random.below(length) as usize;
        // Most of a young segment is zeros that nobody looks at.
        if random.chance(0.7) {
            at = self.data[at..].iter().position(|byte| *byte != 0).map_or(at, |more| at + more);
        }
        if harm == Harm::Bit {
            self.data[at] ^= 1 << random.below(8);
            return Some(at as u64);
        }
        let from = at / SECTOR * SECTOR;
        let to = (from + SECTOR).min(self.data.len());
        for byte in &mut self.data[from..to] {
            *byte = if harm == Harm::Zeros { 0 } else { random.next() as u8 };
        }
        Some(from as u64)
    }
}
