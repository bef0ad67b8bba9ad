//! A leader's followers as the configuration changes: who joins, who is to learn that it left, and the leader itself
//! (§4.2.2).

use core::time::Duration;

use atomix_protocol::{Index, LocalTime, Round};

use crate::progress::Progress;
use crate::role::{Leader, State};
use crate::{Raft, quorum};

/// So many of the longest election timeouts is a server that left told so. If it is down for longer, it finds out
/// when nobody listens to it any more.
const PATIENCE: u32 = 10;

/// A server that holds no log any more, and is to learn it.
#[derive(Debug)]
pub(crate) struct Departure {
    /// The configuration in which it holds none.
    index: Index,
    /// When that was appended.
    since: LocalTime,
    /// A round begun when that was committed, and the server had it: who answers it knows.
    told: Option<Round>,
}

impl Leader {
    /// Notes where the log ends, so that it can be told later how far a follower had to be at this time.
    fn note_last(&mut self, now: LocalTime, last: Index, age: Duration) {
        self.ends.push_back((now, last));
        while self.ends.get(1).is_some_and(|(at, _)| now.since(*at) >= age) {
            self.ends.pop_front();
        }
    }

    /// Where the log ended so long ago; for a leader that is younger, where it ended soon after the election.
    pub(super) fn last_at(&self) -> Index {
        self.ends.front().map_or(Index(u64::MAX), |(_, last)| *last)
    }
}

impl Raft {
    /// Leader: follows its configuration, which is another now.
    pub(super) fn follow_members(&mut self, now: LocalTime) {
        let State::Leader(leader) = &mut self.state else { return };
        let (index, last) = (self.log.configuration().index, self.log.last().index);
        let holders = quorum::log_holders(self.log.configuration());
        for (id, progress) in &mut leader.progress {
            if !holders.contains(id) {
                progress.departure.get_or_insert(Departure { index, since: now, told: None });
            }
        }
        for id in holders.into_iter().filter(|id| *id != self.server) {
            leader.progress.entry(id).or_insert_with(|| Progress::new(last, now)).departure = None;
        }
    }

    /// Leader, with every heartbeat: remembers how long the log is, and forgets servers that know that they left.
    pub(crate) fn tend_members(&mut self, now: LocalTime) {
        let (last, age, commit) = (self.log.last().index, self.config.election_timeout.0, self.commit_index);
        let patience = self.config.election_timeout.1 * PATIENCE;
        let State::Leader(leader) = &mut self.state else { return };
        leader.note_last(now, last, age);
        let next = leader.reads.round.next();
        leader.progress.retain(|_, progress| {
            let (matched, answered) = (progress.match_index(), progress.round);
            let Some(departure) = &mut progress.departure else { return true };
            if departure.told.is_none() && matched >= departure.index && commit >= departure.index {
                departure.told = Some(next);
            }
            let knows = departure.told.is_some_and(|told| answered >= told);
            !knows && now.since(departure.since) < patience
        });
        self.remind_reserves();
        self.compact_log();
    }

    /// A leader that the committed configuration leaves out hands over, or steps down if nobody takes over (§4.2.2).
    /// The last thing it says is that the configuration is committed, also to those that left with it; behind the word to the
    /// successor nobody is asked for anything. That one told, it needs nothing more of this server, and nobody tells this
    /// one that it leads: whoever waited here would wait in vain.
    pub(super) fn give_way(&mut self, now: LocalTime) {
        let State::Leader(leader) = &mut self.state else { return };
        let first = !core::mem::replace(&mut leader.gives_way, true);
        self.marks.leader_removed_itself += u64::from(first);
        let mut ends = false;
        if !self.is_handing_over() {
            self.begin_round(now);
            self.replicate(now);
            ends = !first || self.transfer(now, None).is_err();
        }
        if ends || self.has_told_successor() {
            self.follow(now);
        }
    }
}
