//! What this server says of itself.

use atomix_protocol::status::{Counters, Status};
use atomix_protocol::{Address, Configuration, LocalTime, Member, MemberKind, ServerId, limits};

use crate::bootstrap::Standing;
use crate::engine::Engine;

impl Engine {
    /// What this server says of itself.
    #[must_use]
    pub fn status(&self, now: LocalTime) -> Status {
        if let Some(failed) = self.failed() {
            return (*failed.status).clone();
        }
        let configuration = self.configuration();
        let mut status = Status {
            server: self.server(),
            incarnation: self.identity.incarnation,
            cluster: configuration.map(|configuration| configuration.cluster),
            address: self.options.address.clone(),
            role: self.role_in_words().into(),
            notice: self.notice_in_words(),
            members: configuration.map_or_else(Vec::new, |configuration| configuration.members.clone()),
            configuration_index: configuration
                .map_or_else(Default::default, |configuration| configuration.index),
            sessions: self.table.len() as u64,
            client_address: self.options.client_address.clone(),
            joint: configuration.is_some_and(|configuration| configuration.outgoing_voters.is_some()),
            committed_configuration: self
                .members
                .committed
                .as_ref()
                .map_or_else(Default::default, |committed| committed.index),
            damage: self.damage.clone(),
            full: self.full,
            ..Status::default()
        };
        if let Some(raft) = &self.raft {
            status.abstains_until = raft.abstains_until();
            status.votes = votes(raft.configuration(), raft.server()) && status.abstains_until.is_none();
            status.leader = raft.leader();
            status.term = raft.term();
            status.last_index = raft.last().index;
            status.durable_index = raft.durable_index();
            status.commit_index = raft.commit_index();
            status.applied_index = raft.applied_index();
            status.snapshot_index = raft.snapshot_index();
            status.time = raft.cluster_time(now);
        }
        status.counters = self.all_counters();
        status
    }

    /// Consensus counts some, the rest are counted here.
    fn all_counters(&self) -> Counters {
        let raft = self.raft.as_ref().map(atomix_raft::Raft::counters).unwrap_or_default();
        Counters {
            commands_applied: self.counters.commands_applied,
            answered_from_table: self.counters.answered_from_table,
            queries_answered: self.counters.queries_answered,
            sessions_expired: self.counters.sessions_expired,
            snapshots_taken: self.counters.snapshots_taken,
            snapshots_installed: self.counters.snapshots_installed,
            frames_refused: self.counters.frames_refused,
            events_sent: self.marks.events_sent,
            events_resent: self.marks.events_resent,
            sessions_given_up: self.marks.overflows,
            ..raft
        }
    }

