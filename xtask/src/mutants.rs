//! `cargo xtask mutants`: deliberate one-line bugs in shipped code, each to be caught by the checker named for it.
//!
//! A mutant counts as caught only if a named checker fires, through the ordinary generator of seeds and in the scenario that is
//! directed at it, as far as it has them, and the same seed and scenario pass without it. A time-out, or an assertion of the code
//! itself, does not count.

use std::process::ExitCode;

#[cfg(feature = "mutants")]
const USAGE: &str = "usage: cargo xtask mutants [--all | --rotating | B01 C06 ..] [--seeds N] [--jobs N]";

/// Runs the task. The mutants are compiled in only where the private feature asks for them: elsewhere this calls itself again.
#[cfg(not(feature = "mutants"))]
pub(crate) fn run(args: &[String]) -> ExitCode {
    call_again("mutants", args)
}

/// Makes a mutant active; whether there is one of that name. `None` where none are compiled in.
#[cfg(feature = "mutants")]
pub(crate) fn plant(name: &str) -> Option<bool> {
    use atomix_protocol::mutant::Mutant;
    let named = Mutant::ALL.into_iter().find(|mutant| format!("{mutant:?}") == name);
    Mutant::activate(named);
    Some(named.is_some())
}

/// Makes a mutant active; whether there is one of that name. `None` where none are compiled in.
#[cfg(not(feature = "mutants"))]
pub(crate) fn plant(_name: &str) -> Option<bool> {
    None
}

