//! `cargo xtask powercut`: forced shutdowns of a file system under servers at work, again and again.
//!
//! Two clusters keep their data on it, with a write load each: one of three servers, and one of a single server, where nobody makes
//! good what its disk lost. A cut hits them all at once, at any moment: at work, while snapshots are taken all the time, while they start, and
//! while they recover from the cut before. The file system keeps what was synced, and of the rest what it happened to have written.
//!
//! A disk in memory writes all of a batch or nothing. So in every other round syncs begin late, and some sectors of what was not synced are
//! put on the disk, and others not (`tearing`).

mod tearing;

use std::process::ExitCode;
use std::time::{Duration, Instant};

use atomix_cli::cluster::Cluster;
use rand::rngs::Xoshiro256PlusPlus;
use rand::{RngExt, SeedableRng};

use super::disk::{Disk, Journal};
use super::load::{Load, WAIT};
use super::{Asked, End, OFTEN, Outcome, logs, strace, taken_for_damage, watch};

const USAGE: &str = "usage: cargo xtask powercut [--cuts N] [--seed N] [--with BINARY]";
/// Cuts unless asked otherwise.
const CUTS: u64 = 200;
/// One line for so many.
const LINE: u64 = 20;
/// Of the file system.
const MEGABYTES: u64 = 128;
/// Writers of each cluster.
const WRITERS: u64 = 16;
/// In rounds that are to tear a batch every sync begins so late.
const LATE: Duration = Duration::from_millis(8);
/// So many cuts and more must have torn a batch.
const TORN: u64 = 200;
/// How it is mounted: each has its own ways to lose what was not synced.
const MOUNTS: [&str; 4] = ["data=ordered", "data=writeback", "nodelalloc", "noauto_da_alloc,commit=1"];

/// Runs the task.
pub(crate) fn run(args: &[String]) -> ExitCode {
    match Asked::parse(args, "--cuts", CUTS, &[]) {
        Ok(asked) => super::end("powercut", cut(&asked)),
        Err(problem) => {
            eprintln!("powercut: {problem}\n{USAGE}");
            ExitCode::from(2)
        }
    }
}

/// A cluster on the disk, and those who write to it.
struct Site {
    cluster: Cluster,
    load: Load,
}

async fn cut(asked: &Asked) -> Outcome {
    if let Some(why) = Disk::why_not() {
        return Ok(End::Skipped(why));
    }
    let tears = strace::why_not();
    let disk = Disk::make(MEGABYTES)?;
    let executable = asked.executable()?;
    let mut sites = Vec::new();
    for servers in [3, 1] {
        let mut cluster =
            Cluster::prepare(&executable, servers, &OFTEN).map_err(|error| error.to_string())?;
        cluster.keep_data_in(&disk.mounted().join(format!("of-{servers}")));
        let load = Load::start(cluster.addresses(), WRITERS);
        sites.push(Site { cluster, load });
    }
    println!("powercut: {} cuts, seed {}: servers of {}", asked.times, asked.seed, executable.display());
    if let Some(why) = &tears {
        println!("powercut: no batch is torn: {why}");
    }
    let ended = cuts(asked, &disk, &mut sites, tears.is_none()).await;
    if ended.is_err() {
        for site in &sites {
            logs(&site.cluster).iter().for_each(|log| eprintln!("{log}"));
            for status in site.cluster.statuses().await.into_iter().flatten() {
                eprintln!("-- {}, {}: {}", status.address, status.role, status.notice);
            }
        }
    }
    for site in sites {
        drop(site.load);
        site.cluster.stop().await.map_err(|failure| failure.to_string())?;
    }
    // Nobody uses it any more; a disk that was cut last is not mounted.
    let _ = disk.unmount();
    ended
}

