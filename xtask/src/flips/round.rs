//! One cluster, and one flip after the other.

use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use tokio::task::JoinHandle;

use super::draw::{self, Draw, Flip};
use super::layout::{Class, Effect, Image, Layout};
use super::ledger::{self, Shared};
use super::reader::Reader;
use super::servers::{ELECTION, SERVERS, Servers, address};
use super::tally::{Repair, Tally};
use super::verify;

/// An abstaining server is watched for so long.
const WATCHED: Duration = ELECTION.1.saturating_mul(3);

/// A cluster under a steady load.
pub(super) struct Cluster {
    pub(super) servers: Servers,
    pub(super) ledger: Shared,
    pub(super) draw: Draw,
    pub(super) tally: Tally,
    writer: JoinHandle<String>,
    /// What the damaged directory was right before its server was started, for whoever wants to know.
    evidence: Option<Image>,
    home: PathBuf,
}

/// A server that is down, and whose directory has something wrong with it.
pub(super) struct Damaged {
    pub(super) server: usize,
    /// What the directory was before, or would be.
    pub(super) layout: Layout,
    /// The damaged file, and what must come of it.
    pub(super) file: String,
    pub(super) effect: Effect,
    /// What the flipped byte is; `None` if it was overwritten.
    pub(super) class: Option<Class>,
    /// Another session was opened before.
    pub(super) reader: Reader,
}

impl Cluster {
    pub(super) async fn begin(home: PathBuf, draw: Draw) -> Result<Self, String> {
        let servers = Servers::begin(home.clone()).await?;
        let ledger = Shared::default();
        let writer = tokio::spawn(ledger::write(servers.net.clone(), ledger.clone()));
        let cluster =
            Cluster { servers, ledger, draw, tally: Tally::default(), writer, evidence: None, home };
        // Not before every server has two snapshots: the first rounds are to find all that there is.
        for server in 0..SERVERS {
            let enough = |status: &atomix::Status| status.counters.snapshots_taken >= 2;
            cluster.servers.until(server, "has no snapshots", enough).await?;
        }
        Ok(cluster)
    }

    /// Stops a server, flips a bit of its files, starts it, and looks at everything that must come of that. The bit is one that a start
    /// must speak of, or one of the others.
    pub(super) async fn flip(&mut self, number: usize, looked_at: bool) -> Result<(), String> {
        let server = number % SERVERS;
        let reader = Reader::begin(&self.servers, &self.ledger, server).await?;
        let (_, layout) = self.stop(server).await?;
        let flip = draw::flip(&mut self.draw, &layout, looked_at).ok_or("there is nothing to flip")?;
        let Flip { part, at, bit } = &flip;
        let text = format!(
            "bit {bit} of {} at {at} of {} ({:?}, {:?}, to come: {:?})",
            part.file,
            address(server),
            part.class,
            part.side,
            part.effect
        );
        turn(&self.servers.directory(server).join(&part.file), *at, *bit)
            .map_err(|error| error.to_string())?;
        let (file, effect, class) = (part.file.clone(), part.effect, Some(part.class));
        let repair = self.recover(Damaged { server, layout, file, effect, class, reader }).await;
        let repair = repair.map_err(|problem| format!("{text}: {problem}"))?;
        *self.tally.flips.entry((part.class, part.side, part.effect)).or_default() += 1;
        *self.tally.repairs.entry(repair).or_default() += 1;
        Ok(())
    }

    /// Stops a server, and reads what it leaves: all of it must be whole.
    pub(super) async fn stop(&mut self, server: usize) -> Result<(Image, Layout), String> {
        let status = self.servers.status(server);
        // What is committed may not be durable here yet, and what is durable not be committed.
        let durable = status.durable_index.min(status.commit_index).0;
        let in_good_order = !self.draw.once_in(4);
        self.servers.stop(server, in_good_order).await?;
        let image = Image::of(&self.servers.directory(server)).map_err(|error| error.to_string())?;
        let layout = Layout::of(&image).map_err(|problem| format!("{} at rest: {problem}", address(server)));
        let layout = layout.inspect_err(|_| self.evidence = Some(image.clone()))?;
        if layout.last() < durable {
            let last = layout.last();
            self.evidence = Some(image);
            return Err(format!("{} at rest holds entries through {last}, not {durable}", address(server)));
        }
        Ok((image, layout))
    }