/// Runs a task with the mutants compiled in.
pub(crate) fn call_again(task: &str, args: &[String]) -> ExitCode {
    let mut cargo = std::process::Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.args(["run", "--quiet", "--package", "xtask", "--features", "mutants"]);
    let released =
        std::env::current_exe().is_ok_and(|path| path.components().any(|part| part.as_os_str() == "release"));
    if released {
        cargo.arg("--release");
    }
    cargo.args(["--", task]).args(args);
    match cargo.status() {
        Ok(status) if status.success() => ExitCode::SUCCESS,
        Ok(status) => ExitCode::from(u8::try_from(status.code().unwrap_or(1)).unwrap_or(1)),
        Err(error) => {
            eprintln!("{task}: cargo can't be called: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Runs the task.
#[cfg(feature = "mutants")]
pub(crate) fn run(args: &[String]) -> ExitCode {
    match inner::parse(args) {
        Ok(asked) => inner::all(&asked),
        Err(problem) => {
            eprintln!("mutants: {problem}\n{USAGE}");
            ExitCode::from(2)
        }
    }
}

#[cfg(feature = "mutants")]
mod inner {
    use std::process::ExitCode;
    use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
    use std::sync::{Mutex, PoisonError};
    use std::thread;
    use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

    use atomix_protocol::mutant::Mutant;
    use atomix_testkit::directed::{client, identity, resources, server};
    use atomix_testkit::scenario::directed::membership;
    use atomix_testkit::scenario::{directed, leadership};
    use atomix_testkit::sim::{self, Options, Profile};

    /// Within so many seeds each must be caught.
    const SEEDS: u64 = 2_000;
    /// So many of them are looked at where none is named: others on another day.
    const ROTATING: usize = 5;

    /// How the checker of the scenarios begins what it says, and the invariant that it means. Others begin with the invariant itself.
    const SCENARIO_CHECKERS: [(&str, &str); 6] = [
        ("election safety", "I1"),
        ("log matching", "I2"),
        ("leader completeness", "I3"),
        ("durability", "I4"),
        ("state machine safety", "I4"),
        ("membership", "I13"),
    ];

    pub(super) struct Asked {
        mutants: Vec<Mutant>,
        seeds: u64,
        jobs: usize,
    }

    pub(super) fn parse(args: &[String]) -> Result<Asked, String> {
        let mut asked = Asked { mutants: Vec::new(), seeds: SEEDS, jobs: 2 };
        let mut args = args.iter();
        while let Some(arg) = args.next() {
            let mut number = || {
                args.next().and_then(|text| text.parse::<u64>().ok()).ok_or(format!("{arg} needs a number"))
            };
            match arg.as_str() {
                "--rotating" => {}
                "--all" => asked.mutants = Mutant::ALL.to_vec(),
                "--seeds" => asked.seeds = number()?,
                "--jobs" => asked.jobs = usize::try_from(number()?).unwrap_or(1).max(1),
                name => {
                    let named = Mutant::ALL.into_iter().find(|mutant| format!("{mutant:?}") == name);
                    asked.mutants.push(named.ok_or(format!("no mutant `{name}`"))?);
                }
            }
        }
        if asked.mutants.is_empty() {
            let day =
                SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs() / 86_400);
            let first = usize::try_from(day).unwrap_or(0).wrapping_mul(ROTATING);
            let count = Mutant::ALL.len();
            asked.mutants = (0..ROTATING).map(|n| Mutant::ALL[first.wrapping_add(n) % count]).collect();
        }
        Ok(asked)
    }

    /// A history of its own, and what it violated.
    type Scenario = fn() -> Result<(), String>;

    /// Where a mutant is looked for, and which checkers may catch it.
    struct Hunt {
        /// Among the seeds of a profile.
        seeds: Option<Profile>,
        checkers: &'static [&'static str],
        /// In a history of its own, instead of the seeds or beside them: then both must catch it.
        directed: Option<Scenario>,
    }

    fn hunt(mutant: Mutant) -> Hunt {
        use Profile::{Core, Full};
        let (seeds, checkers): (Option<Profile>, &[&str]) = match mutant {
            Mutant::B01 => (Some(Core), &["I3", "I4"]),
            Mutant::B02 => (Some(Core), &["I6", "I15"]),
            Mutant::B03 => (Some(Core), &["I1", "I6", "I15"]),
            Mutant::B06 | Mutant::B07 | Mutant::B10 => (Some(Core), &["I15"]),
            Mutant::B08 => (Some(Core), &["I15", "I16"]),
            Mutant::B09 => (Some(Core), &["I16"]),
            Mutant::B11 => (Some(Core), &["I1", "I2"]),
            Mutant::C07 => (Some(Core), &["I3", "I4", "I22"]),
            Mutant::C12 => (Some(Core), &["L5"]),
            Mutant::B04 | Mutant::B05 | Mutant::B15 | Mutant::B17 => (Some(Core), &["I4"]),
            Mutant::B12 => (Some(Core), &["L1", "L7"]),
            Mutant::B14 => (Some(Core), &["I3", "L1"]),
            Mutant::B16 => (Some(Core), &["I4", "I5"]),
            Mutant::B35 => (None, &["I5"]),
            Mutant::B18 | Mutant::B21 => (Some(Core), &["I4"]),
            Mutant::B19 | Mutant::B20 => (Some(Core), &["I13"]),
            Mutant::B13 => (Some(Core), &["I1", "I6"]),
            Mutant::B22 => (Some(Core), &["I9"]),
            Mutant::B23 | Mutant::B24 | Mutant::C09 => (None, &["I9"]),
            Mutant::B36 => (None, &["L2"]),
            Mutant::B25 | Mutant::B26 => (Some(Full), &["I5", "I7"]),
            Mutant::B27 => (Some(Full), &["I5", "I21"]),
            Mutant::B28 => (None, &["I5"]),
            Mutant::B33 => (Some(Full), &["I3", "I4", "I14"]),
            Mutant::B34 | Mutant::B37 => (Some(Full), &["I14"]),
            Mutant::B29 => (Some(Full), &["I12"]),
            Mutant::B30 => (Some(Full), &["I5", "I12"]),
            Mutant::B31 => (Some(Full), &["I11"]),
            Mutant::B32 => (Some(Full), &["I10"]),
            Mutant::C01 | Mutant::C02 | Mutant::C03 => (Some(Full), &["I20"]),
            Mutant::C04 => (None, &["E3"]),
            Mutant::C05 => (None, &["E6"]),
            Mutant::C06 => (Some(Core), &["I6"]),
            Mutant::C08 => (Some(Full), &["L4"]),
            Mutant::C10 => (Some(Full), &["I3", "I4"]),
            Mutant::C11 => (None, &["M1"]),
            Mutant::U01 => (Some(Full), &["M3"]),
        };
        let directed: Option<Scenario> = match mutant {
            Mutant::B01 => Some(directed::figure_8),
            Mutant::B11 => Some(directed::damage::a_term_ends_with_its_leader),
            Mutant::B13 => Some(directed::pre_vote_keeps_the_vote),
            Mutant::B16 => Some(directed::commit_bound),
            Mutant::B35 => Some(directed::chunk_behind_a_stale_one),
            Mutant::B18 => Some(membership::majority_of_both_sides_together),
            Mutant::B19 => Some(membership::change_before_the_own_entry),
            Mutant::B20 => Some(membership::configuration_in_a_snapshot),
            Mutant::B21 => Some(membership::learners_alone),
            Mutant::B23 => Some(leadership::old_answers_confirm_no_read),
            Mutant::B24 => Some(leadership::a_lease_ends_before_its_promises),
            Mutant::B28 => Some(server::expired_then_replayed),
            Mutant::B31 => Some(client::events_sent_again),
            Mutant::B32 => Some(client::read_from_before_an_event),
            Mutant::B33 => Some(identity::a_wiped_server_is_asked_for_its_vote),
            Mutant::B34 => Some(identity::a_server_of_another_cluster_leads),
            Mutant::B36 => Some(leadership::a_leader_whose_disk_hangs_gives_way),
            Mutant::C01 => Some(server::keep_alive_without_a_majority),
            Mutant::C02 => Some(server::keep_alive_before_the_own_no_op),
            Mutant::C04 => Some(client::slow_handler),
            Mutant::C05 => Some(server::retry_of_an_atomic_write),
            Mutant::C07 => Some(directed::damage::a_vote_that_was_lost_with_the_log),
            Mutant::C09 => Some(leadership::a_closed_link_lifts_no_promise),
            Mutant::C11 => Some(resources::deleted_and_created_again),
            Mutant::C12 => Some(sim::a_mark_from_before_a_truncation),
            _ => None,
        };
        Hunt { seeds, checkers, directed }
    }

    /// The invariant that a history of its own names.
    fn checker(said: &str) -> &str {
        let property = SCENARIO_CHECKERS.iter().find(|(property, _)| said.starts_with(property));
        property.map_or_else(|| said.split(':').next().unwrap_or(said), |(_, name)| name)
    }

    /// How a mutant fared.
    #[derive(Default)]
    struct Fate {
        /// The checker that fired among the seeds, and in which.
        by_seed: Option<(String, u64)>,
        /// The checker that fired in the history of its own.
        directed: Option<String>,
        seeds: u64,
        /// The same without the mutant passes.
        clean: bool,
        /// Violations by checkers that do not count.
        others: Vec<&'static str>,
        took: Duration,
    }

    pub(super) fn all(asked: &Asked) -> ExitCode {
        crate::sim::hush();
        println!(
            "{:<7} {:<8} {:>6} {:>6}  {:<9} {:>7}  {:<8} others",
            "mutant", "by seed", "seed", "seeds", "directed", "s", "without"
        );
        let mut good = true;
        for mutant in &asked.mutants {
            let hunt = hunt(*mutant);
            let fate = pursue(*mutant, &hunt, asked);
            // Where a kind of hunt is not meant for it: a dash. Where it is and finds nothing: alive.
            let told = |meant: bool, found: Option<&str>| match found {
                Some(checker) => checker.to_owned(),
                None if meant => "ALIVE".to_owned(),
                None => "-".to_owned(),
            };
            let (by_seed, directed) = (fate.by_seed.as_ref(), fate.directed.as_deref());
            let mut others = fate.others.clone();
            others.sort_unstable();
            others.dedup();
            println!(
                "{:<7} {:<8} {:>6} {:>6}  {:<9} {:>7.1}  {:<8} {}",
                format!("{mutant:?}"),
                told(hunt.seeds.is_some(), by_seed.map(|(checker, _)| checker.as_str())),
                by_seed.map_or("-".to_owned(), |(_, seed)| seed.to_string()),
                fate.seeds,
                told(hunt.directed.is_some(), directed),
                fate.took.as_secs_f64(),
                if fate.clean { "passes" } else { "FAILS" },
                others.join(" ")
            );
            good &= fate.clean
                && hunt.seeds.is_some() == by_seed.is_some()
                && hunt.directed.is_some() == directed.is_some();
        }
        if good { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }

    fn pursue(mutant: Mutant, hunt: &Hunt, asked: &Asked) -> Fate {
        let begin = Instant::now();
        Mutant::activate(Some(mutant));
        let mut fate = hunt.seeds.map_or_else(Fate::default, |profile| seeds(hunt, profile, asked));
        if let Some(scenario) = hunt.directed
            && let Err(said) = scenario()
        {
            let checker = checker(&said);
            fate.directed = hunt.checkers.contains(&checker).then(|| checker.to_owned());
        }
        Mutant::activate(None);
        let seed_passes =
            fate.by_seed.as_ref().zip(hunt.seeds).is_none_or(|((_, seed), profile)| {
                sim::run(*seed, &Options::new(profile)).violation.is_none()
            });
        fate.clean = seed_passes && hunt.directed.is_none_or(|scenario| scenario().is_ok());
        fate.took = begin.elapsed();
        fate
    }

    /// Seeds one after the other until one is caught.
    fn seeds(hunt: &Hunt, profile: Profile, asked: &Asked) -> Fate {
        let (next, over) = (AtomicU64::new(0), AtomicBool::new(false));
        let fate = Mutex::new(Fate::default());
        let options = Options::new(profile);
        let work = || {
            while !over.load(Ordering::Relaxed) {
                let seed = next.fetch_add(1, Ordering::Relaxed);
                if seed >= asked.seeds {
                    break;
                }
                let violation = sim::run(seed, &options).violation;
                let mut fate = fate.lock().unwrap_or_else(PoisonError::into_inner);
                fate.seeds += 1;
                let Some(violation) = violation else { continue };
                if hunt.checkers.contains(&violation.name) {
                    // Of two found at once, the first seed: so that the table is the same again.
                    let earlier = fate.by_seed.as_ref().is_some_and(|(_, caught)| *caught < seed);
                    if !earlier {
                        fate.by_seed = Some((violation.name.to_owned(), seed));
                    }
                    over.store(true, Ordering::Relaxed);
                } else {
                    fate.others.push(violation.name);
                }
            }
        };
        thread::scope(|scope| {
            for _ in 0..asked.jobs {
                scope.spawn(work);
            }
        });
        fate.into_inner().unwrap_or_else(PoisonError::into_inner)
    }
}
