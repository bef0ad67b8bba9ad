//! Which classes a seed has and how often, and where its single faults come from.

use std::collections::VecDeque;

use super::super::Profile;
use super::super::random::{Component, Random, mix};
use super::super::settings::{DRIFT, MILLISECOND, Settings, Time};
use super::draw::draw;
use super::{Class, Planned};

/// How often servers that begin with an earlier version are upgraded one by one while things go wrong.
const UPGRADES: f64 = 0.7;

/// What a seed has of faults.
#[derive(Clone, Debug)]
pub(in crate::sim) struct Swarm {
    /// Which classes it has.
    pub(in crate::sim) classes: Vec<Class>,
    /// Probability that a message is lost or delayed far (N1), and that it comes twice (N2).
    pub(in crate::sim) loss: f64,
    pub(in crate::sim) duplicates: f64,
    /// By class: how often or how much, of those that happen all the time.
    rates: [f64; Class::ALL.len()],
    /// By class: mean time between two single faults.
    means: [Time; Class::ALL.len()],
}

impl Swarm {
    pub(in crate::sim) fn draw(seed: u64, profile: Profile, settings: &Settings, without: &[Class]) -> Swarm {
        let mut classes: Vec<Class> = Class::ALL.into_iter().filter(|class| class.is_in(profile)).collect();
        if profile == Profile::Full && settings.demand.calm {
            classes.retain(|class| {
                !matches!(class, Class::S7 | Class::S8 | Class::S10 | Class::S19 | Class::S20)
            });
        }
        let mut r = Random::stream(seed, Component::Swarm, 0);
        match r.below(20) {
            0 => classes.clear(),
            1 | 2 => {
                let only = classes.iter().copied().max_by_key(|class| mix(mix(seed, 1), class.key()));
                classes.retain(|class| Some(*class) == only);
            }
            draw => {
                // A storm of everything hides what a few faults show, and a few never meet.
                let share: f64 = [0.1, 0.25, 0.5][draw as usize % 3];
                // Servers that begin with an earlier version are there to be upgraded.
                let wanted = |class: Class| class == Class::U1 && settings.versions.servers > 0;
                classes.retain(|class| {
                    stream(seed, *class).chance(if wanted(*class) { share.max(UPGRADES) } else { share })
                });
            }
        }
        classes.retain(|class| !without.contains(class));
        let (mut rates, mut means) = ([0.0; _], [0; _]);
        for class in &classes {
            let mut r = stream(seed, *class);
            let _included = r.unit();
            rates[*class as usize] = rate(*class, &mut r);
            means[*class as usize] = r.scale(400, 8_000) * MILLISECOND;
        }
        Swarm::new(classes, rates, means)
    }

    fn new(classes: Vec<Class>, rates: [f64; Class::ALL.len()], means: [Time; Class::ALL.len()]) -> Swarm {
        let rate = |class| rates[class as usize];
        Swarm { loss: rate(Class::N1), duplicates: rate(Class::N2), classes, rates, means }
    }

    /// That of a plan.
    pub(in crate::sim) fn given(rates: &[(Class, f64)], faults: &[Planned]) -> Swarm {
        let rate = |class: Class| rates.iter().find(|(of, _)| *of == class).map_or(0.0, |(_, rate)| *rate);
        let rates = Class::ALL.map(rate);
        let is_there =
            |class: &Class| rates[*class as usize] > 0.0 || faults.iter().any(|fault| fault.class == *class);
        Swarm::new(Class::ALL.into_iter().filter(is_there).collect(), rates, [0; _])
    }

    pub(in crate::sim) fn has(&self, class: Class) -> bool {
        self.classes.contains(&class)
    }

    /// Whether anything on a disk may go bad.
    pub(in crate::sim) fn rots(&self) -> bool {
        [Class::D4, Class::D5, Class::D6, Class::D7, Class::D8].into_iter().any(|class| self.has(class))
    }

    /// Of a class that happens all the time: its rate; zero if this seed does not have it.
    pub(in crate::sim) fn rate(&self, class: Class) -> f64 {
        self.rates[class as usize]
    }

    /// Those that are not zero.
    pub(in crate::sim) fn rates(&self) -> Vec<(Class, f64)> {
        let rates = Class::ALL.into_iter().map(|class| (class, self.rate(class)));
        rates.filter(|(_, rate)| *rate > 0.0).collect()
    }

    /// One source per class of single faults.
    pub(in crate::sim) fn sources(&self, seed: u64) -> Vec<Source> {
        let singles = self.classes.iter().filter(|class| !class.is_constant());
        let source = |class: &Class| Source::Drawn {
            class: *class,
            mean: self.means[*class as usize],
            at: 0,
            random: Random::stream(seed, Component::Fault, class.key()),
        };
        singles.map(source).collect()
    }
}

fn stream(seed: u64, class: Class) -> Random {
    Random::stream(seed, Component::Swarm, class.key())
}

/// What the rate of a class means is said where it is used.
fn rate(class: Class, r: &mut Random) -> f64 {
    let of: &[f64] = match class {
        Class::N1 => &[0.002, 0.02, 0.1, 0.3],
        Class::N2 => &[0.02, 0.2, 0.5],
        Class::P2 => &[0.3],
        Class::S9 => &[0.5],
        Class::C2 => &[DRIFT],
        _ if class.is_constant() => &[1.0],
        _ => &[0.0],
    };
    r.pick(of).unwrap_or(0.0)
}

/// The single faults of one class, one after the other.
#[derive(Debug)]
pub(in crate::sim) enum Source {
    /// Drawn as they are needed, for ever.
    Drawn { class: Class, mean: Time, at: Time, random: Random },
    /// Those of a plan.
    Given(VecDeque<Planned>),
}

impl Source {
    /// One per class, of a plan.
    pub(in crate::sim) fn given(faults: &[Planned]) -> Vec<Source> {
        let of = |class: Class| faults.iter().filter(move |fault| fault.class == class).cloned();
        let lists = Class::ALL.into_iter().map(|class| of(class).collect::<VecDeque<_>>());
        lists.filter(|list| !list.is_empty()).map(Source::Given).collect()
    }

    /// The next one.
    pub(in crate::sim) fn next(&mut self, settings: &Settings) -> Option<Planned> {
        match self {
            Source::Drawn { class, mean, at, random } => {
                *at += random.exponential(*mean) + MILLISECOND;
                let fault = draw(*class, random, settings);
                Some(Planned { at: *at, class: *class, seed: random.next(), fault })
            }
            Source::Given(list) => list.pop_front(),
        }
    }
}
