//! The simulator: whole clusters with their clients in one thread, on a simulated clock, network and disk.
//!
//! Deliberately not inside: Raft, session or retry logic. What is stepped is what ships: the whole engine with the
//! real log code, the real registry and the real client cores ([`Profile::Full`]), or bare consensus over the real
//! log code ([`Profile::Core`]), which here also loses, doubles and reorders single messages.
//!
//! A seed decides everything. Each seed first draws a cluster, its limits and the classes of faults that it will
//! have; then it runs under faults, is healed, must show that it lives, and loses power as a whole. After every step
//! the server that stepped is compared with shared ground truth; a violation names the invariant, the time and the
//! server.
//!
//! | module | what it is |
//! |---|---|
//! | `world` `server` `bare` `steps` `states` `messages` `users` | the queue of events; how servers, bare consensus and clients step; whether their states are equal |
//! | `phases` `majority` | faults, healing, liveness, scans; a majority on its own |
//! | `network` `disk` `file` `loss` `decay` `strays` `clock` `storage` `room` | what is simulated: a disk forgets, decays, writes astray and is full |
//! | `faults` `plan` `numbers` | what goes wrong and when; how a plan says it |
//! | `shrink` | makes a failing plan smaller |
//! | `inject` `cuts` `crashes` `ills` `damage` `strangers` `usurp` `standstill` | how it strikes and ends |
//! | `atlas` | what may be lost, so that service is owed all the same |
//! | `operator` `wishes` `members` `console` `asked` | changes of the configuration and of the leader, who asks for them, and what is answered |
//! | `hostile` `impostor` `rivals` `frames` `situations` `flood` | absurd messages, false identities, damaged frames, what clients are in the middle of |
//! | `checker` `ledger` `recoveries` `contents` `membership` `configurations` `bounds` | what must hold of servers all the same |
//! | `model` `twin` `twin_lock` `twin_map` | the sequential twin: what each committed entry does, replies, and tells |
//! | `client` `contender` `watcher` `proposals` | who uses it: as writer and reader, for locks, for events, and bare |
//! | `answers` | what must hold of whatever a client is told |
//! | `operation` `map_operation` | what is asked |
//! | `versions` | which operations each server's binary has, upgrades and the way back, and what must hold of levels |
//! | `guarded` `inspect` | what locks guard, and a look at the locks themselves |
//! | `aged` | a history of one disk, beside all seeds |
//! | `coverage` `marks` `trace` `random` `settings` | what was met, said and drawn |

mod aged;
mod answers;
mod asked;
mod atlas;
mod bare;
mod bounds;
mod checker;
mod client;
mod clock;
mod configurations;
mod console;
mod contender;
mod contents;
mod coverage;
mod crashes;
mod cuts;
mod damage;
mod decay;
mod disk;
mod faults;
mod file;
mod flood;
mod frames;
mod guarded;
mod hostile;
mod ills;
mod impostor;
mod inject;
mod inspect;
mod ledger;
mod loss;
mod majority;
mod map_operation;
mod marks;
mod members;
mod membership;
mod messages;
mod model;
mod network;
mod numbers;
mod operation;
mod operator;
mod phases;
mod plan;
mod proposals;
mod random;
mod recoveries;
mod rivals;
mod room;
mod server;
mod settings;
mod shrink;
mod situations;
mod standstill;
mod states;
mod steps;
mod storage;
mod strangers;
mod strays;
mod trace;
mod twin;
mod twin_lock;
mod twin_map;
mod users;
mod usurp;
mod versions;
mod watcher;
mod wishes;
mod world;

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

pub use aged::a_mark_from_before_a_truncation;
pub use coverage::{Coverage, Mark};
pub use faults::Class;
pub use plan::{NoPlan, Plan};
pub use shrink::shrink;
pub use trace::Verbosity;

use checker::Broken;
use world::World;

/// What is simulated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Profile {
    /// Whole servers and clients.
    Full,
    /// Bare consensus over the real log code.
    Core,
}

