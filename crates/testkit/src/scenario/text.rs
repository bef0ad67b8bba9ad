//! The language of the scenario texts.
//!
//! A text is a row of blocks with an empty line between them. A block is commands, a line `----`, and what the
//! machines did. Lines that start with `#` are remarks. Servers are named by number; `all` names all that are up.
//!
//! | command | effect |
//! |---|---|
//! | `servers V [learners L] [SETTING=N …]` | begins; settings are the limits of `Config`, by name |
//! | `disk S term T vote V: T1 T2 …` | S finds entries of these terms, from index 1 on, on its disk |
//! | `campaign S` | an election timeout passes, and only S notices |
//! | `elect S V …` | S campaigns until it leads with the votes of V …; nobody else hears anything |
//! | `tick S` | time passes until S's next deadline, and only S notices |
//! | `pass MS` | time passes, and everyone notices |
//! | `run MS` | time passes, everyone notices, and links and disks work |
//! | `deliver A->B [N]` | what is on the link arrives, or only the first N |
//! | `deliver` | what is on all links now arrives |
//! | `repeat A->B` | the oldest message of the link arrives, and will again |
//! | `drop A->B` | what is on the link is lost |
//! | `cut A->B`, `isolate S`, `heal` | links lose what is sent from now on; all links work again |
//! | `open A->B`, `close A->B` | a new link stands, A learns it; the link breaks, B learns it |
//! | `persist S` | the outstanding write of S is durable |
//! | `settle` | deliver and persist until nothing moves |
//! | `propose S COMMAND`, `read S N` | requests |
//! | `crash S`, `restart S` | unwritten writes are lost |
//! | `snapshot S` | S takes a snapshot and compacts its log |
//! | `change S CLAUSE, …`, `plan S CLAUSE, …` | asks for a change of the configuration, or what it would do |
//! | `join S from A` | a new server starts with the committed configuration of A |
//! | `logs`, `status`, `links`, `members` | prints |
//! | `expect leader S`, `expect none`, `expect commit S I`, `expect agreed` | fails unless it is so |
//!
//! The clauses of a change are `add KIND`, with `like S` for the address of another; `make S KIND`; `prefer S by N`;
//! `remove S`; and `at INDEX` for a configuration that is not the one in use.

use std::time::Duration;

use atomix_protocol::change::{Change, Plan, Tolerance};
use atomix_protocol::{ClusterTime, Entry, EntryId, EntryKind, HardState, Index, ServerId, Term};
use atomix_raft::{Input, Role};
use bytes::Bytes;

use super::directed::elect;
use super::{Cluster, Settings, members, render};

/// Runs a text and compares what happened with what it says.
///
/// # Errors
/// The first line that differs, the first expectation or safety property that does not hold, or a command that is not
/// one.
pub fn run(text: &str) -> Result<(), String> {
    let happened = record(text)?;
    let lines = happened.lines().map(Some).chain(std::iter::repeat(None));
    for (number, (said, was)) in text.lines().map(Some).chain([None]).zip(lines).enumerate() {
        if said != was {
            return Err(format!("line {}: the text says {said:?}, but it was {was:?}", number + 1));
        }
    }
    Ok(())
}

/// Runs a text and writes it anew, with what happened.
///
/// # Errors
/// As [`run`], but for lines that differ.
pub fn record(text: &str) -> Result<String, String> {
    let mut cluster = None;
    let mut blocks = Vec::new();
    for block in text.trim_end().split("\n\n") {
        let commands: Vec<&str> = block.lines().take_while(|line| *line != "----").collect();
        let mut lines: Vec<String> = commands.iter().map(|line| (*line).to_owned()).collect();
        if commands.iter().any(|line| !line.starts_with('#')) {
            lines.push("----".to_owned());
            for command in commands.iter().filter(|line| !line.starts_with('#')) {
                match execute(&mut cluster, command) {
                    Ok(happened) => lines.extend(happened),
                    Err(error) => {
                        blocks.push(lines.join("\n"));
                        return Err(format!("{command}: {error}, after\n{}", last_lines(&blocks.join("\n"))));
                    }
                }
            }
        }
        blocks.push(lines.join("\n"));
    }
    match cluster.as_ref().and_then(|cluster| cluster.checker().violation()) {
        Some(violation) => Err(violation.to_owned()),
        None => Ok(blocks.join("\n\n") + "\n"),
    }
}

/// Enough to see what led to a failure.
fn last_lines(text: &str) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(40)..].join("\n")
}

