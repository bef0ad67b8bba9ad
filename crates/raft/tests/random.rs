//! A few hundred random histories: messages lost, repeated and out of order, links cut, crashes that lose what was not
//! written, disks that lose what they held (D4), snapshots at any time. Every step is checked against Figure 3.2 by the cluster itself; then everything is mended,
//! and it must come to rest in agreement.

use std::collections::BTreeMap;
use std::time::Duration;

use atomix_protocol::{Index, ServerId};
use atomix_raft::{Config, Input, Marks};
use atomix_testkit::scenario::{Cluster, Settings};
use rand::rngs::Xoshiro256PlusPlus;
use rand::{RngExt, SeedableRng};

const SEEDS: u64 = 300;
const STEPS: u64 = 3_000;

struct Run {
    rng: Xoshiro256PlusPlus,
    cluster: Cluster,
    servers: Vec<ServerId>,
    voters: u64,
    /// What was committed when each read was asked.
    reads: BTreeMap<u64, Index>,
    requests: u64,
    confirmed: u64,
    /// Of processes that are gone.
    marks: Marks,
}

impl Run {
    fn new(seed: u64) -> Self {
        let mut rng = Xoshiro256PlusPlus::seed_from_u64(seed);
        let pick = |rng: &mut Xoshiro256PlusPlus, from: &[u64]| from[rng.random_range(0..from.len())];
        let config = Config {
            append_bytes: pick(&mut rng, &[1, 200, 1 << 20]),
            appends_in_flight: rng.random_range(1..=4),
            append_bytes_in_flight: pick(&mut rng, &[100, 1 << 20]),
            snapshot_chunk_bytes: rng.random_range(1..=30),
            log_memory_bytes: pick(&mut rng, &[1, 300, 2_000, 1 << 20]),
            ..Config::default()
        };
        let (voters, learners) = (rng.random_range(1..=5), u64::from(rng.random_range(0..5) == 0));
        let cluster = Cluster::new(Settings { voters, learners, config, seed });
        let servers = cluster.all();
        Run {
            rng,
            cluster,
            servers,
            voters,
            reads: BTreeMap::new(),
            requests: 0,
            confirmed: 0,
            marks: Marks::default(),
        }
    }

    fn any(&mut self) -> ServerId {
        self.servers[self.rng.random_range(0..self.servers.len())]
    }

    fn step(&mut self) {
        match self.rng.random_range(0..1_000) {
            0..480 => self.message(),
            480..660 => {
                let id = self.any();
                self.cluster.persist(id);
            }
            660..800 => self.tick(),
            800..900 => self.propose(),
            900..940 => self.read(),
            940..955 => {
                let (id, kept) = (self.any(), self.rng.random_range(0..4));
                self.crash(id, kept);
            }
            955..958 => self.damage(),
            958..970 => self.restart_one(),
            970..980 => {
                let id = self.any();
                self.cluster.snapshot(id);
            }
            980..984 => {
                let (from, to) = (self.any(), self.any());
                self.cluster.cut(from, to);
            }
            984..986 => {
                let id = self.any();
                self.cluster.isolate(id);
            }
            986..994 => self.cluster.heal(),
            994..998 => {
                let (id, to) = (self.any(), self.any());
                self.cluster.input(id, Input::LinkOpened { to });
            }
            _ => {
                let (id, from) = (self.any(), self.any());
                self.cluster.drop_link(from, id);
                self.cluster.input(id, Input::LinkClosed { from });
            }
        }
        self.look_at_reads();
    }

    fn message(&mut self) {
        let links = self.cluster.busy_links();
        if links.is_empty() {
            return;
        }
        let (from, to, queued) = links[self.rng.random_range(0..links.len())];
        let first = self.rng.random_range(0..10) > 0;
        let position = if first { 0 } else { self.rng.random_range(0..queued) };
        match self.rng.random_range(0..20) {
            0 => self.cluster.drop_message(from, to, position),
            1 => self.cluster.deliver(from, to, position, true),
            2..10 => self.cluster.deliver(from, to, position, false),
            _ => self.cluster.deliver_link(from, to),
        }
    }

    fn tick(&mut self) {
        match self.rng.random_range(0..100) {
            0..2 => {
                let id = self.any();
                if self.cluster.up().contains(&id) {
                    self.cluster.campaign(id);
                }
            }
            2..12 => self.cluster.tick(Duration::from_millis(self.rng.random_range(1..60))),
            _ => self.cluster.tick(Duration::from_millis(self.rng.random_range(1..5))),
        }
    }

    fn propose(&mut self) {
        self.requests += 1;
        let id = self.cluster.leader().filter(|_| self.rng.random_range(0..10) > 0);
        let id = id.unwrap_or_else(|| self.any());
        let _ = self.cluster.propose(id, &format!("c{}", self.requests));
    }

    fn read(&mut self) {
        self.requests += 1;
        let id = self.any();
        let committed =
            self.cluster.checker().ledger().last_key_value().map_or(Index::ZERO, |(index, _)| *index);
        if self.cluster.read(id, self.requests).is_ok() {
            self.reads.insert(self.requests, committed);
        }
    }

    /// A read must see everything that was committed anywhere when it was asked (§6.4).
    fn look_at_reads(&mut self) {
        for id in self.servers.clone() {
            for (read, index) in self.cluster.take_ready(id) {
                let asked = self.reads.remove(&read).expect("a read is answered once");
                assert!(asked <= index, "read {read} sees {index}, but {asked} was committed before");
                self.confirmed += 1;
            }
            for read in self.cluster.take_failed(id) {
                assert!(self.reads.remove(&read).is_some(), "a read is answered once");
            }
        }
    }

