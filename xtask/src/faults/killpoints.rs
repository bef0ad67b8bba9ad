//! `cargo xtask killpoints`: a server killed right before the n-th write, sync, rename, removal or creation of a file, for points
//! all over a first start, a run under load, its snapshots, and a start on what such an end has left.
//!
//! One server is its cluster, so that nobody makes good what its disk lacks. What it does is looked at first; each point is one of the
//! calls seen, tried on a directory of its own. Then the server starts as it is, must lead, and have all that was acknowledged.

mod failing;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use atomix_cli::cluster::Cluster;
use rand::SeedableRng;
use rand::rngs::Xoshiro256PlusPlus;
use rand::seq::SliceRandom;
use tokio::task::JoinSet;

use super::load::{Load, WAIT};
use super::strace::{self, Point};
use super::{Asked, End, OFTEN, Outcome, logs, taken_for_damage, watch};

const USAGE: &str = "usage: cargo xtask killpoints [--points N] [--seed N] [--with BINARY] [--eio]";
/// Points unless asked otherwise.
const POINTS: u64 = 300;
/// Writers of each server.
const WRITERS: u64 = 4;
/// A point that is not reached in so long is not reached.
const REACHED: Duration = Duration::from_millis(1500);
/// So long is a run that is looked at.
const LOOK: Duration = Duration::from_millis(700);
/// Points are tried by so many at a time.
const AT_A_TIME: usize = 2;

/// When a point comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum When {
    /// On an empty directory, before anything was asked of the server.
    Start,
    /// Under load.
    Run,
    /// Under load, on a snapshot or on what goes because of it.
    Snapshot,
    /// On the directory that the point before has left.
    Again,
}

/// Runs the task.
pub(crate) fn run(args: &[String]) -> ExitCode {
    match Asked::parse(args, "--points", POINTS, &["--eio"]) {
        Ok(asked) if asked.has("--eio") => super::end("killpoints --eio", failing::run(asked)),
        Ok(asked) => super::end("killpoints", kill(asked)),
        Err(problem) => {
            eprintln!("killpoints: {problem}\n{USAGE}");
            ExitCode::from(2)
        }
    }
}

/// A server, and who writes to it.
struct Bench {
    cluster: Cluster,
    load: Option<Load>,
    /// Directories that it has had.
    directories: u64,
}

async fn kill(asked: Asked) -> Outcome {
    if let Some(why) = strace::why_not() {
        return Ok(End::Skipped(why));
    }
    let executable = asked.executable()?;
    println!("killpoints: {} points, seed {}: {}", asked.times, asked.seed, executable.display());
    let begin = Instant::now();
    let mut bench = Bench::new(&executable)?;
    let candidates = bench.candidates().await;
    let candidates = candidates.map_err(|problem| format!("{problem}\n{}", logs(&bench.cluster).concat()))?;
    bench.end().await?;
    let points = draw(candidates, asked.times, asked.seed);
    let points = Arc::new(Mutex::new(points));
    let mut workers = JoinSet::new();
    for _ in 0..AT_A_TIME {
        workers.spawn(work(Bench::new(&executable)?, points.clone()));
    }
    let mut total = Total::default();
    while let Some(worker) = workers.join_next().await {
        total.add(worker.map_err(|error| error.to_string())??);
    }
    let Total { reached, distinct, missed, acknowledged, of } = total;
    let distinct = distinct.len();
    println!(
        "{reached} kill points, {distinct} of them distinct ({} at a first start, {} in a run, {} at snapshots, {} at a start again; {missed} more not reached): \
         {acknowledged} acknowledged writes, 0 lost, recovered each time ({:.0} s)",
        of[0],
        of[1],
        of[2],
        of[3],
        begin.elapsed().as_secs_f64()
    );
    if reached < asked.times {
        return Err(format!("only {reached} of {} points were reached", asked.times));
    }
    if (distinct as u64) < asked.times {
        return Err(format!("only {distinct} of {} points are distinct", asked.times));
    }
    Ok(End::Held)
}

/// What came of some points.
#[derive(Default)]
struct Total {
    reached: u64,
    /// Which were reached, each in its place.
    distinct: BTreeSet<(When, Point)>,
    missed: u64,
    acknowledged: u64,
    of: [u64; 4],
}

impl Total {
    fn add(&mut self, other: Total) {
        self.reached += other.reached;
        self.distinct.extend(other.distinct);
        self.missed += other.missed;
        self.acknowledged += other.acknowledged;
        self.of.iter_mut().zip(other.of).for_each(|(sum, more)| *sum += more);
    }
}

/// Points still to be tried: so many have to be reached of each kind. Each is tried once.
struct Points {
    kinds: [(When, u64, Vec<Point>); 4],
}

