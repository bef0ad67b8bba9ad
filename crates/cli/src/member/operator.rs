//! One operator's dealings with the leader.

use std::fmt;
use std::time::{Duration, Instant};

use atomix::{Index, Member, ServerId, Status, Term};
use tokio::time::sleep;

use super::view::{LOOK, View};
use crate::args::Cluster;
use crate::exit::{Exit, Failure};
use atomix::admin::{Change, ChangeRefused, ManageAction, ManageOutcome, Plan, TransferRefused, manage};

/// Before something that was refused for the moment is asked for again.
const PAUSE: Duration = Duration::from_millis(50);
/// However little time is left: what was begun is waited for this long.
const LEAST: Duration = Duration::from_millis(200);

/// What a change has made of the cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Made {
    /// The index of the configuration.
    pub(super) index: Index,
    pub(super) members: Vec<Member>,
}

/// Why a change was not made, or not known to be.
#[derive(Debug)]
pub(super) enum Stopped {
    /// The leader refused.
    Refused(ChangeRefused),
    /// No leader was reached, or its answer was lost.
    Failed(Failure),
}

/// Asks on behalf of one command.
#[derive(Debug)]
pub(super) struct Operator {
    timeout: Duration,
    /// Where servers are known to be.
    addresses: Vec<String>,
    /// The newest term of a leader seen before something was asked for.
    term: Term,
    until: Instant,
}

impl Operator {
    /// The command's time begins to run.
    pub(super) fn new(cluster: &Cluster) -> Self {
        let (addresses, until) = (cluster.cluster.clone(), Instant::now() + cluster.timeout);
        Operator { addresses, term: Term::ZERO, until, timeout: cluster.timeout }
    }

    /// Whether there is time for another attempt.
    pub(super) fn has_time(&self) -> bool {
        Instant::now() < self.until
    }

    /// Waits a moment before one.
    pub(super) async fn pause(&self) {
        sleep(PAUSE).await;
    }

    /// The members as the leader knows them, once no change is half-way: its index will not be that of the next one to be made.
    pub(super) async fn view(&mut self) -> Result<View, Failure> {
        loop {
            let view = self.look().await;
            let settled = view.as_ref().is_ok_and(|view| view.leader().is_some_and(|leader| !leader.joint));
            if !settled && self.has_time() {
                self.pause().await;
                continue;
            }
            let view = view?;
            self.term = view.leader().map_or(self.term, |leader| leader.term.max(self.term));
            return Ok(view);
        }
    }

    /// The same, of a cluster that has a leader: what others say of it may be long over.
    pub(super) async fn led_view(&mut self) -> Result<View, Failure> {
        let view = self.view().await?;
        if view.leader().is_none() {
            let asked = self.addresses.join(", ");
            let why = format!("no server leads (asked {asked}): is a majority of the servers running?");
            return Err(Failure::new(Exit::Unreachable, why));
        }
        Ok(view)
    }

    /// The members as the servers tell now, at every address that was named or learned.
    async fn look(&mut self) -> Result<View, Failure> {
        let view = View::of(&self.addresses, self.timeout).await?;
        let members = view.members().iter().map(|member| member.client_address.to_string());
        let new: Vec<String> = members.filter(|address| !self.addresses.contains(address)).collect();
        self.addresses.extend(new);
        Ok(view)
    }

    /// Makes a change. What the leader refuses for the moment only is asked for again while there is time.
    pub(super) async fn make(&mut self, change: &Change) -> Result<Made, Stopped> {
        loop {
            match self.ask(ManageAction::Change(change.clone())).await? {
                ManageOutcome::Changed(configuration) => {
                    return Ok(Made { index: configuration.index, members: configuration.members });
                }
                ManageOutcome::ChangeRefused(refused) if passes(&refused) && self.has_time() => {
                    self.pause().await;
                }
                ManageOutcome::ChangeRefused(refused) => return Err(Stopped::Refused(refused)),
                ManageOutcome::Unknown => return self.look_for(change).await,
                other => return Err(Stopped::Failed(unexpected(&other))),
            }
        }
    }

