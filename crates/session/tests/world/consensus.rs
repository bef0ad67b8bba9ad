//! What consensus would do, decided by the world's stream of random numbers.

use atomix_protocol::client::EndReason;
use atomix_protocol::{ClusterTime, Entry, EntryId, EntryKind, Index};
use atomix_session::table::Effect;
use bytes::Bytes;

use super::{SERVERS, World};

impl World {
    /// Makes a server the leader of a new term. Of what is not committed, a part may be lost.
    pub(crate) fn elect(&mut self, next: usize) {
        let pending = self.log.len() - self.committed;
        let kept = self.below(pending as u64 + 1) as usize;
        self.met.entries_lost += (pending - kept) as u64;
        self.log.truncate(self.committed + kept);
        self.servers[self.leader].depose();
        self.term = self.term.next();
        self.leader = next;
        self.servers[next].paused_until = 0;
        self.append(EntryKind::NoOp, Bytes::new());
        self.commit(self.log.len());
        let now = self.servers[next].now(self.real);
        self.servers[next].elect(now);
        self.judge_contacts();
        // A server that leads again knows nothing of the links it had.
        for wire in self.wires.iter_mut().filter(|wire| !wire.read_only) {
            wire.session = None;
        }
    }

    pub(super) fn append(&mut self, kind: EntryKind, payload: Bytes) {
        let index = Index(self.log.len() as u64 + 1);
        // A new leader's clock may be behind: cluster time is what the log says (T1).
        let time = self.log.last().map_or(ClusterTime::ZERO, |last| last.time).max(ClusterTime(self.real));
        self.log.push(Entry { id: EntryId::new(self.term, index), time, kind, payload });
    }

    /// Commits through an index. The leader applies at once, and what it learns goes to the clients.
    pub(super) fn commit(&mut self, through: usize) {
        self.committed = through;
        while let Some(entry) = self.next_to_apply(self.leader) {
            let first = self.servers.iter().all(|server| server.table.applied().0 < entry.id.index);
            let effects = self.servers[self.leader].apply(&entry);
            for effect in effects {
                if first {
                    self.check_end(&effect);
                    self.note_published(&effect);
                }
                self.tell(effect);
            }
        }
    }

    pub(super) fn next_to_apply(&self, server: usize) -> Option<Entry> {
        let applied = self.servers[server].table.applied().0.0 as usize;
        (applied < self.committed).then(|| self.log[applied].clone())
    }

    /// L2: nobody's session ends for silence while its client may still rely on it.
    fn check_end(&mut self, effect: &Effect) {
        let Effect::Ended { session, reason: EndReason::Expired, new: true } = effect else {
            return;
        };
        self.met.expired += 1;
        for client in self.clients.iter().filter(|client| client.session == Some(*session)) {
            let now = client.clock.read(self.real);
            assert!(
                client.core.valid_until() <= now,
                "L2: session {session} expired at {now:?}, valid until {:?}",
                client.core.valid_until()
            );
        }
    }

    /// Followers catch up, all of them.
    pub(crate) fn settle(&mut self) {
        self.commit(self.log.len());
        for server in 0..SERVERS {
            while let Some(entry) = self.next_to_apply(server) {
                self.servers[server].apply(&entry);
            }
        }
    }
}
