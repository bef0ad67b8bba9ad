//! Makes a failing plan smaller: whole classes go, then single faults by halves (delta debugging), then servers,
//! clients and time.

use super::faults::{Class, Planned};
use super::plan::Plan;
use super::settings::{MILLISECOND, Time};

/// The smallest plan that was found to fail. `fails` runs a plan and says whether the same checker fires; `None` once
/// it has done enough.
pub fn shrink(plan: &Plan, mut fails: impl FnMut(&Plan) -> Option<bool>) -> Plan {
    let mut best = plan.clone();
    // What goes last may let something else go that was needed before.
    loop {
        let before = best.clone();
        let done = smaller(&mut best, &mut fails);
        if done.is_none() || best == before {
            return best;
        }
    }
}

type Fails<'a> = &'a mut dyn FnMut(&Plan) -> Option<bool>;

fn smaller(best: &mut Plan, fails: Fails<'_>) -> Option<()> {
    drop_classes(best, fails)?;
    drop_faults(best, fails)?;
    shorten(best, fails)?;
    fewer(best, "servers", fails)?;
    fewer(best, "clients", fails)?;
    drop_faults(best, fails)?;
    shorten_faults(best, fails)
}

/// Takes the smaller one if it fails too; whether it did.
fn attempt(best: &mut Plan, smaller: Plan, fails: Fails<'_>) -> Option<bool> {
    let failed = smaller != *best && fails(&smaller)?;
    if failed {
        *best = smaller;
    }
    Some(failed)
}

fn drop_classes(best: &mut Plan, fails: Fails<'_>) -> Option<()> {
    let classes = best.classes();
    // All that happens all the time at once, then one class after the other.
    let constant: Vec<Class> = classes.iter().copied().filter(|class| class.is_constant()).collect();
    attempt(best, best.clone().without(&constant), fails)?;
    for class in classes {
        attempt(best, best.clone().without(&[class]), fails)?;
    }
    Some(())
}

/// Leaves out parts of the list, ever smaller ones.
fn drop_faults(best: &mut Plan, fails: Fails<'_>) -> Option<()> {
    let mut size = best.faults.len();
    while size > 0 {
        let mut from = best.faults.len();
        // From the end: what struck last is least likely to matter to what came before.
        while from > 0 {
            from = from.saturating_sub(size);
            let through = (from + size).min(best.faults.len());
            let mut smaller = best.clone();
            smaller.faults.drain(from..through);
            attempt(best, smaller, fails)?;
        }
        size /= 2;
    }
    Some(())
}

/// Faults for half the time, and half as many events.
fn shorten(best: &mut Plan, fails: Fails<'_>) -> Option<()> {
    let last = best.faults.last().map_or(0, |fault| fault.at) + MILLISECOND;
    let ends: [Time; 3] = [last, best.until / 2, best.until / 4 * 3];
    for until in ends {
        if until < best.until {
            attempt(best, Plan { until, ..best.clone() }, fails)?;
        }
    }
    while best.events > 100 && attempt(best, Plan { events: best.events / 2, ..best.clone() }, fails)? {}
    Some(())
}

fn fewer(best: &mut Plan, name: &str, fails: Fails<'_>) -> Option<()> {
    let now = best.settings().numbers().into_iter().find(|(named, _)| *named == name);
    for count in 1..now.map_or(0, |(_, count)| count) {
        let mut smaller = best.clone();
        smaller.settings.retain(|(named, _)| named != name);
        smaller.settings.push((name.to_owned(), count));
        if attempt(best, smaller, fails)? {
            break;
        }
    }
    Some(())
}

/// Each fault alone, for a shorter time.
fn shorten_faults(best: &mut Plan, fails: Fails<'_>) -> Option<()> {
    for at in 0..best.faults.len() {
        let Planned { fault, .. } = &best.faults[at];
        let Some(shorter) = fault.shorter() else { continue };
        let mut smaller = best.clone();
        smaller.faults[at].fault = shorter;
        attempt(best, smaller, fails)?;
    }
    Some(())
}
