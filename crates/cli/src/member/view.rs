//! The members, as the servers tell.

use std::time::Duration;

use atomix::{Incarnation, Index, Member, ServerId, Status};

use crate::exit::{Exit, Failure};
use crate::status::{self, Answer};

/// A server that is silent for longer is passed over.
pub(super) const LOOK: Duration = Duration::from_secs(2);

/// What the servers say at one moment.
#[derive(Clone, Debug)]
pub(super) struct View {
    pub(super) answers: Vec<Answer>,
    /// The leader's answer, or else the one that has the newest configuration.
    believed: Status,
}

impl View {
    /// Asks servers, and those that they name.
    pub(super) async fn of(servers: &[String], within: Duration) -> Result<Self, Failure> {
        let answers = status::ask_all(servers, within.min(LOOK)).await?;
        View::from(answers).ok_or_else(|| {
            let asked = servers.join(", ");
            Failure::new(Exit::Unreachable, format!("no server of a cluster answered (tried {asked})"))
        })
    }

    pub(super) fn from(answers: Vec<Answer>) -> Option<Self> {
        let told = answers.iter().filter_map(|answer| answer.status.as_ref().ok());
        let members = told.filter(|status| status.cluster.is_some() && !status.members.is_empty());
        let believed = members.max_by_key(|status| rank(status))?.clone();
        Some(View { answers, believed })
    }

    /// The leader, if it has answered.
    pub(super) fn leader(&self) -> Option<&Status> {
        leads(&self.believed).then_some(&self.believed)
    }

    /// What is believed of the cluster.
    pub(super) fn status(&self) -> &Status {
        &self.believed
    }

    /// The index of the configuration in use.
    pub(super) fn index(&self) -> Index {
        self.believed.configuration_index
    }

    /// The members.
    pub(super) fn members(&self) -> &[Member] {
        &self.believed.members
    }

    /// The member that has a data directory.
    pub(super) fn member_by_incarnation(&self, incarnation: Incarnation) -> Option<&Member> {
        self.members().iter().find(|member| member.incarnation == incarnation)
    }

    /// A member.
    pub(super) fn member(&self, id: ServerId) -> Option<&Member> {
        self.members().iter().find(|member| member.id == id)
    }

    /// What a member says of itself.
    pub(super) fn of_member(&self, member: &Member) -> Option<&Status> {
        let told = self.answers.iter().filter_map(|answer| answer.status.as_ref().ok());
        // Whoever has come to its address since is not it.
        told.filter(|status| status.incarnation == member.incarnation).max_by_key(|status| status.term)
    }

    /// Why a member said nothing.
    pub(super) fn silence_of(&self, member: &Member) -> &str {
        let answer = self.answers.iter().find(|answer| answer.address == member.client_address.as_str());
        match answer.map(|answer| &answer.status) {
            Some(Err(error)) => error,
            Some(Ok(_)) => "another server is at its address",
            None => "not asked",
        }
    }
}

fn leads(status: &Status) -> bool {
    status.role == "leader"
}

/// Of two leaders the later one is right; without one, whoever has heard of the latest change knows most.
fn rank(status: &Status) -> (bool, atomix::Term, Index) {
    (leads(status), status.term, status.configuration_index)
}

#[cfg(test)]
mod tests {
    use atomix::{ClusterId, MemberKind, Term};

    use super::*;

    fn answer(role: &str, term: u64, configuration: u64) -> Answer {
        let member = Member {
            id: ServerId(1),
            incarnation: Incarnation(1),
            peer_address: "a:1".into(),
            client_address: "a:1".into(),
            kind: MemberKind::Voter,
            priority: 0,
        };
        let status = Status {
            role: role.into(),
            cluster: Some(ClusterId(1)),
            incarnation: Incarnation(u128::from(term)),
            term: Term(term),
            configuration_index: Index(configuration),
            members: vec![member],
            ..Status::default()
        };
        Answer { address: "a:1".into(), status: Ok(status) }
    }

    #[track_caller]
    fn check(answers: &[Answer], expected: Option<(u64, bool)>) {
        let view = View::from(answers.to_vec());
        let found = view.map(|view| (view.index().0, view.leader().is_some()));
        assert_eq!(found, expected);
    }

    #[test]
    fn the_later_leader_is_believed() {
        let silent = Answer { address: "b:1".into(), status: Err("refused".into()) };
        check(&[answer("leader", 3, 5), answer("leader", 4, 2), answer("candidate", 9, 9)], Some((2, true)));
        check(&[silent.clone(), answer("follower", 3, 5), answer("follower", 3, 7)], Some((7, false)));
        check(&[silent], None);
        check(&[], None);
        let stranger = Answer { address: "b:1".into(), status: Ok(Status::default()) };
        check(&[stranger], None);
    }

    #[test]
    fn a_member_is_known_by_its_directory() {
        let view = View::from(vec![answer("leader", 1, 1), answer("joiner", 2, 0)]).expect("a view");
        let mut member = view.members()[0].clone();
        assert_eq!(view.of_member(&member).map(|status| status.role.as_str()), Some("leader"));
        member.incarnation = Incarnation(3);
        assert!(view.of_member(&member).is_none());
        assert_eq!(view.silence_of(&member), "another server is at its address");
        member.client_address = "b:1".into();
        assert_eq!(view.silence_of(&member), "not asked");
    }
}
