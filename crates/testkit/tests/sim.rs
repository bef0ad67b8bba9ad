//! The simulator at a glance: a few seeds of each profile, and that a seed is replayed exactly. Batches run by `cargo xtask sim`.

use atomix_testkit::sim::{self, Options, Profile, Verbosity};

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
