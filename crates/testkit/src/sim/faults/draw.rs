//! How the single faults of a class are drawn.

use super::super::decay::{Harm, Part, When, Which};
use super::super::loss::Loss;
use super::super::random::Random;
use super::super::settings::{DRIFT, MILLISECOND, SECOND, Settings, Time};
use super::super::storage::Moment;
use super::super::strays::Way;
use super::super::versions::Version;
use super::{Class, Fault, Shape, Target};

/// What most faults have.
struct Common {
    server: usize,
    victim: Target,
    client: usize,
    lasts: Time,
    down: Time,
    loss: Loss,
    with_clients: bool,
    silent: bool,
}

impl Common {
    fn draw(r: &mut Random, settings: &Settings) -> Common {
        let election = settings.longest_election();
        let server = r.below(settings.servers as u64) as usize;
        Common {
            server,
            victim: if r.chance(0.5) { Target::Leader(server) } else { Target::Server(server) },
            client: r.below(settings.clients.max(1) as u64) as usize,
            // From a blink to several elections.
            lasts: r.scale(10 * MILLISECOND, 8 * election),
            down: r.scale(5 * MILLISECOND, 4 * election),
            loss: if r.chance(0.5) { Loss::Power } else { Loss::Process },
            with_clients: r.chance(0.5),
            silent: r.chance(0.4),
        }
    }
}

/// The next fault of a class.
pub(super) fn draw(class: Class, r: &mut Random, settings: &Settings) -> Fault {
    let election = settings.longest_election();
    let session = settings.session_timeout.1;
    let common = Common::draw(r, settings);
    let Common { server, victim, client, lasts, down, loss, silent, .. } = common;
    match class {
        Class::N3 | Class::N4 | Class::N5 | Class::N6 => cut(class, common, r, election),
        Class::N9 => Fault::Reset { victim, half_open: silent },
        Class::N10 => Fault::Clog { victim, lasts },
        Class::P1 => Fault::Crash { victim, loss: Loss::Process, silent: false, armed: false, down },
        Class::P9 => Fault::CrashAll { loss, down, stagger: r.below(2 * election) },
        Class::D1 => Fault::Crash { victim, loss: Loss::Power, silent, armed: r.chance(0.6), down },
        Class::P3 | Class::C3 => Fault::Pause { victim, machine: class == Class::C3, lasts },
        Class::D13 => {
            let slower = if r.chance(0.6) { Some(r.scale(10, 1_000)) } else { None };
            Fault::Disk { victim, slower, lasts }
        }
        Class::C2 => {
            let half = DRIFT / 2.0;
            Fault::Drift { victim: Target::Server(server), rate: 1.0 - half + 2.0 * half * r.unit() }
        }
        Class::M13 => Fault::Wipe { victim, down },
        Class::S1 => Fault::CutClient { client },
        Class::S7 => Fault::KillClient { client, down: down + r.below(session) },
        Class::S8 => Fault::PauseClient { client, lasts: r.scale(session / 8, 2 * session + SECOND / 10) },
        other => rarer(other, common, r, settings),
    }
}

fn rarer(class: Class, common: Common, r: &mut Random, settings: &Settings) -> Fault {
    let Common { server, victim, client, lasts, down, loss, silent, .. } = common;
    let election = settings.longest_election();
    let session = settings.session_timeout.1;
    match class {
        Class::N7 => Fault::Inflate { victim, terms: r.scale(2, 1 << 20), down },
        Class::N11 => {
            let extra = r.scale(5 * MILLISECOND, election / 2);
            Fault::Slow { victim: Target::Server(server), extra, lasts: 4 * lasts }
        }
        Class::P4 => Fault::Panic { victim, down },
        Class::P6 => Fault::Snapshots { victim, bytes: r.scale(1, 2_000), down: down.min(election) },
        Class::P7 => Fault::Lane { victim, lane: r.below(3) as usize, slower: r.scale(3, 300), lasts },
        Class::D9 | Class::D14 => Fault::Fail { victim, loss, down },
        Class::D10 => Fault::Fail { victim: Target::Leader(server), loss, down },
        Class::D11 => Fault::Fail { victim: Target::Server(server), loss, down },
        Class::D15 => {
            let moments = [Moment::Roll, Moment::Compact, Moment::Publish, Moment::Snapshot];
            let moment = r.pick(&moments).unwrap_or(Moment::Roll);
            Fault::CrashAt { victim, moment, loss, silent, down }
        }
        Class::C4 => Fault::Reboot { victim, shown: r.below(SECOND), down },
        Class::C5 => Fault::NearExpiry {
            client,
            after: session / 10 * r.range(5, 13),
            lasts: session + r.below(2 * session),
        },
        Class::U1 => Fault::Upgrade { victim, down },
        Class::U3 => {
            let Version { map, lock } = Version::earlier(r);
            Fault::Downgrade { victim, map, lock, down }
        }
        other => of_disks(other, common, r, settings),
    }
}

