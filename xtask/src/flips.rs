//! `cargo xtask flips`: one bit after the other in the files of real servers, and what comes of it.
//!
//! Three servers in this process, with real files, under a steady writer. One is stopped, a bit of its files is flipped, it is started
//! again. It must say so, unless the byte decides nothing; abstain where what it acknowledged may be missing; get over that by itself; and
//! never show anything that was not written. What was acknowledged is there after each flip, and at the end. Before the start, the code of
//! `atomix log verify` must have named the file, also if the byte is one that a start has no need of.
//!
//! | module | what it is |
//! |---|---|
//! | `servers` | the servers, and a network that can be cut |
//! | `layout`, `log`, `snapshots` | what each byte of a directory is, read independently, and what must come of its flip |
//! | `draw` | which bit |
//! | `ledger`, `reader` | what was written and acknowledged; reads, held against that |
//! | `round` | one flip: stop, flip, start, look |
//! | `running` | flips in files in use, and in both manifests |
//! | `verify` | what is said of a stopped directory |
//! | `quiet` | the end: everything stopped, compared, started once more |
//! | `tally` | figures |

mod draw;
mod layout;
mod ledger;
mod log;
mod quiet;
mod reader;
mod round;
mod running;
mod servers;
mod snapshots;
mod tally;
mod verify;

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tempfile::TempDir;
use tokio::task::JoinSet;

use crate::mutants;
use draw::Draw;
use round::Cluster;
use tally::Tally;

const USAGE: &str = "usage: cargo xtask flips [--offsets N] [--seed N] [--clusters N] [--mutant NAME]";
/// Flips of which a start must speak, unless asked otherwise. Others come beside.
const OFFSETS: u64 = 2_000;
/// Clusters at a time: mostly they wait, for disks and for timeouts.
const CLUSTERS: u64 = 6;
/// Fewer need not hit everything.
const VARIED: u64 = 400;
/// After so many flips in files at rest comes one in a file in use.
const PER_RUNNING: u64 = 15;
/// After so many comes one in a byte that a start has no need of, or that means nothing.
const PER_BESIDE: u64 = 6;
/// After so many comes one in both manifests.
const PER_REFUSED: u64 = 150;
const BETWEEN_READS: Duration = Duration::from_millis(2);
/// Pieces of damage that were not named are told, at most so many.
const TOLD: usize = 12;
/// After so many it is said how far it is.
const PER_WORD: u64 = 250;

/// What was asked for.
#[derive(Clone, Debug)]
struct Asked {
    offsets: u64,
    seed: u64,
    clusters: u64,
    mutant: Option<String>,
}

impl Asked {
    fn parse(args: &[String]) -> Result<Self, String> {
        let seed = u64::from(std::process::id());
        let mut asked = Asked { offsets: OFFSETS, seed, clusters: CLUSTERS, mutant: None };
        let mut args = args.iter();
        while let Some(arg) = args.next() {
            let value = args.next().ok_or(format!("{arg} needs a value"))?;
            let number = || value.parse().map_err(|_| format!("`{value}` is no number"));
            match arg.as_str() {
                "--offsets" => asked.offsets = number()?,
                "--seed" => asked.seed = number()?,
                "--clusters" => asked.clusters = number()?,
                "--mutant" => asked.mutant = Some(value.clone()),
                other => return Err(format!("unknown argument `{other}`")),
            }
        }
        if asked.clusters == 0 || asked.offsets == 0 {
            return Err("at least one of each".into());
        }
        asked.clusters = asked.clusters.min(asked.offsets);
        Ok(asked)
    }

    fn command(&self) -> String {
        let Asked { offsets, seed, clusters, mutant } = self;
        let mutant = mutant.as_ref().map_or(String::new(), |mutant| format!(" --mutant {mutant}"));
        format!("cargo xtask flips --offsets {offsets} --seed {seed} --clusters {clusters}{mutant}")
    }

    /// How many are one cluster's.
    fn share(&self, cluster: u64) -> u64 {
        self.offsets / self.clusters + u64::from(cluster < self.offsets % self.clusters)
    }
}

/// Runs the task.
pub(crate) fn run(args: &[String]) -> ExitCode {
    let asked = match Asked::parse(args) {
        Ok(asked) => asked,
        Err(problem) => {
            eprintln!("flips: {problem}\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    if let Some(mutant) = &asked.mutant {
        match mutants::plant(mutant) {
            Some(true) => {}
            None => return mutants::call_again("flips", args),
            Some(false) => {
                eprintln!("flips: no mutant `{mutant}`\n{USAGE}");
                return ExitCode::from(2);
            }
        }
    }
    println!("flips: {} clusters of three, seed {}: {}", asked.clusters, asked.seed, asked.command());
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("flips: {error}");
            return ExitCode::FAILURE;
        }
    };
    let begin = Instant::now();
    let ended = runtime.block_on(async {
        tokio::select! {
            ended = all(&asked) => Some(ended),
            _ = atomix_cli::signals::interrupted() => None,
        }
    });
    let Some((tally, problems)) = ended else {
        eprintln!("flips: interrupted");
        return ExitCode::from(130);
    };
    if told(&asked, &tally, &problems) {
        println!("flips: {:.0} s", begin.elapsed().as_secs_f64());
        ExitCode::SUCCESS
    } else {
        eprintln!("flips: again: {}", asked.command());
        ExitCode::FAILURE
    }
}

