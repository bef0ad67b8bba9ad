//! (f) A map is watched by a third process while the leader is killed.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::super::client::Client;
use super::super::process::Process;
use super::super::report::{Report, milliseconds};
use super::super::sequence::{KEY, Line, WATCHED};
use super::WAIT;
use crate::cluster::Cluster;
use crate::exit::{Exit, Failure};
use crate::map::Change;

/// Acknowledgements before the leader is killed, before it is restarted, and before the end.
const STRETCH: usize = 250;
/// What is there when the watch begins.
const BEGIN: u64 = 0;

pub(super) async fn run(
    executable: &Path,
    cluster: &mut Cluster,
    report: &mut Report,
) -> Result<(), Failure> {
    report.part("(f) a map is watched while the leader is killed under writes, one after another");
    let servers = cluster.addresses().join(",");
    Client::new(executable, &cluster.addresses()).put(WATCHED, KEY, &BEGIN.to_string()).await?;
    let arguments =
        ["map", "watch", WATCHED, "--current", "--json", "--exit-with-stdin", "--cluster", &servers];
    let mut watcher: Process<Change> = Process::start(executable, "the watcher", &arguments)?;
    // What is there comes once the watch is on.
    watcher.next(WAIT).await?;
    report.step("a third process watches the map");
    let mut writer: Process<Line> =
        Process::start(executable, "the writer", &["demo-sequence", "--cluster", &servers])?;
    let mut said = more(&mut writer, STRETCH).await?;
    let victim = cluster.leader(WAIT).await?;
    let kill = Instant::now();
    cluster.kill(victim).await?;
    said.extend(more(&mut writer, STRETCH).await?);
    let leader = cluster.leader(WAIT).await?;
    report.step(&format!(
        "server {} led and was killed; server {} leads, the writer goes on",
        victim + 1,
        leader + 1
    ));
    cluster.start_server(victim)?;
    cluster.caught_up(victim, WAIT).await?;
    report.step(&format!("server {} was restarted and has caught up", victim + 1));
    said.extend(more(&mut writer, STRETCH).await?);
    said.extend(writer.finish(WAIT).await?);
    let (seen, pause) = all_seen(watcher, &said, kill).await?;
    let verdict = Verdict::of(&said, &seen);
    report.step(&format!("the writer has finished: {} writes", said.len()));
    report.check(
        "changes were seen after the kill",
        pause.map_or_else(|| "none".to_owned(), |pause| format!("longest pause {}", milliseconds(pause))),
        pause.is_some(),
    );
    report.check(
        "the watcher saw every acknowledged change",
        format!(
            "{} of {}, {} unknown, {} strange",
            verdict.acknowledged - verdict.missing,
            verdict.acknowledged,
            verdict.unknown,
            verdict.strange
        ),
        verdict.missing == 0 && verdict.strange == 0 && verdict.acknowledged > 0,
    );
    report.check(
        "each of them exactly once, in order",
        format!("{} repeated, {} out of order", verdict.repeated, verdict.disordered),
        verdict.repeated == 0 && verdict.disordered == 0,
    );
    Ok(())
}

/// Waits for so many acknowledgements; all that was said meanwhile.
async fn more(writer: &mut Process<Line>, acknowledgements: usize) -> Result<Vec<Line>, Failure> {
    let mut said = Vec::new();
    let mut acknowledged = 0;
    while acknowledged < acknowledgements {
        let (_, line) = writer.next(WAIT).await?;
        acknowledged += usize::from(matches!(line, Line::Written(_)));
        said.push(line);
    }
    Ok(said)
}

/// What the watcher saw, once that is all it can have seen, and the longest silence that ended after the kill; none if
/// nothing was seen after it. How soon the watcher finds another server is its own matter: the writer may be far ahead of it.
async fn all_seen(
    mut watcher: Process<Change>,
    said: &[Line],
    kill: Instant,
) -> Result<(Vec<Change>, Option<Duration>), Failure> {
    let last = said.iter().rev().find_map(|line| match line {
        Line::Written(number) => Some(number.to_string()),
        Line::Unknown(_) => None,
    });
    let mut seen: Vec<Change> = Vec::new();
    let (mut pause, mut before) = (None, None);
    while seen.last().and_then(|change| change.new.as_ref()) != last.as_ref() {
        let (when, change) = watcher.next(WAIT).await.map_err(|failure| {
            Failure::new(Exit::Refused, format!("{failure}; it has seen {} changes", seen.len()))
        })?;
        if let Some(before) = before
            && when >= kill
        {
            pause = pause.max(Some(when - before));
        }
        before = Some(when);
        seen.push(change);
    }
    watcher.signal(Signal::INT)?;
    seen.extend(watcher.ended(WAIT).await?);
    Ok((seen, pause))
}

