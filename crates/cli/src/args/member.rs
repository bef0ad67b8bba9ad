//! `atomix member`.

use clap::{Args, Subcommand, ValueEnum};

use super::Cluster;
use super::values::address;

/// Who belongs to the cluster, and who leads it.
#[derive(Clone, Debug, Subcommand)]
#[command(after_help = "\
Examples:
  export ATOMIX_CLUSTER=127.0.0.1:8701,127.0.0.1:8702,127.0.0.1:8703
  atomix member list
  atomix member plan --remove 2
  atomix member add 127.0.0.1:8704
  atomix member remove 2
  atomix member transfer

A change takes effect as a whole or not at all, and only on the configuration that was read before it: if somebody else changes that
meanwhile, it is refused with 1. `add` makes several, one after the other: when it stops it says how far it came. Exits with 3 if no server that leads is reached, and with 4 if the outcome is unknown: `list` tells.")]
pub enum Member {
    /// Prints the members: what they are, and how far they are
    List(MemberList),
    /// Prints what a change would tolerate, before it is made
    Plan(MemberPlan),
    /// Takes a running server in, and gives it a vote once it has caught up
    Add(MemberAdd),
    /// Removes members, as one change
    Remove(MemberRemove),
    /// Gives a learner that has caught up a vote, or makes a reserve member a learner
    Promote(MemberPromote),
    /// Takes a member's vote away, or its log too
    Demote(MemberDemote),
    /// Has another voter lead
    Transfer(MemberTransfer),
}

impl Member {
    /// How to reach the cluster.
    #[must_use]
    pub fn cluster(&self) -> &Cluster {
        match self {
            Member::List(args) => &args.cluster,
            Member::Plan(args) => &args.making.cluster,
            Member::Add(args) => &args.making.cluster,
            Member::Remove(args) => &args.making.cluster,
            Member::Promote(args) => &args.making.cluster,
            Member::Demote(args) => &args.making.cluster,
            Member::Transfer(args) => &args.cluster,
        }
    }
}

/// What all that make a change have.
#[derive(Clone, Debug, Args)]
pub struct Making {
    /// Only if the configuration is the one of this index [default: the one that is read before]
    #[arg(long, value_name = "INDEX")]
    pub expected: Option<u64>,
    /// For programs
    #[arg(long)]
    pub json: bool,
    /// The cluster
    #[command(flatten)]
    pub cluster: Cluster,
}

/// Whose members to print.
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
Examples:
  atomix member list --cluster 127.0.0.1:8701
  atomix member list --json --cluster 127.0.0.1:8701

`behind` is how many entries of the leader's log the server has not made durable.")]
pub struct MemberList {
    /// For programs
    #[arg(long)]
    pub json: bool,
    /// The cluster
    #[command(flatten)]
    pub cluster: Cluster,
}

/// What a change would be.
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
Examples:
  atomix member plan --remove 2 --cluster 127.0.0.1:8701
  atomix member plan --promote 4 --remove 1 --json --cluster 127.0.0.1:8701

All that is named is one change. Changes nothing, and exits with 0 also if the change would be refused: it says why. A server that
is to be added must be running. It is added as a learner, or with --reserve as a reserve member.")]
pub struct MemberPlan {
    /// Where a server that is to be added listens
    #[arg(long, value_name = "HOST:PORT", value_parser = address)]
    pub add: Vec<String>,
    /// Add as reserve members
    #[arg(long, requires = "add")]
    pub reserve: bool,
    /// A member that is to be removed
    #[arg(long, value_name = "ID")]
    pub remove: Vec<u64>,
    /// A learner that is to vote
    #[arg(long, value_name = "ID")]
    pub promote: Vec<u64>,
    /// A member that is to vote no more
    #[arg(long, value_name = "ID")]
    pub demote: Vec<u64>,
    /// What it becomes then
    #[arg(long, value_name = "KIND", default_value = "learner", requires = "demote")]
    pub to: Lesser,
    /// The change
    #[command(flatten)]
    pub making: Making,
}

