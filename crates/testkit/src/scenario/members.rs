//! Changes of the configuration: what a cluster does with them, and how a text says them.

use atomix_protocol::change::{Change, ChangeRefused, NewMember, Plan, TransferRefused};
use atomix_protocol::{
    Address, Configuration, EntryId, Incarnation, Index, Member, MemberKind, ServerId, WriteBatch,
};
use atomix_raft::Raft;
use atomix_storage::Storage;

use super::Cluster;
use super::server::Server;

/// A member whose data directory and addresses have its number.
#[must_use]
pub fn member(id: u64, kind: MemberKind) -> Member {
    Member {
        id: ServerId(id),
        incarnation: Incarnation(u128::from(id)),
        peer_address: Address::new(id.to_string()),
        client_address: Address::new(id.to_string()),
        kind,
        priority: 0,
    }
}

/// A server that is to join under a number, which is the next that is given.
#[must_use]
pub fn new_member(id: u64, kind: MemberKind) -> NewMember {
    let Member { incarnation, peer_address, client_address, priority, .. } = member(id, kind);
    NewMember { incarnation, peer_address, client_address, kind, priority }
}

impl Cluster {
    /// Asks a server for a change.
    ///
    /// # Errors
    /// As [`Raft::change`].
    pub fn change(&mut self, id: ServerId, change: &Change) -> Result<EntryId, ChangeRefused> {
        let now = self.now();
        let raft = self.raft_mut(id).ok_or(ChangeRefused::NotLeader { leader: None })?;
        let changed = raft.change(now, change);
        self.drain(id);
        changed
    }

    /// Asks a server to hand over.
    ///
    /// # Errors
    /// As [`Raft::transfer`].
    pub fn transfer(&mut self, id: ServerId, to: Option<ServerId>) -> Result<ServerId, TransferRefused> {
        let now = self.now();
        let raft = self.raft_mut(id).ok_or(TransferRefused::NotLeader { leader: None })?;
        let begun = raft.transfer(now, to);
        self.drain(id);
        begun
    }

    /// What a change would do.
    #[must_use]
    pub fn plan(&self, id: ServerId, change: &Change) -> Plan {
        self.raft(id).plan(self.now(), change)
    }

    /// Starts a new server that has nothing but what another knows to be the committed configuration.
    pub fn join(&mut self, id: ServerId, from: ServerId) {
        let configuration = self.raft(from).committed_configuration().clone();
        let mut server = Server::empty();
        let batch = WriteBatch { configuration: Some(configuration), ..WriteBatch::default() };
        server.disk.write(&batch).expect("memory has no errors");
        self.add_server(id, server);
        self.restart(id);
    }

    /// Configurations that a server was told are committed, in order, since it started.
    #[must_use]
    pub fn followed(&self, id: ServerId) -> Vec<Index> {
        self.server(id).followed.clone()
    }
}

/// A change from words such as `add learner, make 4 voter, remove 1, prefer 2 by 9`, for the configuration that
/// `raft` uses, or with `at INDEX` for another. A new server gets the next number; `add learner like 3` gives it the
/// address of another.
pub(super) fn parse(raft: &Raft, text: &str) -> Result<Change, String> {
    let current = raft.configuration();
    let mut change = Change { expected: current.index, ..Change::default() };
    let mut next = current.next_server_id;
    for clause in text.split(',') {
        let words: Vec<&str> = clause.split_whitespace().collect();
        match words[..] {
            ["at", index] => change.expected = Index(number(index)?),
            ["add", kind_of, ref rest @ ..] => {
                let mut new = new_member(next, kind(kind_of)?);
                if let ["like", other] = rest {
                    new.peer_address = Address::new((*other).to_owned());
                }
                change.add.push(new);
                next += 1;
            }
            ["make", id, kind_of] => change.set_kind.push((ServerId(number(id)?), kind(kind_of)?)),
            ["prefer", id, "by", priority] => {
                let priority = u8::try_from(number(priority)?).map_err(|_| "a priority is below 256")?;
                change.set_priority.push((ServerId(number(id)?), priority));
            }
            ["remove", id] => change.remove.push(ServerId(number(id)?)),
            _ => return Err(format!("{clause} is no part of a change")),
        }
    }
    Ok(change)
}

fn kind(word: &str) -> Result<MemberKind, String> {
    match word {
        "voter" => Ok(MemberKind::Voter),
        "learner" => Ok(MemberKind::Learner),
        "reserve" => Ok(MemberKind::Reserve),
        _ => Err(format!("there is no kind {word}")),
    }
}

fn number(word: &str) -> Result<u64, String> {
    word.parse().map_err(|_| format!("{word} is not a number"))
}

/// A configuration in words: `7: voters 1 2, learners 4, leaving 3, from 1 2 3`.
pub(super) fn describe(configuration: &Configuration) -> String {
    let list = |ids: Vec<ServerId>| ids.iter().map(ServerId::to_string).collect::<Vec<_>>().join(" ");
    let mut parts = Vec::new();
    for (name, kind) in [
        ("voters", MemberKind::Voter),
        ("learners", MemberKind::Learner),
        ("reserves", MemberKind::Reserve),
        ("leaving", MemberKind::Leaving),
    ] {
        let ids: Vec<ServerId> = configuration
            .members
            .iter()
            .filter(|member| member.kind == kind)
            .map(|member| member.id)
            .collect();
        if !ids.is_empty() {
            parts.push(format!("{name} {}", list(ids)));
        }
    }
    if let Some(outgoing) = &configuration.outgoing_voters {
        parts.push(format!("from {}", list(outgoing.clone())));
    }
    format!("{}: {}", configuration.index, parts.join(", "))
}