/// What was seen, compared with what was done.
#[derive(Debug, Default, PartialEq, Eq)]
struct Verdict {
    acknowledged: usize,
    unknown: usize,
    /// Acknowledged, and not seen.
    missing: usize,
    /// Seen more than once.
    repeated: usize,
    /// Changes that do not follow on the one before: in number, in version, or in what the key held.
    disordered: usize,
    /// Seen, and never written.
    strange: usize,
}

impl Verdict {
    fn of(said: &[Line], seen: &[Change]) -> Self {
        let written = |unknown: bool| -> BTreeSet<u64> {
            let lines = said.iter().filter(|line| matches!(line, Line::Unknown(_)) == unknown);
            lines.map(|line| line.number()).collect()
        };
        let (acknowledged, unknown) = (written(false), written(true));
        let numbers: Vec<Option<u64>> =
            seen.iter().map(|change| change.new.as_ref().and_then(|new| new.parse().ok())).collect();
        let distinct: BTreeSet<u64> = numbers.iter().flatten().copied().collect();
        let known = |number: &Option<u64>| {
            number.is_some_and(|number| acknowledged.contains(&number) || unknown.contains(&number))
        };
        let mut disordered = 0;
        let (mut number, mut version) = (Some(BEGIN), 0);
        for (change, next) in seen.iter().zip(&numbers) {
            let follows = change.old == number.map(|number| number.to_string())
                && *next > number
                && change.version > version
                && change.key.as_deref() == Some(KEY);
            disordered += usize::from(!follows);
            (number, version) = (*next, change.version);
        }
        Verdict {
            acknowledged: acknowledged.len(),
            unknown: unknown.len(),
            missing: acknowledged.difference(&distinct).count(),
            repeated: numbers.len() - distinct.len(),
            disordered,
            strange: numbers.iter().filter(|number| !known(number)).count(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Changes to these numbers, one version after another.
    fn seen(numbers: &[u64]) -> Vec<Change> {
        let old = [BEGIN].into_iter().chain(numbers.iter().copied());
        let changes = old.zip(numbers).zip(100..);
        changes
            .map(|((old, new), version)| Change {
                kind: "updated".into(),
                key: Some(KEY.into()),
                old: Some(old.to_string()),
                new: Some(new.to_string()),
                version,
            })
            .collect()
    }

    const SAID: [Line; 4] = [Line::Written(1), Line::Written(2), Line::Unknown(3), Line::Written(4)];
    const RIGHT: Verdict =
        Verdict { acknowledged: 3, unknown: 1, missing: 0, repeated: 0, disordered: 0, strange: 0 };

    #[test]
    fn what_is_unknown_may_be_seen_or_not() {
        assert_eq!(Verdict::of(&SAID, &seen(&[1, 2, 3, 4])), RIGHT);
        assert_eq!(Verdict::of(&SAID, &seen(&[1, 2, 4])), RIGHT);
    }

    #[test]
    fn every_way_to_be_wrong_is_noticed() {
        assert_eq!(Verdict::of(&SAID, &seen(&[1, 4])), Verdict { missing: 1, ..RIGHT });
        assert_eq!(Verdict::of(&SAID, &seen(&[1, 2, 2, 4])), Verdict { repeated: 1, disordered: 1, ..RIGHT });
        assert_eq!(Verdict::of(&SAID, &seen(&[2, 1, 4])), Verdict { disordered: 1, ..RIGHT });
        assert_eq!(Verdict::of(&SAID, &seen(&[1, 2, 4, 9])), Verdict { strange: 1, ..RIGHT });
        let mut versions = seen(&[1, 2, 4]);
        versions[1].version = versions[0].version;
        assert_eq!(Verdict::of(&SAID, &versions), Verdict { disordered: 1, ..RIGHT });
        let mut old = seen(&[1, 2, 4]);
        old.remove(1);
        assert_eq!(Verdict::of(&SAID, &old), Verdict { missing: 1, disordered: 1, ..RIGHT });
    }
}