/// What goes wrong with what disks hold.
fn of_disks(class: Class, common: Common, r: &mut Random, settings: &Settings) -> Fault {
    let Common { victim, lasts, down, loss, .. } = common;
    let harm = r.pick(&[Harm::Bit, Harm::Bit, Harm::Bit, Harm::Zeros, Harm::Noise]).unwrap_or(Harm::Bit);
    let when = r.pick(&[When::Down, When::Down, When::Running, When::Read]).unwrap_or(When::Down);
    match class {
        Class::D4 | Class::D5 => {
            let part = match class {
                Class::D5 => Part::Snapshot,
                _ if r.chance(0.1) => Part::Mark,
                _ => Part::Log,
            };
            Fault::Rot { victim, part, harm, when, loss, down }
        }
        Class::D7 if r.chance(0.2) => Fault::Amnesia { victim, harm, down },
        Class::D7 => {
            let when = if when == When::Read { When::Running } else { when };
            Fault::Rot { victim, part: Part::Manifest, harm, when, loss, down }
        }
        Class::D6 => {
            let parts = [Part::Log, Part::Log, Part::Log, Part::Snapshot, Part::Manifest];
            let ways = [Way::Elsewhere, Way::Elsewhere, Way::Nowhere, Way::InPart];
            let part = r.pick(&parts).unwrap_or(Part::Log);
            Fault::Astray { victim, part, way: r.pick(&ways).unwrap_or(Way::Nowhere), down }
        }
        Class::D8 => {
            let parts = [Part::Log, Part::Log, Part::Log, Part::Snapshot, Part::Manifest, Part::Mark];
            let which = r.pick(&[Which::First, Which::Middle, Which::Last, Which::Last]);
            let part = r.pick(&parts).unwrap_or(Part::Log);
            Fault::Lose { victim, part, which: which.unwrap_or(Which::Last), loss, down }
        }
        Class::D12 => Fault::Fill {
            victim,
            more: r.below(2 * settings.segment_bytes),
            lasts: lasts + r.below(4 * settings.longest_election()),
        },
        Class::D16 => Fault::Exchange { victim: Target::Server(settings.servers - 1), lasts, down },
        _ => {
            unreachable!("{class:?} is constant and has no single faults")
        }
    }
}

fn cut(class: Class, common: Common, r: &mut Random, election: Time) -> Fault {
    let Common { server, victim, lasts, with_clients, .. } = common;
    let shapes: &[Shape] = match class {
        Class::N3 => &[Shape::Isolate, Shape::Split, Shape::Moving, Shape::Moving],
        Class::N4 => &[Shape::Mute, Shape::Deaf, Shape::Directed],
        Class::N5 => &[Shape::Pairs],
        _ => &[Shape::Bridge, Shape::Ring],
    };
    let shape = r.pick(shapes).unwrap_or(Shape::Isolate);
    // One that moves must last until there is another leader.
    let (victim, lasts) = match shape {
        Shape::Moving => (Target::Leader(server), r.range(election, 4 * election)),
        _ => (victim, lasts),
    };
    let with_clients = with_clients && matches!(class, Class::N3 | Class::N4);
    Fault::Cut { shape, victim, with_clients, lasts }
}
