//! The loop: waits for anything to happen, takes everything that has, steps the engine, carries out what comes of it.
//!
//! Per batch, not per request: one wake-up, one flush per connection, one hand-over to the disk. Frames leave before the disk is asked
//! to work, so that the other servers' disks work at the same time.

use std::future::pending;
use std::time::Duration;

use atomix_engine::{Engine, Input, Notice, Output, Role};
use atomix_protocol::durable::REACH_UNKNOWN;
use atomix_protocol::status::Status;
use atomix_protocol::{LinkId, LocalTime};
use atomix_storage::StorageError;
use atomix_transport::{LinkEvent, Links};
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until};
use tracing::{debug, error, info, warn};

use crate::ServerError;
use crate::clock::now;
use crate::read_thread::ReadJob;
use crate::snapshot_thread::{Turns, WriteJob};
use crate::storage_thread::{Done, Job, Worker};

/// Most events taken before their outputs are carried out.
const EVENTS_PER_TURN: usize = 512;
/// The published status is at most this much older than the last event.
const STATUS_INTERVAL: Duration = Duration::from_millis(50);

/// The threads that work on the disk.
pub(crate) struct Disk {
    pub(crate) storage: Worker<Job>,
    pub(crate) writer: Worker<WriteJob>,
    pub(crate) reader: Worker<ReadJob>,
}

impl Disk {
    /// Lets all of them finish, so that the storage is closed afterwards.
    pub(crate) async fn close(self) {
        let closing = tokio::task::spawn_blocking(move || {
            self.writer.join();
            self.reader.join();
            self.storage.join();
        });
        let _ = closing.await;
    }
}

pub(crate) struct Driver {
    pub(crate) engine: Engine,
    pub(crate) links: Links,
    /// None once it has failed: nothing is asked of it any more (D5).
    pub(crate) disk: Option<Disk>,
    /// The threads of a failed disk, coming to their end.
    pub(crate) closing: Option<JoinHandle<()>>,
    pub(crate) done: UnboundedReceiver<Done>,
    pub(crate) status: watch::Sender<Status>,
    pub(crate) turns: Turns,
    /// Why the server serves no more, as soon as it does not.
    pub(crate) ended: watch::Sender<Option<ServerError>>,
    /// When the status was published last.
    pub(crate) published: LocalTime,
}

/// What woke the loop.
enum Event {
    Link(LinkEvent),
    Done(Done),
    ShutDown,
}

impl Driver {
    /// Runs until it is told to stop, or must. When the disk fails it goes on, to say so.
    pub(crate) async fn run(mut self, mut stop: oneshot::Receiver<()>) -> ServerError {
        let (mut first, mut stopping) = (None, false);
        let ended = loop {
            let (at, deadline) = match self.turn(first) {
                Ok(next) => next,
                Err(error) => break error,
            };
            if stopping && (self.disk.is_none() || !self.engine.is_handing_over()) {
                break ServerError::ShutDown;
            }
            first = tokio::select! {
                event = self.links.next() => Some(Event::Link(event)),
                Some(done) = self.done.recv() => Some(Event::Done(done)),
                () = alarm(at, deadline) => None,
                asked = &mut stop, if !stopping => match asked {
                    Ok(()) => {
                        stopping = true;
                        Some(Event::ShutDown)
                    }
                    // Dropped: nobody waits for a proper end.
                    Err(_) => break ServerError::ShutDown,
                },
            };
        };
        self.publish(now());
        if ended != ServerError::ShutDown && self.disk.is_some() {
            self.status.send_modify(|status| status.notice = format!("stopped: {ended}"));
        }
        self.links.close_all().await;
        if let Some(disk) = self.disk {
            disk.close().await;
        }
        if let Some(closing) = self.closing {
            let _ = closing.await;
        }
        ended
    }

    /// One batch: takes what has queued up and carries out what comes of it. Returns the time, and when the engine wants to be woken.
    fn turn(&mut self, first: Option<Event>) -> Result<(LocalTime, Option<LocalTime>), ServerError> {
        let mut next = first;
        for _ in 0..EVENTS_PER_TURN {
            let Some(event) = next.take().or_else(|| self.queued()) else { break };
            // Not before it was taken: for how long a session is alive is counted from the receipt of its last contact (S7, L2).
            self.take(now(), event)?;
        }
        let now = now();
        if self.engine.next_deadline().is_some_and(|deadline| deadline <= now) {
            self.engine.step(now, Input::Tick);
        }
        let outputs = self.engine.drain(now);
        self.carry_out(outputs)?;
        if now.since(self.published) >= STATUS_INTERVAL {
            self.publish(now);
        }
        Ok((now, self.engine.next_deadline()))
    }

