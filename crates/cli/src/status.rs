//! `atomix status`: what the servers of a cluster say of themselves.

use std::time::Duration;

use atomix::inspect::REACH_UNKNOWN;
use atomix::{Counters, Error, Member, MemberKind, Status, cluster_status};
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::args;
use crate::exit::{Exit, Failure, say};
use crate::table::Table;

/// What one server said, or why it said nothing.
#[derive(Clone, Debug)]
pub struct Answer {
    /// Where it was asked.
    pub address: String,
    /// What came.
    pub status: Result<Status, String>,
}

/// Runs the command.
///
/// # Errors
/// If no server answers.
pub async fn run(args: args::Status) -> Result<(), Failure> {
    let answers = ask_all(&args.cluster.cluster, args.cluster.timeout).await?;
    if args.json {
        say!("{:#}", json!({ "servers": answers.iter().map(as_json).collect::<Vec<_>>() }));
    } else {
        say!("{}", as_text(&answers).trim_end());
    }
    Ok(())
}

/// Asks servers, and those that they name as members.
///
/// # Errors
/// If none of the former answers.
pub async fn ask_all(servers: &[String], within: Duration) -> Result<Vec<Answer>, Failure> {
    let mut answers = ask(servers, within).await;
    if answers.iter().all(|answer| answer.status.is_err()) {
        let why = answers.iter().filter_map(|a| a.status.as_ref().err()).next().cloned().unwrap_or_default();
        let tried = servers.join(", ");
        return Err(Failure::new(
            Exit::Unreachable,
            format!("no server answered (tried {tried}): {why}; is any of them running? check --cluster"),
        ));
    }
    answers.extend(ask(&members_not_asked(&answers), within).await);
    Ok(answers)
}

/// Asks all servers at once; answers come in the order of the addresses.
pub async fn ask(addresses: &[String], within: Duration) -> Vec<Answer> {
    let mut asked = JoinSet::new();
    for (place, address) in addresses.iter().cloned().enumerate() {
        asked.spawn(async move { (place, ask_one(address, within).await) });
    }
    let mut answers = asked.join_all().await;
    answers.sort_by_key(|(place, _)| *place);
    answers.into_iter().map(|(_, answer)| answer).collect()
}

/// Members that the servers asked named, and that were not asked.
fn members_not_asked(answers: &[Answer]) -> Vec<String> {
    let members =
        answers.iter().filter_map(|answer| answer.status.as_ref().ok()).flat_map(|status| &status.members);
    let mut addresses: Vec<String> = members
        .filter(|member| answers.iter().all(|answer| answer.address != member.client_address.as_str()))
        .map(|member| member.client_address.to_string())
        .collect();
    addresses.sort();
    addresses.dedup();
    addresses
}

async fn ask_one(address: String, within: Duration) -> Answer {
    let status = match tokio::time::timeout(within, cluster_status(address.as_str())).await {
        Ok(Ok(status)) => Ok(status),
        // Which address it was stands beside it.
        Ok(Err(Error::Unreachable { reason, .. })) => Err(reason),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err(format!("no answer within {} ms", within.as_millis())),
    };
    Answer { address, status }
}

/// One quantity per another; `None` while the latter is zero.
#[must_use]
pub fn ratio(of: u64, per: u64) -> Option<f64> {
    (per > 0).then(|| of as f64 / per as f64)
}

/// A member, for programs.
pub(crate) fn member_as_json(member: &Member) -> Value {
    json!({
        "server": member.id.0,
        "address": member.peer_address.as_str(),
        "client_address": member.client_address.as_str(),
        "kind": kind_in_words(member.kind),
        "priority": member.priority,
    })
}

/// What a member does, in one word.
pub(crate) fn kind_in_words(kind: MemberKind) -> &'static str {
    match kind {
        MemberKind::Voter => "voter",
        MemberKind::Learner => "learner",
        MemberKind::Reserve => "reserve",
        MemberKind::Leaving => "leaving",
    }
}

fn as_json(answer: &Answer) -> Value {
    match &answer.status {
        Err(error) => json!({ "address": answer.address, "error": error }),
        Ok(status) => json!({
            "address": answer.address,
            "server": status.server.map(|id| id.0),
            "incarnation": status.incarnation.to_string(),
            "cluster": status.cluster.map(|cluster| cluster.to_string()),
            "role": status.role,
            "votes": status.votes,
            "ready": status.is_ready(),
            "full": status.full,
            "abstains": status.abstains_until.is_some(),
            // Null as well where nobody knows how far what it lost had reached: then as far as a leader's log does.
            "abstains_until": status.abstains_until.filter(|until| *until != REACH_UNKNOWN).map(|until| until.0),
            "damage": status.damage,
            "repaired": is_repaired(status),
            "notice": status.notice,
            "leader": status.leader.map(|id| id.0),
            "term": status.term.0,
            "members": status.members.iter().map(member_as_json).collect::<Vec<_>>(),
            "joint": status.joint,
            "indexes": {
                "configuration": status.configuration_index.0,
                "committed_configuration": status.committed_configuration.0,
                "last": status.last_index.0,
                "durable": status.durable_index.0,
                "commit": status.commit_index.0,
                "applied": status.applied_index.0,
                "snapshot": status.snapshot_index.0,
            },
            "cluster_time_ms": status.time.0,
            "sessions": status.sessions,
            "counters": counters_as_json(&status.counters),
        }),
    }
}

