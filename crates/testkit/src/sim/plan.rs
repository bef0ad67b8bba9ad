//! What happens to a cluster, as a list: what a seed draws, and what can be written down, made smaller and run again.
//!
//! A plan is text: a head (profile, seed, length, settings, rates of what happens all the time), then one line per
//! single fault, by time. Everything else comes from the seed. Lines that begin with `#` are left out. Spans are in
//! microseconds.

use std::fmt;
use std::str::FromStr;

use super::faults::{Class, Fault, Planned, Source, Swarm, Words};
use super::settings::{SECOND, Settings, Time};
use super::{Options, Profile};

/// The first line of every plan. The number rises whenever an older text would mean something else.
const TITLE: &str = "simulation plan 1";

/// What happens in a run.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    pub(super) profile: Profile,
    pub(super) seed: u64,
    /// The run goes on until it has had so many events.
    pub(super) events: u64,
    /// When all is healed.
    pub(super) until: Time,
    /// By name; those that are not named are drawn from the seed.
    pub(super) settings: Vec<(String, u64)>,
    pub(super) rates: Vec<(Class, f64)>,
    /// By time.
    pub(super) faults: Vec<Planned>,
}

/// Why a text is no plan.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {problem}")]
pub struct NoPlan {
    /// Counted from one.
    pub line: usize,
    /// What is wrong with it.
    pub problem: String,
}

/// What a run begins with: drawn from the seed, or given by a plan.
pub(super) fn begin(seed: u64, options: &Options) -> (Settings, Swarm, Vec<Source>) {
    let (mut settings, swarm, sources) = match &options.plan {
        Some(plan) => {
            let swarm = Swarm::given(&plan.rates, &plan.faults);
            (plan.settings(), swarm, Source::given(&plan.faults))
        }
        None => {
            let settings = Settings::draw(seed, options.profile);
            let swarm = Swarm::draw(seed, options.profile, &settings, &options.without);
            let sources = swarm.sources(seed);
            (settings, swarm, sources)
        }
    };
    for role in &mut settings.demand.roles {
        role.slow &= swarm.has(Class::S18);
    }
    if swarm.has(Class::C6) {
        settings.election_timeout.1 = settings.election_timeout.0 * 11 / 10;
    }
    (settings, swarm, sources)
}

impl Plan {
    /// What is simulated.
    #[must_use]
    pub fn profile(&self) -> Profile {
        self.profile
    }

    /// The seed of all that the plan doesn't say.
    #[must_use]
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// How many single faults it has.
    #[must_use]
    pub fn faults(&self) -> usize {
        self.faults.len()
    }

    /// The classes of faults that it has, at a rate or as single faults.
    #[must_use]
    pub fn classes(&self) -> Vec<Class> {
        let of_rates = self.rates.iter().map(|(class, _)| *class);
        let mut classes: Vec<Class> = of_rates.chain(self.faults.iter().map(|fault| fault.class)).collect();
        classes.sort_unstable();
        classes.dedup();
        classes
    }

    /// The same without some classes.
    #[must_use]
    pub fn without(mut self, classes: &[Class]) -> Plan {
        self.rates.retain(|(class, _)| !classes.contains(class));
        self.faults.retain(|fault| !classes.contains(&fault.class));
        self
    }

    pub(super) fn settings(&self) -> Settings {
        let mut settings = Settings::draw(self.seed, self.profile);
        // A plan that says nothing of versions is of a time when there was one.
        settings.versions.servers = 0;
        for (name, value) in &self.settings {
            // An unknown name was refused when the plan was read.
            settings.set(name, *value);
        }
        // Whoever comes later must have no role of a client that is not there.
        settings.demand.roles.truncate(settings.clients);
        settings
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{TITLE}")?;
        writeln!(f, "profile {}", self.profile.as_str())?;
        writeln!(f, "seed {}", self.seed)?;
        writeln!(f, "events {}", self.events)?;
        writeln!(f, "until {}", Moment(self.until))?;
        for (name, value) in &self.settings {
            writeln!(f, "set {name} {value}")?;
        }
        for (class, rate) in &self.rates {
            writeln!(f, "rate {} {rate}", class.row())?;
        }
        for Planned { at, class, seed, fault } in &self.faults {
            writeln!(f, "fault {} {} {seed:016x} {}", Moment(*at), class.row(), fault.say())?;
        }
        Ok(())
    }
}

impl FromStr for Plan {
    type Err = NoPlan;

    fn from_str(text: &str) -> Result<Plan, NoPlan> {
        let mut plan = Plan {
            profile: Profile::Full,
            seed: 0,
            events: 0,
            until: 0,
            settings: Vec::new(),
            rates: Vec::new(),
            faults: Vec::new(),
        };
        let mut titled = false;
        for (at, line) in text.lines().enumerate() {
            let line = line.trim();
            let wrong = |problem| NoPlan { line: at + 1, problem };
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            if !titled {
                titled = line == TITLE;
                if !titled {
                    return Err(wrong(format!("`{line}` is not `{TITLE}`")));
                }
                continue;
            }
            plan.read(line).map_err(wrong)?;
        }
        if !titled {
            return Err(NoPlan { line: 1, problem: "nothing is there".into() });
        }
        plan.faults.sort_by_key(|fault| fault.at);
        Ok(plan)
    }
}