    /// Starts a damaged server and looks at everything that must come of it. How it came back to what it was.
    pub(super) async fn recover(&mut self, damaged: Damaged) -> Result<Repair, String> {
        let Damaged { server, layout, file, effect, class, reader } = damaged;
        let abstains = effect == Effect::Abstains;
        let directory = self.servers.directory(server);
        self.evidence = Some(Image::of(&directory).map_err(|error| error.to_string())?);
        let meant = class.filter(|class| class.means_something()).map(|_| file.as_str());
        verify::look(&directory, &layout, meant)
            .await
            .map_err(|problem| format!("atomix log verify: {problem}"))?;
        self.tally.verified += u64::from(meant.is_some());
        // Cut off, it can't get over anything before that was looked at.
        let cut = abstains || self.draw.once_in(3);
        self.servers.net.cut(server, cut);
        self.servers.start(server, false).await.map_err(|error| format!("does not start: {error}"))?;
        let unnamed = self.look(server, &layout, &file, effect)?;
        self.tally.unnamed.extend(unnamed);
        if abstains && self.draw.once_in(8) {
            self.watch_alone(server).await?;
        }
        if abstains && self.draw.once_in(8) {
            self.flip_again(server, layout.last()).await?;
        }
        let away =
            if abstains && self.draw.once_in(12) { self.take_leader_away(server).await? } else { None };
        self.servers.net.cut(server, false);
        if let Some(away) = away {
            self.watch_pair(server, away).await?;
        }
        let begin = Instant::now();
        let well = |status: &atomix::Status| status.abstains_until.is_none() && status.leader.is_some();
        let status = self.servers.until(server, "does not get over it", well).await?;
        if abstains {
            self.tally.longest = self.tally.longest.max(begin.elapsed());
        }
        if !status.votes {
            return Err(format!("has no vote: {}", status.notice));
        }
        self.tally.read += reader.end(&self.servers).await?;
        self.all_run().await?;
        self.evidence = None;
        let by_snapshot = self.servers.status(server).counters.snapshots_installed > 0;
        Ok(match (abstains, by_snapshot) {
            (false, _) => Repair::None,
            (true, true) => Repair::Snapshot,
            (true, false) => Repair::Entries,
        })
    }

    /// What a server says of itself right after its start. Where it has noticed the damage and names something else: that.
    fn look(
        &self,
        server: usize,
        layout: &Layout,
        file: &str,
        effect: Effect,
    ) -> Result<Option<String>, String> {
        let status = self.servers.status(server);
        let damage = &status.damage;
        let mut named: Vec<&str> = layout.known_damage.iter().map(String::as_str).collect();
        if effect != Effect::None {
            named.push(file);
        }
        if effect == Effect::None && damage.len() > named.len() {
            return Err(format!("says that it is damaged: {damage:?}"));
        }
        let missing = named.iter().find(|file| !damage.iter().any(|words| names(words, file)));
        let missing = missing.map(|file| format!("{file} is damaged ({effect:?}), and named was {damage:?}"));
        let last = layout.last();
        match status.abstains_until {
            Some(until) if effect == Effect::Abstains => {
                if until.0 < last || status.votes || !status.notice.contains("damaged") {
                    let said = (status.votes, &status.notice);
                    return Err(format!(
                        "abstains until {until}, and had entries through {last}; says {said:?}"
                    ));
                }
            }
            None if effect != Effect::Abstains => {}
            other => return Err(format!("abstains until {other:?}; {damage:?}")),
        }
        Ok(missing)
    }

    /// Stops a server that abstains, flips another bit of whatever it has, and starts it: it abstains at least as far.
    async fn flip_again(&mut self, server: usize, last: u64) -> Result<(), String> {
        self.servers.stop(server, false).await?;
        let directory = self.servers.directory(server);
        let image = Image::of(&directory).map_err(|error| error.to_string())?;
        let files: Vec<_> =
            image.files.iter().filter(|(_, bytes)| bytes.iter().any(|byte| *byte != 0)).collect();
        let (file, bytes) = *self.draw.pick(&files).ok_or("there is nothing to flip")?;
        let used = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
        let (at, bit) = (self.draw.below(used), self.draw.below(8) as u8);
        turn(&directory.join(file), at, bit).map_err(|error| error.to_string())?;
        let text = format!("and bit {bit} of {file} at {at} while it abstained");
        self.evidence = Some(Image::of(&directory).map_err(|error| error.to_string())?);
        self.servers
            .start(server, false)
            .await
            .map_err(|error| format!("{text}: does not start: {error}"))?;
        let status = self.servers.status(server);
        if status.abstains_until.is_none_or(|until| until.0 < last) || status.votes {
            let until = status.abstains_until;
            return Err(format!("{text}: abstains until {until:?}, and had entries through {last}"));
        }
        self.tally.twice += 1;
        Ok(())
    }