    fn restart_one(&mut self) {
        let up = self.cluster.up();
        if let Some(id) = self.servers.iter().find(|id| !up.contains(id)) {
            self.cluster.restart(*id);
        }
    }

    fn crash(&mut self, id: ServerId, kept: usize) {
        if self.cluster.up().contains(&id) {
            add(&mut self.marks, self.cluster.raft(id).marks());
        }
        self.cluster.crash(id, kept);
    }

    /// A server that comes up finds its log damaged. As long as a quorum does not abstain, there will be a leader.
    fn damage(&mut self) {
        let (id, up) = (self.any(), self.cluster.up());
        let abstains = |server: &&ServerId| server.0 <= self.voters && self.cluster.is_damaged(**server);
        let others = self.servers.iter().filter(|server| **server != id).filter(abstains).count() as u64;
        let last = self.cluster.checker().ledger().len() as u64 + 3;
        let keep = Index(last.saturating_sub(self.rng.random_range(0..12)));
        if (id.0 <= self.voters && (others + 1) * 2 >= self.voters) || others * 2 >= self.voters {
            return;
        }
        if up.contains(&id) {
            let kept = self.rng.random_range(0..4);
            self.crash(id, kept);
        }
        self.cluster.damage(id, keep);
        self.cluster.restart(id);
    }

    /// Mends everything; within ten election timeouts and a bit all agree, and a new command commits.
    fn mend(&mut self) {
        self.cluster.heal();
        (0..self.servers.len()).for_each(|_| self.restart_one());
        for _ in 0..120 {
            self.cluster.tick(Duration::from_millis(50));
            self.cluster.settle();
            self.look_at_reads();
            // A leader whose disk was slow may still be handing over (D6).
            let leads_on = |id| !self.cluster.raft(id).is_handing_over();
            if self.cluster.agreed().is_some() && self.cluster.leader().is_some_and(leads_on) {
                break;
            }
        }
        let leader = self.cluster.leader().expect("there is a leader");
        let proposed = self.cluster.propose(leader, "last").expect("the leader takes commands");
        for _ in 0..4 {
            self.cluster.settle();
            self.cluster.tick(Duration::from_millis(50));
        }
        self.cluster.settle();
        assert_eq!(self.cluster.agreed(), Some(proposed.index), "{:#?}", self.cluster);
        let damaged = self.servers.iter().find(|id| self.cluster.is_damaged(**id));
        assert_eq!(damaged, None, "everyone is whole again");
    }

    fn check(&self) {
        assert_eq!(self.cluster.checker().violation(), None);
    }
}

fn run(seed: u64) -> (Marks, u64, u64) {
    let mut run = Run::new(seed);
    for _ in 0..STEPS {
        run.step();
        run.check();
    }
    run.mend();
    run.check();
    let mut marks = run.marks;
    for id in run.cluster.all() {
        add(&mut marks, run.cluster.raft(id).marks());
    }
    (marks, run.cluster.checker().ledger().len() as u64, run.confirmed)
}

fn add(sum: &mut Marks, more: &Marks) {
    sum.suffix_truncated += more.suffix_truncated;
    sum.read_waited_for_own_term += more.read_waited_for_own_term;
    sum.read_round_repeated += more.read_round_repeated;
    sum.leader_deposed_with_requests += more.leader_deposed_with_requests;
    sum.prevote_refused_sticky += more.prevote_refused_sticky;
    sum.check_quorum_step_down += more.check_quorum_step_down;
    sum.window_full += more.window_full;
    sum.snapshot_installed += more.snapshot_installed;
    sum.fast_prevote += more.fast_prevote;
    sum.busy += more.busy;
    sum.old_term_entry_on_majority_uncommitted += more.old_term_entry_on_majority_uncommitted;
    sum.vote_abstained += more.vote_abstained;
    sum.abstention_ended += more.abstention_ended;
    sum.match_went_back += more.match_went_back;
}

#[test]
fn random_histories_are_safe_and_end_in_agreement() {
    // `SEED=n` replays one; `SEEDS=n` runs more.
    let number = |name| std::env::var(name).ok().and_then(|value: String| value.parse::<u64>().ok());
    let (only, count) = (number("SEED"), number("SEEDS").unwrap_or(SEEDS));
    let seeds = only.map_or(0..count, |seed| seed..seed + 1);
    let whole = only.is_none();
    let (mut marks, mut committed, mut confirmed) = (Marks::default(), 0, 0);
    for seed in seeds {
        let outcome = std::panic::catch_unwind(|| run(seed));
        let Ok((met, entries, reads)) = outcome else {
            panic!("seed {seed} failed: SEED={seed} cargo test -p atomix-raft --test random");
        };
        add(&mut marks, &met);
        committed += entries;
        confirmed += reads;
    }
    println!("{committed} entries committed, {confirmed} reads confirmed, {marks:?}");
    let met = [
        marks.suffix_truncated,
        marks.read_waited_for_own_term,
        marks.read_round_repeated,
        marks.leader_deposed_with_requests,
        marks.prevote_refused_sticky,
        marks.check_quorum_step_down,
        marks.window_full,
        marks.snapshot_installed,
        marks.fast_prevote,
        marks.busy,
        marks.vote_abstained,
        marks.abstention_ended,
        marks.match_went_back,
        confirmed,
        committed,
    ];
    assert!(!whole || met.iter().all(|count| *count > 0), "a vacuous batch: {marks:?}");
}
