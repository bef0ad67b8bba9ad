//! Committed levels (M3): which operations of a kind every member that holds state is known to have.

use imbl::OrdMap;

use crate::state_machine::KindLevel;

/// The highest operation of each kind that may be applied, as committed. Zero: the kind must not be created yet.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Levels(OrdMap<String, u16>);

impl Levels {
    /// The level of a kind.
    #[must_use]
    pub fn of(&self, kind: &str) -> u16 {
        self.0.get(kind).copied().unwrap_or(0)
    }

    /// Raises the level of a kind; levels never sink.
    pub fn raise(&mut self, kind: String, level: u16) {
        if self.of(&kind) < level {
            self.0.insert(kind, level);
        }
    }

    /// Every kind with a level, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, u16)> + '_ {
        self.0.iter().map(|(kind, level)| (kind.as_str(), *level))
    }
}

impl FromIterator<KindLevel> for Levels {
    fn from_iter<I: IntoIterator<Item = KindLevel>>(kinds: I) -> Self {
        let mut levels = Levels::default();
        kinds.into_iter().for_each(|KindLevel { kind, level }| levels.raise(kind, level));
        levels
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn they_never_sink() {
        let known = |kind: &str, level| KindLevel { kind: kind.into(), level };
        let mut levels: Levels = [known("map", 3), known("lock", 1)].into_iter().collect();
        levels.raise("map".into(), 2);
        levels.raise("lock".into(), 4);
        assert_eq!(levels.iter().collect::<Vec<_>>(), [("lock", 4), ("map", 3)]);
        assert_eq!(levels.of("set"), 0);
    }
}