/// Whom to take in.
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
Examples:
  atomix member add 127.0.0.1:8704 --cluster 127.0.0.1:8701
  atomix member add 127.0.0.1:8704 --replace 2 --timeout 5m --cluster 127.0.0.1:8701

The server must be running, with an empty data directory: `atomix serve --join ... --as learner` waits as a learner for its vote.
(A server started with --join alone asks for its vote itself: it needs no `add`.) One that is no member yet becomes a learner, which
gets the log and has no vote; when it has caught up, it gets its vote, and in the same change the member that it replaces leaves.
A member whose data directory was lost is replaced by its successor at the same address without being named. If it does not
catch up within --timeout, it stays a learner, and the exit code is 1; the same command, or `promote`, goes on from there.

A server that is a member already is made what is asked for, where that takes nothing from it. One that votes replaces nobody.")]
pub struct MemberAdd {
    /// Where it listens
    #[arg(value_name = "HOST:PORT", value_parser = address)]
    pub server: String,
    /// Without a vote
    #[arg(long, conflicts_with = "reserve")]
    pub learner: bool,
    /// Without a vote and a log
    #[arg(long)]
    pub reserve: bool,
    /// Voters with a greater one are preferred as leaders [default: 0, or what it has]
    #[arg(long, value_name = "NUMBER")]
    pub priority: Option<u8>,
    /// The member that leaves for it
    #[arg(long, value_name = "ID")]
    pub replace: Option<u64>,
    /// The change
    #[command(flatten)]
    pub making: Making,
}

/// Whom to remove.
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
Example:
  atomix member remove 2 --cluster 127.0.0.1:8701

A leader may remove itself: another one leads then. Ids are never given again. A removed server goes on running, without a vote;
to come back it needs an empty data directory.")]
pub struct MemberRemove {
    /// The members
    #[arg(required = true, value_name = "ID")]
    pub servers: Vec<u64>,
    /// The change
    #[command(flatten)]
    pub making: Making,
}

/// Whom to promote.
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
Examples:
  atomix member promote 4 --cluster 127.0.0.1:8701
  atomix member promote 5 --to learner --cluster 127.0.0.1:8701

A learner that has not caught up with the log is refused.")]
pub struct MemberPromote {
    /// The member
    #[arg(value_name = "ID")]
    pub server: u64,
    /// What it becomes
    #[arg(long, value_name = "KIND", default_value = "voter")]
    pub to: Greater,
    /// The change
    #[command(flatten)]
    pub making: Making,
}

/// Whom to demote.
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
Example:
  atomix member demote 2 --to reserve --cluster 127.0.0.1:8701")]
pub struct MemberDemote {
    /// The member
    #[arg(value_name = "ID")]
    pub server: u64,
    /// What it becomes
    #[arg(long, value_name = "KIND", default_value = "learner")]
    pub to: Lesser,
    /// The change
    #[command(flatten)]
    pub making: Making,
}

/// Who is to lead.
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
Examples:
  atomix member transfer --cluster 127.0.0.1:8701
  atomix member transfer 2 --cluster 127.0.0.1:8701

Without an id, the leader hands over to the voter that is best placed. Commands in flight wait for the new leader.")]
pub struct MemberTransfer {
    /// The voter that is to lead
    #[arg(value_name = "ID")]
    pub server: Option<u64>,
    /// For programs
    #[arg(long)]
    pub json: bool,
    /// The cluster
    #[command(flatten)]
    pub cluster: Cluster,
}

/// Kinds without a vote.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Lesser {
    /// Gets the log
    Learner,
    /// Gets the configuration only
    Reserve,
}

/// Kinds with a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Greater {
    /// Has a vote
    Voter,
    /// Gets the log
    Learner,
}

/// All kinds that a server may want to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Wanted {
    /// Has a vote, once it has caught up
    Voter,
    /// Gets the log
    Learner,
    /// Gets the configuration only
    Reserve,
}
