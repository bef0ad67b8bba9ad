//! `atomix member`: who belongs to the cluster, and who leads it.

mod add;
mod list;
mod operator;
mod plan;
mod view;

use std::io;

use atomix::{MemberKind, ServerId};
use serde_json::json;

use self::operator::{Made, Operator};
use crate::args::{
    Greater, Lesser, Making, Member, MemberDemote, MemberPromote, MemberRemove, MemberTransfer,
};
use crate::exit::{Exit, Failure, say};
use crate::status::member_as_json;
use crate::table::Table;
use crate::{signals, status};
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
    make(&args.making, Change { remove, ..Change::default() }).await
}

async fn promote(args: MemberPromote) -> Result<(), Failure> {
    let kind = match args.to {
        Greater::Voter => MemberKind::Voter,
        Greater::Learner => MemberKind::Learner,
    };
    set_kind(&args.making, args.server, kind).await
}

async fn demote(args: MemberDemote) -> Result<(), Failure> {
    set_kind(&args.making, args.server, lesser(args.to)).await
}

async fn set_kind(making: &Making, server: u64, kind: MemberKind) -> Result<(), Failure> {
    make(making, Change { set_kind: vec![(ServerId(server), kind)], ..Change::default() }).await
}

/// Makes one change, and prints what has become of the cluster.
async fn make(making: &Making, change: Change) -> Result<(), Failure> {
    let mut operator = Operator::new(&making.cluster);
    let view = operator.view().await?;
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
            status::kind_in_words(member.kind).into(),
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