impl Points {
    fn next(&mut self) -> Option<(When, Point)> {
        for at in 0..self.kinds.len() {
            let (when, wanted, points) = &mut self.kinds[at];
            if *wanted == 0 {
                continue;
            }
            if let Some(point) = points.pop() {
                *wanted -= 1;
                return Some((*when, point));
            }
            let left = std::mem::take(wanted);
            self.add(When::Run, if at == When::Run as usize { 0 } else { left });
        }
        // What a kind had too few of came to the run after its turn.
        let (when, wanted, points) = &mut self.kinds[When::Run as usize];
        *wanted = wanted.checked_sub(1)?;
        points.pop().map(|point| (*when, point))
    }

    fn add(&mut self, when: When, more: u64) {
        self.kinds[when as usize].1 += more;
    }

    /// A point was not reached: another one takes its place, for a while.
    fn missed(&mut self, when: When, patience: &mut u64) {
        if *patience > 0 {
            *patience -= 1;
            self.add(when, 1);
        }
    }
}

/// Spreads the points over what was seen. Of a run there are most: it gets what the others have too few for.
fn draw(candidates: [(When, BTreeSet<Point>); 4], times: u64, seed: u64) -> Points {
    let mut random = Xoshiro256PlusPlus::seed_from_u64(seed);
    let mut left = times;
    let mut kinds = candidates.map(|(when, points)| {
        let mut points: Vec<Point> = points.into_iter().collect();
        points.shuffle(&mut random);
        let tenths = if when == When::Again { 1 } else { 3 };
        let share = (times * tenths / 10).min(points.len() as u64);
        left -= share;
        (when, share, points)
    });
    kinds[When::Run as usize].1 += left;
    Points { kinds }
}

async fn work(mut bench: Bench, points: Arc<Mutex<Points>>) -> Result<Total, String> {
    let mut total = Total::default();
    let mut patience = 200;
    let points = || points.lock().unwrap_or_else(PoisonError::into_inner);
    loop {
        let Some((when, point)) = points().next() else { break };
        let tried = bench.attempt(when, &point).await;
        match tried.map_err(|problem| {
            format!("{when:?}, killed at {point}: {problem}\n{}", logs(&bench.cluster).concat())
        })? {
            true => {
                total.reached += 1;
                total.of[when as usize] += 1;
                total.distinct.insert((when, point));
            }
            false => {
                total.missed += 1;
                points().missed(when, &mut patience);
            }
        }
        total.acknowledged += bench.acknowledged();
    }
    bench.end().await?;
    Ok(total)
}

impl Bench {
    fn new(executable: &Path) -> Result<Self, String> {
        let cluster = Cluster::prepare(executable, 1, &OFTEN).map_err(|error| error.to_string())?;
        Ok(Bench { cluster, load: None, directories: 0 })
    }

    /// Looks at a first start, a run, and a start after that.
    async fn candidates(&mut self) -> Result<[(When, BTreeSet<Point>); 4], String> {
        self.fresh()?;
        let start = self.look(async |bench| bench.leads().await).await?;
        let again = self.look(async |bench| bench.leads().await).await?;
        self.fresh()?;
        self.write();
        let run = self
            .look(async |bench| {
                bench.leads().await?;
                tokio::time::sleep(LOOK).await;
                Ok(())
            })
            .await?;
        let on_snapshots = |point: &Point| {
            point.file.as_ref().is_some_and(|file| file.contains("snap"))
                || point.call.starts_with("unlink")
                || point.call.starts_with("rename")
        };
        let (snapshots, run): (BTreeSet<_>, BTreeSet<_>) =
            run.into_iter().map(|(on_file, _)| on_file).partition(on_snapshots);
        let start: BTreeSet<_> = start.into_iter().map(|(on_file, _)| on_file).collect();
        let again: BTreeSet<_> = again.into_iter().map(|(_, on_any)| on_any).collect();
        println!(
            "killpoints: calls seen that change the disk: {} at a first start, {} in a run, {} at snapshots, {} at a start again",
            start.len(),
            run.len(),
            snapshots.len(),
            again.len()
        );
        Ok([(When::Start, start), (When::Run, run), (When::Snapshot, snapshots), (When::Again, again)])
    }

    /// What the server does on its disk meanwhile.
    async fn look(
        &mut self,
        meanwhile: impl AsyncFnOnce(&mut Bench) -> Result<(), String>,
    ) -> Result<Vec<(Point, Point)>, String> {
        let trace = self.cluster.log(0).with_extension("trace");
        self.start(&strace::looking(&trace))?;
        meanwhile(self).await?;
        self.kill().await?;
        // The end of the last line may be missing.
        let text = fs::read(&trace).map_err(|error| format!("no trace: {error}"))?;
        let calls = strace::read(&String::from_utf8_lossy(&text), &self.cluster.directory(0));
        if calls.is_empty() { Err("it saw nothing".into()) } else { Ok(calls) }
    }

