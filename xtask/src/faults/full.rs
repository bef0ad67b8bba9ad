//! `cargo xtask full-disk`: servers of three whose disks are full, under load, and have room again.
//!
//! One of three: the others go on, under another leader if it led. All: commands are refused as not done for want of room, queries are
//! answered, no server is ready; also after a start on a full disk. With reserves that are soon used up, so that nothing at all can be
//! written any more: nobody leads then. When there is room again all of it ends by itself: the processes are the same.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use atomix::Status;
use atomix_cli::cluster::{Cluster, until};
use atomix_cli::exit::{Exit, Failure};
use tokio::process::Command;
use tokio::task::JoinSet;

use super::disk::Disk;
use super::load::{Load, WAIT};
use super::{Asked, End, OFTEN, Outcome, logs};

const USAGE: &str = "usage: cargo xtask full-disk [--rounds N] [--seed N] [--with BINARY]";
/// Of each server's file system.
const MEGABYTES: u64 = 24;
/// Length of a segment, and so of the reserve: as long as writers are refused it goes to what says so in the log (S4).
const AMPLE: &str = "1000000";
/// Soon used up.
const SCANT: &str = "65536";
/// How often all of it is done.
const ROUNDS: u64 = 2;
const WRITERS: u64 = 4;
/// Acknowledgements that show that a cluster goes on.
const ON: u64 = 200;
/// What is written at a time to fill a disk. The last of them may be shorter.
const PIECE: usize = 64 << 10;
/// For so long, if they last, writers are refused on scant reserves.
const REFUSED: Duration = Duration::from_secs(10);
/// Who fills a disk looks so often whether there is room again.
const REFILL: Duration = Duration::from_millis(10);
/// A server that holds back acknowledgements for want of room says so after this, whatever it has left.
const FILLS: Duration = Duration::from_secs(20);

/// Runs the task.
pub(crate) fn run(args: &[String]) -> ExitCode {
    match Asked::parse(args, "--rounds", ROUNDS, &[]) {
        Ok(asked) => super::end("full-disk", fill(asked)),
        Err(problem) => {
            eprintln!("full-disk: {problem}\n{USAGE}");
            ExitCode::from(2)
        }
    }
}

/// Three servers, each with a disk of its own, and who writes to them.
struct Site {
    executable: PathBuf,
    cluster: Cluster,
    load: Load,
    disks: Vec<Disk>,
    /// Those who take what room there is on a server's disk.
    fillers: BTreeMap<usize, JoinSet<()>>,
}

async fn fill(asked: Asked) -> Outcome {
    if let Some(why) = Disk::why_not() {
        return Ok(End::Skipped(why));
    }
    let executable = asked.executable()?;
    let begin = Instant::now();
    let (mut acknowledged, mut refused) = (0, 0);
    for segment in [AMPLE, SCANT] {
        let disks: Result<Vec<Disk>, String> = (0..3).map(|_| Disk::make(MEGABYTES)).collect();
        let mut site = Site::start(&executable, disks?, segment)?;
        let ended = if segment == AMPLE { site.rounds(asked.times).await } else { site.used_up().await };
        if ended.is_err() {
            let statuses = site.cluster.statuses().await;
            statuses.iter().for_each(|status| eprintln!("{status:?}"));
            logs(&site.cluster).iter().for_each(|log| eprintln!("{log}"));
        }
        let Site { cluster, load, disks, fillers, .. } = site;
        drop(fillers);
        acknowledged += load.acknowledged();
        refused += load.full();
        drop(load);
        cluster.stop().await.map_err(in_words)?;
        drop(disks);
        ended?;
    }
    println!(
        "{} rounds of full disks, and reserves used up: {acknowledged} acknowledged writes, 0 lost; {refused} refused for want of room, 0 of them done ({:.0} s)",
        asked.times,
        begin.elapsed().as_secs_f64()
    );
    Ok(End::Held)
}

impl Site {
    fn start(executable: &Path, disks: Vec<Disk>, segment: &str) -> Result<Self, String> {
        let mut options = OFTEN.map(str::to_owned);
        options[OFTEN.len() - 1] = segment.into();
        let options: Vec<&str> = options.iter().map(String::as_str).collect();
        let mut cluster = Cluster::prepare(executable, 3, &options).map_err(|error| error.to_string())?;
        for (server, disk) in disks.iter().enumerate() {
            let data = disk.mounted().join("data");
            fs::create_dir(&data)
                .and_then(|()| symlink(data, cluster.directory(server)))
                .and_then(|()| cluster.start_server(server))
                .map_err(|error| error.to_string())?;
        }
        let load = Load::start(cluster.addresses(), WRITERS);
        Ok(Site { executable: executable.into(), cluster, load, disks, fillers: BTreeMap::new() })
    }

