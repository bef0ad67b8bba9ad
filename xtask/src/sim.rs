//! `cargo xtask sim`: simulated clusters, one per seed.

mod plans;

use std::ops::Range;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crate::mutants;
use atomix_testkit::sim::{self, Class, Coverage, Mark, Options, Profile, Report, Verbosity, Violation};

const USAGE: &str = "\
usage: cargo xtask sim --seeds A..B [--profile full|core] [--jobs N] [--events N] [--twice N]
           without a profile, both one after the other; --twice N alone: seeds 0..N, each twice
       cargo xtask sim --seed N --trace [--all] [--profile full|core] [--events N] [--without N3,P1,..]
       cargo xtask sim --plan FILE [--trace] [--all]
       cargo xtask sim --seed N | --plan FILE --shrink [--stdout] [--profile full|core]
           writes the smallest plan that fails into crates/testkit/regressions, or prints it
       --mutant B01 with one seed or plan: with a deliberate bug";

/// A batch of so many seeds must have met every situation, and had every class of faults that can be in its profiles, but for those that
/// are rare; a shorter one may miss some.
const VACUITY: u64 = 600;
/// A batch of so many must have had all of them.
const ALL_CLASSES: u64 = 1_000;
/// Classes that so many seeds may miss, and why.
const RARE: [(Class, &str); 2] = [
    (Class::M11, "a snapshot must be on its way long enough for the log to outgrow it"),
    (Class::S19, "a session must own very much when it ends"),
];
/// Violations that are printed before a batch gives up.
const ENOUGH: usize = 5;

struct Asked {
    profiles: Vec<Profile>,
    seeds: Range<u64>,
    jobs: usize,
    twice: u64,
    shrink: bool,
    to_stdout: bool,
    plan: Option<PathBuf>,
    mutant: Option<String>,
    events: Option<u64>,
    trace: Verbosity,
    without: Vec<Class>,
}

impl Asked {
    fn options(&self, profile: Profile) -> Options {
        let usual = Options::new(profile);
        let events = self.events.unwrap_or(usual.events);
        Options { events, trace: self.trace, without: self.without.clone(), ..usual }
    }
}

