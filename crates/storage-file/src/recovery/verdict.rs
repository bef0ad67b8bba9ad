//! What follows from what was found: the decision table (docs/storage.md has it in words).
//!
//! Every combination of facts matches exactly one row; a test goes through all of them. What lies wholly before the newest snapshot that
//! verifies is no fact: whatever it looks like, it is given up, and nothing is lost.

use std::fmt;

use atomix_protocol::mutant::Mutant;

/// Whether the files are in a format that this version reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    Ours,
    /// At least one file is whole, and of another version or for another group.
    Foreign,
}

/// The manifest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Manifested {
    /// No copy was ever whole: none is there, or only the first, which a crash may have left unfinished.
    Unborn,
    /// At least one copy is whole.
    Whole,
    /// One was whole once: the second is there, and neither is.
    Lost,
}

/// What is known to have been behind the last whole batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Known {
    Nothing,
    /// The mark says that the failing batch was synced.
    Batch,
    /// The manifest names a segment that is missing, or has lost its head.
    Segment,
}

/// What lies behind the last whole batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Behind {
    Nothing,
    /// Records of the failing batch.
    Remains,
    /// A record of a later batch, or a later segment.
    Later,
}

/// How log and snapshots belong together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fit {
    /// The log holds the last entry of the newest snapshot that verifies, or begins right after it; and of one that is newer and does not.
    Joined,
    /// The log conflicts with the snapshot or does not reach it: a crash came between publishing one that was installed and
    /// truncating the log. It is empty, and goes on after the snapshot.
    Apart,
    /// The log holds the last entry of the newest snapshot that verifies, or begins right after it; but not that of one that is newer
    /// and was damaged or lost.
    Short,
    /// Entries are missing between them: a snapshot was damaged or lost, or the beginning of the log.
    Gap,
}

/// All that decides (D3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Facts {
    pub(crate) format: Format,
    pub(crate) manifest: Manifested,
    /// Whether anything says that there was a log or a snapshot.
    pub(crate) files: bool,
    pub(crate) known: Known,
    pub(crate) behind: Behind,
    pub(crate) fit: Fit,
}

/// What a server does that starts with a directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Verdict {
    /// Refuse: it can't be read by this version.
    Foreign,
    /// Nothing was ever acknowledged here: begin.
    Fresh,
    /// Refuse: identity, term and vote are lost, and with them the right to take part (I1).
    Lost,
    /// All is well.
    Serve,
    /// Cut off what the last batch left, and serve.
    Truncate,
    /// Serve what is whole, abstain until the rest is back (D4).
    Abstain,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Verdict::Foreign => "foreign",
            Verdict::Fresh => "fresh",
            Verdict::Lost => "lost",
            Verdict::Serve => "serve",
            Verdict::Truncate => "truncate",
            Verdict::Abstain => "abstain",
        })
    }
}

/// A row: for each fact the values that it takes.
struct Row {
    name: &'static str,
    format: &'static [Format],
    manifest: &'static [Manifested],
    files: &'static [bool],
    known: &'static [Known],
    behind: &'static [Behind],
    fit: &'static [Fit],
    verdict: Verdict,
}

const ANY_MANIFEST: &[Manifested] = &[Manifested::Unborn, Manifested::Whole, Manifested::Lost];
const ANY_FILES: &[bool] = &[false, true];
const ANY_KNOWN: &[Known] = &[Known::Nothing, Known::Batch, Known::Segment];
const ANY_BEHIND: &[Behind] = &[Behind::Nothing, Behind::Remains, Behind::Later];
const ANY_FIT: &[Fit] = &[Fit::Joined, Fit::Apart, Fit::Short, Fit::Gap];
const FITS: &[Fit] = &[Fit::Joined, Fit::Apart];

/// A row about a directory that has a manifest in our format.
const fn row(
    name: &'static str,
    known: &'static [Known],
    behind: &'static [Behind],
    fit: &'static [Fit],
    verdict: Verdict,
) -> Row {
    let (format, manifest, files) = (&[Format::Ours] as &[_], &[Manifested::Whole] as &[_], ANY_FILES);
    Row { name, format, manifest, files, known, behind, fit, verdict }
}

/// A row that looks at format, manifest and files only.
const fn outer(
    name: &'static str,
    format: &'static [Format],
    manifest: &'static [Manifested],
    files: &'static [bool],
    verdict: Verdict,
) -> Row {
    Row { name, format, manifest, files, known: ANY_KNOWN, behind: ANY_BEHIND, fit: ANY_FIT, verdict }
}