    /// What a change would do.
    pub(super) async fn plan(&self, change: Change) -> Result<Plan, Failure> {
        match self.ask(ManageAction::Plan(change)).await? {
            ManageOutcome::Planned(plan) => Ok(*plan),
            ManageOutcome::ChangeRefused(refused) => Err(refusal(&refused)),
            other => Err(unexpected(&other)),
        }
    }

    /// The id that the next new member gets. No change is asked for: that it would be refused does not matter.
    pub(super) async fn next_id(&self, expected: Index, id: ServerId) -> Result<u64, Failure> {
        let change = Change { expected, remove: vec![id], ..Change::default() };
        Ok(self.plan(change).await?.configuration.next_server_id)
    }

    /// Has another server lead; tells which one does.
    pub(super) async fn transfer(&mut self, to: Option<ServerId>) -> Result<ServerId, Failure> {
        // Whoever was named may not be a member any more, but knows some.
        let view = self.view().await?;
        let before = view.leader().and_then(|leader| leader.server);
        loop {
            match self.ask(ManageAction::Transfer(to)).await? {
                ManageOutcome::Transferred(leader) => return arrived(to, leader),
                ManageOutcome::TransferRefused(TransferRefused::Pending | TransferRefused::Changing)
                    if self.has_time() =>
                {
                    self.pause().await;
                }
                ManageOutcome::TransferRefused(TransferRefused::Nobody) if to.is_some() => {
                    let id = to.unwrap_or_default();
                    let words = format!("server {id} does not answer the leader, which goes on");
                    return Err(Failure::new(Exit::Refused, words));
                }
                // It was told to take over, perhaps, and may yet.
                ManageOutcome::TransferRefused(TransferRefused::TimedOut) => {
                    return self.look_for_leader(to, before).await.ok_or_else(|| {
                        let words = "it did not take over in time, and may yet";
                        Failure::new(
                            Exit::OutcomeUnknown,
                            format!("{words}; `atomix status` tells who leads"),
                        )
                    });
                }
                ManageOutcome::TransferRefused(refused) => {
                    return Err(Failure::new(Exit::Refused, format!("{refused}; the leader goes on")));
                }
                ManageOutcome::Unknown => {
                    let found = self.look_for_leader(to, before).await;
                    return found.ok_or_else(|| unknown("atomix status"));
                }
                other => return Err(unexpected(&other)),
            }
        }
    }

    /// Whether whoever was to lead comes to: it may take a moment.
    async fn look_for_leader(&mut self, to: Option<ServerId>, before: Option<ServerId>) -> Option<ServerId> {
        let begin = Instant::now();
        loop {
            let view = self.look().await.ok();
            let leader = view.as_ref().and_then(View::leader).and_then(|leader| leader.server);
            match (leader, to) {
                (Some(leader), Some(to)) if leader == to => return Some(leader),
                (Some(leader), None) if Some(leader) != before => return Some(leader),
                _ if !self.has_time() || begin.elapsed() > LOOK => return None,
                _ => self.pause().await,
            }
        }
    }

    async fn ask(&self, action: ManageAction) -> Result<ManageOutcome, Failure> {
        let left = self.until.saturating_duration_since(Instant::now()).max(LEAST);
        Ok(manage(self.addresses.iter().map(String::as_str), action, left).await?)
    }

    /// The answer was lost: the configuration tells whether the change was made.
    async fn look_for(&mut self, change: &Change) -> Result<Made, Stopped> {
        let mut successor = None;
        loop {
            if let Ok(view) = self.look().await
                && let Some(leader) = view.leader()
            {
                if shows(leader, change) {
                    return Ok(Made { index: leader.configuration_index, members: leader.members.clone() });
                }
                if is_lost(leader, change, self.term, &mut successor) {
                    let words = "the leader was lost, and the change with it: it was not made; try again";
                    return Err(Stopped::Failed(Failure::new(Exit::Refused, words)));
                }
            }
            if !self.has_time() {
                return Err(Stopped::Failed(unknown("atomix member list")));
            }
            self.pause().await;
        }
    }
}