async fn cuts(asked: &Asked, disk: &Disk, sites: &mut [Site], tears: bool) -> Outcome {
    let mut random = Xoshiro256PlusPlus::seed_from_u64(asked.seed);
    let begin = Instant::now();
    let (mut in_recovery, mut tearing, mut torn) = (0, 0, 0);
    for number in 1..=asked.times {
        let tear = tears && random.random_bool(0.5);
        let under = if tear { strace::delaying(LATE) } else { Vec::new() };
        for site in sites.iter_mut() {
            site.start(&under)?;
        }
        // The first cut may hit servers that never were anything, and any other those that are still at what the last one left.
        if random.random_bool(0.25) {
            in_recovery += 1;
            tokio::time::sleep(Duration::from_millis(random.random_range(0..250))).await;
        } else {
            for site in sites.iter_mut() {
                site.check(number % LINE == 0)
                    .await
                    .map_err(|problem| format!("after cut {}: {problem}", number - 1))?;
            }
            tokio::time::sleep(Duration::from_millis(random.random_range(0..600))).await;
        }
        let mut sectors = Vec::new();
        if tear {
            tearing += 1;
            for site in sites.iter_mut() {
                site.kill().await?;
                sectors.extend(site.half(&mut random)?);
            }
        }
        let journal = if random.random_bool(0.75) { Journal::Lost } else { Journal::Written };
        disk.cut(journal)?;
        for site in sites.iter_mut() {
            site.kill().await?;
        }
        disk.unmount()?;
        tearing::put(disk, &sectors)?;
        disk.mount(MOUNTS[random.random_range(0..MOUNTS.len())])?;
        for site in sites.iter() {
            torn += site.torn().map_err(|problem| format!("after cut {number}: {problem}"))?;
        }
        if number % LINE == 0 {
            let acknowledged: u64 = sites.iter().map(|site| site.load.acknowledged()).sum();
            let seconds = begin.elapsed().as_secs_f64();
            println!(
                "powercut: {number} cuts, {acknowledged} acknowledged writes, {torn} torn ends, {seconds:.0} s"
            );
        }
    }
    for site in sites.iter_mut() {
        site.start(&[])?;
        site.check(true).await.map_err(|problem| format!("at the end: {problem}"))?;
    }
    let acknowledged: u64 = sites.iter().map(|site| site.load.acknowledged()).sum();
    let sessions: u64 = sites.iter().map(|site| site.load.sessions()).sum();
    println!(
        "{} power cuts: {acknowledged} acknowledged writes, 0 lost; {torn} starts on a torn end, after {tearing} cuts that were to tear a batch \
         ({in_recovery} cuts right after a start; {sessions} sessions; {:.0} s)",
        asked.times,
        begin.elapsed().as_secs_f64()
    );
    if acknowledged == 0 {
        return Err("nothing was acknowledged: nothing was shown".into());
    }
    if tears && asked.times >= TORN && torn == 0 {
        return Err("vacuous: no start found a torn end".into());
    }
    Ok(End::Held)
}

impl Site {
    /// Starts all servers, under another program if one is named.
    fn start(&mut self, under: &[String]) -> Result<(), String> {
        let under: Vec<&str> = under.iter().map(String::as_str).collect();
        for server in 0..self.cluster.size() {
            self.cluster.start_server_under(server, &under).map_err(|error| error.to_string())?;
        }
        Ok(())
    }

    /// Some sectors of each server's last batch, and not all.
    fn half(&self, random: &mut Xoshiro256PlusPlus) -> Result<Vec<(u64, Vec<u8>)>, String> {
        let each =
            (0..self.cluster.size()).map(|server| tearing::half(&self.cluster.directory(server), random));
        Ok(each.collect::<Result<Vec<_>, String>>()?.concat())
    }

    /// How many of the servers will find a torn end.
    fn torn(&self) -> Result<u64, String> {
        let each = |server| tearing::is_torn(&self.cluster.directory(server)).map(u64::from);
        (0..self.cluster.size()).map(each).sum()
    }

    async fn kill(&mut self) -> Result<(), String> {
        for server in 0..self.cluster.size() {
            self.cluster.kill(server).await.map_err(|error| error.to_string())?;
        }
        Ok(())
    }

    /// Whether all that was acknowledged is there; also as each server says itself, if asked.
    async fn check(&mut self, each: bool) -> Result<(), String> {
        let Site { cluster, load } = self;
        let servers = cluster.size();
        tokio::select! {
            checked = load.check() => checked?,
            ended = watch(cluster) => return Err(ended),
        }
        // Whatever a cut leaves is torn and nothing else: it must never be taken for damage.
        for (server, status) in cluster.statuses().await.into_iter().enumerate() {
            if let Some(damage) = status.as_ref().and_then(taken_for_damage) {
                return Err(format!("server {} of {servers} says it is damaged: {damage}", server + 1));
            }
        }
        for server in (0..servers).filter(|_| each) {
            self.cluster.caught_up(server, WAIT).await.map_err(|failure| failure.to_string())?;
            let address = &self.cluster.addresses()[server];
            self.load
                .check_at(address)
                .await
                .map_err(|problem| format!("server {}: {problem}", server + 1))?;
        }
        Ok(())
    }
}