    /// Tries a point; whether it was reached. The server must come up afterwards, with all that was acknowledged.
    async fn attempt(&mut self, when: When, point: &Point) -> Result<bool, String> {
        self.kill().await?;
        if when != When::Again {
            self.fresh()?;
        }
        self.write();
        self.start(&strace::killing(point, &self.cluster.directory(0)))?;
        let reached = tokio::time::timeout(REACHED, watch(&mut self.cluster)).await;
        if let Ok(ended) = &reached
            && !ended.contains("SIGKILL")
        {
            return Err(ended.clone());
        }
        self.kill().await?;
        self.start(&[])?;
        self.check().await?;
        Ok(reached.is_ok())
    }

    /// From here on on an empty directory, with nothing written to it.
    fn fresh(&mut self) -> Result<(), String> {
        let gone = fs::remove_dir_all(self.cluster.directory(0));
        if let Err(error) = gone.or_else(|error| if self.directories == 0 { Ok(()) } else { Err(error) }) {
            return Err(error.to_string());
        }
        self.directories += 1;
        self.load = None;
        let root: PathBuf = self.cluster.log(0).with_extension("data");
        self.cluster.keep_data_in(&root.join(self.directories.to_string()));
        Ok(())
    }

    /// Goes on to write, or begins.
    fn write(&mut self) {
        self.load.get_or_insert_with(|| Load::start(self.cluster.addresses(), WRITERS));
    }

    fn start(&mut self, under: &[String]) -> Result<(), String> {
        let under: Vec<&str> = under.iter().map(String::as_str).collect();
        self.cluster.start_server_under(0, &under).map_err(|error| error.to_string())
    }

    async fn kill(&mut self) -> Result<(), String> {
        self.cluster.kill(0).await.map_err(|error| error.to_string())
    }

    async fn leads(&mut self) -> Result<(), String> {
        let leader = self.cluster.leader(WAIT).await;
        leader.map(|_| ()).map_err(|failure| failure.to_string())
    }

    async fn check(&mut self) -> Result<(), String> {
        let Bench { cluster, load, .. } = self;
        if let Some(load) = load {
            tokio::select! {
                checked = load.check() => checked?,
                ended = watch(cluster) => return Err(ended),
            }
        }
        match self.cluster.status(0).await.and_then(|status| taken_for_damage(&status)) {
            Some(damage) => Err(format!("it says that it is damaged: {damage}")),
            None => Ok(()),
        }
    }

    /// How many writes were acknowledged, on the directory in use.
    fn acknowledged(&self) -> u64 {
        self.load.as_ref().map_or(0, Load::acknowledged)
    }

    async fn end(self) -> Result<(), String> {
        drop(self.load);
        self.cluster.stop().await.map_err(|failure| failure.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn points(kind: &str, count: u32) -> BTreeSet<Point> {
        (1..=count).map(|nth| Point { call: kind.into(), file: None, nth }).collect()
    }

    /// Draws points, of which the first few of each kind are not reached.
    fn drawn(counts: [u32; 4], times: u64, unreached: u64) -> [usize; 4] {
        let whens = [When::Start, When::Run, When::Snapshot, When::Again];
        let mut kinds =
            whens.into_iter().zip(counts).map(|(when, n)| (when, points(&format!("{when:?}"), n)));
        let kinds = [(); 4].map(|()| kinds.next().expect("four"));
        let (mut points, mut patience, mut missed) = (draw(kinds, times, 7), 200, [0; 4]);
        let mut reached = BTreeSet::new();
        while let Some((when, point)) = points.next() {
            if missed[when as usize] < unreached {
                missed[when as usize] += 1;
                points.missed(when, &mut patience);
            } else {
                assert!(reached.insert((when, point)), "twice");
            }
        }
        whens.map(|when| reached.iter().filter(|(of, _)| *of == when).count())
    }

    #[test]
    fn no_point_is_tried_twice_and_the_run_gets_what_the_others_lack() {
        assert_eq!(drawn([39, 730, 37, 20], 300, 0), [39, 204, 37, 20]);
        assert_eq!(drawn([39, 730, 37, 20], 30, 0), [9, 9, 9, 3]);
        assert_eq!(drawn([39, 730, 37, 20], 300, 5), [34, 219, 32, 15]);
        assert_eq!(drawn([3, 10, 3, 3], 100, 0), [3, 10, 3, 3]);
    }
}
