//! Who belongs to the cluster as it goes on: changes of the configuration and of the leader, as operators ask for them
//! (R7, §3.10), and what a server does when the configuration has changed.

use std::collections::BTreeMap;

use atomix_protocol::change::{Change, ChangeRefused, Plan, TransferRefused};
use atomix_protocol::client::{ClientResponse, Manage, ManageAction, ManageOutcome, Managed};
use atomix_protocol::{
    Address, Configuration, Incarnation, Index, LinkId, LocalTime, Member, ServerId, Term,
};
use atomix_raft::Role;

use crate::Notice;
use crate::bootstrap::{Outsider, Standing};
use crate::engine::Engine;
use crate::links::Stage;

/// Most requests of operators that wait on one link.
const WAITING: usize = 16;
/// So many of the longest election timeouts a server that has left is still reached: it must learn of it.
const GRACE: u32 = 10;
/// At most so many of them a server that is to be shut down waits for the next leader.
const HAND_OVER: u32 = 2;

/// What this server knows of the members, beside what consensus knows.
#[derive(Debug, Default)]
pub(crate) struct Members {
    /// The latest configuration known committed here. Invariant: its index never goes back.
    pub(crate) committed: Option<Configuration>,
    /// Those who have left it lately, and how long they are still let in.
    pub(crate) departed: BTreeMap<ServerId, (Member, LocalTime)>,
    /// Where the members are of the cluster that this server asks to be taken in.
    pub(crate) asked: Vec<Address>,
    /// The newest configuration in which it was found not to be.
    pub(crate) absent_from: Index,
    /// When to ask the leader for a better place.
    pub(crate) next_wish: Option<LocalTime>,
    /// The configurations that the links were last aimed by: in use, and committed.
    aimed: Option<((Option<Term>, Index), Index)>,
    /// Who waits for a change, and for a configuration of which index.
    changes: Vec<Waiting<Index>>,
    /// Who waits for another leader.
    transfers: Vec<Waiting<()>>,
    /// This server is to be shut down, and hands over until then.
    hand_over: Option<LocalTime>,
    /// It has left, and its links go as soon as it leads no more.
    leaving: bool,
}

/// A request that is not answered yet.
#[derive(Debug)]
struct Waiting<T> {
    link: LinkId,
    ticket: u64,
    /// The term in which it was taken up.
    term: Term,
    awaits: T,
}

impl Members {
    /// A link is gone: nobody waits there any more.
    pub(crate) fn forget(&mut self, link: LinkId) {
        self.changes.retain(|waiting| waiting.link != link);
        self.transfers.retain(|waiting| waiting.link != link);
    }

    /// Whether a member with that directory was removed lately: what it asked for before is void.
    pub(crate) fn has_departed(&self, directory: Incarnation) -> bool {
        self.departed.values().any(|(member, _)| member.incarnation == directory)
    }

    /// The id of a server that a change adds, and that had one before: nobody would ever come to be it (I3).
    fn departed_with(&self, change: &Change) -> Option<ServerId> {
        let had = |member: &Member| change.add.iter().any(|new| new.incarnation == member.incarnation);
        self.departed.values().find(|(member, _)| had(member)).map(|(member, _)| member.id)
    }

    fn waiting_on(&self, link: LinkId) -> usize {
        let changes = self.changes.iter().filter(|waiting| waiting.link == link).count();
        changes + self.transfers.iter().filter(|waiting| waiting.link == link).count()
    }

    pub(crate) fn next_deadline(&self) -> Option<LocalTime> {
        let departed = self.departed.values().map(|(_, until)| *until).min();
        [departed, self.next_wish, self.hand_over].into_iter().flatten().min()
    }
}