impl Profile {
    /// In words, as the command line has it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Profile::Full => "full",
            Profile::Core => "core",
        }
    }
}

/// How to run a seed.
#[derive(Clone, Debug)]
pub struct Options {
    /// What is simulated.
    pub profile: Profile,
    /// At least so many events.
    pub events: u64,
    /// How much is told.
    pub trace: Verbosity,
    /// Classes of faults to leave out, to make a failing seed smaller.
    pub without: Vec<Class>,
    /// What is to happen, instead of what the seed draws; profile, seed and length are the plan's then.
    pub plan: Option<Plan>,
}

impl Options {
    /// The usual length for a profile: 20,000 events of whole servers, 5,000 of bare consensus.
    #[must_use]
    pub fn new(profile: Profile) -> Self {
        let events = match profile {
            Profile::Full => 20_000,
            Profile::Core => 5_000,
        };
        Options { profile, events, trace: Verbosity::Silent, without: Vec::new(), plan: None }
    }
}

/// What a run showed.
#[derive(Clone, Debug)]
pub struct Report {
    /// The seed.
    pub seed: u64,
    /// What was simulated.
    pub profile: Profile,
    /// Events handled.
    pub events: u64,
    /// Simulated time.
    pub elapsed: Duration,
    /// What broke, if anything did.
    pub violation: Option<Violation>,
    /// What was met.
    pub coverage: Coverage,
    /// Whether the seed drew no class of faults, or only one.
    pub few_kinds: bool,
    /// A hash of everything that happened: equal for two runs of one seed (I18).
    pub hash: u64,
    /// All that happened of faults, to be run again.
    pub plan: Plan,
    /// What was told, line by line.
    pub trace: Vec<String>,
}

/// An invariant or liveness property that does not hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Its name, as in docs/testing.md; `assert` for an assertion of the code under test.
    pub name: &'static str,
    /// Where and how.
    pub detail: String,
    /// The seed.
    pub seed: u64,
    /// The profile.
    pub profile: Profile,
    /// The simulated time.
    pub at: Duration,
    /// The command that shows it again.
    pub replay: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Violation { name, detail, seed, at, replay, .. } = self;
        let seconds = at.as_secs_f64();
        writeln!(f, "{name} violated in seed {seed} at {seconds:.6} s: {detail}")?;
        write!(f, "replay: {replay}")
    }
}

/// Runs a plan.
#[must_use]
pub fn run_plan(plan: &Plan, trace: Verbosity) -> Report {
    let (profile, events) = (plan.profile, plan.events);
    run(plan.seed, &Options { profile, events, trace, without: Vec::new(), plan: Some(plan.clone()) })
}

/// Runs one seed.
#[must_use]
pub fn run(seed: u64, options: &Options) -> Report {
    let mut world = World::new(seed, options);
    let ended = catch_unwind(AssertUnwindSafe(|| world.run_phases(options)));
    let broken = match ended {
        Ok(result) => result.err(),
        Err(panic) => Some(Broken { name: "assert", detail: said(panic.as_ref()) }),
    };
    let violation = broken.map(|Broken { name, detail }| Violation {
        name,
        detail,
        seed,
        profile: options.profile,
        at: world.elapsed(),
        replay: match options.plan {
            Some(_) => "cargo xtask sim --plan FILE --trace".into(),
            None => {
                format!("cargo xtask sim --profile {} --seed {seed} --trace", options.profile.as_str())
            }
        },
    });
    let plan = world.plan(options.events);
    world.coverage.faults_of(Class::N1, world.network.delayed);
    Report {
        seed,
        profile: options.profile,
        events: world.events,
        elapsed: world.elapsed(),
        coverage: world.coverage.clone(),
        few_kinds: world.swarm.classes.len() < 2,
        hash: world.fingerprint(),
        plan,
        trace: world.trace.into_lines(),
        violation,
    }
}

fn said(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "a panic without words".into())
}