/// Whether a leader has committed a later configuration that is as the change would have it.
fn shows(leader: &Status, change: &Change) -> bool {
    let kind = |id: ServerId| leader.members.iter().find(|member| member.id == id).map(|member| member.kind);
    let priority = |id: ServerId| leader.members.iter().find(|m| m.id == id).map(|m| m.priority);
    leader.configuration_index > change.expected
        && leader.commit_index >= leader.configuration_index
        && !leader.joint
        && change.remove.iter().all(|id| kind(*id).is_none())
        && change.set_kind.iter().all(|(id, wanted)| kind(*id) == Some(*wanted))
        && change.set_priority.iter().all(|(id, wanted)| priority(*id) == Some(*wanted))
        && change.add.iter().all(|new| leader.members.iter().any(|m| m.incarnation == new.incarnation))
}

/// Whether a change can't come any more: a leader that was elected after it was asked for has committed an entry of its own term,
/// and its configuration is still the one from before. `seen` is such a leader's term, and where its log ended when it was seen
/// first: its own entry is there, or before.
fn is_lost(leader: &Status, change: &Change, asked_in: Term, seen: &mut Option<(Term, Index)>) -> bool {
    if seen.is_none_or(|(term, _)| term < leader.term) {
        *seen = Some((leader.term, leader.last_index));
    }
    let established = seen.is_some_and(|(term, last)| term == leader.term && leader.commit_index >= last);
    leader.term > asked_in && established && leader.configuration_index == change.expected && !leader.joint
}

/// Whoever leads was to.
fn arrived(to: Option<ServerId>, leader: ServerId) -> Result<ServerId, Failure> {
    match to.filter(|to| *to != leader) {
        Some(to) => {
            let words = format!("server {leader} leads now, and not server {to}; try again");
            Err(Failure::new(Exit::Refused, words))
        }
        None => Ok(leader),
    }
}

/// Whether a refusal is one of the moment.
fn passes(refused: &ChangeRefused) -> bool {
    matches!(
        refused,
        ChangeRefused::NotEstablished
            | ChangeRefused::Pending(_)
            | ChangeRefused::HandingOver
            | ChangeRefused::Busy
    )
}

/// A refusal, with what to do about it.
pub(super) fn refusal(refused: &ChangeRefused) -> Failure {
    let advice = match refused {
        ChangeRefused::Changed(_) => "look at it (`atomix member list`), then try again",
        ChangeRefused::UnknownMember(_) => "`atomix member list` shows them",
        ChangeRefused::AlreadyMember(_) => {
            "`atomix member list` shows it; if it was removed, start it with an empty data directory"
        }
        ChangeRefused::NotALearner => "make it a learner, and wait until it has caught up",
        ChangeRefused::NotCaughtUp { .. } => "try again when it has (`atomix member list`)",
        ChangeRefused::NoQuorum { .. } => "start the servers that do not answer, or remove them instead",
        refused if passes(refused) => "try again",
        _ => "nothing was changed",
    };
    Failure::new(Exit::Refused, format!("{refused}; {advice}"))
}

fn unknown(look: &str) -> Failure {
    Failure::new(
        Exit::OutcomeUnknown,
        format!("the answer was lost: it may have been done, or may yet be; `{look}` tells"),
    )
}

fn unexpected(outcome: &impl fmt::Debug) -> Failure {
    Failure::new(Exit::OutcomeUnknown, format!("an answer to another question: {outcome:?}"))
}

impl From<Stopped> for Failure {
    fn from(stopped: Stopped) -> Self {
        match stopped {
            Stopped::Refused(refused) => refusal(&refused),
            Stopped::Failed(failure) => failure,
        }
    }
}

impl From<Failure> for Stopped {
    fn from(failure: Failure) -> Self {
        Stopped::Failed(failure)
    }
}

#[cfg(test)]
mod tests {
    use atomix::{Incarnation, MemberKind};

    use super::*;