fn execute(cluster: &mut Option<Cluster>, command: &str) -> Result<Vec<String>, String> {
    let words: Vec<&str> = command.split_whitespace().collect();
    if let ["servers", voters, rest @ ..] = words.as_slice() {
        *cluster = Some(Cluster::new(settings(number(voters)?, rest)?));
        return Ok(Vec::new());
    }
    let cluster = cluster.as_mut().ok_or("the text begins with `servers`")?;
    let printed = match words[..] {
        ["disk", ..] => disk(cluster, command)?,
        ["expect", ..] => expect(cluster, &words[1..])?,
        ["logs"] => cluster.up().into_iter().map(|id| log_of(cluster, id)).collect(),
        ["status"] => cluster.up().into_iter().map(|id| status_of(cluster, id)).collect(),
        ["links"] => links_of(cluster),
        ["members"] => cluster.up().into_iter().map(|id| members_of(cluster, id)).collect(),
        ["change", id, ..] => {
            let id = server(id)?;
            let change = clauses(cluster, id, command)?;
            let changed = cluster.change(id, &change);
            vec![
                changed.map_or_else(|refused| format!("refused: {refused}"), |at| format!("changed at {at}")),
            ]
        }
        ["plan", id, ..] => {
            let id = server(id)?;
            plan_of(&cluster.plan(id, &clauses(cluster, id, command)?))
        }
        ["propose", id, text] => {
            answer(cluster.propose(server(id)?, text).map(|id| format!("proposed {id}")))
        }
        ["read", id, read] => {
            answer(cluster.read(server(id)?, number(read)?).map(|()| format!("read {read} asked")))
        }
        _ => {
            act(cluster, &words)?;
            Vec::new()
        }
    };
    let mut lines = cluster.take_log();
    lines.extend(printed);
    Ok(lines)
}

fn act(cluster: &mut Cluster, words: &[&str]) -> Result<(), String> {
    match *words {
        ["campaign", id] => cluster.campaign(server(id)?),
        ["elect", id, ref voters @ ..] => {
            let voters: Result<Vec<u64>, String> = voters.iter().map(|voter| number(voter)).collect();
            elect(cluster, number(id)?, &voters?)?;
        }
        ["tick", id] => cluster.tick_one(server(id)?),
        ["pass", millis] => cluster.tick(Duration::from_millis(number(millis)?)),
        ["run", millis] => (0..number(millis)?).for_each(|_| {
            cluster.tick(Duration::from_millis(1));
            cluster.settle();
        }),
        ["deliver"] => {
            cluster.busy_links().into_iter().for_each(|(from, to, _)| cluster.deliver_link(from, to))
        }
        ["deliver", link] => {
            let (from, to) = ends(link)?;
            cluster.deliver_link(from, to);
        }
        ["deliver", link, count] => {
            let (from, to) = ends(link)?;
            (0..number(count)?).for_each(|_| cluster.deliver(from, to, 0, false));
        }
        ["repeat", link] => {
            let (from, to) = ends(link)?;
            cluster.deliver(from, to, 0, true);
        }
        ["drop", link] => {
            let (from, to) = ends(link)?;
            cluster.drop_link(from, to);
        }
        ["cut", link] => {
            let (from, to) = ends(link)?;
            cluster.cut(from, to);
        }
        ["open", link] => {
            let (from, to) = ends(link)?;
            cluster.input(from, Input::LinkOpened { to });
        }
        ["close", link] => {
            let (from, to) = ends(link)?;
            cluster.drop_link(from, to);
            cluster.input(to, Input::LinkClosed { from });
        }
        ["join", id, "from", other] => cluster.join(server(id)?, server(other)?),
        ["isolate", id] => cluster.isolate(server(id)?),
        ["heal"] => cluster.heal(),
        ["persist", "all"] => cluster.up().into_iter().for_each(|id| cluster.persist(id)),
        ["persist", id] => cluster.persist(server(id)?),
        ["settle"] => cluster.settle(),
        ["crash", id] => cluster.crash(server(id)?, 0),
        ["restart", id] => cluster.restart(server(id)?),
        ["snapshot", id] => cluster.snapshot(server(id)?),
        _ => return Err("there is no such command".into()),
    }
    Ok(())
}

fn expect(cluster: &Cluster, words: &[&str]) -> Result<Vec<String>, String> {
    let holds = match *words {
        ["leader", id] => cluster.leader() == Some(server(id)?),
        ["none"] => cluster.leader().is_none(),
        ["commit", id, index] => cluster.raft(server(id)?).commit_index() == Index(number(index)?),
        ["agreed"] => cluster.agreed().is_some(),
        _ => return Err("there is no such expectation".into()),
    };
    if holds { Ok(Vec::new()) } else { Err("it is not so".into()) }
}

fn settings(voters: u64, words: &[&str]) -> Result<Settings, String> {
    let mut settings = Settings { voters, ..Settings::default() };
    let mut rest = words;
    if let ["learners", learners, behind @ ..] = rest {
        settings.learners = number(learners)?;
        rest = behind;
    }
    for word in rest {
        let (name, value) = word.split_once('=').ok_or("a setting is NAME=NUMBER")?;
        let value: u64 = number(value)?;
        let config = &mut settings.config;
        match name {
            "append_bytes" => config.append_bytes = value,
            "appends_in_flight" => config.appends_in_flight = value as usize,
            "append_bytes_in_flight" => config.append_bytes_in_flight = value,
            "snapshot_chunk_bytes" => config.snapshot_chunk_bytes = value as usize,
            "snapshot_bytes_in_flight" => config.snapshot_bytes_in_flight = value,
            "log_memory_bytes" => config.log_memory_bytes = value,
            "log_tail_bytes" => config.log_tail_bytes = value,
            _ => return Err(format!("there is no setting {name}")),
        }
    }
    Ok(settings)
}