fn counters_as_json(counters: &Counters) -> Value {
    json!({
        "syncs": counters.syncs,
        "entries_synced": counters.entries_synced,
        "entries_per_sync": ratio(counters.entries_synced, counters.syncs),
        "appends_sent": counters.appends_sent,
        "entries_sent": counters.entries_sent,
        "entries_per_append": ratio(counters.entries_sent, counters.appends_sent),
        "read_rounds": counters.read_rounds,
        "reads_confirmed": counters.reads_confirmed,
        "reads_per_round": ratio(counters.reads_confirmed, counters.read_rounds),
        "largest_in_flight": counters.largest_in_flight,
        "commands_applied": counters.commands_applied,
        "answered_from_table": counters.answered_from_table,
        "queries_answered": counters.queries_answered,
        "elections": counters.elections,
        "sessions_expired": counters.sessions_expired,
        "snapshots_taken": counters.snapshots_taken,
        "snapshots_installed": counters.snapshots_installed,
        "frames_refused": counters.frames_refused,
        "events_sent": counters.events_sent,
        "events_resent": counters.events_resent,
        "sessions_given_up": counters.sessions_given_up,
    })
}

fn as_text(answers: &[Answer]) -> String {
    let mut servers = Table::new([
        "server", "address", "role", "vote", "leader", "term", "last", "durable", "commit", "applied",
        "snapshot", "sessions",
    ]);
    let mut counters = Table::new([
        "server",
        "entries/sync",
        "entries/append",
        "reads/round",
        "largest in flight",
        "from table",
    ]);
    let mut notes = String::new();
    for Answer { address, status } in answers {
        let status = match status {
            Ok(status) => status,
            Err(error) => {
                servers.row(["-", address.as_str(), "unreachable"]);
                notes.push_str(&format!("{address}: {error}\n"));
                continue;
            }
        };
        let id = status.server.map_or_else(|| "-".to_owned(), |id| id.to_string());
        let leader = status.leader.map_or_else(|| "-".to_owned(), |id| id.to_string());
        let vote = if status.votes { "yes" } else { "no" };
        let numbers = [
            status.term.0,
            status.last_index.0,
            status.durable_index.0,
            status.commit_index.0,
            status.applied_index.0,
            status.snapshot_index.0,
            status.sessions,
        ];
        let words = [id.clone(), address.clone(), status.role.clone(), vote.into(), leader];
        servers.row(words.into_iter().chain(numbers.iter().map(u64::to_string)));
        let c = &status.counters;
        counters.row([
            id,
            tenths(ratio(c.entries_synced, c.syncs)),
            tenths(ratio(c.entries_sent, c.appends_sent)),
            tenths(ratio(c.reads_confirmed, c.read_rounds)),
            c.largest_in_flight.to_string(),
            c.answered_from_table.to_string(),
        ]);
        if !status.notice.is_empty() {
            notes.push_str(&format!("{address}: {}\n", status.notice));
        }
        let found = if is_repaired(status) {
            "found when it started, and nothing is missing any more: repaired"
        } else {
            "damaged"
        };
        for damage in &status.damage {
            notes.push_str(&format!("{address}: {found}: {damage}\n"));
        }
    }
    notes.extend(too_few_votes(answers).map(|note| format!("{note}\n")));
    let cluster = answers.iter().filter_map(|a| a.status.as_ref().ok()).find_map(|status| status.cluster);
    let cluster = cluster.map_or_else(|| "not formed yet".to_owned(), |cluster| cluster.to_string());
    let mut text = format!("cluster {cluster}\n\n{servers}\n{counters}");
    if !notes.is_empty() {
        text.push_str(&format!("\n{notes}"));
    }
    text
}

/// Whether all is well again of what a server found damaged when it started. A server that takes part in nothing is given nothing.
fn is_repaired(status: &Status) -> bool {
    let takes_part = !["forming", "joiner", "removed", "failed"].contains(&status.role.as_str());
    takes_part && !status.damage.is_empty() && status.abstains_until.is_none()
}

