//! What a damaged, a full and a failed disk mean for the server (D4, D5).

use atomix_protocol::durable::REACH_UNKNOWN;
use atomix_protocol::status::Status;
use atomix_protocol::{Address, Configuration, Index, LocalTime, WriteBatch};
use atomix_raft::Raft;

use crate::bootstrap::Standing;
use crate::engine::Engine;
use crate::snapshots::Snapshots;
use crate::{Notice, Output, StopReason};

/// So many pieces of damage are named in a notice; the status has them all.
const NAMED: usize = 3;

/// What is left of a server whose disk has failed: something to look at (D5).
#[derive(Debug)]
pub(crate) struct Failed {
    /// What it says of itself: as it was then, and why that is over.
    pub(crate) status: Box<Status>,
    /// The configuration that it used.
    pub(crate) configuration: Option<Configuration>,
    /// Where the leader is thought to be, so that clients go there.
    pub(crate) leader: Option<Address>,
}

impl Engine {
    // Damaged.

    /// A server came up whose disk had lost something. What only it should have is gone for good: nobody can repair a server that
    /// is the only voter (D4).
    pub(crate) fn judge_damage(&mut self) {
        let Some(raft) = &self.raft else { return };
        let (own, until, last) = (raft.server(), raft.abstains_until(), raft.last().index);
        let configuration = raft.configuration();
        let sole = configuration.outgoing_voters.is_none() && configuration.voters().eq([own]);
        if until.is_some() || !self.damage.is_empty() {
            self.notice(Notice::Damaged { damage: self.damage.clone(), abstains_until: until });
        }
        if let Some(until) = until.filter(|_| sole) {
            let reach = match until {
                REACH_UNKNOWN => "nobody knows how much".to_owned(),
                until => format!("up to {until}"),
            };
            self.stop(StopReason::Damaged(format!(
                "the log is damaged{}: what came behind entry {last} may be lost, {reach}, and no other server has it",
                self.damage_in_words(),
            )));
        }
    }

    /// The first of what was found, in brackets.
    fn damage_in_words(&self) -> String {
        if self.damage.is_empty() {
            return String::new();
        }
        let named = self.damage.iter().take(NAMED).map(String::as_str).collect::<Vec<_>>().join("; ");
        let more = self.damage.len().saturating_sub(NAMED);
        if more > 0 { format!(" ({named}; and {more} more)") } else { format!(" ({named})") }
    }

    /// What the state of its disk keeps a member from, for an operator.
    pub(crate) fn notice_of_disk(&self) -> Option<String> {
        let raft = self.raft.as_ref()?;
        if let Some(until) = raft.abstains_until() {
            let through = raft.durable_index().min(until);
            let goal = match until {
                REACH_UNKNOWN => ", and has to be as far as a leader's log reaches".to_owned(),
                until => format!(" of {until}"),
            };
            // What was damaged stands beside it in the status.
            return Some(format!("no vote: part of the log was damaged; repaired through {through}{goal}"));
        }
        if !self.full && self.leading.is_some() && raft.lacks_room(self.now) {
            return Some(
                "the disks of too many members are full: no commands are taken, until there is room".into(),
            );
        }
        self.full.then(|| {
            let leads = self.leading.is_some();
            let waits =
                if leads { "no commands are taken" } else { "this server will not lead if another can" };
            format!("the disk is full but for what is kept in reserve: {waits}, until there is room")
        })
    }

    /// The abstention has ended, if it has since.
    pub(crate) fn note_repair(&mut self, before: Option<Index>) {
        let Some(raft) = &self.raft else { return };
        if let (Some(until), None) = (before, raft.abstains_until()) {
            self.notice(Notice::Repaired(raft.durable_index().min(until)));
        }
    }

    /// A follower has lost what it acknowledged, if this leader has just found that, and its disk does not know of it.
    pub(crate) fn note_forgetful(&mut self) {
        let Some(server) = self.raft.as_mut().and_then(Raft::take_forgetful) else { return };
        let address = self.record(server).map(|member| member.peer_address.clone()).unwrap_or_default();
        self.notice(Notice::Forgetful { server, address });
    }

    // Full.

    /// The disk has room again, or has none but for what it keeps in reserve.
    pub(crate) fn on_room(&mut self, now: LocalTime, room: bool) {
        if self.full == room {
            self.notice(Notice::Full(!room));
        }
        self.full = !room;
        self.consensus(now, atomix_raft::Input::Room(room));
        if let Some(batch) = self.unwritten.take() {
            self.write_own(batch);
        }
        if self.full && self.raft.is_some() {
            self.compact();
            self.begin_snapshot(now);
        }
    }

    /// There was no room for a write. What consensus wants written it asks for again.
    pub(crate) fn on_not_written(&mut self, now: LocalTime, token: u64, batch: WriteBatch) {
        if self.raft.is_some() {
            self.consensus(now, atomix_raft::Input::NotWritten { token });
        } else {
            self.unwritten = Some(batch);
        }
    }

    /// Whether new work is refused for want of room, here or where it would have to be kept as well. While a leader with room is sought,
    /// it waits for that one instead.
    pub(crate) fn refuses_for_room(&self) -> bool {
        let Some(raft) = &self.raft else { return self.full };
        (self.full || raft.lacks_room(self.now)) && !raft.is_handing_over()
    }

    // Failed.

    /// The disk has failed for good. Leadership goes first, as far as it goes without the disk; then this server takes part in
    /// nothing any more, and only says why.
    pub(crate) fn on_disk_failed(&mut self, now: LocalTime, why: &str) {
        if self.failed().is_some() {
            return;
        }
        let (mut status, configuration) = (self.status(now), self.configuration().cloned());
        let known = self.leader_address().filter(|_| self.leading.is_none());
        let word = self.raft.take().and_then(|raft| raft.abdicate(now));
        let heir = word.as_ref().and_then(|(to, _)| configuration.as_ref()?.member(*to)).cloned();
        if let Some((to, word)) = word {
            self.send_to(to, word);
        }
        status.role = "failed".into();
        status.votes = false;
        status.leader = None;
        status.notice =
            format!("the disk failed: {why}; this server takes part in nothing until it is started again");
        self.notice(Notice::Failed { why: why.into(), told: heir.as_ref().map(|heir| heir.id) });
        let leader = heir.map(|heir| heir.client_address).or(known);
        self.standing = Standing::Failed(Failed { status: Box::new(status), configuration, leader });
        self.outputs.retain(|output| !output.is_for_disk());
        self.snapshots = Snapshots::default();
        self.leave_office();
        self.dismiss_operators();
        self.part(now);
        self.aim(now);
    }

    pub(crate) fn failed(&self) -> Option<&Failed> {
        match &self.standing {
            Standing::Failed(failed) => Some(failed),
            _ => None,
        }
    }
}

impl Output {
    /// Whether the disk has a part in it.
    pub(crate) fn is_for_disk(&self) -> bool {
        match self {
            Output::Write(..)
            | Output::Fetch { .. }
            | Output::TakeSnapshot(..)
            | Output::Publish(_)
            | Output::Compact(_)
            | Output::ReadChunk { .. }
            | Output::WriteChunk { .. }
            | Output::LoadSnapshot(_)
            | Output::Restore(..) => true,
            Output::Dial(..)
            | Output::Send(..)
            | Output::Answer { .. }
            | Output::Close(_)
            | Output::Retire(_)
            | Output::Notice(_)
            | Output::Stop(_) => false,
        }
    }
}