/// `disk S term T vote V: T1 T2 …`, with `vote none`.
fn disk(cluster: &mut Cluster, command: &str) -> Result<Vec<String>, String> {
    let (head, terms) = command.split_once(':').ok_or("the terms follow a colon")?;
    let head: Vec<&str> = head.split_whitespace().collect();
    let ["disk", id, "term", term, "vote", vote] = head[..] else {
        return Err("disk S term T vote V: …".into());
    };
    let voted_for = if vote == "none" { None } else { Some(server(vote)?) };
    let hard_state = HardState { term: Term(number(term)?), voted_for };
    let terms: Result<Vec<u64>, String> = terms.split_whitespace().map(number).collect();
    cluster.prepare(server(id)?, hard_state, entries(&terms?));
    Ok(Vec::new())
}

/// Entries of these terms, from index 1 on; what is in them follows from their names.
pub(super) fn entries(terms: &[u64]) -> Vec<Entry> {
    let entry = |(at, term): (usize, &u64)| {
        let id = EntryId::new(Term(*term), Index(at as u64 + 1));
        Entry { id, time: ClusterTime(0), kind: EntryKind::Session, payload: Bytes::from(id.to_string()) }
    };
    terms.iter().enumerate().map(entry).collect()
}

fn log_of(cluster: &Cluster, id: ServerId) -> String {
    let raft = cluster.raft(id);
    let known = (0..=raft.last().index.0).map(Index).filter(|index| index.0 > 0);
    let terms = known.filter_map(|index| raft.entry_term(index).map(|term| term.to_string()));
    format!("{id}: {}", terms.collect::<Vec<_>>().join(" "))
}

fn status_of(cluster: &Cluster, id: ServerId) -> String {
    let raft = cluster.raft(id);
    let leader = raft.leader().filter(|_| raft.role() == Role::Follower);
    let leader = leader.map_or_else(String::new, |leader| format!(" of {leader}"));
    format!(
        "{id}: {}{leader}, term {}, last {}, durable {}, commit {}, applied {}, snapshot {}",
        raft.role().as_str(),
        raft.term(),
        raft.last(),
        raft.durable_index(),
        raft.commit_index(),
        raft.applied_index(),
        raft.snapshot_index()
    )
}

/// What follows the name and the server.
fn clauses(cluster: &Cluster, id: ServerId, command: &str) -> Result<Change, String> {
    let text = command.splitn(3, ' ').nth(2).unwrap_or_default();
    members::parse(cluster.raft(id), text)
}

fn plan_of(plan: &Plan) -> Vec<String> {
    let line = |when: &str, tolerance: &Tolerance| {
        let Tolerance { voters, quorum, failures, answering } = tolerance;
        format!("{when}: {voters} voters, {quorum} needed, {failures} may fail, {answering} answer")
    };
    let mut lines =
        vec![format!("plan {}", members::describe(&plan.configuration)), line("before", &plan.before)];
    lines.extend(plan.during.iter().map(|during| line("during", during)));
    lines.push(line("after", &plan.after));
    lines.extend(plan.refused.iter().map(|refused| format!("refused: {refused}")));
    lines
}

fn members_of(cluster: &Cluster, id: ServerId) -> String {
    let raft = cluster.raft(id);
    let (used, committed) = (raft.configuration(), raft.committed_configuration());
    format!("{id}: in use {}; committed {}", members::describe(used), committed.index)
}

fn links_of(cluster: &Cluster) -> Vec<String> {
    let links = cluster.busy_links().into_iter();
    let messages = links.flat_map(|(from, to, _)| {
        let queue = cluster.queued(from, to);
        queue.into_iter().map(move |message| format!("{from} -> {to} {}", render::message(&message)))
    });
    messages.collect()
}

fn answer(outcome: Result<String, atomix_raft::Refused>) -> Vec<String> {
    vec![outcome.unwrap_or_else(|refused| format!("refused: {refused}"))]
}

fn ends(link: &str) -> Result<(ServerId, ServerId), String> {
    let (from, to) = link.split_once("->").ok_or("a link is A->B")?;
    Ok((server(from)?, server(to)?))
}

fn server(word: &str) -> Result<ServerId, String> {
    number(word).map(ServerId)
}

fn number(word: &str) -> Result<u64, String> {
    word.parse().map_err(|_| format!("{word} is not a number"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_recorded_text_runs_and_a_changed_one_does_not() {
        let recorded = record("# A remark.\n\nservers 1\npass 1\nsettle\n\nexpect leader 1\n").unwrap();
        assert_eq!(run(&recorded), Ok(()));
        assert!(recorded.contains("1 is leader in term 1"), "{recorded}");
        assert!(run(&recorded.replace("in term 1", "in term 2")).unwrap_err().contains("the text says"));
        assert!(run(&recorded.replace("expect leader 1", "expect none")).unwrap_err().contains("not so"));
        assert!(run("servers 1\nfly 1\n").unwrap_err().contains("no such command"));
    }
}