/// Whether so many voters abstain that the others can't elect a leader (D4). A server alone does not know that of the others.
fn too_few_votes(answers: &[Answer]) -> Option<String> {
    let heard = || answers.iter().filter_map(|answer| answer.status.as_ref().ok());
    // While a change is under way, both sides count: then it is not said.
    let newest = heard().max_by_key(|status| status.configuration_index).filter(|newest| !newest.joint)?;
    let voters: Vec<&Member> =
        newest.members.iter().filter(|member| member.kind == MemberKind::Voter).collect();
    let abstains = |voter: &Member| {
        heard().any(|status| status.server == Some(voter.id) && status.abstains_until.is_some())
    };
    let damaged: Vec<&str> =
        voters.iter().filter(|voter| abstains(voter)).map(|voter| voter.client_address.as_str()).collect();
    let needed = voters.len() / 2 + 1;
    if heard().any(|status| status.role == "leader") || voters.len() - damaged.len() >= needed {
        return None;
    }
    Some(format!(
        "{} of {} voters have no vote until they are repaired ({}), and a leader, who could repair them, needs {needed} votes",
        damaged.len(),
        voters.len(),
        damaged.join(", ")
    ))
}

fn tenths(ratio: Option<f64>) -> String {
    ratio.map_or_else(|| "-".to_owned(), |ratio| format!("{ratio:.1}"))
}

#[cfg(test)]
mod tests {
    use atomix::{Incarnation, Index, ServerId};

    use super::*;

    fn answers() -> Vec<Answer> {
        let status = Status {
            role: "leader".into(),
            notice: "waits for 127.0.0.1:3".into(),
            counters: Counters { syncs: 2, entries_synced: 5, ..Counters::default() },
            ..Status::default()
        };
        vec![
            Answer { address: "127.0.0.1:1".into(), status: Ok(status) },
            Answer { address: "127.0.0.1:2".into(), status: Err("refused".into()) },
        ]
    }

    #[test]
    fn text_names_servers_counters_and_notices() {
        let text = as_text(&answers());
        for part in
            ["127.0.0.1:1", "leader", "2.5", "unreachable", "127.0.0.1:2: refused", "waits for 127.0.0.1:3"]
        {
            assert!(text.contains(part), "{part} is not in\n{text}");
        }
    }

    const DAMAGE: &str = "log-0000000000000001.seg at 64: batch 1 fails";

    /// The three voters of a cluster, as each says that it is.
    fn servers(states: [(&str, Option<u64>, bool); 3]) -> Vec<Answer> {
        let address = |place: usize| format!("127.0.0.1:{place}");
        let members: Vec<Member> = (1..=3)
            .map(|place| Member {
                id: ServerId(place as u64),
                incarnation: Incarnation(place as u128),
                peer_address: address(place).into(),
                client_address: address(place).into(),
                kind: MemberKind::Voter,
                priority: 0,
            })
            .collect();
        let answer = |(place, (role, until, damaged)): (usize, (&str, Option<u64>, bool))| Answer {
            address: address(place),
            status: Ok(Status {
                server: Some(ServerId(place as u64)),
                role: role.into(),
                abstains_until: until.map(Index),
                damage: if damaged { vec![DAMAGE.into()] } else { vec![] },
                members: members.clone(),
                ..Status::default()
            }),
        };
        (1..).zip(states).map(answer).collect()
    }

    #[test]
    fn damage_is_said_once_and_so_is_that_it_is_repaired() {
        let text = as_text(&servers([
            ("leader", None, false),
            ("follower", Some(7), true),
            ("follower", None, true),
        ]));
        assert!(text.contains(&format!("127.0.0.1:2: damaged: {DAMAGE}\n")), "{text}");
        assert!(text.contains(&format!("repaired: {DAMAGE}\n")), "{text}");
        assert_eq!(text.matches(DAMAGE).count(), 2, "{text}");
        assert!(!text.contains("votes"), "one of three is no majority: {text}");
        for role in ["removed", "joiner", "failed"] {
            assert!(!as_text(&servers([(role, None, true); 3])).contains("repaired"), "{role}");
        }
    }

    #[test]
    fn it_is_said_that_too_few_have_a_vote() {
        let all = [("pre-candidate", None, false), ("follower", Some(7), true), ("follower", Some(9), true)];
        let text = as_text(&servers(all));
        let words = "2 of 3 voters have no vote until they are repaired (127.0.0.1:2, 127.0.0.1:3)";
        assert!(text.contains(words) && text.contains("needs 2 votes"), "{text}");
        let mut elected = all;
        elected[0].0 = "leader";
        assert!(!as_text(&servers(elected)).contains("voters"), "there is a leader");
    }

    #[test]
    fn json_has_a_number_only_where_it_means_something() {
        for (until, abstains, number) in
            [(None, false, Value::Null), (Some(7), true, json!(7)), (Some(u64::MAX), true, Value::Null)]
        {
            let value = as_json(&servers([("follower", until, true); 3])[0]);
            assert_eq!((&value["abstains"], &value["abstains_until"]), (&json!(abstains), &number));
            assert_eq!(value["repaired"], json!(!abstains));
        }
    }

    #[test]
    fn json_has_ratios_where_there_are_any() {
        let value = as_json(&answers()[0]);
        assert_eq!(value["counters"]["entries_per_sync"], json!(2.5));
        assert_eq!(value["counters"]["reads_per_round"], Value::Null);
        assert_eq!(as_json(&answers()[1])["error"], json!("refused"));
    }
}
