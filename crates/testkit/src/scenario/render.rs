//! What a machine asked for, in words.

use atomix_protocol::peer::{AppendOutcome, InstallOutcome, PeerMessage};
use atomix_protocol::{Entry, ServerId, WriteBatch};
use atomix_raft::Output;

/// One line, or none for what goes without saying.
pub(super) fn output(server: ServerId, output: &Output) -> Option<String> {
    Some(match output {
        Output::Send { to, message: sent } => format!("{server} -> {to} {}", message(sent)),
        Output::Write { batch, .. } => format!("{server} writes {}", self::batch(batch)),
        Output::Committed { entries } => format!("{server} commits {}", self::entries(entries)),
        Output::ReadsReady { reads, index, lease } => {
            let how = if *lease { " by lease" } else { "" };
            format!("{server} confirms reads {reads:?} at {index}{how}")
        }
        Output::ReadsFailed { reads } => format!("{server} fails reads {reads:?}"),
        Output::RoundConfirmed { round, .. } => format!("{server} confirms round {round}"),
        Output::RoleChanged { role, term, leader } => match leader.filter(|leader| *leader != server) {
            Some(leader) => format!("{server} is {} of {leader} in term {term}", role.as_str()),
            None => format!("{server} is {} in term {term}", role.as_str()),
        },
        Output::Fetch { to, from, through, .. } => format!("{server} fetches {from}..{through} for {to}"),
        Output::ReadChunk { to, meta, offset, .. } => {
            format!("{server} reads snapshot {} from {offset} for {to}", meta.last)
        }
        Output::WriteChunk { meta, offset, data, done } => {
            let done = if *done { ", the last" } else { "" };
            format!("{server} writes snapshot {} {offset}+{}{done}", meta.last, data.len())
        }
        Output::Install { meta } => format!("{server} installs snapshot {}", meta.last),
        Output::ConfigurationCommitted { configuration } => {
            format!("{server} follows configuration {}", configuration.index)
        }
        Output::TransferFailed { to } => format!("{server} could not hand over to {to}"),
    })
}

/// A message.
pub(super) fn message(message: &PeerMessage) -> String {
    match message {
        PeerMessage::PreVote(m) => format!("PreVote term {}, last {}", m.term, m.last),
        PeerMessage::PreVoteReply(m) if m.granted => format!("PreVoteReply to term {}: granted", m.asked),
        PeerMessage::PreVoteReply(m) => {
            let why = if m.sticky { "refused, hears a leader" } else { "refused" };
            format!("PreVoteReply to term {}: {why}, in term {}", m.asked, m.current)
        }
        PeerMessage::RequestVote(m) => format!("RequestVote term {}, last {}", m.term, m.last),
        PeerMessage::RequestVoteReply(m) => {
            let outcome = if m.granted { "granted" } else { "refused" };
            format!("RequestVoteReply to term {}: {outcome}, in term {}", m.asked, m.term)
        }
        PeerMessage::AppendEntries(m) => format!(
            "AppendEntries term {}, prev {}, {}, commit {}, round {}",
            m.term,
            m.prev,
            entries(&m.entries),
            m.leader_commit,
            m.round
        ),
        PeerMessage::AppendEntriesReply(m) => {
            let outcome = match &m.outcome {
                AppendOutcome::Durable(index) => format!("durable {index}"),
                AppendOutcome::Mismatch { prev, hint } => format!("no {prev}, perhaps {hint}"),
                AppendOutcome::StaleTerm => "stale".into(),
                AppendOutcome::Unpromised => "unpromised".into(),
            };
            format!("AppendEntriesReply term {}: {outcome}, round {}", m.term, m.round)
        }
        PeerMessage::InstallSnapshot(m) => {
            let done = if m.done { ", the last" } else { "" };
            format!("InstallSnapshot term {}, {} {}+{}{done}", m.term, m.meta.last, m.offset, m.data.len())
        }
        PeerMessage::InstallSnapshotReply(m) => {
            let outcome = match m.outcome {
                InstallOutcome::Next(offset) => format!("next {offset}"),
                InstallOutcome::Installed => "installed".into(),
                InstallOutcome::Restart => "restart".into(),
                InstallOutcome::StaleTerm => "stale".into(),
            };
            format!("InstallSnapshotReply term {}, {}: {outcome}", m.term, m.last)
        }
        PeerMessage::Configure(m) => {
            format!("Configure term {}, configuration {}", m.term, m.configuration.index)
        }
        PeerMessage::TimeoutNow(m) => format!("TimeoutNow term {}, round {}", m.term, m.round),
    }
}

fn entries(entries: &[Entry]) -> String {
    match entries {
        [] => "no entries".into(),
        entries => entries.iter().map(|entry| entry.id.to_string()).collect::<Vec<_>>().join(" "),
    }
}

fn batch(batch: &WriteBatch) -> String {
    let mut parts = Vec::new();
    if let Some(hard_state) = batch.hard_state {
        let vote = hard_state.voted_for.map_or("none".into(), |vote| vote.to_string());
        parts.push(format!("term {} vote {vote}", hard_state.term));
    }
    if batch.configuration.is_some() {
        parts.push("configuration".into());
    }
    if let Some(id) = batch.truncate_after {
        parts.push(format!("end at {id}"));
    }
    if !batch.entries.is_empty() {
        parts.push(entries(&batch.entries));
    }
    parts.join(", ")
}
