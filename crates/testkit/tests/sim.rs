//! The simulator at a glance: a few seeds of each profile, that a seed and its plan are replayed exactly, and every
//! plan that once showed something. Batches run by `cargo xtask sim`.

use std::fs;
use std::path::Path;

use atomix_testkit::sim::{self, Options, Plan, Profile, Verbosity};

#[track_caller]
fn check(profile: Profile, seeds: std::ops::Range<u64>) {
    for seed in seeds {
        let report = sim::run(seed, &Options::new(profile));
        if let Some(violation) = report.violation {
            panic!("{violation}");
        }
        assert!(
            report.events >= Options::new(profile).events,
            "seed {seed} ended after {} events",
            report.events
        );
        assert!(report.coverage.committed > 0, "seed {seed} committed nothing");
    }
}

#[test]
fn whole_servers() {
    check(Profile::Full, 0..4);
}

#[test]
fn bare_consensus() {
    check(Profile::Core, 0..20);
}

#[test]
fn inv_i18_a_seed_is_replayed_exactly() {
    for (profile, seed) in [(Profile::Full, 1), (Profile::Core, 2), (Profile::Core, 3)] {
        let options = Options { trace: Verbosity::All, ..Options::new(profile) };
        let (first, second) = (sim::run(seed, &options), sim::run(seed, &options));
        let apart = first.trace.iter().zip(&second.trace).find(|(a, b)| a != b);
        assert_eq!(apart, None, "seed {seed}");
        assert_eq!((first.hash, first.events), (second.hash, second.events), "seed {seed}");
    }
}

#[test]
fn what_happened_can_be_written_down_and_run_again() {
    for (profile, seeds) in [(Profile::Full, 0..6), (Profile::Core, 0..30)] {
        for seed in seeds {
            let drawn = sim::run(seed, &Options::new(profile));
            let plan: Plan = drawn.plan.to_string().parse().unwrap();
            let given = sim::run_plan(&plan, Verbosity::Silent);
            assert_eq!((given.hash, given.events), (drawn.hash, drawn.events), "seed {seed} of {profile:?}");
            assert_eq!(given.plan, drawn.plan, "seed {seed} of {profile:?}");
        }
    }
}

/// What happened in the first seed with enough of faults.
fn eventful() -> Plan {
    let mut plans = (0..50).map(|seed| sim::run(seed, &Options::new(Profile::Core)).plan);
    let Some(plan) = plans.find(|plan| plan.classes().len() > 4 && plan.faults() > 10) else {
        panic!("no seed has faults enough")
    };
    plan
}

#[test]
fn a_plan_without_some_faults_keeps_all_others_as_they_were() {
    let plan = eventful();
    let classes = plan.classes();
    let smaller = plan.without(&classes[..1]);
    assert_eq!(smaller.classes(), classes[1..]);
    let again = sim::run_plan(&smaller, Verbosity::Silent);
    assert_eq!(again.plan, smaller, "what happened is what was planned");
}

/// Makes plans smaller by a checker that fires whenever a class of faults is there at all.
#[test]
fn the_smallest_plan_is_found() {
    let plan = eventful();
    let class = plan.classes()[0];
    let mut runs = 0;
    let smallest = sim::shrink(&plan, |plan| {
        runs += 1;
        Some(plan.classes().contains(&class))
    });
    assert_eq!(smallest.classes(), [class]);
    assert!(smallest.faults() <= 1 && runs < 200, "{runs} runs left {smallest}");
}

/// Each file is the smallest plan that showed a bug, planted or not, and says which.
#[test]
fn what_once_failed_does_not_fail_any_more() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("regressions");
    let mut count = 0;
    for file in fs::read_dir(folder).unwrap() {
        let path = file.unwrap().path();
        let plan: Plan = match fs::read_to_string(&path).unwrap().parse() {
            Ok(plan) => plan,
            Err(problem) => panic!("{}: {problem}", path.display()),
        };
        if let Some(violation) = sim::run_plan(&plan, Verbosity::Silent).violation {
            panic!("{}: {violation}", path.display());
        }
        count += 1;
    }
    assert!(count >= 3, "only {count} plans are there");
}
