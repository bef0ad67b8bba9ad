//! `atomix member`: who belongs to the cluster, and who leads it.

mod add;
mod goal;
mod list;
mod operator;
mod plan;
mod view;

use std::cmp::Ordering;
use std::io;

use atomix::{MemberKind, ServerId};
use serde_json::json;

use self::operator::{Made, Operator};
use self::view::View;
use crate::args::{
    Greater, Lesser, Making, Member, MemberDemote, MemberPromote, MemberRemove, MemberTransfer,
};
use crate::exit::{Exit, Failure, say};
use crate::signals;
use crate::status::{kind_in_words, member_as_json};
use crate::table::Table;
use atomix::admin::Change;

/// Runs the command.
///
/// # Errors
/// If the cluster is not reached, refuses, or its answer is lost.
pub async fn run(args: Member) -> Result<(), Failure> {
    let exit_with_stdin = args.cluster().exit_with_stdin;
    let command = async {
        match args {
            Member::List(args) => list::run(args).await,
            Member::Plan(args) => plan::run(args).await,
            Member::Add(args) => add::run(args).await,
            Member::Remove(args) => remove(args).await,
            Member::Promote(args) => promote(args).await,
            Member::Demote(args) => demote(args).await,
            Member::Transfer(args) => transfer(args).await,
        }
    };
    tokio::select! {
        result = command => result,
        () = signals::parent_ended(exit_with_stdin) => {
            Err(Failure::new(Exit::Interrupted, "standard input was closed"))
        }
    }
}

async fn remove(args: MemberRemove) -> Result<(), Failure> {
    let remove = args.servers.into_iter().map(ServerId).collect();
    make(&args.making, Change { remove, ..Change::default() }, |_| Ok(())).await
}

async fn promote(args: MemberPromote) -> Result<(), Failure> {
    let kind = match args.to {
        Greater::Voter => MemberKind::Voter,
        Greater::Learner => MemberKind::Learner,
    };
    set_kind(&args.making, args.server, kind, (Ordering::Greater, "demote")).await
}

async fn demote(args: MemberDemote) -> Result<(), Failure> {
    set_kind(&args.making, args.server, lesser(args.to), (Ordering::Less, "promote")).await
}

/// Gives a member another kind, unless that is the way that the other command goes.
async fn set_kind(
    making: &Making,
    server: u64,
    kind: MemberKind,
    (wrong, other): (Ordering, &str),
) -> Result<(), Failure> {
    let id = ServerId(server);
    let fits = |view: &View| {
        let has = view.member(id).map(|member| member.kind).filter(|has| *has != MemberKind::Leaving);
        match has.map(|has| (has, worth(has).cmp(&worth(kind)))) {
            Some((has, Ordering::Equal)) => Err(format!("server {id} is a {} already", kind_in_words(has))),
            Some((has, order)) if order == wrong => {
                let (has, wanted) = (kind_in_words(has), kind_in_words(kind));
                Err(format!(
                    "server {id} is a {has}; `atomix member {other} {id} --to {wanted}` makes it a {wanted}"
                ))
            }
            _ => Ok(()),
        }
    };
    make(making, Change { set_kind: vec![(id, kind)], ..Change::default() }, fits).await
}

/// A greater kind has all that a lesser one has.
fn worth(kind: MemberKind) -> u8 {
    match kind {
        MemberKind::Leaving => 0,
        MemberKind::Reserve => 1,
        MemberKind::Learner => 2,
        MemberKind::Voter => 3,
    }
}

/// Makes one change, unless it does not fit what is there, and prints what has become of the cluster.
async fn make(
    making: &Making,
    change: Change,
    fits: impl Fn(&View) -> Result<(), String>,
) -> Result<(), Failure> {
    let mut operator = Operator::new(&making.cluster);
    let view = operator.view().await?;
    fits(&view).map_err(|why| Failure::new(Exit::Refused, format!("{why}; nothing was changed")))?;
    let expected = making.expected.map_or(view.index(), atomix::Index);
    let made = operator.make(&Change { expected, ..change }).await?;
    print(&made, making.json);
    Ok(())
}

async fn transfer(args: MemberTransfer) -> Result<(), Failure> {
    let leader = Operator::new(&args.cluster).transfer(args.server.map(ServerId)).await?;
    if args.json {
        say!("{:#}", json!({ "leader": leader.0 }));
    } else {
        say!("server {leader} leads");
    }
    Ok(())
}

fn lesser(kind: Lesser) -> MemberKind {
    match kind {
        Lesser::Learner => MemberKind::Learner,
        Lesser::Reserve => MemberKind::Reserve,
    }
}

fn print(made: &Made, json: bool) {
    if json {
        say!(
            "{:#}",
            json!({
                "configuration": made.index.0,
                "members": made.members.iter().map(member_as_json).collect::<Vec<_>>(),
            })
        );
    } else {
        say!("configuration {}\n\n{}", made.index, members(made).to_string().trim_end());
    }
}

fn members(made: &Made) -> Table {
    let mut table = Table::new(["server", "kind", "priority", "address"]);
    for member in &made.members {
        table.row([
            member.id.to_string(),
            kind_in_words(member.kind).into(),
            member.priority.to_string(),
            member.client_address.to_string(),
        ]);
    }
    table
}

/// Says what is being done, to whoever watches: results go to standard output.
fn step(words: &str) {
    // Nobody has to watch.
    let _ = io::Write::write_fmt(&mut io::stderr(), format_args!("atomix: {words}\n"));
}