impl Plan {
    fn read(&mut self, line: &str) -> Result<(), String> {
        let mut words = Words::of(line);
        match words.next("what it is about")? {
            "profile" => {
                let name = words.next("the profile")?;
                let named = [Profile::Full, Profile::Core].into_iter().find(|p| p.as_str() == name);
                self.profile = named.ok_or(format!("no profile is called `{name}`"))?;
            }
            "seed" => self.seed = number(words.next("the seed")?)?,
            "events" => self.events = number(words.next("the number")?)?,
            "until" => self.until = words.next("the time")?.parse::<Moment>()?.0,
            "set" => {
                let (name, value) = (words.next("the name")?, number(words.next("the value")?)?);
                if !Settings::draw(0, self.profile).set(name, value) {
                    return Err(format!("no setting is called `{name}`"));
                }
                self.settings.push((name.to_owned(), value));
            }
            "rate" => {
                let class = class(words.next("the class")?)?;
                let rate = words.next("the rate")?;
                self.rates.push((class, rate.parse().map_err(|_| format!("`{rate}` is no rate"))?));
            }
            "fault" => {
                let at = words.next("the time")?.parse::<Moment>()?.0;
                let class = class(words.next("the class")?)?;
                let seed = words.next("the seed")?;
                let seed = u64::from_str_radix(seed, 16).map_err(|_| format!("`{seed}` is no seed"))?;
                self.faults.push(Planned { at, class, seed, fault: Fault::read(&mut words)? });
            }
            other => return Err(format!("nothing is called `{other}`")),
        }
        words.end()
    }
}

fn number(word: &str) -> Result<u64, String> {
    word.parse().map_err(|_| format!("`{word}` is no number"))
}

fn class(word: &str) -> Result<Class, String> {
    Class::named(word).ok_or(format!("no class is called `{word}`"))
}

/// A time in seconds, with all its six places.
struct Moment(Time);

impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:06}", self.0 / SECOND, self.0 % SECOND)
    }
}

impl FromStr for Moment {
    type Err = String;

    fn from_str(word: &str) -> Result<Self, String> {
        let wrong = || format!("`{word}` is no time in seconds with six places");
        let (seconds, rest) = word.split_once('.').filter(|(_, rest)| rest.len() == 6).ok_or_else(wrong)?;
        let (seconds, rest): (u64, u64) =
            (seconds.parse().map_err(|_| wrong())?, rest.parse().map_err(|_| wrong())?);
        Ok(Moment(seconds.checked_mul(SECOND).and_then(|whole| whole.checked_add(rest)).ok_or_else(wrong)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(text: &str) -> Result<Plan, NoPlan> {
        text.parse()
    }

    #[test]
    fn a_plan_is_read_back_as_it_was_written() {
        let text = "\
simulation plan 1
profile core
seed 17
events 5000
until 12.000345
set servers 3
set heartbeat 20000
rate N1 0.002
rate D2 1
fault 0.100000 N3 00000000000000ff Cut shape=moving victim=leader/2 with_clients=false lasts=700000
fault 1.000007 D13 0123456789abcdef Disk victim=1 slower=none lasts=20000
fault 3.500000 C2 0000000000000001 Drift victim=0 rate=1.0123456789
";
        let read = plan(text).unwrap();
        assert_eq!(read.to_string(), text);
        assert_eq!(plan(&read.to_string()), Ok(read));
    }

    #[test]
    fn whatever_is_wrong_is_named_with_its_line() {
        let wrong = |lines: &str| {
            let NoPlan { line, problem } = plan(&format!("{TITLE}\n# a word\n{lines}\n")).unwrap_err();
            format!("{line}: {problem}")
        };
        assert_eq!(wrong("profile half"), "3: no profile is called `half`");
        assert_eq!(wrong("set nothing 3"), "3: no setting is called `nothing`");
        assert_eq!(wrong("until 12"), "3: `12` is no time in seconds with six places");
        assert_eq!(wrong("seed 1 2"), "3: what is `2`?");
        assert_eq!(wrong("fault 0.000001 N3 00 Cut shape=round"), "3: `shape=round` is no shape");
        assert_eq!(wrong("fault 0.000001 P9 00 CrashAll loss=power"), "3: down is missing");
        assert_eq!(plan("").unwrap_err().problem, "nothing is there");
        assert_eq!(plan("seed 3").unwrap_err().problem, format!("`seed 3` is not `{TITLE}`"));
    }

    #[test]
    fn every_setting_that_is_said_can_be_set() {
        for profile in [Profile::Full, Profile::Core] {
            let (drawn, mut other) = (Settings::draw(1, profile), Settings::draw(2, profile));
            for (name, value) in drawn.numbers() {
                assert!(other.set(name, value), "{name}");
            }
            assert_eq!(other.numbers(), drawn.numbers());
        }
    }
}
