//! Whether there is room for commands on the disks that have to take them (D5).

use atomix_protocol::{LocalTime, ServerId};

use crate::role::State;
use crate::{Raft, quorum};

impl Raft {
    /// Entries wait for room. Nothing else does.
    pub(crate) fn on_not_written(&mut self, token: u64) {
        if self.durability.refuse(token) {
            self.room = false;
        }
    }

    pub(crate) fn on_room(&mut self, room: bool) {
        self.room = room;
        self.durability.try_again();
    }

    /// Whether nothing is committed without a voter whose disk is full, as far as this leader was told: of those that answer, those with
    /// room are no quorum. What a full disk keeps in reserve is not for commands: without it no leader could even begin its term.
    #[must_use]
    pub fn lacks_room(&self, now: LocalTime) -> bool {
        let State::Leader(leader) = &self.state else { return false };
        let answering = |id: ServerId| {
            leader.progress.get(&id).filter(|progress| {
                progress.answered && now.since(progress.contact) < self.config.election_timeout.0
            })
        };
        let configuration = self.log.configuration();
        let answers = |id| id == self.server || answering(id).is_some();
        let room = |id| if id == self.server { self.room } else { answering(id).is_some_and(|p| p.room) };
        // Where no quorum answers, it is not room that lacks.
        quorum::holds(configuration, answers) && !quorum::holds(configuration, room)
    }
}