impl Engine {
    /// An operator asks something of the leader.
    pub(crate) fn on_manage(&mut self, now: LocalTime, id: LinkId, manage: Manage) {
        let Manage { ticket, action } = manage;
        let busy = self.members.waiting_on(id) >= WAITING;
        let outcome = match action {
            ManageAction::Plan(change) => self.plan(now, &change),
            ManageAction::Change(_) if busy => ManageOutcome::ChangeRefused(ChangeRefused::Busy),
            ManageAction::Transfer(_) if busy => ManageOutcome::TransferRefused(TransferRefused::Pending),
            ManageAction::Change(change) => match self.change(now, &change) {
                Ok((term, awaits)) => {
                    self.members.changes.push(Waiting { link: id, ticket, term, awaits });
                    return;
                }
                Err(refused) => ManageOutcome::ChangeRefused(refused),
            },
            ManageAction::Transfer(to) => match self.transfer(now, to) {
                Ok(term) => {
                    self.members.transfers.push(Waiting { link: id, ticket, term, awaits: () });
                    return;
                }
                Err(refused) => ManageOutcome::TransferRefused(refused),
            },
        };
        self.managed(id, ticket, outcome);
    }

    fn managed(&mut self, id: LinkId, ticket: u64, outcome: ManageOutcome) {
        self.respond(id, ClientResponse::Managed(Managed { ticket, outcome }));
    }

    fn plan(&self, now: LocalTime, change: &Change) -> ManageOutcome {
        let departed = self.members.departed_with(change).map(ChangeRefused::AlreadyMember);
        match self.raft.as_ref().filter(|raft| raft.role() == Role::Leader) {
            Some(raft) => {
                let plan = raft.plan(now, change);
                let refused = plan.refused.clone().or(departed);
                ManageOutcome::Planned(Box::new(Plan { refused, ..plan }))
            }
            None => {
                let leader = self.leader_address();
                ManageOutcome::ChangeRefused(ChangeRefused::NotLeader { leader })
            }
        }
    }

    /// Begins a change: in which term, and from which index on a committed configuration completes it.
    fn change(&mut self, now: LocalTime, change: &Change) -> Result<(Term, Index), ChangeRefused> {
        let departed = self.members.departed_with(change);
        let begun = match &mut self.raft {
            Some(raft) => match departed.filter(|_| raft.role() == Role::Leader) {
                Some(id) => Err(ChangeRefused::AlreadyMember(id)),
                None => raft.change(now, change),
            },
            None => Err(ChangeRefused::NotLeader { leader: None }),
        };
        match begun {
            Ok(entry) => Ok((entry.term, entry.index)),
            // Consensus knows servers, not their addresses.
            Err(ChangeRefused::NotLeader { .. }) => {
                Err(ChangeRefused::NotLeader { leader: self.leader_address() })
            }
            Err(refused) => Err(refused),
        }
    }

    fn transfer(&mut self, now: LocalTime, to: Option<ServerId>) -> Result<Term, TransferRefused> {
        let begun = match &mut self.raft {
            Some(raft) => raft.transfer(now, to).map(|_| raft.term()),
            None => Err(TransferRefused::NotLeader { leader: None }),
        };
        begun.map_err(|refused| match refused {
            TransferRefused::NotLeader { .. } => TransferRefused::NotLeader { leader: self.leader_address() },
            refused => refused,
        })
    }