    fn queued(&mut self) -> Option<Event> {
        match self.done.try_recv() {
            Ok(done) => Some(Event::Done(done)),
            Err(_) => self.links.try_next().map(Event::Link),
        }
    }

    fn take(&mut self, now: LocalTime, event: Event) -> Result<(), ServerError> {
        match event {
            Event::Done(Ok(input)) => self.engine.step(now, input),
            Event::Done(Err(ServerError::Storage(error))) => self.lose_disk(now, error),
            Event::Done(Err(error)) => return Err(error),
            Event::ShutDown => self.engine.step(now, Input::HandOver),
            Event::Link(LinkEvent::Frames(link, frames)) => {
                for frame in frames {
                    self.engine.step(now, Input::Frame(LinkId(link), frame));
                }
            }
            Event::Link(LinkEvent::Dialed(link)) => self.engine.step(now, Input::Dialed(LinkId(link))),
            Event::Link(LinkEvent::Closed(link, error)) => {
                debug!(link, %error, "link closed");
                self.engine.step(now, Input::Closed(LinkId(link)));
            }
            Event::Link(LinkEvent::Accepted(connection)) => {
                let link = self.engine.accept();
                debug!(%link, remote = connection.remote, "connected");
                self.links.adopt(link.0, connection);
                self.engine.step(now, Input::Accepted(link));
            }
        }
        Ok(())
    }

    /// The disk is not to be trusted any more, whatever it did and does (D5). The engine lets another lead, and says why it serves no
    /// more, in the log and to whoever asks; this loop goes on for that alone.
    fn lose_disk(&mut self, now: LocalTime, error: StorageError) {
        let Some(disk) = self.disk.take() else { return };
        self.closing = Some(tokio::spawn(disk.close()));
        self.engine.step(now, Input::DiskFailed(error.to_string()));
        self.ended.send_replace(Some(ServerError::Storage(error)));
    }

    fn carry_out(&mut self, outputs: Vec<Output>) -> Result<(), ServerError> {
        let mut stopped = Ok(());
        let (mut jobs, mut notices, mut late) = (Vec::new(), Vec::new(), Vec::new());
        for output in outputs {
            match output {
                Output::Answer { link, frame, not_after, read } => {
                    // Read now, after the state was: the machine may have stood still in between (R3).
                    if now() <= not_after {
                        self.links.send(link.0, frame);
                    } else {
                        late.push(read);
                    }
                }
                Output::Dial(link, address) => self.links.dial(link.0, address.as_str()),
                Output::Send(link, frame) => self.links.send(link.0, frame),
                Output::Close(link) => self.links.close(link.0),
                Output::Notice(notice) => notices.push(notice),
                Output::Stop(reason) => stopped = Err(ServerError::MustStop(reason)),
                disk => jobs.push(disk),
            }
        }
        self.links.flush();
        for job in jobs {
            self.give(job);
        }
        if !notices.is_empty() {
            self.publish(now());
            let status = self.status.borrow();
            notices.iter().for_each(|notice| log(&status, notice));
        }
        if !late.is_empty() {
            late.into_iter().for_each(|read| self.engine.step(now(), Input::TooLate(read)));
            // They insist on a round now, so this ends.
            let outputs = self.engine.drain(now());
            stopped = stopped.and(self.carry_out(outputs));
        }
        stopped
    }

    /// Gives a thread what only the disk can do.
    fn give(&mut self, output: Output) {
        let Some(disk) = &self.disk else { return };
        match output {
            Output::Write(token, batch) => disk.storage.give(Job::Write(token, batch)),
            Output::Publish(meta) => disk.storage.give(Job::Publish(meta)),
            Output::Compact(through) => disk.storage.give(Job::Compact(through)),
            Output::TakeSnapshot(meta, source) => {
                disk.writer.give(WriteJob::Take(meta, source, self.turns.turn()));
            }
            Output::WriteChunk { meta, offset, data, done } => {
                self.turns.next();
                disk.writer.give(WriteJob::Chunk { meta, offset, data, done });
            }
            Output::Fetch { to, from, through, bytes } => {
                disk.reader.give(ReadJob::Entries { to, from, through, bytes });
            }
            Output::ReadChunk { to, meta, offset, bytes } => {
                disk.reader.give(ReadJob::Chunk { to, meta, offset, bytes });
            }
            Output::LoadSnapshot(meta) => disk.reader.give(ReadJob::Whole(meta)),
            Output::Restore(meta, restoring) => disk.reader.give(ReadJob::Restore(meta, restoring)),
            Output::Retire(retired) => disk.reader.give(ReadJob::Retire(retired)),
            Output::Dial(..)
            | Output::Send(..)
            | Output::Answer { .. }
            | Output::Close(_)
            | Output::Notice(_)
            | Output::Stop(_) => {
                unreachable!("not for the disk: {output:?}")
            }
        }
    }