/// Runs the task.
pub(crate) fn run(args: &[String]) -> ExitCode {
    let asked = match parse(args) {
        Ok(asked) => asked,
        Err(problem) => {
            eprintln!("sim: {problem}\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    hush();
    if asked.shrink || asked.plan.is_some() || asked.mutant.is_some() || asked.trace != Verbosity::Silent {
        return one(&asked, args);
    }
    let mut all = Sums::default();
    for profile in &asked.profiles {
        let begin = Instant::now();
        let Some(sums) = batch(&asked, *profile) else {
            eprintln!("sim: a worker died");
            return ExitCode::FAILURE;
        };
        print_sums(&asked, *profile, &sums, begin.elapsed());
        all.merge(sums);
    }
    print_marks(&asked, &all);
    verdict(&asked, &all)
}

fn parse(args: &[String]) -> Result<Asked, String> {
    let mut asked = Asked {
        profiles: vec![Profile::Full, Profile::Core],
        seeds: 0..0,
        jobs: thread::available_parallelism().map_or(2, usize::from).min(2),
        twice: 0,
        shrink: false,
        to_stdout: false,
        plan: None,
        mutant: None,
        events: None,
        trace: Verbosity::Silent,
        without: Vec::new(),
    };
    let mut args = args.iter();
    while let Some(arg) = args.next() {
        let mut value = || args.next().map(String::as_str).ok_or(format!("{arg} needs a value"));
        match arg.as_str() {
            "--seeds" => asked.seeds = range(value()?)?,
            "--seed" => {
                let seed = number(value()?)?;
                asked.seeds = seed..seed + 1;
            }
            "--profile" => {
                asked.profiles = match value()? {
                    "full" => vec![Profile::Full],
                    "core" => vec![Profile::Core],
                    other => return Err(format!("no profile `{other}`")),
                }
            }
            "--jobs" => asked.jobs = usize::try_from(number(value()?)?).unwrap_or(1).max(1),
            "--events" => asked.events = Some(number(value()?)?),
            "--twice" => asked.twice = number(value()?)?,
            "--without" => asked.without = classes(value()?)?,
            "--trace" => asked.trace = asked.trace.max(Verbosity::Changes),
            "--all" => asked.trace = Verbosity::All,
            "--shrink" => asked.shrink = true,
            "--stdout" => asked.to_stdout = true,
            "--plan" => asked.plan = Some(value()?.into()),
            "--mutant" => asked.mutant = Some(value()?.to_owned()),
            other => return Err(format!("unknown argument `{other}`")),
        }
    }
    if asked.seeds.is_empty() {
        asked.seeds = 0..asked.twice;
    }
    if asked.seeds.is_empty() && asked.plan.is_none() {
        return Err("which seeds?".into());
    }
    Ok(asked)
}

fn number(text: &str) -> Result<u64, String> {
    text.parse().map_err(|_| format!("`{text}` is no number"))
}

fn range(text: &str) -> Result<Range<u64>, String> {
    let (from, to) = text.split_once("..").ok_or(format!("`{text}` is no range A..B"))?;
    Ok(number(from)?..number(to)?)
}

fn classes(text: &str) -> Result<Vec<Class>, String> {
    let named = |name: &str| {
        let found = Class::ALL.into_iter().find(|class| format!("{class:?}") == name);
        found.ok_or(format!("no class of faults `{name}`"))
    };
    text.split(',').map(named).collect()
}

/// Assertions of the code under test are caught and reported as violations: the panic's own message would only be in the way.
pub(crate) fn hush() {
    std::panic::set_hook(Box::new(|_| {}));
}

/// One seed or plan.
fn one(asked: &Asked, args: &[String]) -> ExitCode {
    if let Some(mutant) = &asked.mutant {
        match mutants::plant(mutant) {
            Some(true) => {}
            None => return mutants::call_again("sim", args),
            Some(false) => {
                eprintln!("sim: no mutant `{mutant}`\n{USAGE}");
                return ExitCode::from(2);
            }
        }
    }
    let trace = if asked.shrink { Verbosity::Silent } else { asked.trace };
    let (report, replay) = match &asked.plan {
        None => {
            let options = Options { trace, ..asked.options(asked.profiles[0]) };
            (sim::run(asked.seeds.start, &options), None)
        }
        Some(path) => match plans::read(path) {
            Ok(plan) => {
                let plan = plan.without(&asked.without);
                let replay = format!("cargo xtask sim --plan {} --trace", path.display());
                (sim::run_plan(&plan, trace), Some(replay))
            }
            Err(problem) => {
                eprintln!("sim: {problem}");
                return ExitCode::from(2);
            }
        },
    };
    if asked.shrink {
        return plans::shrink(&report, asked.mutant.as_deref(), asked.to_stdout);
    }
    plans::tell(&report, replay.as_deref())
}

/// The sums of a batch.
#[derive(Default)]
struct Sums {
    schedules: u64,
    events: u64,
    elapsed: Duration,
    coverage: Coverage,
    few_kinds: u64,
    equal: u64,
    unequal: Vec<u64>,
    violations: Vec<Violation>,
}

impl Sums {
    fn add(&mut self, report: Report) {
        self.schedules += 1;
        self.events += report.events;
        self.elapsed += report.elapsed;
        self.coverage.add(&report.coverage);
        self.few_kinds += u64::from(report.few_kinds);
        self.violations.extend(report.violation);
    }

    fn merge(&mut self, other: Sums) {
        self.schedules += other.schedules;
        self.events += other.events;
        self.elapsed += other.elapsed;
        self.coverage.add(&other.coverage);
        self.few_kinds += other.few_kinds;
        self.equal += other.equal;
        self.unequal.extend(other.unequal);
        self.violations.extend(other.violations);
    }
}

/// Runs all seeds of a profile; `None` if a thread died.
fn batch(asked: &Asked, profile: Profile) -> Option<Sums> {
    let next = Arc::new(AtomicU64::new(asked.seeds.start));
    let over = Arc::new(AtomicBool::new(false));
    let sums = Arc::new(Mutex::new(Sums::default()));
    let (end, twice_below) = (asked.seeds.end, asked.seeds.start + asked.twice);
    let worker = || {
        let (next, over, sums, options) = (next.clone(), over.clone(), sums.clone(), asked.options(profile));
        thread::spawn(move || {
            while !over.load(Ordering::Relaxed) {
                let seed = next.fetch_add(1, Ordering::Relaxed);
                if seed >= end {
                    break;
                }
                let report = sim::run(seed, &options);
                let again = (seed < twice_below).then(|| sim::run(seed, &options).hash == report.hash);
                let mut sums = sums.lock().unwrap_or_else(PoisonError::into_inner);
                match again {
                    Some(true) => sums.equal += 1,
                    Some(false) => sums.unequal.push(seed),
                    None => {}
                }
                sums.add(report);
                over.fetch_or(sums.violations.len() >= ENOUGH, Ordering::Relaxed);
            }
        })
    };
    let workers: Vec<_> = (0..asked.jobs).map(|_| worker()).collect();
    let died = workers.into_iter().map(thread::JoinHandle::join).filter(Result::is_err).count();
    let mut sums = sums.lock().unwrap_or_else(PoisonError::into_inner);
    (died == 0).then(|| std::mem::take(&mut *sums))
}

fn print_sums(asked: &Asked, profile: Profile, sums: &Sums, took: Duration) {
    let seconds = took.as_secs_f64();
    let per_second = |n: u64| n as f64 / seconds;
    println!(
        "sim {} {}..{}: {} schedules, {} events, {:.0} s simulated in {:.1} s on {} threads",
        profile.as_str(),
        asked.seeds.start,
        asked.seeds.end,
        sums.schedules,
        sums.events,
        sums.elapsed.as_secs_f64(),
        seconds,
        asked.jobs
    );
    println!(
        "  {:.1} schedules/s, {:.0} events/s, {:.0} simulated seconds per real second",
        per_second(sums.schedules),
        per_second(sums.events),
        sums.elapsed.as_secs_f64() / seconds
    );
    let coverage = &sums.coverage;
    println!(
        "  {} entries committed, {} commands and {} reads answered and checked, {} states compared, {} sessions",
        coverage.committed, coverage.operations, coverage.reads, coverage.digests, coverage.sessions
    );
    println!("  seeds with no fault or one kind: {} of {}", sums.few_kinds, sums.schedules);
    println!(
        "  runs without a majority on its own: {}; without service at the end: {}",
        coverage.without_majority, coverage.without_service
    );
    println!("  faults:");
    for class in Class::ALL.into_iter().filter(|class| class.is_in(profile)) {
        println!("    {:<5} {:<28} {:>10}", format!("{class:?}"), class.as_str(), coverage.faults(class));
    }
}

fn print_marks(asked: &Asked, all: &Sums) {
    println!("met:");
    for mark in marks(asked) {
        println!("  {:<50} {:>10}", mark.as_str(), all.coverage.marks(mark));
    }
}

/// Those that can be met in a profile that was run.
fn marks(asked: &Asked) -> impl Iterator<Item = Mark> {
    Mark::ALL.into_iter().filter(|mark| asked.profiles.iter().any(|profile| mark.is_in(*profile)))
}

/// Classes that a batch of that length should have had, and never had.
fn never_struck(asked: &Asked, sums: &Sums) -> Vec<Class> {
    let seeds = asked.seeds.end - asked.seeds.start;
    let possible = |class: &Class| asked.profiles.iter().any(|profile| class.is_in(*profile));
    let is_rare = |class: &Class| RARE.iter().any(|(rare, _)| rare == class);
    let expected = |class: &Class| seeds >= if is_rare(class) { ALL_CLASSES } else { VACUITY };
    let never = |class: &Class| possible(class) && sums.coverage.faults(*class) == 0;
    Class::ALL.into_iter().filter(|class| expected(class) && never(class)).collect()
}

fn verdict(asked: &Asked, sums: &Sums) -> ExitCode {
    let mut good = true;
    if asked.twice > 0 {
        println!("double runs: {} of {} equal", sums.equal, sums.equal + sums.unequal.len() as u64);
        good &= sums.unequal.is_empty();
        for seed in &sums.unequal {
            println!("I18 violated: two runs of seed {seed} differ");
        }
    }
    let enough = asked.seeds.end - asked.seeds.start >= VACUITY;
    if enough && sums.violations.is_empty() {
        for mark in marks(asked).filter(|mark| sums.coverage.marks(*mark) == 0) {
            println!("vacuous: never met: {}", mark.as_str());
            good = false;
        }
        if asked.seeds.end - asked.seeds.start < ALL_CLASSES {
            for (class, why) in RARE.iter().filter(|(class, _)| sums.coverage.faults(*class) == 0) {
                println!("not asked of so few seeds: {} {}: {why}", class.row(), class.as_str());
            }
        }
        for class in never_struck(asked, sums) {
            println!("vacuous: never struck: {} {}", class.row(), class.as_str());
            good = false;
        }
        if sums.few_kinds * 3 >= sums.schedules {
            println!("vacuous: too many seeds with no fault or one kind");
            good = false;
        }
    }
    for violation in &sums.violations {
        let events = asked.events.map_or(String::new(), |events| format!(" --events {events}"));
        println!("{violation}{events}");
        good = false;
    }
    if good {
        println!("0 violations");
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