    /// A configuration is committed. After a start those come again that were known.
    pub(crate) fn on_configuration_committed(&mut self, now: LocalTime, configuration: &Configuration) {
        let before = self.members.committed.as_ref();
        if before.is_some_and(|before| before.index >= configuration.index) {
            return;
        }
        let until = now + self.options.raft.election_timeout.1 * GRACE;
        for member in before.into_iter().flat_map(|before| &before.members) {
            if configuration.member(member.id).is_none() {
                self.members.departed.insert(member.id, (member.clone(), until));
            }
        }
        self.members.committed = Some(configuration.clone());
        self.note_place();
        // Whoever held a level back may be gone (M3).
        self.levels.stale = true;
        let joint = configuration.outgoing_voters.is_some();
        let (index, members) = (configuration.index, configuration.members.len());
        self.notice(Notice::Configuration { index, members, joint });
        if joint {
            return;
        }
        let clients: Vec<LinkId> = self
            .links
            .iter()
            .filter_map(|(id, link)| matches!(link.stage, Stage::Client(_)).then_some(id))
            .collect();
        self.tell_servers(&clients);
        let changes = core::mem::take(&mut self.members.changes);
        for waiting in changes {
            if waiting.awaits <= configuration.index {
                let outcome = ManageOutcome::Changed(configuration.clone());
                self.managed(waiting.link, waiting.ticket, outcome);
            } else {
                self.members.changes.push(waiting);
            }
        }
        let left = self.raft.as_ref().is_some_and(|raft| configuration.member(raft.server()).is_none());
        if left && matches!(self.standing, Standing::Member { .. }) {
            self.marks.left += 1;
            self.notice(Notice::Removed { configuration: index });
            self.standing = Standing::Outsider(Outsider::removed(configuration.clone()));
            self.members.leaving = true;
        }
    }

    /// The hand-over that somebody asked for came to nothing.
    pub(crate) fn on_transfer_failed(&mut self, _now: LocalTime, _to: ServerId) {
        for waiting in core::mem::take(&mut self.members.transfers) {
            let outcome = ManageOutcome::TransferRefused(TransferRefused::TimedOut);
            self.managed(waiting.link, waiting.ticket, outcome);
        }
    }

    /// This server is to be shut down: another one should lead first, so that nobody has to find out by waiting (§3.10).
    pub(crate) fn on_hand_over(&mut self, now: LocalTime) {
        let handed = match self.transfer(now, None) {
            Ok(_) | Err(TransferRefused::Pending) => true,
            Err(_) => false,
        };
        self.marks.handed_over_at_shutdown += u64::from(handed);
        self.members.hand_over = handed.then(|| now + self.options.raft.election_timeout.1 * HAND_OVER);
    }

    /// Whether this server still hands over: until then it is better not shut down.
    #[must_use]
    pub fn is_handing_over(&self) -> bool {
        self.members.hand_over.is_some()
    }

    /// What depends on the outcome of everything that happened: after consensus has come to rest.
    pub(crate) fn follow_members(&mut self, now: LocalTime) {
        self.end_waiting();
        let Some(raft) = &self.raft else { return };
        let leads = raft.role() == Role::Leader;
        if self.members.leaving && !leads {
            self.members.leaving = false;
            self.part(now);
        }
        let Some(raft) = &self.raft else { return };
        // An uncommitted configuration may go with its entry, and another come to stand at its index.
        let used = raft.configuration().index;
        let committed = self.members.committed.as_ref().map_or(Index::ZERO, |committed| committed.index);
        let aims = Some(((raft.entry_term(used), used), committed));
        if self.members.aimed != aims {
            self.members.aimed = aims;
            self.judge_again(now);
            self.aim(now);
        }
    }

    /// Answers those who wait for what this server can't see through any more.
    fn end_waiting(&mut self) {
        let Some(raft) = &self.raft else { return };
        let (term, role, leader, own) = (raft.term(), raft.role(), raft.leader(), raft.server());
        if !raft.is_handing_over() {
            if role == Role::Leader || leader.is_some() {
                self.members.hand_over = None;
            }
            if core::mem::take(&mut self.clients.dropped) && role == Role::Leader {
                self.resume_commands();
            }
        }
        if self.members.changes.is_empty() && self.members.transfers.is_empty() {
            return;
        }
        let leads = |waiting_term| role == Role::Leader && term == waiting_term;
        let (kept, unknown) = core::mem::take(&mut self.members.changes)
            .into_iter()
            .partition::<Vec<_>, _>(|waiting| leads(waiting.term));
        self.members.changes = kept;
        for waiting in unknown {
            self.managed(waiting.link, waiting.ticket, ManageOutcome::Unknown);
        }
        let Some(leader) = leader else { return };
        let (over, kept) = core::mem::take(&mut self.members.transfers)
            .into_iter()
            .partition::<Vec<_>, _>(|waiting| term > waiting.term);
        self.members.transfers = kept;
        for waiting in over {
            let outcome = if leader == own {
                ManageOutcome::TransferRefused(TransferRefused::TimedOut)
            } else {
                ManageOutcome::Transferred(leader)
            };
            self.managed(waiting.link, waiting.ticket, outcome);
        }
    }