    /// What refusals write may use up the reserves, so that nothing can be written any more, not even a vote.
    async fn used_up(&mut self) -> Result<(), String> {
        self.goes_on().await?;
        for server in 0..3 {
            self.fill(server)?;
        }
        let cluster = &self.cluster;
        let nobody = until("nobody to lead", REFUSED, async || {
            let statuses = cluster.statuses().await;
            statuses.iter().flatten().all(|status| status.role != "leader").then_some(())
        });
        let led = if nobody.await.is_ok() { "nobody led any more" } else { "they lasted" };
        println!("full-disk: reserves of {SCANT} bytes, {} refused writes: {led}", self.load.full());
        for server in 0..3 {
            self.empty(server)?;
        }
        self.well().await
    }

    async fn rounds(&mut self, times: u64) -> Result<(), String> {
        self.goes_on().await?;
        for round in 1..=times {
            for leads in [true, false] {
                let leader = self.cluster.leader(WAIT).await.map_err(in_words)?;
                let victim = if leads { leader } else { (leader + 1) % 3 };
                let what = if leads { "the leader's" } else { "a follower's" };
                self.one(victim).await.map_err(|problem| format!("round {round}, {what} disk: {problem}"))?;
            }
            self.all().await.map_err(|problem| format!("round {round}, all disks: {problem}"))?;
            self.all_started_again()
                .await
                .map_err(|problem| format!("round {round}, started on full disks: {problem}"))?;
        }
        Ok(())
    }

    /// One full disk: the others go on.
    async fn one(&mut self, victim: usize) -> Result<(), String> {
        self.fill(victim)?;
        self.says(victim, "that its disk is full", |status| status.full && !status.is_ready()).await?;
        self.says(victim, "that another leads", |status| status.role != "leader").await?;
        self.goes_on().await?;
        self.load.check().await?;
        self.empty(victim)?;
        self.well().await
    }

    /// All disks full: nothing is taken, all is answered.
    async fn all(&mut self) -> Result<(), String> {
        let pids: Vec<_> = (0..3).map(|server| self.cluster.pid(server)).collect();
        for server in 0..3 {
            self.fill(server)?;
        }
        self.read_only().await?;
        for server in 0..3 {
            self.empty(server)?;
        }
        self.well().await?;
        let after: Vec<_> = (0..3).map(|server| self.cluster.pid(server)).collect();
        if pids == after { Ok(()) } else { Err("not the same processes".into()) }
    }

    /// The same, but the servers are killed and started again meanwhile; one disk after the other has room again.
    async fn all_started_again(&mut self) -> Result<(), String> {
        for server in 0..3 {
            self.fill(server)?;
        }
        self.read_only().await?;
        for server in 0..3 {
            self.cluster.kill(server).await.map_err(|error| error.to_string())?;
            self.cluster.start_server(server).map_err(|error| error.to_string())?;
        }
        self.read_only().await?;
        // One of three is not enough: what is acknowledged is on two disks.
        self.empty(0)?;
        self.says(0, "that its disk has room", |status| !status.full).await?;
        self.refused().await?;
        self.empty(1)?;
        self.goes_on().await?;
        self.empty(2)?;
        self.well().await
    }

    /// Commands are refused for want of room.
    async fn refused(&self) -> Result<(), String> {
        let (before, load) = (self.load.full(), &self.load);
        let refused = until("writers to be refused", WAIT, async || (load.full() > before).then_some(()));
        refused.await.map_err(in_words)
    }

    /// Nothing is taken, and all is answered. A server that compacts its log may get a segment back, and take commands until it is used up:
    /// then it is looked at again.
    async fn read_only(&mut self) -> Result<(), String> {
        let begin = Instant::now();
        loop {
            let full = self.two_full().await?;
            self.refused().await?;
            self.load.check().await?;
            let taken = self.load.acknowledged();
            let problem = match self.refused_by_hand(full).await {
                Ok(true) => return Ok(()),
                Ok(false) => "a put by hand is taken, time and again".to_owned(),
                Err(problem) if self.load.acknowledged() == taken => return Err(problem),
                Err(problem) => problem,
            };
            if begin.elapsed() > FILLS {
                return Err(problem);
            }
        }
    }