/// Says what came of it; whether all held.
fn told(asked: &Asked, tally: &Tally, problems: &[String]) -> bool {
    for problem in problems {
        eprintln!("flips: FAILED: {problem}");
    }
    if !problems.is_empty() {
        return false;
    }
    tally.print();
    for words in tally.unnamed.iter().take(TOLD) {
        eprintln!("flips: FAILED: {words}");
    }
    if !tally.unnamed.is_empty() {
        eprintln!("flips: FAILED: {} times the damaged file was not named", tally.unnamed.len());
    }
    let missing = if asked.offsets >= VARIED { tally.missing() } else { Vec::new() };
    if !missing.is_empty() {
        eprintln!("flips: FAILED: vacuous: never seen: {}", missing.join(", "));
    }
    tally.unnamed.is_empty() && missing.is_empty()
}

/// What the clusters have in common.
#[derive(Debug, Default)]
struct Common {
    stop: AtomicBool,
    flips: AtomicU64,
}

/// All clusters at once. One that fails stops the others.
async fn all(asked: &Asked) -> (Tally, Vec<String>) {
    let common = Arc::new(Common::default());
    let mut clusters = JoinSet::new();
    for number in 0..asked.clusters {
        clusters.spawn(one(asked.clone(), number, common.clone()));
    }
    let (mut tally, mut problems) = (Tally::default(), Vec::new());
    while let Some(ended) = clusters.join_next().await {
        match ended {
            Ok(Ok(figures)) => tally.add(figures),
            Ok(Err(problem)) => problems.push(problem),
            Err(error) => problems.push(error.to_string()),
        }
    }
    (tally, problems)
}

/// One cluster, with its share of the flips.
async fn one(asked: Asked, number: u64, common: Arc<Common>) -> Result<Tally, String> {
    let home = TempDir::new().map_err(|error| error.to_string())?;
    let draw = Draw::new(asked.seed, number);
    let mut cluster = Cluster::begin(home.path().to_owned(), draw).await?;
    if let Err((flip, problem)) = rounds(&mut cluster, &asked, number, &common).await {
        common.stop.store(true, Ordering::Relaxed);
        let kept = cluster.keep_evidence();
        drop(cluster);
        let _ = home.keep();
        return Err(format!("cluster {number}, flip {flip}: {problem}\n  kept: {}", kept.display()));
    }
    cluster.end().await.map_err(|problem| format!("cluster {number}, at the end: {problem}"))
}

async fn rounds(
    cluster: &mut Cluster,
    asked: &Asked,
    number: u64,
    common: &Common,
) -> Result<(), (u64, String)> {
    let flips = asked.share(number);
    for flip in 0..flips {
        if common.stop.load(Ordering::Relaxed) {
            return Ok(());
        }
        let failed = |problem| (flip, problem);
        cluster.flip(flip as usize, true).await.map_err(failed)?;
        if flip % PER_BESIDE == PER_BESIDE - 1 || flip + 1 == flips {
            cluster.flip((flip / PER_BESIDE) as usize, false).await.map_err(failed)?;
        }
        if flip % PER_RUNNING == PER_RUNNING - 1 || flip + 1 == flips {
            cluster.flip_in_use((flip / PER_RUNNING + number) as usize).await.map_err(failed)?;
        }
        if flip % PER_REFUSED == PER_REFUSED - 1 || flip + 1 == flips {
            cluster.flip_both_manifests((flip / 3) as usize).await.map_err(failed)?;
        }
        let done = common.flips.fetch_add(1, Ordering::Relaxed) + 1;
        if done.is_multiple_of(PER_WORD) {
            println!("flips: {done} of {}", asked.offsets);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(words: &str) -> Result<Asked, String> {
        let words: Vec<String> = words.split_whitespace().map(str::to_owned).collect();
        Asked::parse(&words)
    }

    #[test]
    fn each_flip_is_of_one_cluster() {
        let asked = parse("--offsets 20 --seed 3 --clusters 6").expect("understood");
        let shares: Vec<u64> = (0..6).map(|cluster| asked.share(cluster)).collect();
        assert_eq!(shares, [4, 4, 3, 3, 3, 3]);
        assert_eq!(asked.command(), "cargo xtask flips --offsets 20 --seed 3 --clusters 6");
        assert_eq!(parse("--offsets 2").expect("understood").clusters, 2);
        for wrong in ["--offsets", "--offsets x", "--offsets 0", "--clusters 0", "--what 1"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }
}