    fn role_in_words(&self) -> &'static str {
        match (&self.raft, &self.standing) {
            (_, Standing::Outsider(outsider)) if outsider.was_removed() => "removed",
            (Some(raft), _) => raft.role().as_str(),
            (None, Standing::Empty { outside_of: Some(_) } | Standing::Outsider(_)) => "joiner",
            (None, Standing::Empty { .. }) if self.joins() => "joiner",
            (None, _) => "forming",
        }
    }

    fn notice_in_words(&self) -> String {
        match (&self.standing, &self.raft) {
            (Standing::Empty { outside_of: Some(cluster) }, _) if self.joins() => {
                format!("no vote yet: cluster {cluster} was asked to take this server in")
            }
            (Standing::Empty { outside_of: None }, _) if self.joins() => {
                let asked: Vec<&str> = self.options.join.iter().map(Address::as_str).collect();
                format!("no vote yet: no cluster has answered that could be joined, at {}", asked.join(", "))
            }
            (Standing::Empty { outside_of: Some(cluster) }, _) => format!(
                "no vote: the listed servers belong to cluster {cluster}, which does not know this data directory: started with --join, it would ask to be taken in as a new member"
            ),
            (Standing::Empty { outside_of: None }, _) => self.what_forming_waits_for(),
            (Standing::Fresh, _) => "no vote: the data directory is being set up".into(),
            (Standing::Taking(_), _) => "no vote yet: the first configuration is being written".into(),
            (Standing::Outsider(outsider), _) => outsider.notice.clone(),
            (Standing::Failed(failed), _) => failed.status.notice.clone(),
            (Standing::Member { .. }, _) => {
                let notices = [self.notice_of_disk().unwrap_or_default(), self.notice_of_member()];
                notices.into_iter().filter(|notice| !notice.is_empty()).collect::<Vec<_>>().join("; ")
            }
        }
    }

    fn notice_of_member(&self) -> String {
        let own = self.server().and_then(|own| self.configuration()?.member(own));
        let here = &self.options.address;
        if let Some(own) = own.filter(|own| own.peer_address != *here) {
            let there = &own.peer_address;
            let or = "or remove it, and add it with an empty directory";
            return format!(
                "the others look for this server at {there}, and it listens at {here}: start it there, {or}"
            );
        }
        let reserve = own.is_some_and(|own| own.kind == MemberKind::Reserve);
        let heard = match &self.raft {
            // A reserve member hears of no leader.
            Some(_) if reserve => !self.peers.outgoing.is_empty(),
            Some(raft) => raft.leader().is_some(),
            None => true,
        };
        match own {
            _ if !heard => self.why_nobody_leads(reserve),
            Some(own) if self.is_below_its_wish() => self.why_not_more(own),
            _ => String::new(),
        }
    }

    fn why_nobody_leads(&self, reserve: bool) -> String {
        let strangers: Vec<&str> = self.peers.foreign().map(|address| address.as_str()).collect();
        if let Some((address, refused)) = self.peers.refusals().next() {
            format!("no leader is known; {address} says: {refused}")
        } else if !strangers.is_empty() {
            format!("no leader is known; of another cluster: {}", strangers.join(", "))
        } else if reserve {
            "no other member is reached".into()
        } else {
            self.why_nobody_is_elected()
        }
    }

    /// Who was asked for a vote does not say why it gave none. Its own status does.
    fn why_nobody_is_elected(&self) -> String {
        let Some(raft) = &self.raft else { return "no leader is known".into() };
        let reached = |server| server == raft.server() || self.peers.outgoing.contains_key(&server);
        if !raft.is_majority(reached) {
            return "no leader is known: a majority of the members must be reachable".into();
        }
        let refused = raft.refused_by().filter(|server| reached(*server));
        let refused = refused.filter_map(|server| Some(self.record(server)?.peer_address.as_str()));
        let refused = refused.collect::<Vec<_>>().join(", ");
        if refused.is_empty() {
            "no leader is known, though a majority of the members is reached: none is elected yet".into()
        } else {
            format!(
                "no leader is known; no vote for this server from {refused}: the log there reaches farther, or was damaged and has no vote until it is repaired"
            )
        }
    }

    /// Why a member that joined is not what it wants to be.
    fn why_not_more(&self, own: &Member) -> String {
        if self.members.next_wish.is_none() {
            return "no vote: on a directory in use this server does not ask for one, an operator may promote it".into();
        }
        // Its own older self gives its vote to it.
        let others = self.configuration().into_iter().flat_map(|configuration| &configuration.members);
        let others = others.filter(|m| m.kind == MemberKind::Voter && m.peer_address != own.peer_address);
        if self.options.kind == MemberKind::Voter && others.count() >= limits::VOTERS {
            return format!(
                "no vote: the cluster has {} voters already, and may not have more",
                limits::VOTERS
            );
        }
        "no vote yet: this server has joined, and catches up".into()
    }

    fn what_forming_waits_for(&self) -> String {
        let list = self.listed();
        if list.is_empty() {
            return "no vote: no servers are listed to form a cluster with".into();
        }
        if !list.contains(&self.options.address) {
            return format!(
                "no vote: the list of servers lacks this one's own address, {}",
                self.options.address
            );
        }
        let missing: Vec<&str> =
            list.iter().filter(|address| self.known_empty(address).is_none()).map(|a| a.as_str()).collect();
        if missing.is_empty() {
            return "no vote yet: all listed servers answered; the lowest address forms the cluster".into();
        }
        format!("no vote yet: a new cluster needs every listed server, and waits for {}", missing.join(", "))
    }
}

/// Whether a server votes; while a change is under way, on either side.
fn votes(configuration: &Configuration, server: ServerId) -> bool {
    let outgoing = configuration.outgoing_voters.as_ref();
    configuration.is_voter(server) || outgoing.is_some_and(|outgoing| outgoing.contains(&server))
}