    /// Waits until two servers say that their disks are full; one of them. The third may have what it needs to the end: commands are taken
    /// no more.
    async fn two_full(&self) -> Result<usize, String> {
        let cluster = &self.cluster;
        let two = until("two servers to say that their disks are full", FILLS, async || {
            let statuses = cluster.statuses().await;
            let full = |status: &Status| status.full && !status.is_ready() && status.leader.is_some();
            let full: Vec<usize> =
                (0..3).filter(|server| statuses[*server].as_ref().is_some_and(full)).collect();
            (full.len() >= 2).then(|| full[0])
        });
        two.await.map_err(in_words)
    }

    /// A command of an operator is refused for want of room, and a server says that its disk is full. False if the command was done.
    async fn refused_by_hand(&self, full: usize) -> Result<bool, String> {
        let servers = self.cluster.addresses().join(",");
        let put = ["map", "put", "/by-hand", "key", "value", "--timeout", "2s", "--cluster", &servers];
        let put = Command::new(&self.executable).args(put).output().await.map_err(|e| e.to_string())?;
        if put.status.success() {
            return Ok(false);
        }
        let said = String::from_utf8_lossy(&put.stderr).into_owned();
        // A session that is new finds none to open it.
        if put.status.code() != Some(Exit::Unreachable as i32) || !said.contains("full") {
            return Err(format!("a put by hand: {:?}, {said}", put.status.code()));
        }
        let status = Command::new(&self.executable)
            .args(["status", "--json", "--cluster", &self.cluster.addresses()[full]])
            .output()
            .await
            .map_err(|error| error.to_string())?;
        let status = String::from_utf8_lossy(&status.stdout).into_owned();
        if !status.contains("\"ready\": false") || !status.contains("\"full\": true") {
            return Err(format!("the status by hand: {status}"));
        }
        Ok(true)
    }

    /// Everything is as if it had never been, by itself.
    async fn well(&mut self) -> Result<(), String> {
        for server in 0..3 {
            self.says(server, "that it is ready again", Status::is_ready).await?;
        }
        self.goes_on().await?;
        self.load.check().await?;
        for server in 0..3 {
            self.cluster.caught_up(server, WAIT).await.map_err(in_words)?;
            self.load.check_at(&self.cluster.addresses()[server]).await?;
        }
        Ok(())
    }

    async fn goes_on(&self) -> Result<(), String> {
        let (before, load) = (self.load.acknowledged(), &self.load);
        let enough =
            until("acknowledgements", WAIT, async || (load.acknowledged() >= before + ON).then_some(()));
        enough.await.map_err(in_words)
    }

    async fn says(
        &mut self,
        server: usize,
        what: &str,
        is_said: impl Fn(&Status) -> bool,
    ) -> Result<(), String> {
        let what = format!("server {} to say {what}", server + 1);
        let cluster = &self.cluster;
        let mut last = None;
        let said = until(&what, FILLS, async || {
            last = cluster.status(server).await;
            last.as_ref().filter(|status| is_said(status)).map(|_| ())
        });
        let said = said.await.map_err(in_words);
        said.map_err(|problem| format!("{problem}: {:?}; {last:?}", self.cluster.has_ended(server)))
    }

    /// Takes all the room that a server's disk has left, and what the server gives back.
    fn fill(&mut self, server: usize) -> Result<(), String> {
        let mut file = File::create(self.filler(server)).map_err(|error| error.to_string())?;
        let mut fill = move || {
            let mut piece = &[0x55; PIECE][..];
            while !piece.is_empty() {
                // What of a piece finds room is written all the same.
                if file.write_all(piece).is_err() {
                    piece = &piece[..piece.len() / 2];
                }
            }
        };
        fill();
        self.fillers.entry(server).or_default().spawn(async move {
            loop {
                tokio::time::sleep(REFILL).await;
                fill();
            }
        });
        Ok(())
    }

    fn empty(&mut self, server: usize) -> Result<(), String> {
        self.fillers.remove(&server);
        fs::remove_file(self.filler(server)).map_err(|error| error.to_string())
    }

    fn filler(&self, server: usize) -> PathBuf {
        self.disks[server].mounted().join("filler")
    }
}

fn in_words(failure: Failure) -> String {
    failure.to_string()
}