    fn member(id: u64, kind: MemberKind) -> Member {
        Member {
            id: ServerId(id),
            incarnation: Incarnation(u128::from(id)),
            peer_address: "a:1".into(),
            client_address: "a:1".into(),
            kind,
            priority: 0,
        }
    }

    fn leader() -> Status {
        Status {
            members: vec![member(1, MemberKind::Voter), member(4, MemberKind::Learner)],
            configuration_index: Index(8),
            commit_index: Index(8),
            ..Status::default()
        }
    }

    fn removal(expected: u64) -> Change {
        Change { expected: Index(expected), remove: vec![ServerId(2)], ..Change::default() }
    }

    #[track_caller]
    fn check(leader: &Status, change: &Change, expected: bool) {
        assert_eq!(shows(leader, change), expected, "{change:?}");
    }

    #[test]
    fn a_lost_answer_is_made_up_for_by_a_committed_configuration_that_is_later() {
        check(&leader(), &removal(7), true);
        check(&leader(), &removal(8), false);
        check(&Status { commit_index: Index(7), ..leader() }, &removal(7), false);
        check(&Status { joint: true, ..leader() }, &removal(7), false);
    }

    #[test]
    fn it_must_be_as_the_change_would_have_it() {
        check(&leader(), &Change { remove: vec![ServerId(1)], ..removal(7) }, false);
        let kinds = |kind| Change { set_kind: vec![(ServerId(4), kind)], ..removal(7) };
        check(&leader(), &kinds(MemberKind::Learner), true);
        check(&leader(), &kinds(MemberKind::Voter), false);
        let priorities = |priority| Change { set_priority: vec![(ServerId(4), priority)], ..removal(7) };
        check(&leader(), &priorities(0), true);
        check(&leader(), &priorities(1), false);
    }

    #[test]
    fn a_change_is_lost_if_a_later_leader_is_established_without_it() {
        let at = |term, configuration, commit, last| Status {
            term: Term(term),
            configuration_index: Index(configuration),
            commit_index: Index(commit),
            last_index: Index(last),
            ..leader()
        };
        let lost = |statuses: &[Status]| {
            let mut seen = None;
            statuses.iter().any(|status| is_lost(status, &removal(7), Term(3), &mut seen))
        };
        assert!(lost(&[at(4, 7, 9, 9)]));
        assert!(lost(&[at(4, 7, 8, 10), at(4, 7, 10, 12)]), "under load");
        assert!(!lost(&[at(4, 7, 8, 9)]), "its own entry may not be committed");
        assert!(!lost(&[at(3, 7, 9, 9)]), "this leader may have been asked");
        assert!(!lost(&[at(4, 8, 9, 9)]), "it is on its way, or another is");
        assert!(!lost(&[Status { joint: true, ..at(4, 7, 9, 9) }]));
        assert!(!lost(&[at(4, 7, 8, 10), at(5, 7, 10, 12)]), "another leader by now");
    }

    #[test]
    fn who_leads_is_who_was_to() {
        assert_eq!(arrived(None, ServerId(2)), Ok(ServerId(2)));
        assert_eq!(arrived(Some(ServerId(2)), ServerId(2)), Ok(ServerId(2)));
        let other = arrived(Some(ServerId(3)), ServerId(2)).expect_err("another one leads");
        assert_eq!(other.exit, Exit::Refused);
        assert!(other.message.contains("server 2 leads now, and not server 3"), "{other}");
    }

    #[test]
    fn refusals_exit_with_1_and_say_what_to_do() {
        for refused in [
            ChangeRefused::NotEstablished,
            ChangeRefused::Pending(Index(3)),
            ChangeRefused::Changed(Index(3)),
            ChangeRefused::NotCaughtUp { server: ServerId(4), behind: 12 },
            ChangeRefused::Voters(0),
        ] {
            let failure = refusal(&refused);
            assert_eq!(failure.exit, Exit::Refused);
            let words = refused.to_string();
            assert!(failure.message.starts_with(&words) && failure.message.contains("; "), "{failure}");
            assert!(!failure.message.contains('\n'), "{failure}");
        }
    }
}
