//! Flips in files that a server is using, and in both manifests at once.

use std::path::Path;
use std::time::{Duration, Instant};

use atomix_server::ServerError;
use atomix_storage::StorageError;

use super::draw::{self, Draw};
use super::layout::{Class, Effect, Image, Layout, Part, Side};
use super::reader::Reader;
use super::round::{Cluster, Damaged, turn};
use super::servers::{SERVERS, WAIT, address};
use super::verify;

/// So many writes are behind what a leader has in memory, and not yet in a snapshot of which the log has forgotten the rest.
const FETCHED: u64 = 90;
/// Attempts to understand files while they are written.
const ATTEMPTS: usize = 50;
/// A server with a damaged file goes on for so long.
const ON: Duration = Duration::from_millis(150);
/// In the reason of a server that has found its files damaged.
const CORRUPT: &str = "corrupt";
const POLL: Duration = Duration::from_millis(5);

impl Cluster {
    /// Flips a bit of a file that a server is using: found when it is read, or at the next start; never served.
    pub(super) async fn flip_in_use(&mut self, number: usize) -> Result<(), String> {
        match number % 3 {
            0 => self.flip_and_go_on().await,
            1 => self.flip_what_a_follower_needs().await,
            _ => self.flip_the_snapshot_that_a_follower_needs().await,
        }
    }

    /// Any byte; the server goes on, and is started again.
    async fn flip_and_go_on(&mut self) -> Result<(), String> {
        let server = self.draw.below(SERVERS);
        let reader = Reader::begin(&self.servers, &self.ledger, server).await?;
        let Some(flip) = self.flip_live(server, |_| true).await? else {
            return Err("nothing to flip".into());
        };
        tokio::time::sleep(ON).await;
        self.look_back(server, flip, reader, "left in files in use").await
    }

    /// An entry in a leader's file that it has in memory no more, and that a follower lacks.
    async fn flip_what_a_follower_needs(&mut self) -> Result<(), String> {
        let (leader, follower) = self.leader_without_follower().await?;
        let reader = Reader::begin(&self.servers, &self.ledger, leader).await?;
        let since = self.ledger.acknowledged();
        let last = self.servers.status(follower_of(leader, follower)).last_index.0;
        self.acknowledged(since + FETCHED).await?;
        let lacks = |part: &Part| {
            part.side != Side::Last && matches!(part.class, Class::Payload | Class::RecordHeader)
        };
        let flip = self.flip_live_behind(leader, last, lacks).await?;
        self.servers.start(follower, false).await.map_err(|error| error.to_string())?;
        let Some(flip) = flip else {
            self.caught_up(follower).await?;
            self.tally.read += reader.end(&self.servers).await?;
            return Ok(());
        };
        self.caught_up(follower).await.map_err(|problem| format!("{}: {problem}", flip.text))?;
        let found = self.servers.failure(leader).await;
        let how = if found.is_some() {
            "found when an entry was read"
        } else {
            "not read, found at the next start"
        };
        self.look_back(leader, flip, reader, how).await
    }

    /// The newest snapshot of a leader, while a follower needs it.
    async fn flip_the_snapshot_that_a_follower_needs(&mut self) -> Result<(), String> {
        let (leader, follower) = self.leader_without_follower().await?;
        let reader = Reader::begin(&self.servers, &self.ledger, leader).await?;
        let from = self.servers.status(leader).snapshot_index.0;
        let later = |status: &atomix::Status| status.snapshot_index.0 > from + 2 * FETCHED;
        self.servers.until(leader, "takes no snapshots", later).await?;
        let newest = |part: &Part| {
            let data = [Class::SnapshotHeader, Class::SnapshotData, Class::SnapshotDescription];
            data.contains(&part.class)
        };
        let flip = self.flip_live(leader, newest).await?.ok_or("no snapshot to flip")?;
        self.servers.start(follower, false).await.map_err(|error| error.to_string())?;
        self.caught_up(follower).await.map_err(|problem| format!("{}: {problem}", flip.text))?;
        self.look_back(leader, flip, reader, "in a snapshot to be sent").await
    }

