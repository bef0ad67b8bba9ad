//! `atomix member list`: what the members are, and how far they are.

use atomix::{Member, MemberKind, Status};
use serde_json::{Value, json};

use super::view::View;
use crate::args::MemberList;
use crate::exit::{Failure, say};
use crate::status::{kind_in_words, member_as_json};
use crate::table::Table;

/// Runs the command.
pub(super) async fn run(args: MemberList) -> Result<(), Failure> {
    let view = View::of(&args.cluster.cluster, args.cluster.timeout).await?;
    if args.json {
        say!("{:#}", as_json(&view));
    } else {
        say!("{}", as_text(&view).trim_end());
    }
    Ok(())
}

/// How many entries of the leader's log a member has not made durable, if both have said.
fn behind(view: &View, member: &Member, status: &Status) -> Option<u64> {
    let holds_the_log = member.kind != MemberKind::Reserve;
    let leader = view.leader().filter(|_| holds_the_log)?;
    Some(leader.last_index.since(status.durable_index))
}

fn as_json(view: &View) -> Value {
    let status = view.status();
    let members = view.members().iter().map(|member| {
        let mut value = member_as_json(member);
        match view.of_member(member) {
            Some(status) => {
                value["role"] = json!(status.role);
                value["match"] = json!(status.durable_index.0);
                value["behind"] = json!(behind(view, member, status));
            }
            None => value["error"] = json!(view.silence_of(member)),
        }
        value
    });
    json!({
        "cluster": status.cluster.map(|cluster| cluster.to_string()),
        "configuration": status.configuration_index.0,
        "joint": status.joint,
        "leader": view.leader().and_then(|leader| leader.server).map(|id| id.0),
        "members": members.collect::<Vec<_>>(),
    })
}

fn as_text(view: &View) -> String {
    let mut table = Table::new(["server", "kind", "priority", "address", "role", "match", "behind"]);
    let mut notes = String::new();
    for member in view.members() {
        let mut row = vec![
            member.id.to_string(),
            kind_in_words(member.kind).to_owned(),
            member.priority.to_string(),
            addresses(member),
        ];
        match view.of_member(member) {
            Some(status) => {
                let behind = behind(view, member, status);
                row.push(status.role.clone());
                row.push(status.durable_index.to_string());
                row.push(behind.map_or_else(|| "-".to_owned(), |behind| behind.to_string()));
                if !status.notice.is_empty() {
                    notes.push_str(&format!("server {}: {}\n", member.id, status.notice));
                }
            }
            None => {
                row.push("unreachable".into());
                notes.push_str(&format!("server {}: {}\n", member.id, view.silence_of(member)));
            }
        }
        table.row(row);
    }
    for (address, status) in strangers(view) {
        notes.push_str(&format!("{address} is no member: {}\n", stranger_in_words(view, status)));
    }
    let status = view.status();
    let joint = if status.joint { ", joint: a change is under way" } else { "" };
    let cluster = status.cluster.map_or_else(String::new, |cluster| cluster.to_string());
    let mut text = format!("cluster {cluster}\nconfiguration {}{joint}\n", status.configuration_index);
    if view.leader().is_none() {
        text.push_str("no leader has answered: this is what the others know\n");
    }
    text.push_str(&format!("\n{table}"));
    if !notes.is_empty() {
        text.push_str(&format!("\n{notes}"));
    }
    text
}

/// Where the other servers reach a member, and where clients do if that is elsewhere.
fn addresses(member: &Member) -> String {
    if member.peer_address == member.client_address {
        member.client_address.to_string()
    } else {
        format!("{} ({} for servers)", member.client_address, member.peer_address)
    }
}

/// What is to be known of a server that is no member.
fn stranger_in_words(view: &View, status: &Status) -> String {
    let notice = &status.notice;
    match status.cluster.filter(|cluster| view.status().cluster != Some(*cluster)) {
        Some(cluster) => format!("it belongs to cluster {cluster}"),
        None if notice.is_empty() => status.role.clone(),
        // The notice says so.
        None if status.role == "removed" => notice.clone(),
        None => format!("{}, {notice}", status.role),
    }
}

/// Servers that were named and have no place in the configuration.
fn strangers(view: &View) -> impl Iterator<Item = (&str, &Status)> {
    let told = view
        .answers
        .iter()
        .filter_map(|answer| Some((answer.address.as_str(), answer.status.as_ref().ok()?)));
    told.filter(|(_, status)| view.member_by_incarnation(status.incarnation).is_none())
}