    /// This server takes part in nothing any more: operators need not wait for it, nor it for anybody.
    pub(crate) fn dismiss_operators(&mut self) {
        let leader = self.leader_address();
        let Members { changes, transfers, .. } = &mut self.members;
        let (changes, transfers) = (core::mem::take(changes), core::mem::take(transfers));
        for waiting in changes {
            self.managed(waiting.link, waiting.ticket, ManageOutcome::Unknown);
        }
        for waiting in transfers {
            let refused = TransferRefused::NotLeader { leader: leader.clone() };
            self.managed(waiting.link, waiting.ticket, ManageOutcome::TransferRefused(refused));
        }
        self.members.departed.clear();
        (self.members.next_wish, self.members.hand_over, self.members.leaving) = (None, None, false);
    }

    /// This server takes part no more: it serves nobody, and says so.
    pub(crate) fn part(&mut self, now: LocalTime) {
        let response = self.not_leader();
        let links: Vec<(LinkId, bool)> = self
            .links
            .iter()
            .filter_map(|(id, link)| match &link.stage {
                Stage::Client(client) => client.is_served().then_some((id, true)),
                _ => Some((id, false)),
            })
            .collect();
        for (id, client) in links {
            if client {
                self.redirect_reads(id);
                self.respond(id, response.clone());
            }
            self.close(now, id);
        }
    }

    /// What is due of the members by now.
    pub(crate) fn on_members_time(&mut self, now: LocalTime) {
        if self.members.hand_over.is_some_and(|until| until <= now) {
            self.members.hand_over = None;
        }
        let gone: Vec<ServerId> = self
            .members
            .departed
            .iter()
            .filter(|(_, (_, until))| *until <= now)
            .map(|(server, _)| *server)
            .collect();
        for server in &gone {
            self.members.departed.remove(server);
            for link in self.peers.links_of(*server) {
                self.close(now, link);
            }
        }
        if !gone.is_empty() {
            self.aim(now);
        }
        self.repeat_wish(now);
    }

    /// The record of a server: as the configuration in use has it, or the committed one, or while it leaves.
    pub(crate) fn record(&self, server: ServerId) -> Option<&Member> {
        let used = self.configuration().and_then(|configuration| configuration.member(server));
        let committed = || self.members.committed.as_ref().and_then(|committed| committed.member(server));
        let departed = || self.members.departed.get(&server).map(|(member, _)| member);
        used.or_else(committed).or_else(departed)
    }

    /// Aims at the servers of the list, of the configurations in use and committed, and at those who have just left.
    pub(crate) fn aim(&mut self, now: LocalTime) {
        let mut wanted: BTreeMap<Address, bool> = BTreeMap::new();
        let has_left = match &self.standing {
            Standing::Outsider(outsider) => outsider.was_removed(),
            Standing::Failed(_) => true,
            _ => false,
        };
        if !has_left {
            let listed = self.options.bootstrap.iter().chain(&self.options.join).chain(&self.members.asked);
            wanted.extend(listed.map(|address| (address.clone(), false)));
            let configurations = self.configuration().into_iter().chain(&self.members.committed);
            let members = configurations.flat_map(|configuration| &configuration.members);
            let departed = self.members.departed.values().map(|(member, _)| member);
            wanted.extend(members.chain(departed).map(|member| (member.peer_address.clone(), true)));
        }
        wanted.remove(&self.options.address);
        let own = self.server().and_then(|own| self.record(own)).map(|own| own.peer_address.clone());
        if let Some(own) = own {
            wanted.remove(&own);
        }
        self.peers.aim(now, wanted);
    }
}