    /// The server that leads, and another one, which is down.
    async fn leader_without_follower(&mut self) -> Result<(usize, usize), String> {
        let leader = self.servers.leader().await?;
        let follower = (leader + 1 + self.draw.below(SERVERS - 1)) % SERVERS;
        self.servers.stop(follower, true).await?;
        Ok((self.servers.leader().await?, follower))
    }

    async fn acknowledged(&self, wanted: u64) -> Result<(), String> {
        let begin = Instant::now();
        while self.ledger.acknowledged() < wanted {
            if begin.elapsed() > WAIT {
                return Err("no write is acknowledged any more".into());
            }
            tokio::time::sleep(POLL).await;
        }
        Ok(())
    }

    /// Waits until a server has what the others have by now.
    async fn caught_up(&self, server: usize) -> Result<(), String> {
        let others = (0..SERVERS).filter(|other| *other != server);
        let wanted = others.map(|other| self.servers.status(other).commit_index).max().unwrap_or_default();
        let has = |status: &atomix::Status| status.applied_index >= wanted;
        self.servers.until(server, "does not catch up", has).await.map(|_| ())
    }

    async fn flip_live(
        &mut self,
        server: usize,
        fits: impl Fn(&Part) -> bool,
    ) -> Result<Option<Live>, String> {
        self.flip_live_behind(server, 0, fits).await
    }

    /// Flips a bit of a file in use, of those that fit; of the log only behind an entry.
    async fn flip_live_behind(
        &mut self,
        server: usize,
        index: u64,
        fits: impl Fn(&Part) -> bool,
    ) -> Result<Option<Live>, String> {
        let directory = self.servers.directory(server);
        let mut layout = read_live(&directory).await?;
        let early = |part: &Part| {
            let file = layout.log.iter().find(|file| file.name == part.file);
            file.is_some_and(|file| {
                let at = part.bytes.start;
                file.records
                    .iter()
                    .any(|record| at < record.end() && record.index <= index && at >= record.at)
            })
        };
        let parts: Vec<Part> =
            layout.parts.iter().filter(|part| fits(part) && !early(part)).cloned().collect();
        layout.parts = parts;
        let Some(flip) = draw_any(&mut self.draw, &layout) else { return Ok(None) };
        let file = directory.join(&flip.part.file);
        // Gone meanwhile, or used again: then nothing hangs on it.
        let _ = turn(&file, flip.at, flip.bit);
        let (part, at, bit) = (&flip.part, flip.at, flip.bit);
        let text = format!(
            "bit {bit} of {} at {at} of {} in use ({:?}, {:?})",
            part.file,
            address(server),
            part.class,
            part.side
        );
        Ok(Some(Live { file: part.file.clone(), at, bit, text }))
    }

    /// Stops the server, if it has not stopped by itself, finds out what came of the flip, and starts it again.
    async fn look_back(
        &mut self,
        server: usize,
        flip: Live,
        reader: Reader,
        how: &'static str,
    ) -> Result<(), String> {
        // It may have found the flip, and have stopped by itself.
        if let Err(problem) = self.servers.stop(server, true).await
            && !problem.contains(CORRUPT)
        {
            return Err(format!("{}: {problem}", flip.text));
        }
        let image = Image::of(&self.servers.directory(server)).map_err(|error| error.to_string())?;
        let (layout, effect, class) =
            flip.effect(image).map_err(|problem| format!("{}: {problem}", flip.text))?;
        let file = flip.file.clone();
        let recovered = self.recover(Damaged { server, layout, file, effect, class, reader }).await;
        recovered.map_err(|problem| format!("{}: {problem}", flip.text))?;
        *self.tally.running.entry(how).or_default() += 1;
        Ok(())
    }