    fn publish(&mut self, now: LocalTime) {
        self.published = now;
        self.status.send_replace(self.engine.status(now));
    }
}

async fn alarm(now: LocalTime, deadline: Option<LocalTime>) {
    match deadline {
        Some(deadline) => sleep_until(Instant::now() + deadline.since(now)).await,
        None => pending().await,
    }
}

fn log(status: &Status, notice: &Notice) {
    let (server, term) = (status.server.map_or(0, |id| id.0), status.term.0);
    match notice {
        Notice::Role { role, term, leader } => {
            let leader = leader.map_or(0, |id| id.0);
            if matches!(role, Role::Leader | Role::Follower) {
                info!(server, term = term.0, role = role.as_str(), leader, "role");
            } else {
                debug!(server, term = term.0, role = role.as_str(), leader, "role");
            }
        }
        Notice::Member { cluster, server } => info!(server = server.0, %cluster, "member of the cluster"),
        Notice::Joiner { cluster, asks: true } => {
            info!(%cluster, "asks the cluster to be taken in: no vote yet")
        }
        Notice::Joiner { cluster, asks: false } => {
            warn!(%cluster, "the servers listed form a cluster that does not know this data directory: no vote; to be taken in, it has to be started to join");
        }
        Notice::WishNotRepeated => {
            warn!(
                server,
                term,
                "not what it was started to be: it may have been, so that it does not ask; an operator may promote it"
            );
        }
        Notice::Configuration { index, members, joint } => {
            info!(server, term, index = index.0, members, joint, "configuration committed");
        }
        Notice::Joining { address, index } => {
            info!(server, term, %address, index = index.0, "a server joins")
        }
        Notice::Removed { configuration } => {
            warn!(server, term, index = configuration.0, "removed from the cluster: no vote");
        }
        Notice::BootstrapDiffers => {
            warn!(server, term, "the servers listed are not those of the configuration in use")
        }
        Notice::Refused { link, detail } => debug!(server, term, %link, detail, "refused"),
        Notice::Expired(session) => info!(server, term, session = session.0, "session expired"),
        Notice::SnapshotInstalled(index) => info!(server, term, index = index.0, "snapshot installed"),
        Notice::SnapshotTaken(index) => info!(server, term, index = index.0, "snapshot taken"),
        other => log_disk(server, term, other),
    }
}

/// What befell the disk.
fn log_disk(server: u64, term: u64, notice: &Notice) {
    match notice {
        Notice::Damaged { damage, abstains_until: Some(until) } => {
            let damage = damage.join("; ");
            let until = match *until {
                REACH_UNKNOWN => "as far as the leader's log reaches".to_owned(),
                until => until.to_string(),
            };
            warn!(server, term, damage, until, "part of the log is damaged: no vote until it is repaired");
        }
        Notice::Damaged { damage, abstains_until: None } => {
            warn!(server, term, damage = damage.join("; "), "damaged, and nothing is lost")
        }
        Notice::Repaired(index) => info!(server, term, index = index.0, "the log is whole again"),
        Notice::Forgetful { server: follower, address } => {
            warn!(
                server,
                term,
                follower = follower.0,
                %address,
                "a member has less than it acknowledged, and nothing there is damaged: if an older copy of its data directory was put in place, let it join with an empty one instead"
            );
        }
        Notice::Full(true) => {
            warn!(
                server,
                term, "the disk is full but for what is kept in reserve: an operator should make room"
            );
        }
        Notice::Full(false) => info!(server, term, "the disk has room again"),
        Notice::Failed { why, told } => {
            let told = told.map_or(0, |id| id.0);
            error!(
                server,
                term,
                told,
                "the disk failed: {why}; this server serves no more and stays up to say so: mend the disk, then start it again"
            );
        }
        other => error!(server, term, notice = ?other, "notice without words"),
    }
}