const ROWS: &[Row] = &[
    outer("another format", &[Format::Foreign], ANY_MANIFEST, ANY_FILES, Verdict::Foreign),
    outer("fresh", &[Format::Ours], &[Manifested::Unborn], &[false], Verdict::Fresh),
    outer("no manifest", &[Format::Ours], &[Manifested::Unborn], &[true], Verdict::Lost),
    outer("identity lost", &[Format::Ours], &[Manifested::Lost], ANY_FILES, Verdict::Lost),
    row("clean", &[Known::Nothing], &[Behind::Nothing], FITS, Verdict::Serve),
    row("torn", &[Known::Nothing], &[Behind::Remains], FITS, Verdict::Truncate),
    row("a later record", &[Known::Nothing], &[Behind::Later], ANY_FIT, Verdict::Abstain),
    row("a synced batch", &[Known::Batch], ANY_BEHIND, ANY_FIT, Verdict::Abstain),
    row("a missing segment", &[Known::Segment], ANY_BEHIND, ANY_FIT, Verdict::Abstain),
    row(
        "a lost snapshot",
        &[Known::Nothing],
        &[Behind::Nothing, Behind::Remains],
        &[Fit::Short],
        Verdict::Abstain,
    ),
    row("a gap", &[Known::Nothing], &[Behind::Nothing, Behind::Remains], &[Fit::Gap], Verdict::Abstain),
];

impl Row {
    fn matches(&self, facts: &Facts) -> bool {
        self.format.contains(&facts.format)
            && self.manifest.contains(&facts.manifest)
            && self.files.contains(&facts.files)
            && self.known.contains(&facts.known)
            && self.behind.contains(&facts.behind)
            && self.fit.contains(&facts.fit)
    }
}

impl Facts {
    /// The name of the row that matches, and what it says.
    pub(crate) fn decide(&self) -> (&'static str, Verdict) {
        let row = ROWS.iter().find(|row| row.matches(self)).expect("every combination of facts has a row");
        if Mutant::B08.active() && row.verdict == Verdict::Abstain && FITS.contains(&self.fit) {
            return (row.name, Verdict::Truncate);
        }
        (row.name, row.verdict)
    }

    /// Whether the log itself is what makes the server abstain: nothing is added to it where it ends, nor anything erased.
    pub(crate) fn is_log_damaged(&self) -> bool {
        self.known != Known::Nothing || self.behind == Behind::Later || self.fit == Fit::Gap
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn every_combination() -> Vec<Facts> {
        let mut all = Vec::new();
        for format in [Format::Ours, Format::Foreign] {
            for manifest in ANY_MANIFEST.iter().copied() {
                for files in [false, true] {
                    for known in ANY_KNOWN.iter().copied() {
                        for behind in ANY_BEHIND.iter().copied() {
                            for fit in ANY_FIT.iter().copied() {
                                all.push(Facts { format, manifest, files, known, behind, fit });
                            }
                        }
                    }
                }
            }
        }
        all
    }

    #[test]
    fn every_combination_of_facts_has_exactly_one_row() {
        let all = every_combination();
        assert_eq!(all.len(), 2 * 3 * 2 * 3 * 3 * 4);
        let mut used = BTreeMap::new();
        for facts in all {
            let rows: Vec<&str> = ROWS.iter().filter(|row| row.matches(&facts)).map(|row| row.name).collect();
            assert_eq!(rows.len(), 1, "{facts:?}: {rows:?}");
            *used.entry(rows[0]).or_insert(0) += 1;
        }
        assert_eq!(used.len(), ROWS.len(), "a row that nothing matches: {used:?}");
    }

    /// Operators read the names there, and what follows.
    #[test]
    fn the_documents_have_the_same_rows() {
        let page = include_str!("../../../../docs/storage.md");
        let table = page.lines().skip_while(|line| *line != "| row | found | what follows |").skip(2);
        let documented: Vec<&str> = table
            .take_while(|line| line.starts_with('|'))
            .map(|line| line.split('|').nth(1).unwrap_or_default().trim())
            .collect();
        let rows: Vec<&str> = ROWS.iter().map(|row| row.name).collect();
        assert_eq!(documented, rows);
    }

    /// What the rows are for, said once more in other words.
    #[test]
    fn damage_is_never_served_and_a_torn_end_never_refused() {
        for facts in every_combination() {
            let (name, verdict) = facts.decide();
            let ours = facts.format == Format::Ours && facts.manifest == Manifested::Whole;
            let acknowledged_may_be_missing = facts.known != Known::Nothing
                || facts.behind == Behind::Later
                || matches!(facts.fit, Fit::Short | Fit::Gap);
            assert_eq!(verdict == Verdict::Abstain, ours && acknowledged_may_be_missing, "{name}: {facts:?}");
            let serves = matches!(verdict, Verdict::Serve | Verdict::Truncate);
            assert_eq!(serves, ours && !acknowledged_may_be_missing, "{name}: {facts:?}");
        }
    }
}