    /// A bit of each manifest: identity and vote are lost, the directory is refused and left as it is. Emptied, it joins again.
    pub(super) async fn flip_both_manifests(&mut self, number: usize) -> Result<(), String> {
        let server = number % SERVERS;
        let reader = Reader::begin(&self.servers, &self.ledger, server).await?;
        let (_, layout) = self.stop(server).await?;
        let directory = self.servers.directory(server);
        for part in layout.parts.iter().filter(|part| part.class == Class::ManifestPayload) {
            let at = part.bytes.start + self.draw.below(part.bytes.len());
            turn(&directory.join(&part.file), at, self.draw.below(8) as u8)
                .map_err(|error| error.to_string())?;
        }
        let text = format!("both manifests of {}", address(server));
        let before = Image::of(&directory).map_err(|error| error.to_string())?;
        verify::look_at_lost(&directory)
            .await
            .map_err(|problem| format!("{text}: atomix log verify: {problem}"))?;
        match self.servers.start(server, false).await {
            Err(ServerError::Storage(StorageError::Corrupt(words))) if words.contains("manifest") => {}
            other => return Err(format!("{text}: refused is what it should be: {other:?}")),
        }
        let after = Image::of(&directory).map_err(|error| error.to_string())?;
        if before.files != after.files {
            return Err(format!("{text}: the directory was written to"));
        }
        std::fs::remove_dir_all(&directory).map_err(|error| error.to_string())?;
        self.servers.start(server, true).await.map_err(|error| format!("{text}: {error}"))?;
        self.servers.until(server, "does not get its vote again", |status| status.votes).await?;
        self.tally.read += reader.end(&self.servers).await?;
        self.tally.refused += 1;
        Ok(())
    }
}

fn follower_of(leader: usize, away: usize) -> usize {
    SERVERS - leader - away
}

/// A flip in a file in use.
struct Live {
    file: String,
    at: usize,
    bit: u8,
    text: String,
}

impl Live {
    /// What the server has left, with the flip if it is still there: what must come of it. A directory with the flip holds less, or
    /// makes no sense: of both, the better one is what was meant.
    fn effect(&self, mut image: Image) -> Result<(Layout, Effect, Option<Class>), String> {
        let found = Layout::of(&image);
        if let Some(byte) = image.files.get_mut(&self.file).and_then(|bytes| bytes.get_mut(self.at)) {
            *byte ^= 1 << self.bit;
        }
        match (found, Layout::of(&image)) {
            (Err(found), Err(turned)) => Err(format!("at rest: {found}; with the bit turned back: {turned}")),
            (Ok(found), Ok(turned)) if turned.held() <= found.held() => Ok((found, Effect::None, None)),
            // Overwritten, or gone.
            (Ok(found), Err(_)) => Ok((found, Effect::None, None)),
            (_, Ok(turned)) => {
                let part = turned.part_at(&self.file, self.at);
                let (effect, class) =
                    (part.map_or(Effect::None, |part| part.effect), part.map(|part| part.class));
                Ok((turned, effect, class))
            }
        }
    }
}

/// A directory that is being written to, once it is caught at a moment when it makes sense.
async fn read_live(directory: &Path) -> Result<Layout, String> {
    let mut found = String::new();
    for _ in 0..ATTEMPTS {
        let image = Image::of(directory).map_err(|error| error.to_string());
        match image.and_then(|image| Layout::of(&image)) {
            Ok(layout) => return Ok(layout),
            Err(problem) => found = problem,
        }
        tokio::time::sleep(POLL).await;
    }
    Err(format!("{}, in use, makes no sense: {found}", directory.display()))
}

fn draw_any(draw: &mut Draw, layout: &Layout) -> Option<draw::Flip> {
    let looked_at = !draw.once_in(6);
    draw::flip(draw, layout, looked_at).or_else(|| {
        let part = draw.pick(&layout.parts)?.clone();
        let at = part.bytes.start + draw.below(part.bytes.len());
        Some(draw::Flip { part, at, bit: draw.below(8) as u8 })
    })
}