    /// Alone, and for several election timeouts: a server that abstains asks nobody for a vote.
    async fn watch_alone(&mut self, server: usize) -> Result<(), String> {
        let term = self.servers.status(server).term;
        let begin = Instant::now();
        while begin.elapsed() < WATCHED {
            let status = self.servers.fresh_status(server).await?;
            let quiet = status.role == "follower" && status.term == term && !status.votes;
            if !quiet || status.abstains_until.is_none() {
                return Err(format!("abstains alone, and is {} in term {}", status.role, status.term));
            }
        }
        self.tally.alone += 1;
        Ok(())
    }

    /// Stops the leader at once, while the damaged server is cut off: the third has nobody left to vote for it. Which one is away.
    async fn take_leader_away(&mut self, server: usize) -> Result<Option<usize>, String> {
        let Some(away) = self.servers.leads() else { return Ok(None) };
        self.servers.stop(away, false).await?;
        if self.servers.fresh_status(SERVERS - server - away).await?.role != "leader" {
            return Ok(Some(away));
        }
        // It was elected right before.
        self.servers.start(away, false).await.map_err(|error| error.to_string())?;
        Ok(None)
    }

    /// With one other, which needs its vote, and for several election timeouts: nobody leads. Then the third comes back.
    async fn watch_pair(&mut self, server: usize, away: usize) -> Result<(), String> {
        let other = SERVERS - server - away;
        let begin = Instant::now();
        while begin.elapsed() < WATCHED {
            let (own, others) = (self.servers.fresh_status(server).await?, self.servers.status(other));
            if own.abstains_until.is_none() || own.role != "follower" || others.role == "leader" {
                let roles = (&own.role, own.term, &others.role, others.term);
                return Err(format!("abstains with {} only: {roles:?}", address(other)));
            }
        }
        self.tally.pairs += 1;
        self.servers.start(away, false).await.map_err(|error| error.to_string())
    }

    /// Nobody has stopped by itself, and the writer goes on.
    async fn all_run(&self) -> Result<(), String> {
        for server in 0..SERVERS {
            if let Some(problem) = self.servers.failure(server).await {
                return Err(format!("{} has stopped: {problem}", address(server)));
            }
        }
        let before = self.ledger.acknowledged();
        let begin = Instant::now();
        while self.ledger.acknowledged() == before {
            if self.writer.is_finished() || begin.elapsed() > super::servers::WAIT {
                return Err("no write is acknowledged any more".into());
            }
            tokio::time::sleep(super::BETWEEN_READS).await;
        }
        Ok(())
    }

    /// The writer goes no further. What it was told nothing of is done by then, or never.
    pub(super) async fn stop_writing(&mut self) {
        self.writer.abort();
        let _ = (&mut self.writer).await;
    }

    /// Keeps what can be of use to find out why something failed; where it lies.
    pub(super) fn keep_evidence(&self) -> PathBuf {
        if let Some(image) = &self.evidence {
            let _ = image.write(&self.home.join("damaged"));
        }
        self.home.clone()
    }
}

/// Whether words about damage name a file.
fn names(words: &str, file: &str) -> bool {
    let number = file.strip_prefix("log-").and_then(|rest| rest.strip_suffix(".seg"));
    let number = number.and_then(|digits| u64::from_str_radix(digits, 16).ok());
    words.contains(file) || number.is_some_and(|number| words.contains(&format!("segment {number} ")))
}

/// Flips a bit of a file.
pub(super) fn turn(file: &Path, at: usize, bit: u8) -> std::io::Result<()> {
    let file = OpenOptions::new().read(true).write(true).open(file)?;
    let mut byte = [0];
    file.read_exact_at(&mut byte, at as u64)?;
    file.write_all_at(&[byte[0] ^ 1 << bit], at as u64)
}
